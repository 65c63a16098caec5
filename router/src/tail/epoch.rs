//! One epoch of a container instance: its files, how far they were read, and how far that was acknowledged.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::FileExt,
    time::{Instant, UNIX_EPOCH},
};

use crate::{
    checkpoint::{EpochState, FileState, Guard, Ledger},
    parse::Grammar,
    pipeline::{Break, Pipeline},
};

use super::{Count, Place, Positions, Source, StreamPosition, is_gzip, read::LongLine, seen::Seen};

const GUARD_BYTES: u64 = 256;
const EPOCH_ID_BYTES: usize = 10;

/// A short random text of letters and digits: 50 bits, enough that no two epochs of one container instance are ever alike.
pub fn new_epoch_id() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0_u8; EPOCH_ID_BYTES];
    let random = File::open("/dev/urandom").and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes));
    random.expect("every Linux has /dev/urandom");
    bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

/// A file of an epoch.
#[derive(Clone, Copy, Debug)]
pub struct EpochFile {
    /// What is stored of it.
    pub state: FileState,
    /// Since when its end was looked for: it has a successor, or its container ended.
    pub ending_since: Option<Instant>,
    /// The size in bytes that was last seen while its end was looked for, and since when.
    pub still: Option<(u64, Instant)>,
}

impl EpochFile {
    /// A file as it was stored.
    pub fn new(state: FileState) -> Self {
        Self { state, ending_since: None, still: None }
    }
}

/// One epoch.
#[derive(Debug)]
pub struct Epoch {
    /// The text in `fairlead.source`.
    pub id: String,
    /// The partition, once the topic was seen.
    pub partition: Option<i32>,
    /// Whether it does not wait for the epochs before it.
    pub late: bool,
    /// Its files in reading order.
    pub files: VecDeque<EpochFile>,
    /// The place that the next file gets.
    pub next_place: u32,
    /// Its lines on their way.
    pub pipeline: Pipeline,
    /// The next byte to read.
    pub cursor: Place,
    /// What is acknowledged without a gap.
    pub acknowledged: Positions,
    /// What is acknowledged and durable.
    pub stored: Positions,
    /// What is in flight.
    pub ledger: Ledger,
    /// Whether no file follows the last one: the container ended, or another epoch began.
    pub closed: bool,
    /// Whether everything was read.
    pub read_out: bool,
    /// Whether everything was read and acknowledged.
    pub finished: bool,
    /// Whether that is durable too.
    pub stored_finished: bool,
    /// Whether reading waits until the state is stored.
    pub awaits_store: bool,
    /// Whether its last file was truncated: what was not delivered of that file is gone.
    pub abandoned: bool,
    /// What follows it, where that is another run.
    pub broken: Option<Break>,
    /// Up to where its records are sent one at a time: some record before that was refused.
    pub careful: Option<Place>,
    /// Whether a record was refused since it last went back.
    pub suspect: bool,
    /// Whether what is said at its end was refused, with nothing else in the read.
    pub end_refused: bool,
    /// The positions of the latest entry in the ledger.
    pub(super) entered: Positions,
    pub(super) open: Option<(u32, Source)>,
    pub(super) long: Option<LongLine>,
    /// What was read of the file at the furthest place, to know it again.
    pub(super) seen: Seen,
    /// How far a newline was looked for in vain, from the cursor on.
    pub(super) scanned: u64,
}

impl Epoch {
    /// Takes up an epoch as it was stored, or a new one.
    pub fn new(state: &EpochState, pipeline: Pipeline) -> Self {
        Self {
            id: state.epoch.clone(),
            partition: state.partition,
            late: state.late,
            files: state.files.iter().map(|file| EpochFile::new(*file)).collect(),
            next_place: state.files.last().map_or(0, |file| file.place.saturating_add(1)),
            pipeline,
            cursor: state.at.lowest(),
            acknowledged: state.at,
            stored: state.at,
            ledger: Ledger::default(),
            closed: state.late || state.broken.is_some(),
            read_out: state.finished,
            finished: state.finished,
            stored_finished: state.finished,
            awaits_store: false,
            abandoned: state.abandoned,
            broken: state.broken.clone(),
            careful: None,
            suspect: false,
            end_refused: false,
            entered: state.at,
            open: None,
            long: None,
            seen: Seen::default(),
            scanned: 0,
        }
    }

    /// What is stored of it.
    pub fn state(&self, guard: Option<Guard>) -> EpochState {
        EpochState {
            epoch: self.id.clone(),
            topic: self.pipeline.origin().topic.to_string(),
            partition: self.partition,
            grammar: self.pipeline.grammar().version(),
            late: self.late,
            files: self.files.iter().map(|file| file.state).collect(),
            at: self.acknowledged,
            guard,
            finished: self.finished,
            abandoned: self.abandoned,
            broken: self.broken.clone(),
        }
    }

