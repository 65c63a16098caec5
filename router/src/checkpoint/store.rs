//! The positions file: an append-only log of checked lines, written anew when it has grown.
//!
//! Each line is a CRC-32 in hexadecimal, a space, and a JSON entry. A line that does not check is left out and counted: a torn tail costs the
//! last second, never the rest. The file is replaced by rename after it and its folder were synced.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{InstanceKey, InstanceState};

const FILE_NAME: &str = "positions";
const NEW_NAME: &str = "positions.new";
/// The file is written anew when it is larger than this and than twice what it said when it was last written anew.
const REWRITE_BYTES_MIN: u64 = 1 << 20;

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
    /// A router began to send.
    #[serde(rename = "s")]
    Started,
    /// A router ended with everything that it sent acknowledged and stored.
    #[serde(rename = "e")]
    Ended,
}

/// What was found at start.
#[derive(Debug)]
pub struct Loaded {
    /// The store, open for appending.
    pub store: Store,
    /// What is known of each instance.
    pub instances: BTreeMap<InstanceKey, InstanceState>,
    /// Whether the last router ended with nothing in flight, so that nothing beyond the positions was sent.
    pub ended_clean: bool,
    /// Whether there was no positions file at all.
    pub is_new: bool,
    /// Lines that did not check and were left out.
    pub bad_lines: u64,
}

/// The positions file.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    file: File,
    bytes: u64,
    rewrite_at: u64,
    /// The encoded entry of every instance, for writing the file anew.
    live: HashMap<InstanceKey, Vec<u8>>,
    buffer: Vec<u8>,
}

impl Store {
    /// Reads the positions of a state folder and opens them for appending. A damaged file is read as far as it checks. From here on the file says
    /// that a router has started, until [`Store::end_clean`].
    ///
    /// # Errors
    /// [`StoreError`] where the folder cannot be read or written; never because of what stands in the file.
    pub fn open(folder: &Path) -> Result<Loaded, StoreError> {
        let path = folder.join(FILE_NAME);
        let mut instances = BTreeMap::new();
        let mut bad_lines = 0;
        let mut ended_clean = false;
        let is_new = match File::open(&path) {
            Ok(file) => {
                read_entries(file, &mut bad_lines, |entry| {
                    ended_clean = matches!(entry, Entry::Ended);
                    match entry {
                        Entry::Instance(state) => _ = instances.insert(state.key.clone(), state),
                        Entry::Gone(key) => _ = instances.remove(&key),
                        Entry::Started | Entry::Ended => {}
                    }
                })
                .map_err(failed("read", &path))?;
                false
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(failed("open", &path)(error)),
        };
        let live =
            instances.iter().map(|(key, state)| (key.clone(), encode(&Entry::Instance(state.clone())))).collect();
        let store = Self::write_anew(folder, live)?;
        Ok(Loaded { store, instances, ended_clean: ended_clean && bad_lines == 0, is_new, bad_lines })
    }

    /// Puts an instance's state into the next write.
    pub fn put(&mut self, state: &InstanceState) {
        let line = encode(&Entry::Instance(state.clone()));
        if self.live.get(&state.key) != Some(&line) {
            self.buffer.extend_from_slice(&line);
            self.live.insert(state.key.clone(), line);
        }
    }

    /// Puts the end of an instance into the next write.
    pub fn remove(&mut self, key: &InstanceKey) {
        if self.live.remove(key).is_some() {
            self.buffer.extend(encode(&Entry::Gone(key.clone())));
        }
    }

    /// Writes and syncs what was put; nothing is written when nothing changed.
    ///
    /// # Errors
    /// [`StoreError`]; what was put stays and is written by the next call.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let grown = self.bytes + self.buffer.len() as u64 > self.rewrite_at;
        if grown || !self.has_its_name() { self.rewrite() } else { self.append() }
    }

    /// Says that everything that was sent is acknowledged and stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn end_clean(&mut self) -> Result<(), StoreError> {
        self.commit()?;
        self.buffer.extend(encode(&Entry::Ended));
        self.append()
    }

    fn append(&mut self) -> Result<(), StoreError> {
        let path = self.folder.join(FILE_NAME);
        // A write that failed half-way leaves a torn line; a newline before the next try keeps that one readable.
        let written = self.file.write_all(&self.buffer).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            if !self.buffer.starts_with(b"\n") {
                self.buffer.insert(0, b'\n');
            }
            return Err(failed("write", &path)(error));
        }
        self.bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Whether the open file is the one that a next start will find.
    fn has_its_name(&self) -> bool {
        let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let named = fs::symlink_metadata(self.folder.join(FILE_NAME)).map(inode);
        matches!((named, self.file.metadata().map(inode)), (Ok(named), Ok(open)) if named == open)
    }

    fn rewrite(&mut self) -> Result<(), StoreError> {
        match Self::write_file(&self.folder, &self.live) {
            Ok((file, bytes)) => {
                (self.file, self.bytes, self.rewrite_at) = (file, bytes, rewrite_limit(bytes));
                // What was put stands in the new file; it is told only once the name of that file is durable.
                sync_folder(&self.folder).map_err(failed("sync", &self.folder))?;
                self.buffer.clear();
                Ok(())
            }
            // Where the old file still stands, appending to it may work though a second copy does not fit.
            Err(error) if self.has_its_name() => self.append().map_err(|_| error),
            Err(error) => Err(error),
        }
    }

    fn write_anew(folder: &Path, live: HashMap<InstanceKey, Vec<u8>>) -> Result<Self, StoreError> {
        let (file, bytes) = Self::write_file(folder, &live)?;
        sync_folder(folder).map_err(failed("sync", folder))?;
        let rewrite_at = rewrite_limit(bytes);
        Ok(Self { folder: folder.to_owned(), file, bytes, rewrite_at, live, buffer: Vec::new() })
    }

    fn write_file(folder: &Path, live: &HashMap<InstanceKey, Vec<u8>>) -> Result<(File, u64), StoreError> {
        let (path, new) = (folder.join(FILE_NAME), folder.join(NEW_NAME));
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
        let mut bytes: Vec<u8> = live.values().flatten().copied().collect();
        bytes.extend(encode(&Entry::Started));
        let mut file = File::create(&new).map_err(failed("create", &new))?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed("write", &new))?;
        fs::rename(&new, &path).map_err(failed("rename", &new))?;
        Ok((file, bytes.len() as u64))
    }
}

