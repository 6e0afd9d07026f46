//! Servers in containers.

use std::collections::HashMap;
use std::env;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use testcontainers::bollard::models::PortBinding;
use testcontainers::core::{IntoContainerPort, Mount};
use testcontainers::runners::AsyncRunner;
use testcontainers::{
    ContainerAsync, ContainerRequest, GenericImage, ImageExt, TestcontainersError,
};

use super::{Files, Kind, keeper};

/// How long the engine may take to say that it is there.
const ENGINE_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// A running server. To be used and dropped on the servers' own runtime.
#[derive(Debug)]
pub struct Container(Box<ContainerAsync<GenericImage>>);

/// The engine's version, if one answers.
pub fn engine_version() -> Option<String> {
    let mut child = Command::new("docker")
        .args(["version", "--format", "{{.Server.Version}}"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let deadline = Instant::now() + ENGINE_ANSWERS_WITHIN;
    while child.try_wait().ok()?.is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
        }
        thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !version.is_empty()).then_some(version)
}

impl Container {
    /// Starts one, on this port of the host's loopback.
    pub async fn start(kind: Kind, port: u16, files: Files) -> Result<Self, String> {
        keeper::expect_containers();
        let image = image(kind);
        let started = request(kind, &image, port, files).start().await;
        started
            .map(|container| Container(Box::new(container)))
            .map_err(|error| {
                format!(
                    "no container of {image}: {error}\n\
                 `docker pull {image}` or `.ci/images/build.sh {image}` provides the image, \
                 TEST_{}_IMAGE names another, TEST_SERVERS=local does without Docker",
                    kind.name()
                )
            })
    }

    /// Ends the server at once; its files stay.
    pub async fn kill(&self) -> Result<(), TestcontainersError> {
        self.0.stop_with_timeout(Some(0)).await
    }

    /// Lets the server end in order; its files stay.
    pub async fn stop(&self) -> Result<(), TestcontainersError> {
        self.0.stop_with_timeout(Some(10)).await
    }

    /// Starts the server that was killed or stopped, on the same port.
    pub async fn restart(&self) -> Result<(), TestcontainersError> {
        self.0.start().await
    }

    /// Stops the server's clock: connections stay open and nothing answers.
    pub async fn pause(&self) -> Result<(), TestcontainersError> {
        self.0.pause().await
    }

    /// Ends the pause.
    pub async fn resume(&self) -> Result<(), TestcontainersError> {
        self.0.unpause().await
    }

    /// Removes it.
    pub async fn remove(self) -> Result<(), TestcontainersError> {
        self.0.rm().await
    }

    /// The end of what the server said.
    pub async fn log(&self) -> String {
        let out = self.0.stdout_to_vec().await.unwrap_or_default();
        let err = self.0.stderr_to_vec().await.unwrap_or_default();
        String::from_utf8_lossy(&[out, err].concat()).into_owned()
    }
}

fn image(kind: Kind) -> String {
    env::var(format!("TEST_{}_IMAGE", kind.name())).unwrap_or_else(|_| {
        match kind {
            Kind::Redis => "redis:8.0",
            Kind::Postgres => "postgres:17",
            Kind::Mariadb => "mariadb:11.8",
        }
        .to_owned()
    })
}

fn request(kind: Kind, image: &str, port: u16, files: Files) -> ContainerRequest<GenericImage> {
    let (name, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
    let (inner, command): (u16, &[&str]) = match kind {
        Kind::Redis => (6379, &["--save", "", "--appendonly", "no"]),
        Kind::Postgres => (5432, &["-c", "fsync=off", "-c", "max_connections=300"]),
        Kind::Mariadb => (
            3306,
            &[
                "--innodb-flush-log-at-trx-commit=0",
                "--max-connections=300",
            ],
        ),
    };
    let request = GenericImage::new(name, tag)
        .with_cmd(command.iter().copied())
        .with_env_var("POSTGRES_HOST_AUTH_METHOD", "trust")
        .with_env_var("MARIADB_ALLOW_EMPTY_ROOT_PASSWORD", "1")
        .with_label(keeper::LABEL, keeper::id())
        // A port that Docker chose would be another one after a restart.
        .with_mapped_port(port, inner.tcp())
        .with_host_config_modifier(move |host| {
            let binding = PortBinding {
                host_ip: Some("127.0.0.1".into()),
                host_port: Some(port.to_string()),
            };
            host.port_bindings = Some(HashMap::from([(
                format!("{inner}/tcp"),
                Some(vec![binding]),
            )]));
        });
    // A database in memory starts sooner, and goes at once. Redis's stays on disk: a restart finds what SAVE wrote.
    match kind {
        _ if files == Files::Stay => request,
        Kind::Redis => request,
        Kind::Postgres => request.with_mount(Mount::tmpfs_mount("/var/lib/postgresql/data")),
        Kind::Mariadb => request.with_mount(Mount::tmpfs_mount("/var/lib/mysql")),
    }
}
