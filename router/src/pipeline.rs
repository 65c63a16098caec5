//! One line through parse, enrich and route into a record: synchronous, no I/O but the hand-over to the producer.
//!
//! Input: physical lines of one epoch, in file order, borrowed from the read buffer. Output: records in the [`Sink`]. What is constant for the
//! epoch (head, key, topic, partition) was made once, so that a line costs one parse, one encoding, and the copy that the producer makes.

use std::time::{Duration, Instant};

use fairlead_contract::{
    namespace::Namespace,
    record::{self, Head, KubernetesHead, Line, Metadata, Source, Stream},
    topic::TopicName,
};

use crate::{
    parse::{
        cri::{self, CriLine},
        partial::{Partial, Piece},
    },
    produce::{Lane, Pending, Refusal, SendResult, Sink, Slot},
    tail::{Place, Positions, StreamPosition},
};

/// Which lines are numbered by `fd` 0.
const BAD: usize = 0;

/// What an epoch's records have in common.
#[derive(Debug)]
pub struct Origin {
    /// Where they go.
    pub topic: TopicName,
    /// The record's key.
    pub key: Vec<u8>,
    heads: [Head; 2],
}

impl Origin {
    /// Encodes what is constant for an epoch of a container instance.
    pub fn new(topic: TopicName, host: &str, identity: &Identity, epoch: &str) -> Self {
        let kubernetes = KubernetesHead {
            namespace_name: identity.namespace.as_str(),
            namespace_id: None,
            pod_name: &identity.pod,
            pod_id: &identity.pod_uid,
            container_name: &identity.container,
            host,
        };
        let head = |stream: Stream| {
            let source = Source {
                pod_uid: identity.pod_uid.clone(),
                container: identity.container.clone(),
                restart: identity.restart,
                epoch: epoch.to_owned(),
                fd: stream.fd(),
            };
            Head::new(&kubernetes, Metadata::Path, &source)
        };
        let key = record::key(&identity.namespace, &identity.pod, &identity.container).into_bytes();
        Self { topic, key, heads: [head(Stream::Stdout), head(Stream::Stderr)] }
    }
}

/// Who wrote the lines, as the kubelet's path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The namespace.
    pub namespace: Namespace,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub pod_uid: String,
    /// The container's name.
    pub container: String,
    /// How often it had been restarted.
    pub restart: u32,
}

/// Where records go, and what one read made of them.
pub struct Output<'a> {
    /// The producer.
    pub sink: &'a mut dyn Sink,
    /// Counts of records that are not acknowledged.
    pub pending: &'a Pending,
    /// The slot of this read.
    pub slot: Slot,
    /// The lane of the topic.
    pub lane: Lane,
    /// The partition of the epoch.
    pub partition: i32,
    /// Room for one encoded value.
    pub value: &'a mut Vec<u8>,
    /// What was made so far.
    pub made: Made,
}

/// What one read made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Records.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Physical lines that they cover.
    pub covered: u64,
    /// Physical lines that were read and belong to this read's part of their stream, bad ones included.
    pub lines: u64,
    /// Bytes of the files that were read.
    pub read_bytes: u64,
    /// Lines that could not be parsed.
    pub bad: u64,
    /// Byte sequences that were not UTF-8.
    pub replaced: u64,
    /// Where the latest bad line is.
    pub bad_at: Option<Place>,
}

/// Why the producer took no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// This record is refused for good.
    #[error("the producer refused a record: {}", .0.as_str())]
    Refused(Refusal),
    /// The producer has no room and makes none.
    #[error("the producer has no room")]
    Full,
    /// The producer is dead.
    #[error("the producer is dead")]
    Fatal,
}

/// The limits of joining and cutting.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a record's `log`, before escaping.
    pub record_bytes_max: usize,
    /// How long a fragment waits for the rest of its line.
    pub partial_flush: Duration,
}

/// Bytes of file behind a fragment after which it is sent as it is.
const BEHIND_BYTES_MAX: u64 = 8 << 20;
const FULL_WAIT: Duration = Duration::from_millis(10);
const FULL_WAITS_MAX: u32 = 50;

/// The lines of one epoch on their way.
#[derive(Debug)]
pub struct Pipeline {
    origin: Origin,
    /// The number of the next physical line, by `fd`.
    next: [u64; 3],
    /// Lines of a stream before its place were acknowledged earlier.
    skip: [Place; 3],
    partial: [Option<Partial>; 2],
    /// Records that begin before this place may repeat earlier ones.
    again_until: Place,
}

impl Pipeline {
    /// Begins at acknowledged positions; what begins before `again_until` is marked as a possible repeat.
    pub fn new(origin: Origin, at: &Positions, again_until: Place) -> Self {
        Self {
            origin,
            next: at.0.map(|stream| stream.next),
            skip: at.0.map(|stream| stream.place),
            partial: [None, None],
            again_until,
        }
    }

    /// Goes back to acknowledged positions; what was read before `sent_until` may be sent again and is marked.
    pub fn rewind(&mut self, at: &Positions, sent_until: Place) {
        self.next = at.0.map(|stream| stream.next);
        self.skip = at.0.map(|stream| stream.place);
        self.partial = [None, None];
        self.again_until = self.again_until.max(sent_until);
    }

