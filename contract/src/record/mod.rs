//! The record: key, value, provenance. Input of the writer: one line of a container. Output: the bytes of one Kafka value, fixed by
//! `schema/record-v1.json` and the golden records in `examples/v1`.

mod decode;
mod encode;
mod escape;
mod key;
mod notice;
mod object;
mod source;
mod timestamp;

pub use decode::{Kubernetes, Owner, Provenance, Record, RecordError};
pub use encode::{Head, KubernetesHead, Line, encode, encode_processed, text_bytes};
pub use key::{key, partition_of};
pub use notice::{LossReason, Notice, NoticeKind, encode_notice};
pub use object::{JsonObject, NoObject, OBJECT_DEPTH_MAX};
pub use source::{Source, SourceError};
pub use timestamp::Timestamp;

use serde::{Deserialize, Serialize};

/// Where a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Standard output, `fd` 1.
    Stdout,
    /// Standard error, `fd` 2.
    Stderr,
}

impl Stream {
    /// The name in the record's `stream`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// The last part of `fairlead.source`.
    pub fn fd(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

/// How much was known of the pod when the record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// The API was not asked or not there: what the path says.
    Path,
    /// Not all was known in time.
    Partial,
    /// All of it; the member is left out.
    Complete,
}

/// One piece of a line that is longer than a record may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The piece's place among the pieces of its line as they were cut this time, from 0.
    pub index: u32,
    /// Where the piece begins in the joined line's `log`, in bytes of UTF-8. Whoever joins goes by this.
    pub offset: u64,
    /// Whether the line ends with this piece.
    pub last: bool,
}
