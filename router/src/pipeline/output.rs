//! Where records go, and what one read made of them.

use std::time::Duration;

use fairlead_contract::record::{self, JsonObject, Line, NoObject};

use super::Origin;
use crate::{
    produce::{Lane, Pending, Refusal, SendResult, Sink, Slot},
    tail::{Count, Place},
};

const FULL_WAIT: Duration = Duration::from_millis(10);
const FULL_WAITS_MAX: u32 = 50;

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
    /// Whether lines are left out, counted and announced: their namespace writes more than its rate.
    pub leave_out: bool,
    /// Room for one encoded value.
    pub value: &'a mut Vec<u8>,
    /// Room for one line's content where it cannot be borrowed from the file's bytes.
    pub scratch: &'a mut Vec<u8>,
    /// What was made so far.
    pub made: Made,
}

/// What one read made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Records, notices included.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// What was read for the first time: lines of the files, bad ones included.
    pub read: Count,
    /// Bytes that were gone over, what is read again too.
    pub passed_bytes: u64,
    /// What was left out and announced.
    pub left_out: Count,
    /// Lines that could not be parsed, each counted once.
    pub bad: u64,
    /// Byte sequences that were not UTF-8.
    pub replaced: u64,
    /// Notices that say for the first time that a run breaks off here.
    pub gaps: u64,
    /// Where the latest bad line is.
    pub bad_at: Option<Place>,
    /// Records of streams whose lines are looked at for JSON objects, by what was found.
    pub json: JsonMade,
}

/// What was found where lines are looked at for JSON objects, in records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JsonMade {
    /// An object, which the record has once more.
    pub processed: u64,
    /// Something else.
    pub no_object: u64,
    /// An object that is nested too deep.
    pub too_deep: u64,
    /// A line in chunks.
    pub too_long: u64,
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

#[inline]
pub(super) fn send(origin: &Origin, line: &Line<'_>, out: &mut Output<'_>) -> Result<(), NotSent> {
    out.value.clear();
    let object = if origin.parse_json.has(line.stream) { object(line, &mut out.made.json) } else { None };
    let replaced = match object {
        None => record::encode(out.value, origin.head(), line),
        Some(object) => record::encode_processed(out.value, origin.head(), line, object),
    };
    out.made.replaced += replaced as u64;
    hand_over(origin, out)
}

/// A line as the JSON object that it may be.
fn object<'a>(line: &Line<'a>, made: &mut JsonMade) -> Option<JsonObject<'a>> {
    if let Some(chunk) = line.chunk {
        made.too_long += u64::from(chunk.last);
        return None;
    }
    let (count, object) = match JsonObject::parse(line.log) {
        Ok(object) => (&mut made.processed, Some(object)),
        Err(NoObject::Other) => (&mut made.no_object, None),
        Err(NoObject::TooDeep) => (&mut made.too_deep, None),
    };
    *count += 1;
    object
}

/// Gives the encoded value to the producer.
#[inline]
pub(super) fn hand_over(origin: &Origin, out: &mut Output<'_>) -> Result<(), NotSent> {
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
    Ok(())
}
