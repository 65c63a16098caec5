//! What is on the node's disk, who writes there, and what was ever written.

use std::{collections::BTreeMap, os::unix::fs::MetadataExt, path::Path};

use super::{super::*, acts::SPOTS};

/// Why a line need not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excuse {
    /// Its file lost its last name before the router had held it.
    NeverHeld,
    /// Its file was cut to nothing.
    Truncated,
    /// Somebody removed the link of a file that had no other name.
    LinkRemoved,
    /// It was never finished.
    Torn,
}

/// A physical line that was written.
#[derive(Clone, Debug)]
pub struct Line {
    /// `pod uid/container/restart count`.
    pub instance: String,
    pub fd: u8,
    /// In which of the files that ever were.
    pub file: usize,
    /// The number of its joined line, over all that was written.
    pub number: usize,
    /// How many bytes it has in its file.
    pub bytes: u64,
    pub excuse: Option<Excuse>,
}

/// A raw file that was ever there.
#[derive(Debug)]
struct LogFile {
    /// Whose it is.
    instance: String,
    inode: (u64, u64),
    /// Where the kubelet has it.
    path: Option<PathBuf>,
    /// What was written since it was last cut to nothing.
    lines: Vec<String>,
    /// Those that came by its name after it was rotated.
    late: Vec<String>,
}

/// Somebody who has a file open.
#[derive(Debug)]
struct Writer {
    file: File,
    which: usize,
    /// The rest of a line, and its content.
    half: Option<(Vec<u8>, String)>,
}

/// A container and its place.
struct Spot {
    pod: usize,
    namespace: &'static str,
    container: &'static str,
    restart: u32,
    live: Option<Writer>,
    late: Vec<Writer>,
    /// Rotated files that still have a name, oldest first: which file (`None`: compressed) and where.
    rotated: Vec<(Option<usize>, PathBuf)>,
}

pub struct World {
    pods_dir: PathBuf,
    /// Where Docker has the files, if the runtime is Docker: each has the name of another after a rotation.
    docker: Option<PathBuf>,
    /// Inodes that the router holds by descriptors: they lose nothing with their last name.
    pub held: BTreeSet<(u64, u64)>,
    spots: [Spot; SPOTS],
    /// How often each pod was made.
    tenures: [usize; 2],
    files: Vec<LogFile>,
    /// Compressed files by their inodes: which file they were.
    compressed: BTreeMap<(u64, u64), usize>,
    /// Every physical line by its content.
    pub lines: BTreeMap<String, Line>,
    /// Containers instances of which a file was cut to nothing or removed from the held ones, and which may lose what was on its way.
    pub broken: BTreeSet<String>,
    /// Sources of which the router may know nothing any more.
    pub forgotten: BTreeSet<String>,
    /// Whether lines may come again with nothing known of that.
    pub unmarked: bool,
    /// Instances with a file that came again with nothing to tell it by.
    pub blurred: BTreeSet<String>,
    next: usize,
    seconds: i64,
    /// Whether stamps do not tell the order of files, or a compressed file from the raw one.
    pub unordered: bool,
}

const PODS: [(&str, &str); 2] = [("payments", "api-7d9f4-x2x"), ("shop", "web-0")];

impl World {
    pub fn new(pods_dir: &Path, docker: Option<PathBuf>) -> Self {
        let spot = |pod, container| Spot {
            pod,
            namespace: PODS[pod].0,
            container,
            restart: 0,
            live: None,
            late: Vec::new(),
            rotated: Vec::new(),
        };
        Self {
            pods_dir: pods_dir.to_owned(),
            docker,
            held: BTreeSet::new(),
            spots: [spot(0, "api"), spot(0, "side"), spot(1, "web")],
            tenures: [0; 2],
            files: Vec::new(),
            compressed: BTreeMap::new(),
            lines: BTreeMap::new(),
            broken: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            unmarked: false,
            blurred: BTreeSet::new(),
            next: 0,
            seconds: 36_000,
            unordered: false,
        }
    }

