//! Reads the files of an epoch in order: bounded reads, rotation, truncation. Input: held files. Output: physical lines, borrowed from the read
//! buffer, to the [`pipeline`](crate::pipeline).
//!
//! Nothing is read that cannot be numbered for good: a rotated file is left only when it is complete, and its size is stored before the next one
//! is read.

mod epoch;
mod place;
mod read;
mod seen;
mod source;

pub use epoch::{Epoch, EpochFile, is_same, new_epoch_id};
pub use place::{Count, Place, Positions, StreamPosition};
pub use read::{ReadContext, Step, TailError, Turn};
pub use source::{Source, content_bytes_low, is_gzip};
