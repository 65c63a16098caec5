//! A line that is longer than memory should be: it comes in fragments of 16 KiB and goes out in chunks that join by their
//! offsets, in several runs where it is very long, and the router never has it whole.

use std::fs::File;
use std::io::{BufWriter, Write as _};

use fairlead_integration::audit::audit;
use fairlead_integration::broker::Kind;
use fairlead_integration::consume::Line;
use fairlead_integration::generator::Identity;
use fairlead_integration::soak::{Case, Figures, pick};
use fairlead_integration::stage::Stage;

const NAMESPACE: &str = "payments";
/// containerd's `max_container_log_line_size`.
const PIECE_BYTES: u64 = 16_384;

#[test]
fn goes_in_chunks_within_memory() {
    if !Kind::ApacheKafka.usable() {
        return;
    }
    let _turn = crate::turn();
    let mebibytes = pick(64, 1_024);
    let title = if mebibytes == 1_024 { "a line of 1 GiB".to_owned() } else { format!("a line of {mebibytes} MiB") };
    let case = Case::begin("16-long-line", &title).unwrap();
    let stage = Stage::started(Kind::ApacheKafka).unwrap();
    let identity = Identity::new(NAMESPACE, "dump-1", "app");
    let pieces = (mebibytes << 20) / PIECE_BYTES;
    write(&stage, &identity, pieces);
    let lines = super::arrived(&stage, NAMESPACE, |lines| lines.last().is_some_and(|line| line.log == "after"));
    let (delivered, faults) = judge(&lines, pieces);
    let unexplained = 3 - delivered + faults.len() as u64;
    let figures = Figures { written: 3, delivered, unexplained, ..Figures::default() };
    case.finish(figures, &stage.router).unwrap_or_else(|error| panic!("{error}: {faults:?}"));
}

/// A line before, the long one, a line after.
fn write(stage: &Stage, identity: &Identity, pieces: u64) {
    let path = identity.log(stage.pods(), 0);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = BufWriter::new(File::create(path).unwrap());
    let at = "2026-11-20T10:00:00Z stdout";
    writeln!(file, "{at} F before").unwrap();
    for piece in 0..pieces {
        let tag = if piece + 1 == pieces { 'F' } else { 'P' };
        writeln!(file, "{at} {tag} {}", text(piece * PIECE_BYTES, PIECE_BYTES)).unwrap();
    }
    writeln!(file, "{at} F after").unwrap();
    file.flush().unwrap();
}

/// The long line from an offset on: cells of sixteen bytes that tell their place.
fn text(offset: u64, bytes: u64) -> String {
    let cells = offset / 16..=(offset + bytes) / 16;
    let whole: String = cells.map(|cell| format!("{cell:015}.")).collect();
    let from = usize::try_from(offset % 16).unwrap();
    whole[from..from + usize::try_from(bytes).unwrap()].to_owned()
}

/// How many lines are there, and what is not as it must be. What is long goes in several runs of chunks, each of which tells
/// by its number where in the line it begins; all of them follow each other without a hole.
fn judge(lines: &[Line], pieces: u64) -> (u64, Vec<String>) {
    let (mut delivered, mut offset, mut faults) = (0, 0, audit(lines).faults);
    for line in lines.iter().filter(|line| line.notice.is_none()) {
        if line.seq == 0 && line.log == "before" || line.seq == pieces + 1 && line.log == "after" {
            delivered += 1;
            continue;
        }
        let bytes = line.log.len() as u64;
        let begins = line.seq.saturating_sub(1) * PIECE_BYTES + line.chunk.map_or(0, |chunk| chunk.offset);
        if begins != offset || line.log != text(offset, bytes) {
            faults.push(format!("number {} does not follow {offset}, or is another text", line.seq));
        }
        offset = begins + bytes;
    }
    delivered += u64::from(offset == pieces * PIECE_BYTES);
    faults.truncate(10);
    (delivered, faults)
}