    /// Where the records go.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The numbers of the next physical lines, by `fd`.
    pub fn next_numbers(&self) -> [u64; 3] {
        self.next
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
        let Some(parsed) = cri::parse(line) else {
            self.bad(at, out);
            return Ok(());
        };
        let stream = parsed.stream.fd() as usize;
        if at < self.skip[stream] {
            return Ok(());
        }
        out.made.lines += 1;
        self.let_others_wait(parsed.stream);
        if parsed.partial || self.partial[stream - 1].is_some() || parsed.content.len() > limits.record_bytes_max {
            self.begin(at, &parsed, now);
            self.push(parsed.stream, parsed.content, now, limits, out)?;
            return self.end(parsed.stream, !parsed.partial, out);
        }
        let seq = self.next[stream];
        self.next[stream] += 1;
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

    /// Counts a line that cannot be parsed: it has a number of its own kind and leaves a trace, but no record.
    #[cold]
    pub fn bad(&mut self, at: Place, out: &mut Output<'_>) {
        if at >= self.skip[BAD] {
            self.next[BAD] += 1;
            out.made.lines += 1;
            out.made.bad += 1;
            out.made.bad_at = Some(at);
        }
    }

    /// Begins a physical line that is too long for one read; its bytes follow by [`Pipeline::push`]. Returns false when its stream is already past it.
    pub fn begin_long(&mut self, at: Place, head: &CriLine<'_>, now: Instant, out: &mut Output<'_>) -> bool {
        let wanted = at >= self.skip[head.stream.fd() as usize];
        if wanted {
            out.made.lines += 1;
            self.let_others_wait(head.stream);
            self.begin(at, head, now);
        }
        wanted
    }

    /// A line of this stream is read: a fragment of the other one holds up the position for it.
    #[inline]
    fn let_others_wait(&mut self, stream: Stream) {
        if let Some(other) = &mut self.partial[2 - stream.fd() as usize] {
            other.others_wait = true;
        }
    }

    fn begin(&mut self, at: Place, head: &CriLine<'_>, now: Instant) {
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
        while let Some(piece) = partial.next_chunk(limits.record_bytes_max) {
            let bytes = piece.content.len();
            send(&self.origin, &partial_line(partial, piece, stream, self.again_until), out)?;
            partial.chunk_sent(bytes);
        }
        Ok(())
    }

    /// Ends a physical line on a stream, and the whole line with it if `full`.
    ///
    /// # Errors
    /// As [`Pipeline::line`].
    pub fn end(&mut self, stream: Stream, full: bool, out: &mut Output<'_>) -> Result<(), NotSent> {
        let fd = stream.fd() as usize;
        self.next[fd] += 1;
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
        let Some(partial) = self.partial[stream.fd() as usize - 1].take() else { return Ok(()) };
        send(&self.origin, &partial_line(&partial, partial.last_piece(), stream, self.again_until), out)
    }

    /// The streams whose fragment must not wait any longer: nothing came for `partial_flush`, other lines waited that long behind it, or too many
    /// bytes lie behind it. A line that is being read right now waits.
    pub fn overdue(&self, cursor: Place, now: Instant, limits: &Limits) -> impl Iterator<Item = Stream> {
        let overdue = move |partial: &Partial| {
            let others_wait = partial.others_wait && now.duration_since(partial.since) >= limits.partial_flush;
            let silent = now.duration_since(partial.latest) >= limits.partial_flush;
            let from = if partial.start.file == cursor.file { partial.start.offset } else { 0 };
            let behind = partial.bytes_in_ended_files + cursor.offset.saturating_sub(from) >= BEHIND_BYTES_MAX;
            partial.lines > 0 && (silent || others_wait || behind)
        };
        let flagged = [Stream::Stdout, Stream::Stderr].map(|stream| {
            let partial = self.partial[stream.fd() as usize - 1].as_ref();
            partial.is_some_and(overdue).then_some(stream)
        });
        flagged.into_iter().flatten()
    }

    /// A file was read to its end: its bytes lie behind the fragments that wait.
    pub fn file_ended(&mut self, file: u32, bytes: u64) {
        for partial in self.partial.iter_mut().flatten() {
            let from = if partial.start.file == file { partial.start.offset } else { 0 };
            partial.bytes_in_ended_files += bytes.saturating_sub(from);
        }
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
            *position = match partial {
                Some(partial) => StreamPosition { place: partial.start, next: partial.first },
                None => StreamPosition { place: cursor.max(self.skip[fd]), next: self.next[fd] },
            };
        }
        positions
    }
}

fn partial_line<'a>(partial: &'a Partial, piece: Piece<'a>, stream: Stream, again_until: Place) -> Line<'a> {
    Line {
        seq: partial.first,
        lines: piece.lines,
        left_out: 0,
        again: partial.start < again_until,
        chunk: piece.chunk,
        time: partial.time(),
        stream,
        log: piece.content,
    }
}

#[inline]
fn send(origin: &Origin, line: &Line<'_>, out: &mut Output<'_>) -> Result<(), NotSent> {
    out.value.clear();
    out.made.replaced += record::encode(out.value, &origin.heads[usize::from(line.stream.fd()) - 1], line) as u64;
    for waits in 0.. {
        match out.sink.send(out.lane, origin.topic.as_str(), out.partition, &origin.key, out.value, out.slot) {
            SendResult::Queued => break,
            // Our own bound on bytes in flight is lower than the producer's; this is rare and short.
            SendResult::Full if waits < FULL_WAITS_MAX => out.sink.poll(FULL_WAIT),
            SendResult::Full => return Err(NotSent::Full),
            SendResult::Refused(refusal) => return Err(NotSent::Refused(refusal)),
            SendResult::Fatal => return Err(NotSent::Fatal),
        }
    }
    // Deliveries are reported in `poll` on this thread alone, so counting after the hand-over misses none.
    out.pending.add(out.slot, 1);
    out.made.records += 1;
    out.made.bytes += out.value.len() as u64;
    out.made.covered += line.lines;
    Ok(())
}
