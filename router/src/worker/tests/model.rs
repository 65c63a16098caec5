//! Plays random writes, rotations, failures, kills, lost positions and changed settings against the worker.

use super::*;

/// What happens to a node.
#[derive(Clone, Debug)]
enum Act {
    Write { lines: usize, fragments: bool, stderr: bool },
    WriteHalf,
    Rotate,
    Compress,
    Rounds(usize),
    Acknowledge(usize),
    FailSome(usize),
    Kill { arrived: usize },
    Stop,
    LosePositions,
    TearPositions(usize),
    OtherLimits(usize),
    FlushFragments,
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1_usize..6, any::<bool>(), any::<bool>()).prop_map(|(lines, fragments, stderr)| Act::Write { lines, fragments, stderr }),
        1 => Just(Act::WriteHalf),
        3 => Just(Act::Rotate),
        2 => Just(Act::Compress),
        6 => (1_usize..4).prop_map(Act::Rounds),
        4 => (1_usize..20).prop_map(Act::Acknowledge),
        1 => (1_usize..4).prop_map(Act::FailSome),
        2 => (0_usize..20).prop_map(|arrived| Act::Kill { arrived }),
        1 => Just(Act::Stop),
        1 => Just(Act::LosePositions),
        1 => (1_usize..200).prop_map(Act::TearPositions),
        1 => (8_usize..40).prop_map(Act::OtherLimits),
        2 => Just(Act::Restart),
        1 => Just(Act::FlushFragments),
    ]
}

/// What was written, by stream: the joined lines with their fragments.
#[derive(Default)]
struct Written {
    next: usize,
    half: String,
    /// Physical line contents in order, by stream name.
    physical: BTreeMap<&'static str, Vec<String>>,
}

impl Written {
    fn line(&mut self, stream: &'static str, fragments: bool) -> String {
        let mut text = std::mem::take(&mut self.half);
        let pieces = if fragments { 3 } else { 1 };
        for piece in 0..pieces {
            let content = format!("<{stream} {} {piece}>", self.next);
            let full = piece + 1 == pieces;
            text.push_str(&format!("{TIME} {stream} {} {content}\n", if full { "F" } else { "P" }));
            self.physical.entry(stream).or_default().push(content);
        }
        self.next += 1;
        text
    }
}

/// A place in a run: source, number, offset in the joined line.
type Number = (String, u64, u64);

/// Checks what Kafka has against what was written.
fn judge(written: &Written, stored: &[Vec<u8>]) -> Result<(), TestCaseError> {
    let mut by_number: BTreeMap<Number, String> = BTreeMap::new();
    let mut ended = BTreeSet::new();
    for value in stored {
        let record = Record::parse(value).unwrap();
        let (source, seq, chunk) = (record.fairlead.source.to_string(), record.fairlead.seq, record.fairlead.chunk);
        if chunk.is_none_or(|chunk| chunk.last) {
            ended.insert((source.clone(), seq));
        }
        let number = (source, seq, chunk.map_or(0, |chunk| chunk.offset));
        if let Some(first) = by_number.get_mut(&number) {
            // The same place of the same run: one text is the beginning of the other, and the later one is marked.
            prop_assert!(
                first.starts_with(&*record.log) || record.log.starts_with(first.as_str()),
                "{first:?} and {:?} share {number:?}",
                record.log
            );
            prop_assert!(record.fairlead.again, "an unmarked repeat: {:?} at {number:?}", record.log);
            if record.log.len() > first.len() {
                *first = record.log.to_string();
            }
        } else {
            by_number.insert(number, record.log.to_string());
        }
    }
    let joined = join_chunks(&by_number);
    for (stream, contents) in &written.physical {
        let fd = if *stream == "stdout" { "/1" } else { "/2" };
        for content in contents {
            let found =
                joined.iter().any(|((source, _), text)| source.ends_with(fd) && text.contains(content.as_str()));
            prop_assert!(found, "{stream}: {content:?} is lost");
        }
    }
    // No record joins what does not belong together; a line whose last chunk never came may end anywhere.
    for ((source, seq), text) in &joined {
        let stream = if source.ends_with("/1") { "stdout" } else { "stderr" };
        let whole = text.rsplit_once('>').map_or("", |(whole, _)| whole);
        let numbers: BTreeSet<_> =
            whole.split('>').filter(|piece| !piece.is_empty()).map(|piece| piece.split(' ').nth(1)).collect();
        let is_ended = ended.contains(&(source.clone(), *seq));
        let is_whole = !is_ended || (text.ends_with('>') && text.starts_with(&format!("<{stream} ")));
        prop_assert!(numbers.len() <= 1 && is_whole, "{source}: garbage {text:?}");
    }
    Ok(())
}