    /// The stored form of a new epoch over these links, read from the beginning of the first.
    pub fn fresh(topic: &str, grammar: Grammar, links: &[u32], late: bool) -> EpochState {
        EpochState {
            epoch: new_epoch_id(),
            topic: topic.to_owned(),
            partition: None,
            grammar: grammar.version(),
            late,
            files: Self::files_of(links),
            at: Positions::default(),
            guard: None,
            finished: false,
            abandoned: false,
            broken: None,
        }
    }

    /// The stored form of the files of a new epoch.
    pub fn files_of(links: &[u32]) -> Vec<FileState> {
        let file =
            |(place, link): (usize, &u32)| FileState { place: place as u32, link: *link, complete: None, first: None };
        links.iter().enumerate().map(file).collect()
    }

    /// Appends a file that is shown to follow.
    pub fn append(&mut self, link: u32) {
        let state = FileState { place: self.next_place, link, complete: None, first: None };
        self.next_place += 1;
        self.files.push_back(EpochFile::new(state));
        self.awaits_store = true;
    }

    /// The last of its files.
    pub fn last_link(&self) -> Option<u32> {
        self.files.back().map(|file| file.state.link)
    }

    /// The link of the file that is read now.
    pub fn current_link(&self) -> Option<u32> {
        self.file_at(self.cursor.file).map(|file| file.state.link)
    }

    /// The file at a place of the list, unless it was let go.
    pub fn file_at(&self, place: u32) -> Option<&EpochFile> {
        self.files.iter().find(|file| file.state.place == place)
    }

    pub(super) fn index_of(&self, place: u32) -> Option<usize> {
        self.files.iter().position(|file| file.state.place == place)
    }

    /// Bytes of its files that are not read yet, by the sizes that their links have now. A compressed file counts as it lies on disk.
    pub fn unread_bytes(&self, bytes_of: impl Fn(u32) -> u64) -> u64 {
        if self.read_out {
            return 0;
        }
        let left = self.files.iter().filter(|file| file.state.place >= self.cursor.file);
        left.map(|file| {
            let read = if file.state.place == self.cursor.file { self.cursor.offset } else { 0 };
            bytes_of(file.state.link).saturating_sub(read)
        })
        .sum()
    }

    /// Whether a link is durably done with here: all of it is acknowledged, or it is not one of this epoch's.
    pub fn is_past(&self, link: u32) -> bool {
        self.files
            .iter()
            .filter(|file| file.state.link == link)
            .all(|file| self.stored_finished || file.state.place < self.stored.lowest().file)
    }

    /// How many bytes of a link this epoch accounts for; `None`: it is not one of its files, `u64::MAX`: as many as will come.
    pub fn covers(&self, link: u32) -> Option<u64> {
        self.files.iter().find(|file| file.state.link == link).map(|file| file.state.complete.unwrap_or(u64::MAX))
    }

    /// Forgets a file that was let go.
    pub fn forget(&mut self, link: u32) {
        self.files.retain(|file| file.state.link != link);
        if self.open.as_ref().is_some_and(|(open, _)| *open == link) {
            self.open = None;
        }
    }

    /// The proof that is stored for a file that is read, or was.
    ///
    /// # Errors
    /// The error of reading the file.
    pub fn guard(&self, file: &File, place: Place) -> io::Result<Guard> {
        let is_as_read = is_gzip(file)? || self.seen.holds(file, place.file)?;
        if is_as_read { take_guard(file, place) } else { Ok(no_guard(place)) }
    }

    /// A file that is taken up was found to be the one that the guard was taken of: from now on it is known by that.
    ///
    /// # Errors
    /// The error of reading the file.
    pub fn known_by(&mut self, file: &File, guard: &Guard) -> io::Result<()> {
        if !is_gzip(file)? {
            self.seen = Seen::of(file, Place { file: guard.place, offset: guard.offset })?;
        }
        Ok(())
    }

    /// Closes the descriptor: an idle file costs none.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Whether a descriptor is open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Goes back to what is acknowledged, once nothing is in flight.
    pub fn rewind(&mut self) {
        if std::mem::take(&mut self.suspect) {
            self.careful = self.careful.max(Some(self.cursor));
        }
        self.pipeline.rewind(&self.acknowledged, self.cursor);
        self.cursor = self.acknowledged.lowest();
        self.entered = self.acknowledged;
        self.long = None;
        self.scanned = 0;
        self.read_out = self.finished;
        if self.abandoned {
            self.abandoned = false;
            self.files.pop_back();
            self.read_out = self.index_of(self.cursor.file).is_none();
        }
    }

    /// What is not acknowledged before these positions is never sent again; nothing is in flight.
    pub fn pass_over(&mut self, to: &Positions) {
        self.acknowledged = self.acknowledged.max(to);
        self.rewind();
    }

