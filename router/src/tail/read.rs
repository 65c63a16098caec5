//! One bounded read of an epoch.

use std::{
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

use fairlead_contract::record::Stream;
use memchr::{memchr, memrchr};

use super::{Epoch, Place, Source};
use crate::{
    checkpoint::InstanceKey,
    hold::{HeldFolder, Writers},
    parse::{Grammar, cri},
    pipeline::{Limits, Made, NotSent, Output, Pipeline},
    produce::{Lane, Pending, Sink, Slot},
};

/// How long a writer may keep a rotated file open before the clock decides, and how long its size must have stood still then.
const WRITER_WAIT: Duration = Duration::from_secs(5);
const STILL: Duration = Duration::from_millis(200);

/// What a read needs besides the epoch.
pub struct ReadContext<'a> {
    /// Where the files are.
    pub held: &'a HeldFolder,
    /// Whose they are.
    pub key: &'a InstanceKey,
    /// The read buffer; its size bounds a read.
    pub buffer: &'a mut [u8],
    /// Room for one encoded record.
    pub value: &'a mut Vec<u8>,
    /// Room for one line's content.
    pub scratch: &'a mut Vec<u8>,
    /// The producer.
    pub sink: &'a mut dyn Sink,
    /// Counts of records that are not acknowledged.
    pub pending: &'a Pending,
    /// The lane of the topic.
    pub lane: Lane,
    /// A slot for this read.
    pub slot: Slot,
    /// The limits of joining and cutting.
    pub limits: Limits,
    /// Whether lines are left out, counted and announced.
    pub leave_out: bool,
    /// The time of this read.
    pub now: Instant,
}

/// What a read came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Lines were read; there may be more.
    Read,
    /// There is nothing new.
    Idle,
    /// The end of a file is looked for; look again soon.
    Ending,
    /// A file is complete; the state must be stored before the next read.
    Advanced,
    /// Everything was read.
    ReadOut,
    /// The file is shorter than what was read of it.
    Truncated,
    /// A compressed file cannot be decompressed beyond so many bytes.
    Damaged(u64),
}

