//! Docker's own log files. The kubelet's folder has a link to each container's live one; the rotated ones lie beside that, in Docker's folder.
//!
//! A link is read, never followed: what it says must be `<Docker's folder>/<id>/<id>-json.log`, letter for letter, and what is opened then is that
//! file, one name at a time, each of them no link. What the link says later does not matter.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};

use super::{LogEntry, LogKind, LogName, parse_log_name};

const ID_BYTES: usize = 64;
const FILE_END: &str = "-json.log";

/// A container's id, as Docker gives it: 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DockerId(String);

impl DockerId {
    /// The id of the container whose live log file a link leads to; `None` where it leads anywhere else.
    pub fn of_link(containers_dir: &Path, target: &Path) -> Option<Self> {
        let mut below = target.strip_prefix(containers_dir).ok()?.components();
        let (Some(Component::Normal(id)), Some(Component::Normal(file)), None) =
            (below.next(), below.next(), below.next())
        else {
            return None;
        };
        let id = id.to_str()?;
        let is_id = id.len() == ID_BYTES && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (is_id && file.to_str()? == format!("{id}{FILE_END}")).then(|| Self(id.to_owned()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the kubelet's folder would call a file of Docker's: `<id>-json.log.1` of restart 0 is `0.log.1`. `None` where it is no log file.
    pub fn log_name(&self, restart: u32, name: &str) -> Option<String> {
        let rotated = name.strip_prefix(self.as_str())?.strip_prefix(FILE_END)?;
        let name = format!("{restart}.log{rotated}");
        let is_number = |suffix: &str| {
            !suffix.starts_with('0') && suffix.len() < 10 && suffix.bytes().all(|byte| byte.is_ascii_digit())
        };
        let suffix_fits = match parse_log_name(&name)?.kind {
            LogKind::Live => true,
            LogKind::Rotated { suffix } | LogKind::Compressed { suffix } => !suffix.is_empty() && is_number(&suffix),
        };
        suffix_fits.then_some(name)
    }

    fn file_name(&self, log_name: &str) -> Option<String> {
        let (_, rotated) = log_name.split_once(".log")?;
        Some(format!("{}{FILE_END}{rotated}", self.as_str()))
    }
}

/// Docker's folder of containers.
#[derive(Clone, Debug)]
pub struct DockerDir(PathBuf);

impl DockerDir {
    /// A folder as it is configured.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a container's folder.
    pub fn folder(&self, id: &DockerId) -> PathBuf {
        self.0.join(id.as_str())
    }

    /// Lists a container's log files under the names that the kubelet's folder would give them. Whatever is no regular file is left out.
    ///
    /// The list is not of one instant: while Docker rotates, a file may be missing from it.
    ///
    /// # Errors
    /// The error of opening or reading the folder; a file that vanishes meanwhile is none.
    pub fn list(&self, id: &DockerId, restart: u32) -> io::Result<Vec<LogEntry>> {
        let folder = self.open_folder(id)?;
        let mut found = Vec::new();
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().ok().and_then(|name| id.log_name(restart, name)) else {
                continue;
            };
            let Some(log) = parse_log_name(&name) else { continue };
            let Ok(stat) = statat(&folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if is_regular(&stat) {
                found.push(LogEntry {
                    name,
                    log,
                    inode: (stat.st_dev, stat.st_ino),
                    bytes: stat.st_size.cast_unsigned(),
                });
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Opens a log file for reading by the name that the kubelet's folder would give it.
    ///
    /// # Errors
    /// `NotFound` when it is not there; `InvalidInput` when it is no regular file, which then was never opened.
    pub fn open(&self, id: &DockerId, log_name: &str) -> io::Result<File> {
        let name = id.file_name(log_name).ok_or(io::ErrorKind::InvalidInput)?;
        let folder = self.open_folder(id)?;
        // A place alone: a pipe or a device that stands there is not touched by this.
        let place = openat(&folder, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if !is_regular(&fstat(&place)?) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // The very file that was looked at, whatever has its name by now.
        File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))
    }

    fn open_folder(&self, id: &DockerId) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // How the operator's own folder is reached is the operator's matter.
        let all = openat(CWD, &self.0, flags, Mode::empty())?;
        Ok(openat(&all, id.as_str(), flags | OFlags::NOFOLLOW, Mode::empty())?)
    }
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// A link with a log file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLink {
    /// The link's name.
    pub name: String,
    /// What the name says.
    pub log: LogName,
    /// Where it leads, as it is written there.
    pub target: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::{fs, process::Command};

    fn id(digit: &str) -> String {
        digit.repeat(64)
    }

    #[test]
    fn where_a_link_may_lead() {
        let (a, b) = (id("a"), id("b"));
        let check = |target: &str, expected: Option<&str>| {
            let found = DockerId::of_link(Path::new("/var/lib/docker/containers"), Path::new(target));
            assert_eq!(found.as_ref().map(DockerId::as_str), expected, "{target}");
        };
        check(&format!("/var/lib/docker/containers/{a}/{a}-json.log"), Some(&a));
        check(&format!("/var/lib//docker/containers/./{a}/{a}-json.log"), Some(&a));
        for elsewhere in [
            "/etc/shadow".to_owned(),
            "/var/lib/docker/containers".to_owned(),
            format!("/var/lib/docker/containers/{a}"),
            format!("/var/lib/docker/containers/{a}/"),
            format!("/var/lib/docker/containers/{a}/{b}-json.log"),
            format!("/var/lib/docker/containers/{a}/{a}-json.log.1"),
            format!("/var/lib/docker/containers/{a}/config.v2.json"),
            format!("/var/lib/docker/containers/{a}/mounts/{a}-json.log"),
            format!("/var/lib/docker/containers/../containers/{a}/{a}-json.log"),
            format!("/var/lib/docker/containers/{b}/../{a}/{a}-json.log"),
            format!("/var/lib/docker/containers/{a}/../{a}-json.log"),
            format!("/var/lib/docker/containersx/{a}/{a}-json.log"),
            format!("/mnt/var/lib/docker/containers/{a}/{a}-json.log"),
            format!("var/lib/docker/containers/{a}/{a}-json.log"),
            format!("../../../../lib/docker/containers/{a}/{a}-json.log"),
            "/var/lib/docker/containers/abc/abc-json.log".to_owned(),
            format!("/var/lib/docker/containers/{0}/{0}-json.log", id("A")),
            format!("/var/lib/docker/containers/{0}/{0}-json.log", id("g")),
            "/var/lib/docker/containers/../..-json.log".to_owned(),
        ] {
            check(&elsewhere, None);
        }
    }

    #[test]
    fn names_of_dockers_files() {
        let container = DockerId(id("a"));
        let check = |end: &str, expected: Option<&str>| {
            let name = format!("{}{end}", id("a"));
            assert_eq!(container.log_name(3, &name).as_deref(), expected, "{end}");
            if let Some(log_name) = expected {
                assert_eq!(container.file_name(log_name), Some(name));
            }
        };
        check("-json.log", Some("3.log"));
        check("-json.log.1", Some("3.log.1"));
        check("-json.log.12.gz", Some("3.log.12.gz"));
        for other in [
            "",
            ".log",
            "-json.log.0",
            "-json.log.01",
            "-json.log.x",
            "-json.log.gz",
            "-json.log.1.tmp",
            "-json.log.-1",
            "-json.logx",
        ] {
            check(other, None);
        }
        assert_eq!(container.log_name(3, &format!("{}-json.log", id("b"))), None);
        assert_eq!(container.log_name(3, "config.v2.json"), None);
    }

    #[test]
    fn only_a_containers_own_regular_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let (all, outside) = (folder.path().join("containers"), folder.path().join("outside"));
        let docker = DockerDir::new(all.clone());
        let (good, linked) = (DockerId(id("a")), DockerId(id("b")));
        fs::create_dir_all(docker.folder(&good)).unwrap();
        fs::create_dir_all(&outside).unwrap();
        let of = |dir: &Path, id: &DockerId, rotated: &str| dir.join(format!("{}-json.log{rotated}", id.as_str()));
        let own = |rotated: &str| of(&docker.folder(&good), &good, rotated);
        fs::write(own(""), "log").unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        fs::write(of(&outside, &linked, ""), "secret").unwrap();
        symlink(folder.path().join("secret"), own(".1")).unwrap();
        symlink(own(""), own(".2")).unwrap();
        assert!(Command::new("mkfifo").arg(own(".3")).status().unwrap().success());
        fs::create_dir(own(".4")).unwrap();
        symlink(&outside, docker.folder(&linked)).unwrap();

        let names: Vec<_> = docker.list(&good, 0).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["0.log"]);
        assert_eq!(io::read_to_string(docker.open(&good, "0.log").unwrap()).unwrap(), "log");
        for rotated in ["0.log.1", "0.log.2", "0.log.3", "0.log.4"] {
            assert_eq!(docker.open(&good, rotated).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{rotated}");
        }
        assert_eq!(docker.open(&good, "0.log.5").unwrap_err().kind(), io::ErrorKind::NotFound);
        docker.list(&linked, 0).unwrap_err();
        docker.open(&linked, "0.log").unwrap_err();
    }
}
