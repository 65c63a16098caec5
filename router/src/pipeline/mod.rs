//! One line through parse, enrich and route into a record: synchronous, no I/O but the hand-over to the producer.
//!
//! Input: physical lines of one epoch, in file order, borrowed from the read buffer. Output: records in the [`Sink`]. What is constant for the
//! epoch (head, key, topic, partition) was made once, so that a line costs one parse, one encoding, and the copy that the producer makes.

mod origin;
mod output;

pub use origin::{Break, Identity, Known, Origin, ends};
pub use output::{JsonMade, Made, NotSent, Output};

use std::time::{Duration, Instant};

use fairlead_contract::record::{Line, Notice, NoticeKind, Stream};

use crate::{
    parse::{
        Grammar, LogLine, cri, docker,
        partial::{Partial, Piece},
    },
    tail::{Count, Place, Positions, StreamPosition},
};
use output::{hand_over, send};

/// Which lines are numbered by `fd` 0.
const BAD: usize = 0;
/// The longest run of lines that one notice announces, so that a position is never held up for long.
const RUN_LINES_MAX: u64 = 10_000;

/// The limits of joining and cutting.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a record's `log`, before escaping.
    pub record_bytes_max: usize,
    /// How long a fragment waits for the rest of its line.
    pub partial_flush: Duration,
    /// What becomes of a line that is longer than `record_bytes_max`.
    pub too_long: TooLong,
}

/// What becomes of a line that is longer than a record may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TooLong {
    /// It goes in chunks.
    #[default]
    Chunk,
    /// What is too much is cut off, which a notice announces.
    Truncate,
}

/// Lines that get no record, one behind the other: their notice is sent when the run ends, and until then the position stays in front of them.
#[derive(Debug)]
struct Run {
    start: Place,
    /// What the stream had before it.
    first: Count,
    since: Instant,
}

/// Bytes of file behind a fragment after which it is sent as it is.
const BEHIND_BYTES_MAX: u64 = 8 << 20;

/// The lines of one epoch on their way.
#[derive(Debug)]
pub struct Pipeline {
    origin: Origin,
    grammar: Grammar,
    /// What was read of each stream; its lines are the number of the next one. By `fd`.
    next: [Count; 3],
    /// The most that was ever read, whatever was gone back over since.
    high: [Count; 3],
    /// Lines of a stream before its place were acknowledged earlier.
    skip: [Place; 3],
    partial: [Option<Partial>; 2],
    runs: [Option<Run>; 3],
    /// Whether a line that was left out goes on, by stream: its other fragments are left out with it.
    leaving: [bool; 2],
    /// Records that begin before this place may repeat earlier ones.
    again_until: Place,
    /// The stream whose line went in chunks last.
    chunks_of: Option<Stream>,
}

impl Pipeline {
    /// Begins at acknowledged positions; what begins before `again_until` is marked as a possible repeat.
    pub fn new(origin: Origin, grammar: Grammar, at: &Positions, again_until: Place) -> Self {
        Self {
            origin,
            grammar,
            next: at.counts(),
            high: at.counts(),
            skip: at.0.map(|stream| stream.place),
            partial: [None, None],
            runs: [None, None, None],
            leaving: [false, false],
            again_until,
            chunks_of: None,
        }
    }

    /// Goes back to acknowledged positions; what was read before `sent_until` may be sent again and is marked.
    pub fn rewind(&mut self, at: &Positions, sent_until: Place) {
        self.next = at.counts();
        self.skip = at.0.map(|stream| stream.place);
        self.partial = [None, None];
        self.runs = [None, None, None];
        self.leaving = [false, false];
        self.again_until = self.again_until.max(sent_until);
    }

    /// Goes on from positions that lie behind what was read: the lines between are accounted for elsewhere. Returns how many of them had not
    /// been read.
    pub fn skip_to(&mut self, at: &Positions) -> Count {
        let mut unread = Count::default();
        for (high, count) in self.high.iter_mut().zip(at.counts()) {
            unread += count.less(*high);
            high.lines = high.lines.max(count.lines);
            high.bytes = high.bytes.max(count.bytes);
        }
        self.rewind(at, Place::default());
        unread
    }

