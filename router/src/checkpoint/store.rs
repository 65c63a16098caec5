//! The positions file: an append-only log of checked lines, written anew when it has grown.
//!
//! Each line is a CRC-32 in hexadecimal, a space, and a JSON entry. A line that does not check is left out and counted: a torn tail costs the
//! last second, never the rest. The file is replaced by rename after it and its folder were synced.
//!
//! Room for it is taken beforehand, so that a full disk does not stop what must be durable: the file has blocks beyond its end, and a spare one waits
//! to take its place when it is written anew.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};

use super::{InstanceKey, InstanceState, PodState};

const FILE_NAME: &str = "positions";
/// What is written and then takes the file's name; between writes it waits, empty and with its room.
const SPARE_NAME: &str = "positions.new";
/// Where what cannot be read at all is put aside.
const ASIDE_NAME: &str = "positions.unreadable";
/// The file is written anew when it is larger than this and than twice what it said when it was last written anew.
const REWRITE_BYTES_MIN: u64 = 1 << 20;
/// A longer line is none of ours.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Why the positions could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct StoreError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
enum Entry {
    /// Replaces all that is known of an instance.
    #[serde(rename = "i")]
    Instance(InstanceState),
    /// Forgets an instance.
    #[serde(rename = "g")]
    Gone(InstanceKey),
    /// Replaces all that is known of a pod.
    #[serde(rename = "p")]
    Pod(PodState),
    /// Forgets a pod, by its folder's name.
    #[serde(rename = "q")]
    PodGone(String),
    /// A router began to send.
    #[serde(rename = "s")]
    Started,
    /// A router ended with everything that it sent acknowledged and stored.
    #[serde(rename = "e")]
    Ended,
}

/// What an entry is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Subject {
    Instance(InstanceKey),
    /// By its folder's name.
    Pod(String),
}

impl Subject {
    /// The entry that forgets it.
    fn gone(&self) -> Entry {
        match self {
            Self::Instance(key) => Entry::Gone(key.clone()),
            Self::Pod(folder) => Entry::PodGone(folder.clone()),
        }
    }
}

/// What was found at start.
#[derive(Debug)]
pub struct Loaded {
    /// The store, open for appending.
    pub store: Store,
    /// What is known of each instance.
    pub instances: BTreeMap<InstanceKey, InstanceState>,
    /// What is known of each pod, by its folder's name.
    pub pods: BTreeMap<String, PodState>,
    /// Whether the last router ended with nothing in flight, so that nothing beyond the positions was sent.
    pub ended_clean: bool,
    /// Whether there was no positions file at all, or nothing in it that checks.
    pub is_new: bool,
    /// Lines that did not check and were left out; a file that cannot be read on counts as one.
    pub bad_lines: u64,
}

/// The positions file.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    file: File,
    /// Where the next line goes.
    bytes: u64,
    rewrite_at: u64,
    /// The encoded entry of every instance and pod.
    live: HashMap<Subject, Live>,
    /// Those whose entry is not in the file yet.
    changed: BTreeSet<Subject>,
    /// Those that the file still knows and that are gone.
    gone: BTreeSet<Subject>,
    /// Whether the file may not have what was written to it: it is written anew before anything else.
    suspect: bool,
    /// Whether the room that is wanted was taken.
    has_room: bool,
    /// Whether it could not be taken: the disk is full.
    is_tight: bool,
}

#[derive(Debug)]
struct Live {
    line: Vec<u8>,
    /// Whether the file has an entry of the same, this one or an older one.
    in_file: bool,
}