    pub fn namespace(&self, spot: usize) -> &'static str {
        self.spots[spot].namespace
    }

    /// The UID of a spot's pod.
    pub fn uid(&self, spot: usize) -> String {
        let pod = self.spots[spot].pod;
        format!("uid-{pod}-{}", self.tenures[pod])
    }

    fn pod_dir(&self, pod: usize) -> PathBuf {
        let (namespace, name) = PODS[pod];
        self.pods_dir.join(format!("{namespace}_{name}_uid-{pod}-{}", self.tenures[pod]))
    }

    fn dir(&self, spot: usize) -> PathBuf {
        self.pod_dir(self.spots[spot].pod).join(self.spots[spot].container)
    }

    /// Docker's id of a container.
    fn id(&self, spot: usize, restart: u32) -> String {
        let tenure = self.tenures[self.spots[spot].pod];
        format!("{spot:016x}{tenure:016x}{restart:032x}")
    }

    /// Where the live file is, and the kubelet's link to it if it has one.
    fn live_path(&self, spot: usize) -> (PathBuf, Option<PathBuf>) {
        let restart = self.spots[spot].restart;
        let path = self.dir(spot).join(format!("{restart}.log"));
        let id = self.id(spot, restart);
        match &self.docker {
            None => (path, None),
            Some(docker) => (docker.join(&id).join(format!("{id}-json.log")), Some(path)),
        }
    }

    /// `pod uid/container/restart count`.
    pub fn instance(&self, spot: usize) -> String {
        let Spot { pod, container, restart, .. } = &self.spots[spot];
        format!("uid-{pod}-{}/{container}/{restart}", self.tenures[*pod])
    }

    pub fn clock(&mut self, by: i64) {
        self.seconds = (self.seconds + by).clamp(0, 80_000);
        self.unordered |= by < 0;
    }

    fn stamp(&self) -> String {
        let seconds = self.seconds;
        format!("2026-11-20T{:02}:{:02}:{:02}.{:09}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60, self.next)
    }

    /// A line as the runtime writes it, and the contents of its physical lines.
    fn compose(&mut self, stderr: bool, fragments: bool) -> (String, Vec<(String, u64)>) {
        let stream = if stderr { "stderr" } else { "stdout" };
        let pieces = if fragments { 3 } else { 1 };
        let (mut text, mut contents) = (String::new(), Vec::new());
        for piece in 0..pieces {
            let content = format!("<{stream} {} {piece}>", self.next);
            let (stamp, is_last) = (self.stamp(), piece + 1 == pieces);
            let line = if self.docker.is_some() {
                let log = content.replace('<', "\\u003c").replace('>', "\\u003e") + if is_last { "\\n" } else { "" };
                format!("{{\"log\":\"{log}\",\"stream\":\"{stream}\",\"time\":\"{stamp}\"}}\n")
            } else {
                format!("{stamp} {stream} {} {content}\n", if is_last { "F" } else { "P" })
            };
            text.push_str(&line);
            contents.push((content, line.len() as u64));
        }
        self.next += 1;
        (text, contents)
    }

    /// Opens the live file, which is made where there is none.
    fn open_live(&mut self, spot: usize) {
        if self.spots[spot].live.is_none() {
            let (path, link) = self.live_path(spot);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
            if let Some(link) = link.filter(|link| fs::symlink_metadata(link).is_err()) {
                fs::create_dir_all(link.parent().unwrap()).unwrap();
                std::os::unix::fs::symlink(&path, link).unwrap();
            }
            let metadata = file.metadata().unwrap();
            let instance = self.instance(spot);
            let inode = (metadata.dev(), metadata.ino());
            self.compressed.remove(&inode);
            self.files.push(LogFile { instance, inode, path: Some(path), lines: Vec::new(), late: Vec::new() });
            self.spots[spot].live = Some(Writer { file, which: self.files.len() - 1, half: None });
        }
    }

    fn enter(&mut self, which: usize, contents: Vec<(String, u64)>, excuse: Option<Excuse>) {
        let files = self.files.len();
        let file = &mut self.files[which];
        // Where files are ordered by their first stamps, late ones mislead.
        self.unordered |= file.lines.is_empty() && which + 1 < files;
        for (content, bytes) in contents {
            let fd = if content.starts_with("<stdout") { 1 } else { 2 };
            let number = content.split(' ').nth(1).unwrap().parse().unwrap();
            file.lines.push(content.clone());
            self.lines
                .insert(content, Line { instance: file.instance.clone(), fd, file: which, number, bytes, excuse });
        }
    }

    pub fn write(&mut self, spot: usize, lines: usize, fragments: bool, stderr: bool) {
        self.open_live(spot);
        for _ in 0..lines {
            let (text, contents) = self.compose(stderr, fragments);
            let live = self.spots[spot].live.as_mut().unwrap();
            let mut bytes = live.half.take().map(|(rest, _)| rest).unwrap_or_default();
            bytes.extend(text.as_bytes());
            live.file.write_all(&bytes).unwrap();
            let which = live.which;
            self.enter(which, contents, None);
        }
    }

    /// Writes the first half of a line.
    pub fn half(&mut self, spot: usize) {
        self.write(spot, 0, false, false);
        // A file that begins with half a stamp has none.
        self.unordered = true;
        let (text, contents) = self.compose(false, false);
        let live = self.spots[spot].live.as_mut().unwrap();
        let mut bytes = live.half.take().map(|(rest, _)| rest).unwrap_or_default();
        let (now, later) = text.as_bytes().split_at(text.len() / 2);
        bytes.extend(now);
        live.file.write_all(&bytes).unwrap();
        live.half = Some((later.to_vec(), contents[0].0.clone()));
        let which = live.which;
        self.enter(which, contents, None);
    }

    pub fn bad(&mut self, spot: usize) {
        self.unordered = true;
        self.open_live(spot);
        let live = self.spots[spot].live.as_mut().unwrap();
        let mut bytes = live.half.take().map(|(rest, _)| rest).unwrap_or_default();
        bytes.extend(b"not in the format\n");
        live.file.write_all(&bytes).unwrap();
    }

    /// The runtime is gone in mid-line.
    fn tear(&mut self, writer: Option<Writer>) {
        if let Some((_, content)) = writer.and_then(|writer| writer.half) {
            self.lines.get_mut(&content).unwrap().excuse = Some(Excuse::Torn);
        }
    }

    /// Closes a writer: what it has begun it ends.
    fn close(writer: Writer) {
        let Writer { mut file, half, .. } = writer;
        if let Some((rest, _)) = half {
            file.write_all(&rest).unwrap();
        }
    }

    fn excuse(&mut self, which: usize, excuse: Excuse) {
        for content in &self.files[which].lines {
            self.lines.get_mut(content).unwrap().excuse.get_or_insert(excuse);
        }
    }

    /// A name of a raw file goes.
    fn drop_name(&mut self, which: usize) {
        let path = self.files[which].path.take().unwrap();
        if fs::metadata(&path).unwrap().nlink() == 1 && !self.held.contains(&self.files[which].inode) {
            self.excuse(which, Excuse::NeverHeld);
        }
    }

    /// The router ends, and its descriptors with it.
    pub fn let_descriptors_go(&mut self) {
        for which in 0..self.files.len() {
            if self.files[which].path.is_none() {
                self.excuse(which, Excuse::NeverHeld);
                self.broken.insert(self.files[which].instance.clone());
            }
        }
    }

    /// Docker gives every rotated file the next higher number.
    fn shift(&mut self, spot: usize) {
        let (live, _) = self.live_path(spot);
        let mut rotated = std::mem::take(&mut self.spots[spot].rotated);
        // Those of the container before have a folder of their own.
        let own = rotated.iter_mut().filter(|(_, path)| path.parent() == live.parent()).collect::<Vec<_>>();
        let count = own.len();
        for (place, (which, path)) in own.into_iter().enumerate() {
            let end = if which.is_none() { ".gz" } else { "" };
            let to = PathBuf::from(format!("{}.{}{end}", live.display(), count + 1 - place));
            fs::rename(&*path, &to).unwrap();
            if let Some(which) = which {
                self.files[*which].path = Some(to.clone());
            }
            *path = to;
        }
        self.spots[spot].rotated = rotated;
    }

    pub fn rotate(&mut self, spot: usize, keep: bool, same_second: bool, reopen: bool) {
        let Some(live) = self.spots[spot].live.take() else { return };
        if !same_second {
            self.seconds += 1;
        }
        let from = self.files[live.which].path.clone().unwrap();
        let seconds = self.seconds;
        let mut suffix = format!("20261120-{:02}{:02}{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
        if self.docker.is_some() {
            self.shift(spot);
            suffix = "1".to_owned();
        }
        let to = PathBuf::from(format!("{}.{suffix}", from.display()));
        let same = self.spots[spot].rotated.iter().position(|(_, path)| *path == to);
        if let Some(same) = same
            && let (Some(which), _) = self.spots[spot].rotated.remove(same)
        {
            self.drop_name(which);
        }
        fs::rename(&from, &to).unwrap();
        self.files[live.which].path = Some(to.clone());
        self.spots[spot].rotated.push((Some(live.which), to));
        if keep {
            self.spots[spot].late.push(live);
        } else {
            Self::close(live);
        }
        if reopen {
            self.open_live(spot);
        }
    }

    /// The kubelet writes `X.tmp`, renames it to `X.gz` and removes `X`.
    pub fn compress(&mut self, spot: usize) {
        let rotated = &self.spots[spot].rotated;
        // Docker compresses a file as soon as it is rotated.
        let older = if self.docker.is_some() { rotated.len() } else { rotated.len().saturating_sub(1) };
        let Some(at) = rotated[..older].iter().position(|(which, _)| which.is_some()) else { return };
        let (Some(which), path) = rotated[at].clone() else { return };
        // What comes to the raw file from now on is not in the compressed one.
        self.unordered |= self.spots[spot].late.iter().any(|writer| writer.which == which);
        let name = |end: &str| PathBuf::from(format!("{}.{end}", path.display()));
        let compressed = gzip(&fs::read(&path).unwrap());
        if self.docker.is_some() {
            fs::write(name("gz"), compressed).unwrap();
        } else {
            fs::write(name("tmp"), compressed).unwrap();
            fs::rename(name("tmp"), name("gz")).unwrap();
        }
        let metadata = fs::metadata(name("gz")).unwrap();
        self.compressed.insert((metadata.dev(), metadata.ino()), which);
        self.drop_name(which);
        fs::remove_file(&path).unwrap();
        self.spots[spot].rotated[at] = (None, name("gz"));
    }

    pub fn clean(&mut self, spot: usize) {
        if self.spots[spot].rotated.is_empty() {
            return;
        }
        let (which, path) = self.spots[spot].rotated.remove(0);
        which.into_iter().for_each(|which| self.drop_name(which));
        fs::remove_file(&path).unwrap();
    }

    pub fn late(&mut self, spot: usize, by_name: bool) {
        let (text, contents) = self.compose(false, false);
        let named = self.spots[spot].rotated.iter().find_map(|(which, path)| which.map(|which| (which, path.clone())));
        let written_now = |which: usize, late: &[Writer]| late.iter().any(|writer| writer.which == which);
        if by_name {
            // Nobody else writes there: two writers of one file would tear each other's lines.
            let Some((which, path)) = named.filter(|(which, _)| !written_now(*which, &self.spots[spot].late)) else {
                return;
            };
            OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
            let unknown = self.broken.contains(&self.files[which].instance).then_some(Excuse::Truncated);
            self.files[which].late.extend(contents.iter().map(|(content, _)| content.clone()));
            self.enter(which, contents, unknown);
        } else if let Some(writer) = self.spots[spot].late.first_mut() {
            let mut bytes = writer.half.take().map(|(rest, _)| rest).unwrap_or_default();
            bytes.extend(text.as_bytes());
            writer.file.write_all(&bytes).unwrap();
            let gone = writer.file.metadata().unwrap().nlink() == 0;
            let which = writer.which;
            self.enter(which, contents, gone.then_some(Excuse::NeverHeld));
        }
    }

    pub fn close_late(&mut self, spot: usize) {
        if !self.spots[spot].late.is_empty() {
            Self::close(self.spots[spot].late.remove(0));
        }
    }

    /// The live file's inode and size.
    pub fn live_file(&self, spot: usize) -> Option<((u64, u64), u64)> {
        let metadata = self.spots[spot].live.as_ref()?.file.metadata().unwrap();
        Some(((metadata.dev(), metadata.ino()), metadata.len()))
    }

    /// Cuts the live file to nothing.
    pub fn truncate(&mut self, spot: usize) {
        let instance = self.instance(spot);
        let Some(live) = self.spots[spot].live.as_mut() else { return };
        live.file.set_len(0).unwrap();
        let which = live.which;
        if let Some((_, content)) = live.half.take() {
            self.lines.get_mut(&content).unwrap().excuse = Some(Excuse::Torn);
        }
        self.excuse(which, Excuse::Truncated);
        self.files[which].lines.clear();
        self.broken.insert(instance);
    }

    pub fn restart_container(&mut self, spot: usize, keep: bool) {
        let live = self.spots[spot].live.take();
        match live {
            Some(live) if keep => self.spots[spot].late.push(live),
            live => self.tear(live),
        }
        self.spots[spot].restart += 1;
        self.open_live(spot);
    }

    /// Removes the folder of a container, or of a pod.
    fn remove(&mut self, spots: Vec<usize>, folder: &Path, keep: bool) {
        let mut folders = vec![folder.to_owned()];
        for spot in &spots {
            let ids = (0..=self.spots[*spot].restart).map(|restart| self.id(*spot, restart));
            folders.extend(self.docker.iter().flat_map(|docker| ids.clone().map(|id| docker.join(id))));
        }
        for which in 0..self.files.len() {
            let is_in = |path: &PathBuf| folders.iter().any(|folder| path.starts_with(folder));
            if self.files[which].path.as_ref().is_some_and(is_in) {
                self.drop_name(which);
            }
        }
        for spot in spots {
            self.spots[spot].rotated.clear();
            match self.spots[spot].live.take() {
                Some(live) if keep => self.spots[spot].late.push(live),
                live => self.tear(live),
            }
        }
        folders.iter().for_each(|folder| _ = fs::remove_dir_all(folder));
    }

    pub fn delete_folder(&mut self, spot: usize) {
        let folder = self.dir(spot);
        self.remove(vec![spot], &folder, false);
    }

    pub fn delete_pod(&mut self, pod_of: usize, keep: bool) {
        let pod = self.spots[pod_of].pod;
        let spots = (0..SPOTS).filter(|spot| self.spots[*spot].pod == pod).collect::<Vec<_>>();
        let folder = self.pod_dir(pod);
        self.remove(spots.clone(), &folder, keep);
        self.tenures[pod] += 1;
        spots.into_iter().for_each(|spot| self.spots[spot].restart = 0);
    }

    /// A held file is removed.
    pub fn lose_link(&mut self, held: &Path) {
        let metadata = fs::symlink_metadata(held).unwrap();
        let inode = (metadata.dev(), metadata.ino());
        let raw = self.files.iter().rposition(|file| file.inode == inode);
        if let Some(which) = self.compressed.get(&inode).copied().or(raw) {
            if metadata.nlink() == 1 {
                self.excuse(which, Excuse::LinkRemoved);
            }
            // What came late to a file whose position went with its link may be taken for what was read.
            for content in &self.files[which].late {
                self.lines.get_mut(content).unwrap().excuse.get_or_insert(Excuse::LinkRemoved);
            }
            self.broken.insert(self.files[which].instance.clone());
        }
        fs::remove_file(held).unwrap();
    }

    /// Everybody ends what they have begun, and closes.
    pub fn rest(&mut self) {
        for spot in &mut self.spots {
            spot.late.drain(..).chain(spot.live.take()).for_each(Self::close);
        }
    }
}

/// A gzip file whose one block is stored as it is.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let size = u16::try_from(bytes.len()).expect("files of plays are short");
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    out.extend(size.to_le_bytes().into_iter().chain((!size).to_le_bytes()));
    out.extend(bytes);
    out.extend(crc32fast::hash(bytes).to_le_bytes().into_iter().chain(u32::from(size).to_le_bytes()));
    out
}
