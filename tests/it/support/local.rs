//! Servers that are programs of this machine.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;

use super::{Kind, keeper};

/// Postgres refuses to run as root: it runs as this user and group (`nobody`) then.
const NOBODY: u32 = 65_534;

/// A running server.
#[derive(Debug)]
pub struct Process {
    kind: Kind,
    port: u16,
    options: Vec<String>,
    folder: PathBuf,
    child: Mutex<Child>,
}

impl Process {
    /// Starts one on this loopback port. Takes as long as making the data folder takes; does not wait for the server.
    pub fn start(kind: Kind, port: u16) -> Result<Self, String> {
        Self::start_with(kind, port, Vec::new())
    }

    /// The same, with more options.
    pub fn start_with(kind: Kind, port: u16, options: Vec<String>) -> Result<Self, String> {
        let program = program(kind)?;
        let folder = keeper::new_folder(&kind.name().to_lowercase());
        prepare(kind, &program, &folder)?;
        let child = spawn(kind, &program, &folder, port, &options).map_err(|e| e.to_string())?;
        Ok(Self {
            kind,
            port,
            options,
            folder,
            child: Mutex::new(child),
        })
    }

    /// Whether the server has ended by itself.
    pub fn has_ended(&self) -> bool {
        !matches!(self.child.lock().unwrap().try_wait(), Ok(None))
    }

    /// Ends the server at once; its files stay.
    pub fn kill(&self) -> io::Result<()> {
        let mut child = self.child.lock().unwrap();
        child.kill()?;
        child.wait()?;
        keeper::gone(child.id());
        Ok(())
    }

    /// Asks the server to end by this signal, and waits until it has; its files stay.
    pub fn stop(&self, signal: &str) -> io::Result<()> {
        self.signal(signal)?;
        let mut child = self.child.lock().unwrap();
        child.wait()?;
        keeper::gone(child.id());
        Ok(())
    }

    /// Starts the server that was killed or stopped, on the same port.
    pub fn restart(&self) -> Result<(), String> {
        let program = program(self.kind)?;
        let child = spawn(self.kind, &program, &self.folder, self.port, &self.options);
        let child = child.map_err(|e| e.to_string())?;
        *self.child.lock().unwrap() = child;
        Ok(())
    }

    /// Stops the server's clock: connections stay open and nothing answers.
    pub fn pause(&self) -> io::Result<()> {
        self.signal("STOP")
    }

    /// Ends the pause.
    pub fn resume(&self) -> io::Result<()> {
        self.signal("CONT")
    }