impl Store {
    /// Reads the positions of a state folder and opens them for appending. A damaged file is read as far as it checks. From here on the file says
    /// that a router has started, until [`Store::end_clean`].
    ///
    /// # Errors
    /// [`StoreError`] where the folder cannot be written; never because of what stands in the file.
    pub fn open(folder: &Path) -> Result<Loaded, StoreError> {
        let path = folder.join(FILE_NAME);
        let mut found = Found::default();
        match File::open(&path) {
            Ok(file) => {
                if read_entries(file, &mut found).is_err() {
                    found.bad_lines += 1;
                    if !path.is_file() {
                        let aside = folder.join(ASIDE_NAME);
                        fs::rename(&path, &aside).map_err(failed("put aside", &path))?;
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("open", &path)(error)),
        };
        let Found { instances, pods, bad_lines, entries, ended_clean } = found;
        let of_instances = instances
            .iter()
            .map(|(key, state)| (Subject::Instance(key.clone()), encode(&Entry::Instance(state.clone()))));
        let of_pods =
            pods.iter().map(|(folder, state)| (Subject::Pod(folder.clone()), encode(&Entry::Pod(state.clone()))));
        let live = of_instances.chain(of_pods).map(|(subject, line)| (subject, Live { line, in_file: true }));
        let live: HashMap<_, _> = live.collect();
        let (file, bytes) = match write_file(folder, &live) {
            Ok(written) => written,
            // Without room for a second copy the old one goes on.
            Err(error) => go_on(&path).map_err(|_| error)?,
        };
        sync_folder(folder)?;
        let mut store = Self {
            folder: folder.to_owned(),
            file,
            bytes,
            rewrite_at: rewrite_limit(bytes),
            live,
            changed: BTreeSet::new(),
            gone: BTreeSet::new(),
            suspect: false,
            has_room: false,
            is_tight: false,
        };
        store.take_room();
        let ended_clean = ended_clean && bad_lines == 0;
        Ok(Loaded { store, instances, pods, ended_clean, is_new: entries == 0, bad_lines })
    }

    /// Puts an instance's state into the next write.
    pub fn put(&mut self, state: &InstanceState) {
        self.put_entry(Subject::Instance(state.key.clone()), &Entry::Instance(state.clone()));
    }

    /// Puts a pod's state into the next write.
    pub fn put_pod(&mut self, state: &PodState) {
        self.put_entry(Subject::Pod(state.pod_folder.clone()), &Entry::Pod(state.clone()));
    }

    /// Puts the end of an instance into the next write.
    pub fn remove(&mut self, key: &InstanceKey) {
        self.remove_entry(Subject::Instance(key.clone()));
    }

    /// Puts the end of a pod into the next write, by its folder's name.
    pub fn remove_pod(&mut self, folder: &str) {
        self.remove_entry(Subject::Pod(folder.to_owned()));
    }

    fn put_entry(&mut self, subject: Subject, entry: &Entry) {
        let line = encode(entry);
        match self.live.get_mut(&subject) {
            Some(live) if live.line == line => return,
            Some(live) => live.line = line,
            None => {
                let in_file = self.gone.remove(&subject);
                self.live.insert(subject.clone(), Live { line, in_file });
            }
        }
        self.changed.insert(subject);
    }

    fn remove_entry(&mut self, subject: Subject) {
        self.changed.remove(&subject);
        if self.live.remove(&subject).is_some_and(|live| live.in_file) {
            self.gone.insert(subject);
        }
    }

    /// Whether the disk has no room beyond what was taken beforehand: what need not be durable now is better written later.
    pub fn is_tight(&self) -> bool {
        self.is_tight
    }

    /// Writes and syncs what was put; nothing is written when nothing changed.
    ///
    /// # Errors
    /// [`StoreError`]; what was put stays and is written by the next call.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        if self.changed.is_empty() && self.gone.is_empty() && !self.suspect {
            return Ok(());
        }
        let mut lines = Vec::new();
        for subject in &self.gone {
            lines.extend(encode(&subject.gone()));
        }
        for live in self.changed.iter().filter_map(|subject| self.live.get(subject)) {
            lines.extend_from_slice(&live.line);
        }
        let grown = self.bytes + lines.len() as u64 > self.rewrite_at;
        if self.suspect || grown || !self.has_its_name() {
            self.rewrite(&lines)?
        } else {
            self.append(&lines)?
        }
        for subject in std::mem::take(&mut self.changed) {
            if let Some(live) = self.live.get_mut(&subject) {
                live.in_file = true;
            }
        }
        self.gone.clear();
        self.take_room();
        Ok(())
    }

    /// Says that everything that was sent is acknowledged and stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn end_clean(&mut self) -> Result<(), StoreError> {
        self.commit()?;
        self.append(&encode(&Entry::Ended))
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), StoreError> {
        let path = self.folder.join(FILE_NAME);
        let written = step(Step::Append).and_then(|()| self.file.write_all_at(lines, self.bytes));
        if let Err(error) = written {
            // What of it got there is cut off; where that fails, it is a torn line until the next try writes over it.
            self.suspect |= self.file.set_len(self.bytes).is_err();
            (self.has_room, self.is_tight) = (false, is_full(&error));
            return Err(failed("write", &path)(error));
        }
        if let Err(error) = step(Step::SyncAppend).and_then(|()| self.file.sync_data()) {
            // After a sync that failed nobody knows what the disk has, and another sync of the same pages would say that all is well.
            self.suspect = true;
            return Err(failed("sync", &path)(error));
        }
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// Whether the open file is the one that a next start will find.
    fn has_its_name(&self) -> bool {
        let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let named = fs::symlink_metadata(self.folder.join(FILE_NAME)).map(inode);
        matches!((named, self.file.metadata().map(inode)), (Ok(named), Ok(open)) if named == open)
    }

    fn rewrite(&mut self, lines: &[u8]) -> Result<(), StoreError> {
        match write_file(&self.folder, &self.live) {
            Ok((file, bytes)) => {
                (self.file, self.bytes, self.rewrite_at) = (file, bytes, rewrite_limit(bytes));
                self.has_room = false;
                // It counts only once its name is durable.
                self.suspect = true;
                sync_folder(&self.folder)?;
                self.suspect = false;
                Ok(())
            }
            // Where the old file still stands, appending to it may work though a second copy does not fit.
            Err(error) if !self.suspect && self.has_its_name() => self.append(lines).map_err(|_| error),
            Err(error) => Err(error),
        }
    }

    /// Looks for its room again at the next write.
    #[cfg(test)]
    pub fn forget_room(&mut self) {
        self.has_room = false;
    }

    /// Takes the room that the file may grow by, and that of its successor, while the disk has it.
    fn take_room(&mut self) {
        if self.has_room {
            return;
        }
        let spare = self.folder.join(SPARE_NAME);
        let room = step(Step::Room).and_then(|()| take_blocks(&self.file, self.rewrite_at)).and_then(|()| {
            let spare = OpenOptions::new().create(true).truncate(false).write(true).open(&spare)?;
            take_blocks(&spare, self.rewrite_at)
        });
        self.has_room = room.is_ok();
        self.is_tight = room.is_err_and(|error| is_full(&error));
    }
}