    /// What decides which lines parse.
    pub fn grammar(&self) -> Grammar {
        self.grammar
    }

    /// Where the records go.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The same, to be described anew.
    pub fn origin_mut(&mut self) -> &mut Origin {
        &mut self.origin
    }

    /// The numbers of the next physical lines, by `fd`.
    pub fn next_numbers(&self) -> [u64; 3] {
        self.next.map(|count| count.lines)
    }

    /// The stream whose line went in chunks last.
    pub fn chunks_of(&self) -> Option<Stream> {
        self.chunks_of
    }

    /// What was read of each stream, by `fd`.
    pub fn counts(&self) -> [Count; 3] {
        self.next
    }

    /// What was read and is not behind these positions.
    pub fn in_hand(&self, at: &Positions) -> Count {
        let mut in_hand = Count::default();
        for (high, count) in self.high.iter().zip(at.counts()) {
            in_hand += high.less(count);
        }
        in_hand
    }

    /// Forgets that more than these positions was read: it is accounted for elsewhere.
    pub fn give_up(&mut self, at: &Positions) {
        self.high = at.counts();
    }

    /// Takes one physical line, without its newline, that begins at `at`.
    ///
    /// # Errors
    /// [`NotSent`] when the producer took no record; the epoch must then go back to its acknowledged positions.
    #[inline]
    pub fn line(
        &mut self,
        at: Place,
        line: &[u8],
        now: Instant,
        limits: &Limits,
        out: &mut Output<'_>,
    ) -> Result<(), NotSent> {
        let bytes = line.len() as u64 + 1;
        match self.grammar {
            Grammar::Cri => self.parsed(at, cri::parse(line), bytes, now, limits, out),
            Grammar::Docker => {
                let mut scratch = std::mem::take(out.scratch);
                let sent = self.parsed(at, docker::parse(line, &mut scratch), bytes, now, limits, out);
                *out.scratch = scratch;
                sent
            }
        }
    }

    #[inline]
    fn parsed(
        &mut self,
        at: Place,
        parsed: Option<LogLine<'_>>,
        bytes: u64,
        now: Instant,
        limits: &Limits,
        out: &mut Output<'_>,
    ) -> Result<(), NotSent> {
        let Some(parsed) = parsed else { return self.bad(at, bytes, now, out) };
        if self.runs[BAD].is_some() {
            self.end_run(BAD, out)?;
        }
        let stream = parsed.stream.fd() as usize;
        if at < self.skip[stream] {
            return Ok(());
        }
        self.let_others_wait(parsed.stream);
        if (out.leave_out || self.leaving[stream - 1]) && self.partial[stream - 1].is_none() {
            self.leaving[stream - 1] = parsed.partial;
            return self.without_record(stream, at, bytes, now, out);
        }
        if self.runs[stream].is_some() {
            self.end_run(stream, out)?;
        }
        if parsed.partial || self.partial[stream - 1].is_some() || parsed.content.len() > limits.record_bytes_max {
            self.begin(at, &parsed, now);
            self.push(parsed.stream, parsed.content, now, limits, out)?;
            return self.end(parsed.stream, bytes, !parsed.partial, out);
        }
        let seq = self.count(stream, bytes, &mut out.made);
        let line = Line {
            seq,
            lines: 1,
            left_out: 0,
            again: at < self.again_until,
            chunk: None,
            time: parsed.time,
            stream: parsed.stream,
            log: parsed.content,
        };
        send(&self.origin, &line, out)
    }

    /// Gives the next physical line of a stream its number.
    #[inline]
    fn count(&mut self, fd: usize, bytes: u64, made: &mut Made) -> u64 {
        let line = Count { lines: 1, bytes };
        let seq = self.next[fd].lines;
        self.next[fd] += line;
        if self.next[fd].lines > self.high[fd].lines {
            self.high[fd] = self.next[fd];
            made.read += line;
        }
        seq
    }