/// Syncs a folder, so that names made in it survive a crash of the machine.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
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

fn read_entries(file: File, bad_lines: &mut u64, mut take: impl FnMut(Entry)) -> io::Result<()> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        match decode(&line) {
            Some(entry) => take(entry),
            None if line == b"\n" => {}
            None => *bad_lines += 1,
        }
        line.clear();
    }
    Ok(())
}

fn decode(line: &[u8]) -> Option<Entry> {
    let (checksum, json) = line.strip_suffix(b"\n")?.split_at_checked(9)?;
    let expected = u32::from_str_radix(std::str::from_utf8(checksum).ok()?.strip_suffix(' ')?, 16).ok()?;
    (crc32fast::hash(json) == expected).then(|| serde_json::from_slice(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{checkpoint::EpochState, tail::Positions};

    fn key(restart: u32) -> InstanceKey {
        InstanceKey { pod_folder: "payments_api_uid".to_owned(), container: "api".to_owned(), restart }
    }

    fn state(restart: u32, next_link: u32) -> InstanceState {
        let epoch = EpochState {
            epoch: "k3v9".to_owned(),
            topic: "logs.payments".to_owned(),
            partition: Some(0),
            grammar: 1,
            late: false,
            files: Vec::new(),
            at: Positions::default(),
            guard: None,
            finished: false,
            abandoned: false,
            broken: None,
        };
        InstanceState { key: key(restart), next_link, epochs: vec![epoch], owed: Vec::new() }
    }

    fn links(folder: &Path) -> (Vec<(u32, u32)>, u64, bool) {
        let loaded = Store::open(folder).unwrap();
        let links = loaded.instances.values().map(|state| (state.key.restart, state.next_link)).collect();
        (links, loaded.bad_lines, loaded.ended_clean)
    }

    #[test]
    fn the_last_word_counts_and_a_clean_end_is_known_once() {
        let folder = tempfile::tempdir().unwrap();
        let loaded = Store::open(folder.path()).unwrap();
        assert!(loaded.is_new && !loaded.ended_clean);
        let mut store = loaded.store;
        for instance in [state(0, 1), state(1, 1), state(0, 2)] {
            store.put(&instance);
        }
        store.remove(&key(1));
        store.commit().unwrap();
        drop(store);
        assert_eq!(links(folder.path()), (vec![(0, 2)], 0, false));
        Store::open(folder.path()).unwrap().store.end_clean().unwrap();
        assert_eq!(links(folder.path()), (vec![(0, 2)], 0, true));
        assert_eq!(links(folder.path()), (vec![(0, 2)], 0, false));
    }

    #[test]
    fn any_torn_or_damaged_byte_costs_its_line_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        let mut store = Store::open(folder.path()).unwrap().store;
        store.put(&state(0, 1));
        store.commit().unwrap();
        store.put(&state(1, 1));
        store.commit().unwrap();
        drop(store);
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let (found, _, clean) = links(folder.path());
            assert!(found.len() <= 2 && !clean);
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x04;
            fs::write(&path, &damaged).unwrap();
            let (found, bad, _) = links(folder.path());
            // Without its newline a line reads as one with the next.
            let left_min = if whole[at] == b'\n' { 0 } else { 1 };
            assert!((left_min..=2).contains(&found.len()) && bad >= 1, "byte {at}: {found:?} {bad}");
        }
    }

    #[test]
    fn it_is_written_anew_before_it_grows_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap().store;
        for round in 0..20_000 {
            store.put(&state(round % 3, round));
            if round % 100 == 0 {
                store.commit().unwrap();
            }
        }
        store.commit().unwrap();
        drop(store);
        assert!(fs::metadata(folder.path().join(FILE_NAME)).unwrap().len() < 3 * REWRITE_BYTES_MIN);
        assert_eq!(links(folder.path()).0, [(0, 19_998), (1, 19_999), (2, 19_997)]);
    }
}