/// Chunks cut at other places on another try overlap; by offset they still make the whole.
fn join_chunks(by_number: &BTreeMap<Number, String>) -> BTreeMap<(String, u64), String> {
    let mut joined: BTreeMap<(String, u64), String> = BTreeMap::new();
    for ((source, seq, offset), log) in by_number {
        let text = joined.entry((source.clone(), *seq)).or_default();
        let offset = *offset as usize;
        if offset <= text.len() && offset + log.len() > text.len() {
            text.push_str(&log[text.len() - offset..]);
        }
    }
    joined
}

fn play(acts: &[Act]) -> Result<(), TestCaseError> {
    let mut node = Node::new();
    let mut written = Written::default();
    let mut rotations = 0;
    fs::create_dir_all(node.dir()).unwrap();
    File::create(node.dir().join("0.log")).unwrap();
    node.start();
    for act in acts {
        let running = node.worker.is_some();
        match act {
            Act::Write { lines, fragments, stderr } => {
                for _ in 0..*lines {
                    let text = written.line(if *stderr { "stderr" } else { "stdout" }, *fragments);
                    node.write("0.log", text.as_bytes());
                }
            }
            Act::WriteHalf => {
                // The rest of this line is the beginning of the next write.
                let line = written.line("stdout", false);
                let (now, later) = line.split_at(line.len() / 2);
                node.write("0.log", now.as_bytes());
                written.half = later.to_owned();
            }
            Act::Rotate if written.half.is_empty() => {
                rotations += 1;
                node.rotate(&format!("T{rotations:04}"));
            }
            // The router has seen it and it is held, or it is there when a router starts: only then may it go.
            Act::Compress if running && rotations > 1 => {
                node.rounds(1);
                let _ = fs::remove_file(node.dir().join(format!("0.log.T{:04}", rotations - 1)));
            }
            Act::Rounds(count) if running => node.rounds(*count),
            Act::Acknowledge(records) if running => node.sink.borrow_mut().acknowledge(*records),
            Act::FailSome(records) if running => node.sink.borrow_mut().fail(*records, FailureKind::Retry, true),
            Act::Kill { arrived } if running => node.kill(*arrived),
            Act::Stop if running => node.stop(),
            Act::LosePositions if !running => _ = fs::remove_file(node.settings.state_dir.join("positions")),
            Act::TearPositions(bytes) if !running => {
                let path = node.settings.state_dir.join("positions");
                if let Ok(metadata) = fs::metadata(&path) {
                    let size = metadata.len().saturating_sub(*bytes as u64);
                    OpenOptions::new().write(true).open(&path).unwrap().set_len(size).unwrap();
                }
            }
            Act::OtherLimits(bytes) if !running => node.settings.limits.record_bytes_max = *bytes,
            Act::Restart if !running => node.start(),
            // As another `logs.partial_flush`: every fragment that waits has waited long enough.
            Act::FlushFragments if running => {
                node.worker.as_mut().unwrap().flush_overdue(Instant::now() + Duration::from_secs(3_600))
            }
            _ => {}
        }
    }
    if node.worker.is_none() {
        node.start();
    }
    if !written.half.is_empty() {
        node.write("0.log", std::mem::take(&mut written.half).as_bytes());
    }
    let stored = node.finish();
    drop(node.folder);
    judge(&written, &stored)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(120), ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_line_is_lost_and_no_number_is_given_twice(acts in proptest::collection::vec(act(), 1..60)) {
        play(&acts)?;
    }
}