    /// Takes a line that cannot be parsed: it has a number of its own kind, and a notice announces it with those around it.
    ///
    /// # Errors
    /// As [`Pipeline::line`].
    #[cold]
    pub fn bad(&mut self, at: Place, bytes: u64, now: Instant, out: &mut Output<'_>) -> Result<(), NotSent> {
        if at < self.skip[BAD] {
            return Ok(());
        }
        let read = out.made.read.lines;
        self.without_record(BAD, at, bytes, now, out)?;
        out.made.bad += out.made.read.lines - read;
        out.made.bad_at = Some(at);
        Ok(())
    }

    /// Numbers a line that gets no record; a notice announces it with those behind it.
    #[cold]
    fn without_record(
        &mut self,
        fd: usize,
        at: Place,
        bytes: u64,
        now: Instant,
        out: &mut Output<'_>,
    ) -> Result<(), NotSent> {
        let first = self.next[fd];
        let start = self.runs[fd].get_or_insert(Run { start: at, first, since: now }).first.lines;
        let seq = self.count(fd, bytes, &mut out.made);
        if seq + 1 - start >= RUN_LINES_MAX { self.end_run(fd, out) } else { Ok(()) }
    }

    /// Announces the lines that got no record, where records are sent one at a time. Returns whether nothing was sent: if not, the next line
    /// waits for the next read.
    ///
    /// # Errors
    /// As [`Pipeline::line`].
    #[cold]
    pub fn end_runs_apart(&mut self, out: &mut Output<'_>) -> Result<bool, NotSent> {
        self.end_runs(out)?;
        Ok(out.made.records == 0)
    }

