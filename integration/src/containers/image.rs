//! Images built by hand: each stage is a folder of what it adds, over the stages before it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::dockerfile::{Stage, Step, parse};
use super::process::{Bind, Wish, command};
use crate::child::Child;
use crate::folders;
use crate::mounts::Mount;
use crate::wait::wait_for;

const DOCKERFILE: &str = "deploy/images/Dockerfile";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Enough for the stripped programs twice.
const MEBIBYTES: u32 = 2048;

/// In the place of apt-get: this machine's Debian stands in for the image's, so it must have what is to be installed.
const APT_GET: &str = r#"#!/bin/sh
[ "$1" = update ] && exit 0
[ "$1" = install ] || exit 1
shift
for word; do
    case $word in -*) continue ;; esac
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$word")" = installed ] || { echo "$word is not installed here" >&2; exit 1; }
done
"#;
/// In the place of cargo: the programs are built already, by the same sources and profile. What was copied must be a whole workspace.
const CARGO: &str = r#"#!/bin/sh
[ "$*" = "build --release --locked --workspace --bins" ] || { echo "another build: $*" >&2; exit 1; }
PATH=${PATH#*:} cargo metadata --locked --offline --no-deps --format-version 1 >/dev/null || exit 1
mkdir -p target/release && cp /built/fairlead-router /built/fairlead-gateway /built/trial-part target/release/
"#;

/// Where images are built and run.
#[derive(Debug)]
pub struct Workshop {
    stages: Vec<Stage>,
    memory: Mount,
    folder: TempDir,
    network: Option<Child>,
    places: AtomicUsize,
}

/// An image.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// What its stages add, the topmost first.
    layers: Vec<PathBuf>,
    /// `USER`.
    pub user: String,
    /// `WORKDIR`.
    pub workdir: String,
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `CMD`.
    pub cmd: Vec<String>,
}

impl Workshop {
    /// A workshop for the repository's Dockerfile, whose programs are those that are built already.
    ///
    /// # Errors
    /// When the Dockerfile cannot be read or nothing can be mounted.
    pub fn new() -> Result<Workshop> {
        Workshop::with(false)
    }

    /// The same, perhaps with cargo building the programs from nothing.
    ///
    /// # Errors
    /// As [`Workshop::new`].
    pub fn with(cargo: bool) -> Result<Workshop> {
        let text = std::fs::read_to_string(folders::repository().join(DOCKERFILE)).context(DOCKERFILE)?;
        let (stages, folder) = (parse(&text).context(DOCKERFILE)?, folders::scratch("workshop")?);
        for (name, text) in [("apt-get", APT_GET), ("cargo", CARGO)].into_iter().take(if cargo { 1 } else { 2 }) {
            let path = folder.path().join("stand-ins").join(name);
            std::fs::create_dir_all(path.parent().context("a folder")?).context("make a folder")?;
            std::fs::write(&path, text).context("write a stand-in")?;
            let mut mode = std::fs::metadata(&path)?.permissions();
            std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
            std::fs::set_permissions(&path, mode)?;
        }
        Ok(Workshop { stages, memory: Mount::memory(MEBIBYTES)?, folder, network: None, places: AtomicUsize::new(0) })
    }