/// Writes all that is known into the spare file and gives it the file's name.
fn write_file(folder: &Path, live: &HashMap<Subject, Live>) -> Result<(File, u64), StoreError> {
    let (path, new) = (folder.join(FILE_NAME), folder.join(SPARE_NAME));
    fs::create_dir_all(folder).map_err(failed("create", folder))?;
    let mut bytes: Vec<u8> = live.values().flat_map(|live| &live.line).copied().collect();
    bytes.extend(encode(&Entry::Started));
    let write = || -> io::Result<File> {
        step(Step::Create)?;
        // Not truncated: that would give its room away.
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&new)?;
        step(Step::Write)?;
        file.write_all(&bytes)?;
        // A try that failed may have left more.
        if file.metadata()?.len() > bytes.len() as u64 {
            file.set_len(bytes.len() as u64)?;
        }
        step(Step::SyncNew)?;
        file.sync_all()?;
        Ok(file)
    };
    let file = write().map_err(failed("write", &new))?;
    step(Step::Rename).and_then(|()| fs::rename(&new, &path)).map_err(failed("rename", &new))?;
    Ok((file, bytes.len() as u64))
}

/// Takes up the old file as it is, behind whatever it ends with.
fn go_on(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let bytes = file.metadata()?.len();
    let lines = [b"\n", &encode(&Entry::Started)[..]].concat();
    step(Step::Append)?;
    file.write_all_at(&lines, bytes)?;
    step(Step::SyncAppend)?;
    file.sync_data()?;
    Ok((file, bytes + lines.len() as u64))
}

/// Gives a file blocks up to a size without changing its own. A file system that cannot do that has given what it can.
fn take_blocks(file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
        other => Ok(other?),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Syncs a folder, so that names made in it survive a crash of the machine.
fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    let synced = step(Step::SyncFolder).and_then(|()| File::open(folder)?.sync_all());
    synced.map_err(failed("sync", folder))
}

fn rewrite_limit(bytes: u64) -> u64 {
    (bytes * 2).max(REWRITE_BYTES_MIN)
}

fn failed<'p>(operation: &'static str, path: &'p Path) -> impl Fn(io::Error) -> StoreError + 'p {
    move |source| StoreError { operation, path: path.to_owned(), source }
}

fn encode(entry: &Entry) -> Vec<u8> {
    let json = serde_json::to_vec(entry).expect("an entry is plain data");
    let mut line = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
    line.extend(json);
    line.push(b'\n');
    line
}

/// What stands in a file.
#[derive(Default)]
struct Found {
    instances: BTreeMap<InstanceKey, InstanceState>,
    pods: BTreeMap<String, PodState>,
    bad_lines: u64,
    entries: u64,
    ended_clean: bool,
}

fn read_entries(file: File, found: &mut Found) -> io::Result<()> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut too_long = false;
    while reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? > 0 {
        let goes_on = !line.ends_with(b"\n") && line.len() as u64 == LINE_BYTES_MAX;
        match decode(&line).filter(|_| !too_long) {
            Some(entry) => {
                found.entries += 1;
                found.ended_clean = matches!(entry, Entry::Ended);
                match entry {
                    Entry::Instance(state) => _ = found.instances.insert(state.key.clone(), state),
                    Entry::Gone(key) => _ = found.instances.remove(&key),
                    Entry::Pod(state) => _ = found.pods.insert(state.pod_folder.clone(), state),
                    Entry::PodGone(folder) => _ = found.pods.remove(&folder),
                    Entry::Started | Entry::Ended => {}
                }
            }
            None if line == b"\n" || goes_on => {}
            None => found.bad_lines += 1,
        }
        too_long = goes_on;
        line.clear();
    }
    Ok(())
}

fn decode(line: &[u8]) -> Option<Entry> {
    let (checksum, json) = line.strip_suffix(b"\n")?.split_at_checked(9)?;
    let expected = u32::from_str_radix(std::str::from_utf8(checksum).ok()?.strip_suffix(' ')?, 16).ok()?;
    (crc32fast::hash(json) == expected).then(|| serde_json::from_slice(json).ok()).flatten()
}

/// The steps of writing that can fail apart from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Append,
    SyncAppend,
    Create,
    Write,
    SyncNew,
    Rename,
    SyncFolder,
    Room,
}

/// Where tests let a step fail.
#[cfg(not(test))]
fn step(_: Step) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub use tests::FAIL_WRITES;
#[cfg(test)]
use tests::step;

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