    /// Sends what has begun on a stream before the run ends, where records are sent one at a time. Returns whether nothing was sent: if not,
    /// the end waits for the next read.
    ///
    /// # Errors
    /// As [`Pipeline::line`].
    #[cold]
    pub fn flush_apart(&mut self, out: &mut Output<'_>) -> Result<bool, NotSent> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if out.made.records == 0 {
                self.flush(stream, out)?;
            }
        }
        Ok(out.made.records == 0)
    }

    fn end_runs(&mut self, out: &mut Output<'_>) -> Result<(), NotSent> {
        (0..self.runs.len()).try_for_each(|fd| self.end_run(fd, out))
    }

    /// Announces the lines of a stream that got no record.
    fn end_run(&mut self, fd: usize, out: &mut Output<'_>) -> Result<(), NotSent> {
        let Some(run) = self.runs[fd].take() else { return Ok(()) };
        let count = self.next[fd].less(run.first);
        let kind = if fd == BAD { NoticeKind::ParseErrors } else { NoticeKind::Throttled };
        if fd != BAD {
            out.made.left_out += count;
        }
        let notice = Notice {
            lines: Some(count.lines),
            bytes: Some(count.bytes),
            offset: Some(run.start.offset),
            ..Notice::new(kind, self.origin.source(fd), run.first.lines)
        };
        self.send_notice(&notice, run.start < self.again_until, out)
    }

    fn send_notice(&self, notice: &Notice<'_>, again: bool, out: &mut Output<'_>) -> Result<(), NotSent> {
        self.origin.encode_notice(out.value, notice, again);
        hand_over(&self.origin, out)
    }

    /// Says how the run ends: with all its lines, or where it breaks off. Nothing is said of a stream without lines, unless all have none.
    ///
    /// # Errors
    /// As [`Pipeline::line`].
    pub fn finish(&mut self, end: Option<&Break>, cursor: Place, out: &mut Output<'_>) -> Result<(), NotSent> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.flush(stream, out)?;
        }
        self.end_runs(out)?;
        // The end lies behind everything that may have been sent.
        let again = self.again_until > Place::default() && cursor <= self.again_until;
        for (_, notice) in ends(&self.origin, &self.next, end) {
            self.send_notice(&notice, again, out)?;
            out.made.gaps += u64::from(notice.kind == NoticeKind::Gap && !again);
        }
        Ok(())
    }

    /// Begins a physical line that is too long for one read; its bytes follow by [`Pipeline::push`]. Returns false when its stream is already past it.
    ///
    /// # Errors
    /// As [`Pipeline::line`].
    pub fn begin_long(
        &mut self,
        at: Place,
        head: &LogLine<'_>,
        now: Instant,
        out: &mut Output<'_>,
    ) -> Result<bool, NotSent> {
        self.end_run(BAD, out)?;
        let wanted = at >= self.skip[head.stream.fd() as usize];
        if wanted {
            self.end_run(head.stream.fd() as usize, out)?;
            self.let_others_wait(head.stream);
            self.begin(at, head, now);
        }
        Ok(wanted)
    }

    /// A line of this stream is read: a fragment of the other one holds up the position for it.
    #[inline]
    fn let_others_wait(&mut self, stream: Stream) {
        if let Some(other) = &mut self.partial[2 - stream.fd() as usize] {
            other.others_wait = true;
        }
    }

    fn begin(&mut self, at: Place, head: &LogLine<'_>, now: Instant) {
        let stream = head.stream.fd() as usize;
        let first = self.next[stream];
        // The stamp is written in UTC by the encoder; the offset is kept as it is until then.
        self.partial[stream - 1].get_or_insert_with(|| Partial::new(at, first, head.time.as_written(), now));
    }

    /// Puts bytes into the line that has begun on a stream, and sends what is too long to wait.
    ///
    /// # Errors
    /// As [`Pipeline::line`].
    pub fn push(
        &mut self,
        stream: Stream,
        content: &[u8],
        now: Instant,
        limits: &Limits,
        out: &mut Output<'_>,
    ) -> Result<(), NotSent> {
        let place = stream.fd() as usize - 1;
        let Some(partial) = &mut self.partial[place] else { return Ok(()) };
        partial.push(content, now);
        if limits.too_long == TooLong::Truncate && !partial.has_sent() {
            partial.cut_to(limits.record_bytes_max);
        }
        while let Some(piece) = partial.next_chunk(limits.record_bytes_max) {
            let bytes = piece.content.len();
            send(&self.origin, &partial_line(partial, piece, stream, self.again_until), out)?;
            partial.chunk_sent(bytes);
            self.chunks_of = Some(stream);
        }
        Ok(())
    }

    /// Ends a physical line of so many bytes on a stream, and the whole line with it if `full`.
    ///
    /// # Errors
    /// As [`Pipeline::line`].
    pub fn end(&mut self, stream: Stream, bytes: u64, full: bool, out: &mut Output<'_>) -> Result<(), NotSent> {
        let fd = stream.fd() as usize;
        self.count(fd, bytes, &mut out.made);
        if let Some(partial) = &mut self.partial[fd - 1] {
            partial.end_physical();
        }
        if full { self.flush(stream, out) } else { Ok(()) }
    }

    /// Sends what has begun on a stream as it is.
    ///
    /// # Errors
    /// As [`Pipeline::line`].
    pub fn flush(&mut self, stream: Stream, out: &mut Output<'_>) -> Result<(), NotSent> {
        let fd = stream.fd() as usize;
        let Some(partial) = self.partial[fd - 1].take() else { return Ok(()) };
        send(&self.origin, &partial_line(&partial, partial.last_piece(), stream, self.again_until), out)?;
        if partial.cut_bytes() == 0 {
            return Ok(());
        }
        let notice = Notice {
            bytes: Some(partial.cut_bytes()),
            offset: Some(partial.start.offset),
            ..Notice::new(NoticeKind::Truncated, self.origin.source(fd), partial.first.lines)
        };
        self.send_notice(&notice, partial.start < self.again_until, out)
    }

    /// Whether something waits that must not wait any longer; see [`Pipeline::flush_overdue`].
    pub fn is_overdue(&self, cursor: Place, now: Instant, limits: &Limits) -> bool {
        self.overdue_stream(Stream::Stdout, cursor, now, limits)
            || self.overdue_stream(Stream::Stderr, cursor, now, limits)
            || self.overdue_run(now, limits)
    }

    /// Sends what must not wait any longer: nothing came for `partial_flush`, other lines waited that long behind it, or too many bytes lie
    /// behind it. A line that is `being_read` right now waits.
    ///
    /// # Errors
    /// As [`Pipeline::line`].
    pub fn flush_overdue(
        &mut self,
        cursor: Place,
        being_read: Option<Stream>,
        now: Instant,
        limits: &Limits,
        out: &mut Output<'_>,
    ) -> Result<(), NotSent> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if being_read != Some(stream) && self.overdue_stream(stream, cursor, now, limits) {
                self.flush(stream, out)?;
            }
        }
        if self.overdue_run(now, limits) { self.end_runs(out) } else { Ok(()) }
    }

    fn overdue_stream(&self, stream: Stream, cursor: Place, now: Instant, limits: &Limits) -> bool {
        let Some(partial) = &self.partial[stream.fd() as usize - 1] else { return false };
        let others_wait = partial.others_wait && now.duration_since(partial.since) >= limits.partial_flush;
        let silent = now.duration_since(partial.latest) >= limits.partial_flush;
        let from = if partial.start.file == cursor.file { partial.start.offset } else { 0 };
        let behind = partial.bytes_in_ended_files + cursor.offset.saturating_sub(from) >= BEHIND_BYTES_MAX;
        partial.lines > 0 && (silent || others_wait || behind)
    }

    fn overdue_run(&self, now: Instant, limits: &Limits) -> bool {
        self.runs.iter().flatten().any(|run| now.duration_since(run.since) >= limits.partial_flush)
    }

    /// A file was read to its end: its bytes lie behind the fragments that wait, and unparsable lines wait for nothing more.
    ///
    /// # Errors
    /// As [`Pipeline::line`].
    pub fn file_ended(&mut self, file: u32, bytes: u64, out: &mut Output<'_>) -> Result<(), NotSent> {
        for partial in self.partial.iter_mut().flatten() {
            let from = if partial.start.file == file { partial.start.offset } else { 0 };
            partial.bytes_in_ended_files += bytes.saturating_sub(from);
        }
        self.end_runs(out)
    }

    /// Whether something beyond these acknowledged positions may have been sent: after a rewind, or as the first chunks of a line that goes on.
    pub fn sent_beyond(&self, at: &Positions) -> bool {
        self.again_until > at.lowest() || self.partial.iter().flatten().any(Partial::has_sent)
    }

    /// Where each stream stands once everything that was sent is acknowledged and reading stands at `cursor`.
    pub fn positions(&self, cursor: Place) -> Positions {
        let mut positions = Positions::default();
        for (fd, position) in positions.0.iter_mut().enumerate() {
            let partial = fd.checked_sub(1).and_then(|stream| self.partial[stream].as_ref());
            let run = self.runs[fd].as_ref();
            let waits = partial.map(|partial| (partial.start, partial.first)).or(run.map(|run| (run.start, run.first)));
            let (place, count) = waits.unwrap_or((cursor.max(self.skip[fd]), self.next[fd]));
            *position = StreamPosition { place, next: count.lines, bytes: count.bytes };
        }
        positions
    }
}

fn partial_line<'a>(partial: &'a Partial, piece: Piece<'a>, stream: Stream, again_until: Place) -> Line<'a> {
    Line {
        seq: partial.first.lines,
        lines: piece.lines,
        left_out: 0,
        again: partial.start < again_until,
        chunk: piece.chunk,
        time: partial.time(),
        stream,
        log: piece.content,
    }
}