    /// Where the streams stand behind what a refused read was about: behind its lines, or, where it has none, behind what was read of the line
    /// of which it holds pieces.
    pub fn behind_refused(&self, after: Positions) -> Positions {
        let Some(stream) = self.pipeline.chunks_of().filter(|_| after.counts() == self.acknowledged.counts()) else {
            return after;
        };
        let (mut to, mut behind) = (after, self.cursor);
        let mut count = self.pipeline.counts()[usize::from(stream.fd())];
        if let Some(long) = self.long {
            behind.offset = long.end + 1;
            count += Count { lines: 1, bytes: behind.offset - long.start };
            // No other stream has a line within it.
            let start = Place { offset: long.start, ..behind };
            to.0.iter_mut().filter(|stream| stream.place >= start).for_each(|stream| stream.place = behind);
        }
        to.0[usize::from(stream.fd())] = StreamPosition { place: behind, next: count.lines, bytes: count.bytes };
        to
    }

    /// The file that is read now ends at this size for good, though it should go on: the run ends with it. Returns the files behind it.
    pub fn cut_short(&mut self, bytes: u64) -> Vec<u32> {
        let place = self.cursor.file;
        let behind = self.files.iter().filter(|file| file.state.place > place).map(|file| file.state.link).collect();
        self.files.retain(|file| file.state.place <= place);
        if let Some(file) = self.files.back_mut() {
            file.state.complete = Some(bytes);
        }
        self.closed = true;
        self.awaits_store = true;
        behind
    }

    /// A file ends at this size for good.
    pub fn completes(&mut self, place: u32, bytes: u64) {
        if let Some(file) = self.files.iter_mut().find(|file| file.state.place == place) {
            file.state.complete = Some(bytes);
        }
    }

    /// The files before these positions were released: nothing of them is read or sent any more. Returns what of them had not been read.
    pub fn release(&mut self, to: &Positions, ends: bool) -> Count {
        let behind_cursor = self.cursor < to.lowest();
        let unread = if behind_cursor || ends { self.pipeline.skip_to(to) } else { Count::default() };
        self.acknowledged = self.acknowledged.max(to);
        self.entered = self.entered.max(to);
        if behind_cursor || ends {
            self.cursor = to.lowest();
            self.long = None;
            self.scanned = 0;
            self.open = None;
        }
        self.read_out |= ends;
        self.finished |= ends;
        unread
    }

    /// Its last file, which was read up to the cursor, was truncated. Nothing more can be read of it, nor read again.
    pub fn abandon(&mut self) -> Vec<u32> {
        let cursor = self.cursor;
        let links =
            self.files.iter().filter(|file| file.state.place >= cursor.file).map(|file| file.state.link).collect();
        self.files.retain(|file| file.state.place <= cursor.file);
        if let Some(file) = self.files.back_mut() {
            file.state.complete = Some(cursor.offset);
        }
        self.long = None;
        self.scanned = 0;
        self.open = None;
        self.abandoned = true;
        self.closed = true;
        self.read_out = true;
        links
    }
}

/// The proof of a file that does not hold any more what was read of it: no file is the same as that one.
fn no_guard(place: Place) -> Guard {
    Guard { place: place.file, offset: i64::MAX as u64, checksum: 0, born: None }
}

/// Takes the proof that a file is known again by: its birth, and a checksum of what stands before an offset.
///
/// # Errors
/// The error of reading the file.
fn take_guard(file: &File, place: Place) -> io::Result<Guard> {
    // At its beginning a file has little before the offset: what it begins with is as good a proof, as far as it is written.
    let begun = file.metadata()?.len().min(GUARD_BYTES);
    guard_before(file, Place { offset: place.offset.max(begun), ..place })
}

fn guard_before(file: &File, place: Place) -> io::Result<Guard> {
    let from = place.offset.saturating_sub(GUARD_BYTES);
    let mut bytes = vec![0; (place.offset - from) as usize];
    if is_gzip(file)? {
        // Nobody writes to a compressed file: what it begins with stands for all of it.
        bytes.resize(GUARD_BYTES as usize, 0);
        let got = file.read_at(&mut bytes, 0)?;
        bytes.truncate(got);
    } else {
        file.read_exact_at(&mut bytes, from)?;
    }
    Ok(Guard { place: place.file, offset: place.offset, checksum: crc32fast::hash(&bytes), born: born(file) })
}

/// Whether a file is the one that the guard was taken of.
///
/// # Errors
/// The error of reading the file, but not that it is too short, which is an answer.
pub fn is_same(file: &File, guard: &Guard) -> io::Result<bool> {
    match guard_before(file, Place { file: guard.place, offset: guard.offset }) {
        Ok(now) => {
            let same_birth = now.born.is_none() || guard.born.is_none() || now.born == guard.born;
            Ok(now.checksum == guard.checksum && same_birth)
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn born(file: &File) -> Option<i128> {
    let created = file.metadata().ok()?.created().ok()?;
    created.duration_since(UNIX_EPOCH).ok().and_then(|since| i128::try_from(since.as_nanos()).ok())
}