    /// What the server said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn signal(&self, name: &str) -> io::Result<()> {
        let id = self.child.lock().unwrap().id();
        let status = Command::new("/bin/sh")
            .args(["-c", &format!("kill -s {name} {id}")])
            .status()?;
        status
            .success()
            .then_some(())
            .ok_or_else(|| io::Error::other("no such process"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Names and versions of the programs that would be started.
pub fn versions() -> String {
    let all = [Kind::Redis, Kind::Postgres, Kind::Mariadb].map(|kind| match program(kind) {
        Ok(path) => format!("{} {}", name_of(&path), version(&path)),
        Err(_) => format!("no {}", candidates(kind)[0]),
    });
    all.join(", ")
}

fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output
        .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
        .unwrap_or_default();
    let mut words = text
        .split_whitespace()
        .map(|word| word.trim_start_matches("v="));
    words
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .unwrap_or("?")
        .to_owned()
}

fn name_of(program: &Path) -> String {
    program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn candidates(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Redis => &["redis-server", "valkey-server"],
        Kind::Postgres => &["postgres"],
        Kind::Mariadb => &["mariadbd", "mysqld"],
    }
}

/// The Redis or Valkey program: that of `TEST_REDIS_PROGRAM`, or the first that is found.
///
/// # Panics
/// If there is none.
pub fn redis_program() -> PathBuf {
    program(Kind::Redis).unwrap_or_else(|_| {
        panic!(
            "this test starts several servers, or stops its own, and takes the program for it from this \
             machine, with Docker too: `apt-get install redis-server` provides redis-server, and \
             TEST_REDIS_PROGRAM names another one"
        )
    })
}

fn program(kind: Kind) -> Result<PathBuf, String> {
    if let Some(given) = env::var_os(format!("TEST_{}_PROGRAM", kind.name())) {
        return Ok(given.into());
    }
    candidates(kind)
        .iter()
        .find_map(|name| find(name))
        .ok_or_else(|| {
            let (name, package) = match kind {
                Kind::Redis => ("Redis", "redis-server"),
                Kind::Postgres => ("Postgres", "postgresql"),
                Kind::Mariadb => ("MariaDB", "mariadb-server-core mariadb-client-core"),
            };
            format!(
                "no {name} server for the tests. One of these provides it:\n\
             - TEST_{}_URL names one that runs;\n\
             - a Docker engine that answers `docker version`;\n\
             - the program {} on PATH: `apt-get install {package}`.\n\
             `./test.sh` installs what is missing and runs the tests.",
                kind.name(),
                candidates(kind).join(" or "),
            )
        })
}

/// On PATH, or where Debian puts servers.
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    places
        .chain(postgres_places())
        .map(|place| place.join(name))
        .find(|file| file.is_file())
}

/// Newest first.
fn postgres_places() -> Vec<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut places: Vec<_> = versions.map(|version| version.path()).collect();
    places.sort_by_key(|place| name_of(place).parse::<u32>().unwrap_or(0));
    places.iter().rev().map(|place| place.join("bin")).collect()
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Makes the data folder of a new server.
fn prepare(kind: Kind, program: &Path, folder: &Path) -> Result<(), String> {
    let data = folder.join("data");
    fs::create_dir(&data).map_err(|e| e.to_string())?;
    match kind {
        Kind::Redis => Ok(()),
        Kind::Postgres => prepare_postgres(program, folder, &data),
        Kind::Mariadb => prepare_mariadb(program, folder, &data),
    }
}

fn prepare_postgres(program: &Path, folder: &Path, data: &Path) -> Result<(), String> {
    // The one beside the server: it must be of the same version.
    let initdb = program
        .canonicalize()
        .map_err(|e| e.to_string())?
        .with_file_name("initdb");
    // Not to be interrupted: its servers would leave their shared memory behind.
    let mut command = keeper::guarded("0", &initdb, folder);
    command.args(["--no-sync", "--auth=trust", "--username=postgres"]);
    command
        .args(["--locale=C", "--encoding=UTF8", "-D"])
        .arg(data);
    if is_root() {
        chown(data, Some(NOBODY), Some(NOBODY)).map_err(|e| e.to_string())?;
        command.uid(NOBODY).gid(NOBODY);
    }
    run(command, folder)
}

fn prepare_mariadb(program: &Path, folder: &Path, data: &Path) -> Result<(), String> {
    let mut command = if name_of(program) == "mysqld" {
        let mut command = keeper::guarded("KILL", program, folder);
        command.args(["--no-defaults", "--initialize-insecure"]);
        command
    } else {
        let install = find("mariadb-install-db").ok_or("no mariadb-install-db on PATH")?;
        let mut command = keeper::guarded("KILL", &install, folder);
        command.args([
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]);
        command
    };
    command.arg(format!("--datadir={}", data.display()));
    if is_root() {
        command.arg("--user=root");
    }
    run(command, folder)
}

fn run(mut command: Command, folder: &Path) -> Result<(), String> {
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    let status = child.wait().map_err(|e| e.to_string())?;
    keeper::gone(child.id());
    if status.success() {
        return Ok(());
    }
    let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
    Err(format!("the data folder cannot be made ({status}):\n{log}"))
}

fn spawn(
    kind: Kind,
    program: &Path,
    folder: &Path,
    port: u16,
    options: &[String],
) -> io::Result<Child> {
    let signal = match kind {
        // Killed, it would leave its shared memory behind.
        Kind::Postgres => "QUIT",
        Kind::Redis | Kind::Mariadb => "KILL",
    };
    let mut command = keeper::guarded(signal, program, folder);
    command.args(arguments(kind, folder, port)).args(options);
    if is_root() {
        match kind {
            Kind::Redis => &mut command,
            Kind::Postgres => command.uid(NOBODY).gid(NOBODY),
            Kind::Mariadb => command.arg("--user=root"),
        };
    }
    command.spawn()
}

fn arguments(kind: Kind, folder: &Path, port: u16) -> Vec<String> {
    let data = folder.join("data");
    let data = data.display();
    let line = match kind {
        Kind::Redis => {
            format!("--port {port} --bind 127.0.0.1 --appendonly no --dir {data} --save")
        }
        Kind::Postgres => format!(
            "-D {data} -p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={data} \
             -c max_connections=300 -c fsync=off -c synchronous_commit=off -c full_page_writes=off \
             -c dynamic_shared_memory_type=mmap"
        ),
        Kind::Mariadb => format!(
            "--no-defaults --datadir={data} --socket={data}/sock --pid-file={data}/pid --port={port} \
             --bind-address=127.0.0.1 --max-connections=300 --innodb-flush-log-at-trx-commit=0 \
             --innodb-use-native-aio=0 --tmpdir={data} --secure-file-priv={data} --loose-mysqlx=OFF"
        ),
    };
    let mut arguments: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
    if kind == Kind::Redis {
        arguments.push(String::new());
    }
    arguments
}
