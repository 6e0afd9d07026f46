//! Servers that end with this process, however it ends.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sea_orm::Database;

use crate::Outcome;

/// Postgres refuses to run as root: it runs as this user and group (`nobody`) then.
const NOBODY: u32 = 65_534;

/// `$1` is the folder, `$2` the signal that ends the server, `$3` the commands that become it. The standard input is
/// a pipe whose other end is ours: its end is our end.
const KEEPER: &str = r#"
trap '' INT TERM HUP
(eval "$3") >"$1/log" 2>&1 </dev/null &
read -r line
while kill -s "$2" $!; do sleep 0.1; done
rm -rf "$1"
"#;

/// A server program and its folder.
pub struct Server {
    keeper: Child,
    pub folder: PathBuf,
    pub url: String,
}

impl Server {
    pub fn redis() -> Outcome<Self> {
        let program = program("redis-server", "redis-server")?;
        let (folder, port) = (new_folder()?, free_port()?);
        let commands = format!(
            "exec {} --bind 127.0.0.1 --port {port} --save '' --appendonly no --dir {}",
            program.display(),
            folder.display(),
        );
        let url = format!("redis://127.0.0.1:{port}/");
        Self::start(folder, url, "KILL", &commands, false)
    }

    pub fn postgres() -> Outcome<Self> {
        let program = program("postgres", "postgresql")?;
        // The one beside the server: it must be of the same version.
        let initdb = program.canonicalize()?.with_file_name("initdb");
        let (folder, port) = (new_folder()?, free_port()?);
        let data = folder.join("data");
        let commands = format!(
            "{} --no-sync --auth=trust --username=postgres --locale=C --encoding=UTF8 -D {data} && \
             exec {} -D {data} -p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={data} \
             -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c dynamic_shared_memory_type=mmap",
            initdb.display(),
            program.display(),
            data = data.display(),
        );
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        // Killed, it would leave its shared memory behind.
        Self::start(folder, url, "QUIT", &commands, is_root())
    }

    fn start(
        folder: PathBuf,
        url: String,
        signal: &str,
        commands: &str,
        as_nobody: bool,
    ) -> Outcome<Self> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", KEEPER, "sh"]).arg(&folder);
        command.args([signal, commands]).current_dir("/");
        // Out of the reach of a terminal's Ctrl-C and of a killed process group.
        command.stdin(Stdio::piped()).process_group(0);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        if as_nobody {
            chown(&folder, Some(NOBODY), Some(NOBODY))?;
            command.uid(NOBODY).gid(NOBODY);
        }
        let keeper = command.spawn()?;
        Ok(Self {
            keeper,
            folder,
            url,
        })
    }

    /// Waits until the server answers.
    pub async fn answers(&self) -> Outcome<()> {
        let start = Instant::now();
        while !self.answers_now().await {
            if start.elapsed() > Duration::from_secs(30) {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                return Err(format!("no answer from {} within 30 s:\n{log}", self.url).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn answers_now(&self) -> bool {
        if self.url.starts_with("postgres") {
            return Database::connect(&self.url).await.is_ok();
        }
        let Ok(client) = redis::Client::open(self.url.as_str()) else {
            return false;
        };
        let connected = client.get_multiplexed_async_connection().await;
        connected.is_ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // It may have been ended from outside.
        let _ = self.keeper.wait();
    }
}

/// The version that a server program says it has.
pub fn version(name: &str) -> Outcome<String> {
    let output = Command::new(program(name, name)?)
        .arg("--version")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text
        .split_whitespace()
        .map(|word| word.trim_start_matches("v="));
    let version = words.find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    Ok(version.unwrap_or("?").to_owned())
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// In memory, where there is such a place.
fn new_folder() -> Outcome<PathBuf> {
    let shared_memory = PathBuf::from("/dev/shm");
    let parent = if shared_memory.is_dir() {
        shared_memory
    } else {
        std::env::temp_dir()
    };
    let folder = parent.join(format!("sea-orm-cache-bench-{:016x}", fastrand::u64(..)));
    fs::create_dir(&folder)?;
    Ok(folder)
}

/// On `PATH`, or where Debian puts servers.
fn program(name: &str, package: &str) -> Outcome<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = places
        .chain(postgres_places())
        .map(|place| place.join(name))
        .find(|file| file.is_file());
    let missing = || format!("no program {name}: apt-get install {package}");
    Ok(found.ok_or_else(missing)?)
}

/// Newest first.
fn postgres_places() -> Vec<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut places: Vec<_> = versions.flatten().map(|version| version.path()).collect();
    places.sort_by_key(|place| std::cmp::Reverse(number(place)));
    places.iter().map(|place| place.join("bin")).collect()
}

fn number(place: &Path) -> u32 {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    name.parse().unwrap_or(0)
}
