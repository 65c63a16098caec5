//! Records of several topics in one file, so that a bare producer can send the same bytes again.
//!
//! The file: for each record four little-endian `u32` (topic number, partition, key length, value length), key, value.

use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::consume::Stored;

/// Records of one topic sent in a row: what a reader of files gets out of one read of 64 KiB, about.
const RUN_RECORDS: usize = 200;

/// Where one record lies in the loaded file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of the topics.
    pub topic: usize,
    /// Which partition.
    pub partition: i32,
    key: (usize, usize),
    value: (usize, usize),
}

/// Loaded records.
#[derive(Debug)]
pub struct Capture {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

/// Writes the records of topics, interleaved as a router that reads many files would send them.
///
/// # Errors
/// When the file cannot be written.
pub fn write(file: &Path, topics: &[Vec<Stored>]) -> Result<()> {
    let file = std::fs::File::create(file).with_context(|| format!("make {}", file.display()))?;
    let mut output = BufWriter::new(file);
    let mut runs: Vec<_> = topics.iter().map(|records| records.chunks(RUN_RECORDS)).collect();
    let mut written = true;
    while std::mem::take(&mut written) {
        for (topic, runs) in runs.iter_mut().enumerate() {
            for record in runs.next().unwrap_or_default() {
                write_record(&mut output, topic, record)?;
                written = true;
            }
        }
    }
    output.flush().context("write captured records")
}

fn write_record(output: &mut impl std::io::Write, topic: usize, record: &Stored) -> Result<()> {
    let partition = usize::try_from(record.partition).context("a partition")?;
    for number in [topic, partition, record.key.len(), record.value.len()] {
        output.write_all(&u32::try_from(number).context("a length")?.to_le_bytes())?;
    }
    output.write_all(&record.key)?;
    output.write_all(&record.value).context("write captured records")
}

impl Capture {
    /// Loads a file whole.
    ///
    /// # Errors
    /// When it cannot be read or is cut off.
    pub fn load(file: &Path) -> Result<Capture> {
        let bytes = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
        let mut places = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let mut numbers = [0_usize; 4];
            for number in &mut numbers {
                let four = bytes.get(at..at + 4).context("a cut off file")?;
                *number = u32::from_le_bytes(four.try_into().context("four bytes")?) as usize;
                at += 4;
            }
            let [topic, partition, key, value] = numbers;
            let (key, value) = ((at, at + key), (at + key, at + key + value));
            ensure!(value.1 <= bytes.len(), "a cut off file");
            places.push(Place { topic, partition: i32::try_from(partition).context("a partition")?, key, value });
            at = value.1;
        }
        Ok(Capture { bytes, places })
    }

    /// All records, in order.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// A record's key and value.
    pub fn record(&self, place: Place) -> (&[u8], &[u8]) {
        (&self.bytes[place.key.0..place.key.1], &self.bytes[place.value.0..place.value.1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_written() {
        let folder = crate::folders::scratch("capture").unwrap();
        let file = folder.path().join("records");
        let stored = |partition: i32, key: &str, value: &str| Stored {
            partition,
            offset: 0,
            at_ms: 0,
            key: key.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
            headers: Vec::new(),
        };
        write(&file, &[vec![stored(0, "a", "one"), stored(2, "", "two")], vec![stored(1, "b", "")]]).unwrap();
        let capture = Capture::load(&file).unwrap();
        let read: Vec<(usize, i32, &[u8], &[u8])> = capture
            .places()
            .iter()
            .map(|&place| (place.topic, place.partition, capture.record(place).0, capture.record(place).1))
            .collect();
        assert_eq!(read, [(0, 0, &b"a"[..], &b"one"[..]), (0, 2, b"", b"two"), (1, 1, b"b", b"")]);
    }
}