/// Why an epoch cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The file cannot be opened or read.
    #[error("cannot read {}", path.display())]
    File {
        /// The held file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The producer took no record.
    #[error(transparent)]
    NotSent(#[from] NotSent),
}

/// A physical line that is longer than the read buffer and whose end was found.
#[derive(Clone, Copy, Debug)]
pub struct LongLine {
    /// Offset of its first byte.
    pub(super) start: u64,
    pub(super) stream: Stream,
    full: bool,
    wanted: bool,
    /// Offset of its newline.
    pub(super) end: u64,
}

impl Epoch {
    /// Reads once. After [`TailError::NotSent`] the epoch must go back to its acknowledged positions.
    pub fn step(&mut self, context: &mut ReadContext<'_>) -> Turn<Step> {
        let partition = self.partition.expect("only an epoch with a partition is read");
        let ReadContext { held, key, buffer, value, scratch, sink, pending, lane, slot, limits, leave_out, now } =
            context;
        let mut out = Output {
            sink: &mut **sink,
            pending,
            lane: *lane,
            slot: *slot,
            partition,
            leave_out: *leave_out,
            value,
            scratch,
            made: Made::default(),
        };
        let run = Run { held, key, limits, now: *now };
        let step = self.read(&run, buffer, &mut out);
        let made = out.made;
        let slot_used = self.enter(*slot, &made, step.is_err());
        Turn { result: step, made, slot_used }
    }

    /// Puts what was made into the ledger, unless nothing was made and no position moved.
    fn enter(&mut self, slot: Slot, made: &Made, failed: bool) -> bool {
        let after = self.pipeline.positions(self.cursor);
        if made.records == 0 && !failed && after == self.entered {
            return false;
        }
        self.entered = after;
        self.ledger.push(slot, after, made);
        true
    }

    fn read(&mut self, run: &Run<'_>, buffer: &mut [u8], out: &mut Output<'_>) -> Result<Step, TailError> {
        let Some(index) = self.index_of(self.cursor.file) else { return Ok(Step::Idle) };
        let complete = self.files[index].state.complete;
        let offset = self.cursor.offset + self.scanned;
        let left = complete.map_or(u64::MAX, |size| size.saturating_sub(offset));
        let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        self.open_current(run, index)?;
        let Some((_, file)) = &mut self.open else { return Ok(Step::Idle) };
        let got = match file.read_at(&mut buffer[..want], offset) {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Read),
            Err(source) => return Err(run.failed(self.files[index].state.link, source)),
        };
        let bytes = &buffer[..got];
        // Asked behind the read: what was read before the file was cut is good.
        if let Source::Plain(file) = file
            && !self
                .seen
                .holds(file, self.cursor.file)
                .map_err(|source| run.failed(self.files[index].state.link, source))?
        {
            return Ok(Step::Truncated);
        }
        if let Some(long) = self.long {
            return if got == 0 { Ok(Step::Truncated) } else { self.read_long(long, bytes, run, out) };
        }
        if self.scanned > 0 {
            return self.scan_on(index, bytes, run, out);
        }
        let Some(last_newline) = memrchr(b'\n', bytes) else {
            if got == buffer.len() {
                self.scanned = got as u64;
                return Ok(Step::Read);
            }
            return self.at_end(index, got as u64, run, out);
        };
        self.take_lines(&bytes[..=last_newline], run, out)?;
        if self.careful.is_some() && out.made.records > 0 {
            return Ok(Step::Read);
        }
        if got == last_newline + 1 || got == buffer.len() {
            Ok(Step::Read)
        } else {
            self.at_end(index, (got - last_newline - 1) as u64, run, out)
        }
    }

    #[inline]
    fn take_lines(&mut self, bytes: &[u8], run: &Run<'_>, out: &mut Output<'_>) -> Result<(), TailError> {
        let one_at_a_time = self.careful.is_some();
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            if one_at_a_time && !self.pipeline.end_runs_apart(out)? {
                break;
            }
            self.pipeline.line(self.cursor, &rest[..end], run.now, run.limits, out)?;
            self.cursor.offset += end as u64 + 1;
            rest = &rest[end + 1..];
            if one_at_a_time && out.made.records > 0 {
                break;
            }
        }
        let passed = &bytes[..bytes.len() - rest.len()];
        self.seen.note(self.cursor, passed);
        out.made.passed_bytes += passed.len() as u64;
        Ok(())
    }

    /// Looks for the newline of a line that is longer than the buffer, without keeping it.
    fn scan_on(&mut self, index: usize, bytes: &[u8], run: &Run<'_>, out: &mut Output<'_>) -> Result<Step, TailError> {
        if let Some(newline) = memchr(b'\n', bytes) {
            let end = self.cursor.offset + self.scanned + newline as u64;
            self.scanned = 0;
            return self.begin_long(index, end, run, out);
        }
        if bytes.is_empty() {
            return self.at_end(index, self.scanned, run, out);
        }
        self.scanned += bytes.len() as u64;
        Ok(Step::Read)
    }

    fn begin_long(&mut self, index: usize, end: u64, run: &Run<'_>, out: &mut Output<'_>) -> Result<Step, TailError> {
        let Some((_, file)) = &mut self.open else { return Ok(Step::Idle) };
        let mut head = Vec::new();
        // Every line of Docker's that is not too long fits the buffer.
        if self.pipeline.grammar() == Grammar::Cri {
            head.resize(cri::HEAD_BYTES_MAX.min((end - self.cursor.offset) as usize), 0);
            let link = self.files[index].state.link;
            file.read_exact_at(&mut head, self.cursor.offset).map_err(|source| run.failed(link, source))?;
        }
        let Some(parsed) = cri::parse(&head) else {
            self.pipeline.bad(self.cursor, end + 1 - self.cursor.offset, run.now, out)?;
            self.cursor.offset = end + 1;
            return Ok(Step::Read);
        };
        let content_at = self.cursor.offset + (head.len() - parsed.content.len()) as u64;
        let wanted = self.pipeline.begin_long(self.cursor, &parsed, run.now, out)?;
        let start = self.cursor.offset;
        self.long = Some(LongLine { start, stream: parsed.stream, full: !parsed.partial, wanted, end });
        self.cursor.offset = content_at;
        Ok(Step::Read)
    }

    fn read_long(
        &mut self,
        long: LongLine,
        bytes: &[u8],
        run: &Run<'_>,
        out: &mut Output<'_>,
    ) -> Result<Step, TailError> {
        let left = (long.end - self.cursor.offset) as usize;
        let content = &bytes[..bytes.len().min(left)];
        if long.wanted {
            self.pipeline.push(long.stream, content, run.now, run.limits, out)?;
        }
        self.cursor.offset += content.len() as u64;
        self.seen.note(self.cursor, content);
        out.made.passed_bytes += content.len() as u64;
        if self.cursor.offset == long.end {
            if long.wanted {
                self.pipeline.end(long.stream, long.end + 1 - long.start, long.full, out)?;
            }
            self.cursor.offset += 1;
            self.long = None;
        }
        Ok(Step::Read)
    }

    /// The end of what is there, `torn` bytes behind the last newline.
    fn at_end(&mut self, index: usize, torn: u64, run: &Run<'_>, out: &mut Output<'_>) -> Result<Step, TailError> {
        let Some((_, file)) = &self.open else { return Ok(Step::Idle) };
        let size = file.bytes().map_err(|source| run.failed(self.files[index].state.link, source))?;
        let read_to = self.cursor.offset + torn;
        let known = self.files[index].state.complete;
        if size < read_to.max(known.unwrap_or(0)) {
            return Ok(Step::Truncated);
        }
        if known.is_none() && file.is_damaged() {
            return Ok(Step::Damaged(size));
        }
        let is_last = index + 1 == self.files.len();
        if is_last && !self.closed {
            return Ok(if size > read_to { Step::Read } else { Step::Idle });
        }
        let complete = match known {
            Some(size) => size,
            None => match self.complete_size(index, run.now) {
                Some(size) => size,
                None if size > read_to => return Ok(Step::Read),
                None => return Ok(Step::Ending),
            },
        };
        self.files[index].state.complete = Some(complete);
        if complete > read_to {
            self.awaits_store |= known.is_none();
            return Ok(Step::Read);
        }
        if torn > 0 {
            self.pipeline.bad(self.cursor, torn, run.now, out)?;
            self.cursor.offset = read_to;
        }
        self.pipeline.file_ended(self.cursor.file, complete, out)?;
        if is_last && self.careful.is_some() && !self.pipeline.flush_apart(out)? {
            self.awaits_store |= known.is_none();
            return Ok(Step::Read);
        }
        self.scanned = 0;
        self.open = None;
        if is_last {
            self.cursor.offset = complete;
            self.pipeline.finish(self.broken.as_ref(), self.cursor, out)?;
            self.read_out = true;
            self.awaits_store |= known.is_none();
            return Ok(Step::ReadOut);
        }
        self.cursor = Place { file: self.files[index + 1].state.place, offset: 0 };
        self.files[index + 1].state.first.get_or_insert(self.pipeline.next_numbers());
        self.awaits_store = true;
        Ok(Step::Advanced)
    }

    /// The size of a file that nobody writes to any more; `None` while somebody may.
    fn complete_size(&mut self, index: usize, now: Instant) -> Option<u64> {
        let (_, open) = self.open.as_ref()?;
        let file = &mut self.files[index];
        let since = *file.ending_since.get_or_insert(now);
        let nobody = open.writers();
        let size = open.bytes().ok()?;
        if nobody == Writers::None {
            return Some(size);
        }
        let (still_size, still_since) = *file.still.get_or_insert((size, now));
        if still_size != size {
            file.still = Some((size, now));
            return None;
        }
        let waited = nobody == Writers::Unknown || now.duration_since(since) >= WRITER_WAIT;
        (waited && now.duration_since(still_since) >= STILL).then_some(size)
    }

    fn open_current(&mut self, run: &Run<'_>, index: usize) -> Result<(), TailError> {
        let link = self.files[index].state.link;
        if self.open.as_ref().is_none_or(|(open, _)| *open != link) {
            let source = run.held.file(run.key, link).and_then(Source::new);
            self.open = Some((link, source.map_err(|source| run.failed(link, source))?));
        }
        Ok(())
    }

    /// Sends what waited too long.
    pub fn flush_overdue(&mut self, context: &mut ReadContext<'_>) -> Turn<()> {
        let (now, limits) = (context.now, context.limits);
        // A line that is being read right now is not cut by a clock.
        let being_read = self.long.map(|long| long.stream);
        self.flush(context, |pipeline, cursor, out| pipeline.flush_overdue(cursor, being_read, now, &limits, out))
    }

    /// Sends all that waits and says how the run ends, because nothing more can be read of it.
    pub fn finish(&mut self, context: &mut ReadContext<'_>) -> Turn<()> {
        let broken = self.broken.clone();
        self.flush(context, |pipeline, cursor, out| pipeline.finish(broken.as_ref(), cursor, out))
    }

    fn flush(
        &mut self,
        context: &mut ReadContext<'_>,
        flush: impl FnOnce(&mut Pipeline, Place, &mut Output<'_>) -> Result<(), NotSent>,
    ) -> Turn<()> {
        let partition = self.partition.expect("only an epoch with a partition is read");
        let ReadContext { sink, pending, lane, slot, value, scratch, .. } = context;
        let mut out = Output {
            sink: &mut **sink,
            pending,
            lane: *lane,
            slot: *slot,
            partition,
            leave_out: false,
            value,
            scratch,
            made: Made::default(),
        };
        let result = flush(&mut self.pipeline, self.cursor, &mut out).map_err(TailError::from);
        let made = out.made;
        let slot_used = self.enter(*slot, &made, result.is_err());
        Turn { result, made, slot_used }
    }
}

/// What a read or a flush did.
#[derive(Debug)]
pub struct Turn<T> {
    /// How it ended.
    pub result: Result<T, TailError>,
    /// What was made, also where it failed in the end.
    pub made: Made,
    /// Whether the slot stands in the ledger now.
    pub slot_used: bool,
}

struct Run<'a> {
    held: &'a HeldFolder,
    key: &'a InstanceKey,
    limits: &'a Limits,
    now: Instant,
}

impl Run<'_> {
    fn failed(&self, link: u32, source: io::Error) -> TailError {
        TailError::File { path: self.held.path(self.key, link), source }
    }
}
