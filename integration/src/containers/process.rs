//! A process in a mount namespace of its own: layers of files over this machine's, with folders mounted into them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder or file that is seen inside.
#[derive(Clone, Debug)]
pub struct Bind {
    /// Where it is.
    pub from: PathBuf,
    /// Where it is seen.
    pub to: String,
    /// Whether it cannot be written there.
    pub read_only: bool,
}

/// What a process is given.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// What is mounted.
    pub binds: Vec<Bind>,
    /// Whether everything else cannot be written.
    pub read_only: bool,
    /// User and group, `uid:gid`; empty: root.
    pub user: String,
    /// Whether it keeps root's capabilities.
    pub privileged: bool,
    /// All of its variables.
    pub environment: BTreeMap<String, String>,
    /// Where it begins.
    pub workdir: String,
    /// The program and its arguments.
    pub words: Vec<String>,
}

/// The command that runs `wish` over `layers` (the topmost first) and this machine's root. Changes go to `upper`; `place` is an empty folder on its file
/// system. `network` is the process whose network it shares, if it is another one's.
pub(super) fn command(layers: &[PathBuf], upper: &Path, place: &Path, network: Option<u32>, wish: &Wish) -> Command {
    let (root, work) = (place.join("root"), place.join("work"));
    let inside = |path: &str| quoted(&format!("{}{path}", root.display()));
    let lower: Vec<String> = layers.iter().map(|layer| layer.display().to_string()).chain(["/".to_owned()]).collect();
    let mut script = String::new();
    let mut line = |text: String| _ = writeln!(script, "{text}");
    line(format!("mkdir -p {} {}", quoted(&root.display().to_string()), quoted(&work.display().to_string())));
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), upper.display(), work.display());
    line(format!("mount -t overlay overlay -o {} {}", quoted(&options), inside("")));
    line(format!("mount -t proc proc {}", inside("/proc")));
    line(format!("mount --rbind /dev {}", inside("/dev")));
    for bind in &wish.binds {
        let (from, to) = (quoted(&bind.from.display().to_string()), inside(&bind.to));
        if bind.from.is_dir() {
            line(format!("mkdir -p {to}"));
        } else {
            line(format!("mkdir -p \"$(dirname {to})\" && touch {to}"));
        }
        line(format!("mount --bind {from} {to}"));
        if bind.read_only {
            line(format!("mount -o remount,bind,ro {to}"));
        }
    }
    if wish.read_only {
        line(format!("mount -o remount,ro {}", inside("")));
    }
    let (uid, gid) = wish.user.split_once(':').unwrap_or(("0", "0"));
    let mut words: Vec<String> = ["chroot".to_owned(), root.display().to_string(), "setpriv".to_owned()].into();
    words.extend([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
    if !wish.privileged {
        words.extend(["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"].map(str::to_owned));
    }
    words.extend(["env".to_owned(), "-i".to_owned()]);
    if !wish.workdir.is_empty() {
        words.extend(["-C".to_owned(), wish.workdir.clone()]);
    }
    words.extend(wish.environment.iter().map(|(name, value)| format!("{name}={value}")));
    words.extend(wish.words.iter().cloned());
    line(format!("exec {}", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")));

    let mut command = match network {
        Some(pid) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/proc/{pid}/ns/net")).args(["--", "unshare"]);
            command
        }
        None => Command::new("unshare"),
    };
    command.args(["--mount", "--propagation", "private", "sh", "-ec", &script]);
    command
}

/// A word as the shell takes it whole.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
