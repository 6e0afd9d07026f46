//! Leaves nothing behind, however this process ends.
//!
//! A shell reads a pipe whose only writer is this process. It learns of every server on its way, and at end of file,
//! which even SIGKILL brings about, it ends them and removes this process's containers and folder.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::LazyLock;

/// The label of this process's containers. Its value is random: a process id comes again.
pub const LABEL: &str = "sea-orm-cache-it";

/// `$1` is the folder, `$2` the label. Lines: `pid SIGNAL GROUP` (0: let it finish), `gone GROUP`, `docker`.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
PATH=$PATH:/usr/bin:/bin
groups= docker=
while read -r what a b; do
  case $what in
    pid) groups="$groups $a:$b" ;;
    gone) rest=; for g in $groups; do [ "${g#*:}" = "$a" ] || rest="$rest $g"; done; groups=$rest ;;
    docker) docker=yes ;;
  esac
done
for g in $groups; do kill -s "${g%:*}" -- "-${g#*:}"; done
tries=100
for g in $groups; do
  while [ $tries -gt 0 ] && kill -s 0 -- "-${g#*:}"; do sleep 0.1; tries=$((tries - 1)); done
  kill -s KILL -- "-${g#*:}"
done
rm -rf "$1"
# Thrice: the engine may still be making a container that was asked for just before the end.
for round in 1 2 3; do
  [ "$docker" ] || break
  ids=$(docker ps -aq --filter "label=$2")
  [ -z "$ids" ] || docker rm -fv $ids
  sleep 1
done
"#;

struct Keeper {
    folder: PathBuf,
    id: String,
    shell: Child,
}

impl Keeper {
    fn pipe(&self) -> &ChildStdin {
        self.shell
            .stdin
            .as_ref()
            .expect("it is piped, and never taken")
    }
}

static KEEPER: LazyLock<Keeper> = LazyLock::new(|| {
    let id = format!("{:016x}", fastrand::u64(..));
    let folder = fast_folder().join(format!("{LABEL}-{id}"));
    let shell = Command::new("/bin/sh")
        .args(["-c", SCRIPT, "sh"])
        .arg(&folder)
        .arg(format!("{LABEL}={id}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Out of the reach of a terminal's Ctrl-C and of a killed process group.
        .process_group(0)
        .spawn()
        .expect("/bin/sh starts");
    make_folder(&folder);
    Keeper { folder, id, shell }
});

/// In memory if there is room (MariaDB starts in a fifth of the time), else where temporary files go.
fn fast_folder() -> PathBuf {
    let free = Command::new("df").args(["-Pk", "/dev/shm"]).output().ok();
    let kib = free.and_then(|out| {
        let text = String::from_utf8(out.stdout).ok()?;
        text.lines()
            .nth(1)?
            .split_whitespace()
            .nth(3)?
            .parse::<u64>()
            .ok()
    });
    match kib {
        Some(kib) if kib > 1 << 20 => PathBuf::from("/dev/shm"),
        _ => std::env::temp_dir(),
    }
}

/// The value of this process's [`LABEL`].
pub fn id() -> &'static str {
    &KEEPER.id
}

/// A new folder that goes with this process.
pub fn new_folder(name: &str) -> PathBuf {
    let path = KEEPER
        .folder
        .join(format!("{name}-{:08x}", fastrand::u32(..)));
    make_folder(&path);
    path
}

/// Open to the user that Postgres runs as, whatever the umask.
fn make_folder(path: &Path) {
    fs::create_dir(path).expect("a folder can be made");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("it is ours");
}

/// There may be containers from now on.
pub fn expect_containers() {
    tell("docker");
}

/// A command whose whole process group gets `signal` when this process ends, and SIGKILL ten seconds later. It runs in `folder`, where its
/// output goes to the file `log`.
///
/// The child itself reports its id before it becomes the program, so that no moment is without a keeper.
pub fn guarded(signal: &str, program: &Path, folder: &Path) -> Command {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .expect("a log can be opened");
    let pipe = KEEPER
        .pipe()
        .as_fd()
        .try_clone_to_owned()
        .expect("a pipe can be cloned");
    let mut command = Command::new("/bin/sh");
    command
        .args([
            "-c",
            &format!(r#"echo "pid {signal} $$"; exec "$0" "$@" >&2"#),
        ])
        .arg(program)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::from(pipe))
        .stderr(log)
        .process_group(0);
    command
}

/// This guarded process has ended and been waited for: its id may be another's soon.
pub fn gone(pid: u32) {
    tell(&format!("gone {pid}"));
}

fn tell(line: &str) {
    // One write: lines of other processes do not get in between.
    let _ = KEEPER.pipe().write_all(format!("{line}\n").as_bytes());
}