    /// From now on all processes share a network of their own, with nothing in it but themselves.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn own_network(&mut self) -> Result<()> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-ec", "ip link set lo up; echo up; exec sleep infinity"]);
        let child = Child::start("a network", &command, &self.folder.path().join("network.log"))?;
        wait_for("a network", Duration::from_secs(10), || (child.log_tail(1) == "up").then_some(()))
            .with_context(|| child.log_tail(5))?;
        self.network = Some(child);
        Ok(())
    }

    /// Any other command in that network.
    pub fn in_network(&self, inner: &Command) -> Command {
        let Some(network) = &self.network else { panic!("it has no network of its own") };
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", network.pid())).arg("--");
        command.arg(inner.get_program()).args(inner.get_args());
        command
    }

    /// Builds a stage and those before it.
    ///
    /// # Errors
    /// When a step fails; what it said is in the message.
    pub fn build(&self, target: &str) -> Result<Image> {
        let Some(stage) = self.stages.iter().find(|stage| stage.name == target) else {
            // This machine stands in for images from elsewhere.
            return Ok(Image { user: "0:0".to_owned(), ..Image::default() });
        };
        let mut image = self.build(&stage.from)?;
        let upper = self.memory.path().join(target);
        let built_before = upper.exists();
        std::fs::create_dir_all(&upper).with_context(|| format!("make {}", upper.display()))?;
        let mut arguments = BTreeMap::new();
        for step in &stage.steps {
            match step {
                Step::Workdir(folder) => image.workdir.clone_from(folder),
                Step::User(user) => image.user.clone_from(user),
                Step::Entrypoint(words) => image.entrypoint.clone_from(words),
                Step::Cmd(words) => image.cmd.clone_from(words),
                Step::Arg(name, value) => _ = arguments.insert(name.clone(), value.clone()),
                Step::Other(_) => {}
                Step::Copy(..) | Step::Run(..) if built_before => {}
                Step::Copy(from, sources, to) => self.copy(from.as_deref(), sources, to, &image, &upper)?,
                Step::Run(caches, text) => self.step(&image, &upper, caches, text, &arguments)?,
            }
        }
        image.layers.insert(0, upper);
        Ok(image)
    }

    /// The command that runs something in an image; what it writes is gone with it, but for what is mounted.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn command(&self, image: &Image, wish: &Wish) -> Result<Command> {
        let place = self.place()?;
        let upper = place.join("upper");
        std::fs::create_dir_all(&upper).context("make a folder")?;
        let mut wish = wish.clone();
        wish.environment.entry("PATH".to_owned()).or_insert_with(|| PATH.to_owned());
        let network = self.network.as_ref().map(Child::pid);
        Ok(command(&image.layers, &upper, &place, network, &wish))
    }

    /// A file or folder that an image has, where its stages put it there.
    pub fn of_image(&self, image: &Image, path: &str) -> Option<PathBuf> {
        let within = path.trim_start_matches('/');
        image.layers.iter().map(|layer| layer.join(within)).find(|path| path.exists())
    }

    fn place(&self) -> Result<PathBuf> {
        let place = self.memory.path().join(format!("run-{}", self.places.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(&place).context("make a folder")?;
        Ok(place)
    }

    fn copy(&self, from: Option<&str>, sources: &[String], to: &str, image: &Image, upper: &Path) -> Result<()> {
        let to = if to.starts_with('/') { to.to_owned() } else { format!("{}/{to}", image.workdir) };
        let into = upper.join(to.trim_start_matches('/').trim_end_matches("./"));
        for source in sources {
            match from {
                Some(stage) => {
                    let of = self.build(stage)?;
                    let path = self.of_image(&of, source).with_context(|| format!("{stage} has no {source}"))?;
                    run(Command::new("mkdir").arg("-p").arg(&into))?;
                    run(Command::new("cp").arg("-a").arg(path).arg(&into))?;
                }
                None => copy_from_context(source, &into, sources.len() == 1 && !to.ends_with('/'))?,
            }
        }
        Ok(())
    }

    fn step(
        &self,
        image: &Image,
        upper: &Path,
        caches: &[String],
        text: &str,
        arguments: &BTreeMap<String, String>,
    ) -> Result<()> {
        let bind = |from: PathBuf, to: &str, read_only| Bind { from, to: to.to_owned(), read_only };
        let stand_ins = self.folder.path().join("stand-ins");
        let mut binds = vec![bind(stand_ins, "/stand-ins", true), bind(folders::binaries()?, "/built", true)];
        for (number, cache) in caches.iter().enumerate() {
            let folder = self.folder.path().join(format!("cache-{number}"));
            std::fs::create_dir_all(&folder).context("make a cache")?;
            binds.push(bind(folder, cache, false));
        }
        let outer = |name: &str| std::env::var(name).unwrap_or_default();
        let mut environment = arguments.clone();
        // This machine's cargo, where it is used.
        environment.insert("PATH".to_owned(), format!("/stand-ins:{}", outer("PATH")));
        environment.insert("HOME".to_owned(), outer("HOME"));
        let words = ["sh", "-c", text].map(str::to_owned).into();
        let wish =
            Wish { binds, environment, words, privileged: true, workdir: image.workdir.clone(), ..Wish::default() };
        let place = self.place()?;
        run(&mut command(&image.layers, upper, &place, None, &wish)).with_context(|| format!("RUN {text}"))?;
        // Mount points are none of the image's.
        for left in ["stand-ins", "built"] {
            let _ = std::fs::remove_dir(upper.join(left));
        }
        Ok(())
    }
}

/// Copies what is under version control, as the ignore file lets through.
fn copy_from_context(source: &str, into: &Path, renames: bool) -> Result<()> {
    let top = folders::repository();
    let ignored = std::fs::read_to_string(top.join(format!("{DOCKERFILE}.dockerignore"))).context("the ignore file")?;
    let lines: Vec<&str> = ignored.lines().filter(|line| !line.starts_with('#')).collect();
    ensure!(lines.first() == Some(&"*") && lines.contains(&format!("!{source}").as_str()), "{source} is ignored");
    let listed =
        Command::new("git").arg("-C").arg(&top).args(["ls-files", "-co", "--exclude-standard", "--", source]).output();
    let listed = listed.context("git ls-files")?;
    let paths = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut copied = 0;
    for path in paths.lines().filter(|path| top.join(path).exists()) {
        // A folder's content goes into the destination, a file under its own name unless the destination names it.
        let name = match Path::new(path).strip_prefix(source) {
            Ok(rest) if rest.as_os_str().is_empty() => {
                Path::new(source).file_name().map_or_else(|| rest.to_owned(), PathBuf::from)
            }
            Ok(rest) => rest.to_owned(),
            Err(_) => continue,
        };
        let to = if renames && top.join(source).is_file() { into.to_owned() } else { into.join(name) };
        std::fs::create_dir_all(to.parent().context("a folder")?).context("make a folder")?;
        std::fs::copy(top.join(path), &to).with_context(|| format!("copy {path}"))?;
        copied += 1;
    }
    ensure!(copied > 0, "{source} is not there");
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("run it")?;
    let said = String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned();
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(())
}
