//! Judges what Kafka has by what was written.

use super::{
    super::*,
    world::{Line, World},
};
use crate::produce::fake::Sent;

/// What Kafka may refuse: the first fragment, or the whole, of each tenth line.
pub const REFUSED: &str = "3 0>";

/// A record's place in a run: source, number, offset in the joined line.
type Number = (String, u64, u64);

/// What is known of a place in a run.
#[derive(Debug, Default)]
struct Joined {
    text: String,
    lines: u64,
    ended: bool,
}

/// What Kafka has, taken apart.
#[derive(Default)]
struct Topic {
    /// Texts by place, with the numbers that the record covers and whether it is the last chunk.
    pieces: BTreeMap<Number, Joined>,
    /// Where the records of a source lie.
    places: BTreeMap<String, (String, i32)>,
    /// Every whole content that was seen.
    seen: BTreeSet<String>,
    notices: Vec<Notice<'static>>,
}

/// Checks everything.
/// With `ended`, all pods are gone, and each source must have been told to be at its end.
/// With `refused`, Kafka took no record with [`REFUSED`] in it.
pub fn judge(world: &World, arrived: &[Sent], ended: bool, refused: bool) -> Result<(), TestCaseError> {
    let mut topic = Topic::default();
    for sent in arrived {
        topic.take(world, sent)?;
    }
    let numbers = topic.numbers(world)?;
    topic.order(world, &numbers)?;
    topic.holes(world, &numbers)?;
    if ended {
        topic.ends(world, &numbers)?;
    }
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for ((source, _), content) in &numbers {
        found.entry(content).or_default().insert(source);
    }
    for (content, line) in &world.lines {
        prop_assert!(
            line.excuse.is_some()
                || found.contains_key(content.as_str())
                || topic.seen.contains(content)
                || refused && is_refused(line),
            "{content:?} of {} is lost",
            line.instance
        );
    }
    Ok(())
}

impl Topic {
    /// Takes one record: is it where it belongs, is it marked if it comes twice?
    fn take(&mut self, world: &World, sent: &Sent) -> Result<(), TestCaseError> {
        let record = Record::parse(&sent.value).unwrap();
        let source = record.fairlead.source.to_string();
        let kubernetes = &record.kubernetes;
        let identity = (&kubernetes.namespace_name, &kubernetes.pod_name, &kubernetes.container_name);
        let key = format!("{}/{}/{}", identity.0, identity.1, identity.2);
        prop_assert_eq!(&*sent.key, key.as_bytes());
        if sent.topic.ends_with(".dlq") {
            // Of a line in chunks the last one that was sent stands for all of them.
            let is_guilty = record.log.contains(REFUSED) || record.fairlead.chunk.is_some();
            prop_assert!(is_guilty, "{:?} of {source} is innocent", record.log);
            return Ok(());
        }
        prop_assert_eq!(sent.topic.split_once('.').map(|(_, name)| name), Some(&*kubernetes.namespace_name));
        prop_assert!(source.starts_with(&format!("{}/{}/", kubernetes.pod_id, kubernetes.container_name)), "{source}");
        if let Some(labels) = &kubernetes.labels {
            prop_assert_eq!(labels["pod"].as_str(), &*kubernetes.pod_id, "another pod's labels");
        }
        if let Some(notice) = record.fairlead.notice {
            let notice: Notice<'static> = serde_json::from_str(&notice.get().to_owned()).map(own).unwrap();
            self.notices.push(notice);
            return Ok(());
        }
        let place = (sent.topic.clone(), sent.partition);
        let first = self.places.entry(source.clone()).or_insert_with(|| place.clone());
        prop_assert_eq!(&*first, &place, "a source has one topic and one partition");
        let blurred = is_in(&world.blurred, &source);
        let chunk = record.fairlead.chunk;
        let number = (source.clone(), record.fairlead.seq, chunk.map_or(0, |chunk| chunk.offset));
        let contents = contents_of(&record.log);
        let whole = chunk.is_none() && contents.iter().map(|content| content.len()).sum::<usize>() == record.log.len();
        let repeats = whole && !contents.is_empty() && contents.iter().all(|content| self.seen.contains(*content));
        let excused = blurred || world.unmarked;
        prop_assert!(excused || record.fairlead.again || !repeats, "an unmarked repeat: {:?} of {source}", record.log);
        if whole {
            self.seen.extend(contents.into_iter().map(ToOwned::to_owned));
        }
        let is_new = !self.pieces.contains_key(&number);
        let piece = self.pieces.entry(number.clone()).or_default();
        // The same place of the same run: one text is the beginning of the other, and the later one is marked.
        let text = &record.log;
        let agrees = piece.text.starts_with(&**text) || text.starts_with(&piece.text);
        prop_assert!(blurred || agrees, "{:?} and {text:?} share {number:?}", piece.text);
        prop_assert!(is_new || record.fairlead.again, "an unmarked repeat: {text:?} at {number:?}");
        if text.len() > piece.text.len() {
            piece.text = text.to_string();
        }
        piece.lines = piece.lines.max(record.fairlead.lines);
        piece.ended |= chunk.is_none_or(|chunk| chunk.last);
        Ok(())
    }

    /// Chunks cut at other places on another try overlap; by offset they still make the whole.
    fn joined(&self) -> BTreeMap<(&str, u64), Joined> {
        let mut joined: BTreeMap<(&str, u64), Joined> = BTreeMap::new();
        for ((source, seq, offset), piece) in &self.pieces {
            let whole = joined.entry((source, *seq)).or_default();
            let offset = *offset as usize;
            if offset <= whole.text.len() && offset + piece.text.len() > whole.text.len() {
                whole.text.push_str(&piece.text[whole.text.len() - offset..]);
            }
            whole.lines = whole.lines.max(piece.lines);
            whole.ended |= piece.ended;
        }
        joined
    }

    /// The content under each number. No number has two, and no record joins what does not belong together.
    fn numbers(&self, world: &World) -> Result<BTreeMap<(String, u64), String>, TestCaseError> {
        let mut numbers: BTreeMap<(String, u64), String> = BTreeMap::new();
        for ((source, seq), joined) in self.joined() {
            if is_in(&world.blurred, source) {
                for (place, content) in contents_of(&joined.text).into_iter().enumerate() {
                    numbers.insert((source.to_owned(), seq + place as u64), content.to_owned());
                }
                continue;
            }
            let contents = contents_of(&joined.text);
            let length: usize = contents.iter().map(|content| content.len()).sum();
            prop_assert!(!joined.ended || length == joined.text.len(), "{source} {seq}: garbage {:?}", joined.text);
            prop_assert!(
                contents.len() as u64 >= joined.lines,
                "{source} {seq}: {} lines in {:?}",
                joined.lines,
                joined.text
            );
            let mut whose = BTreeSet::new();
            for (place, content) in contents.iter().enumerate() {
                let Some(line) = world.lines.get(*content) else {
                    return Err(TestCaseError::fail(format!("{source} {seq}: {content:?} was never written")));
                };
                let owner = format!("{}/", line.instance);
                prop_assert!(
                    source.starts_with(&owner) && source.ends_with(&format!("/{}", line.fd)),
                    "{content:?} in {source}"
                );
                whose.insert(line.number);
                if place as u64 >= joined.lines {
                    continue;
                }
                let number = (source.to_owned(), seq + place as u64);
                let first = numbers.entry(number.clone()).or_insert_with(|| (*content).to_owned());
                prop_assert_eq!(&*first, *content, "two lines share {:?}", number);
            }
            prop_assert!(whose.len() <= 1, "{source} {seq}: joins lines {whose:?}");
        }
        Ok(numbers)
    }

    /// Within a source, each file's lines stand together and in the order in which they were written.
    fn order(&self, world: &World, numbers: &BTreeMap<(String, u64), String>) -> Result<(), TestCaseError> {
        let mut last: Option<(&str, usize, usize)> = None;
        let mut left = BTreeSet::new();
        for ((source, seq), content) in numbers {
            let line = &world.lines[content];
            if is_in(&world.blurred, source) || world.unordered {
                continue;
            }
            if let Some((before, file, number)) = last.filter(|(before, ..)| before == source) {
                if file == line.file {
                    prop_assert!(number <= line.number, "{before} {seq}: {content:?} stands behind a later line");
                } else {
                    left.insert(file);
                    prop_assert!(
                        !left.contains(&line.file),
                        "{before} {seq}: {content:?} stands among another file's lines"
                    );
                    prop_assert!(file < line.file, "{before} {seq}: {content:?} stands behind a later file's");
                }
            } else {
                left.clear();
            }
            last = Some((source, line.file, line.number));
        }
        Ok(())
    }

    /// What the records of a source cover and what notices announce join without a hole.
    fn holes(&self, world: &World, numbers: &BTreeMap<(String, u64), String>) -> Result<(), TestCaseError> {
        let mut next: BTreeMap<&str, u64> = BTreeMap::new();
        for (source, seq) in numbers.keys() {
            let expected = next.entry(source).or_insert(0);
            while *expected < *seq && self.is_announced(source, *expected) {
                *expected += 1;
            }
            let excused = is_in(&world.broken, source) || world.forgotten.contains(source.as_str());
            prop_assert!(*expected == *seq || excused, "{source}: a hole from {expected} to {seq}");
            *expected = seq + 1;
        }
        Ok(())
    }

    /// Each source is told to end behind its last number, with the bytes that its lines have in the files.
    fn ends(&self, world: &World, numbers: &BTreeMap<(String, u64), String>) -> Result<(), TestCaseError> {
        let mut totals: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for ((source, seq), content) in numbers {
            let total = totals.entry(source).or_default();
            *total = (seq + 1, total.1 + world.lines[content].bytes);
        }
        for (source, (lines, bytes)) in totals {
            if world.forgotten.contains(source) || is_in(&world.broken, source) || is_in(&world.blurred, source) {
                continue;
            }
            // Its lines that were refused are counted by their notices.
            let is_refused = |notice: &Notice<'_>| notice.reason == Some(LossReason::InvalidRecord);
            if self.notices.iter().any(|notice| notice.source == source && is_refused(notice)) {
                continue;
            }
            let of_source = || self.notices.iter().filter(|notice| notice.source == source);
            let last = of_source().rfind(|notice| notice.kind == NoticeKind::EndOfStream);
            let told = last.map(|notice| (notice.seq, notice.lines, notice.bytes));
            let is_told = told == Some((lines, Some(lines), Some(bytes)))
                || self.notices.iter().any(|notice| ends_run(notice) && run_of(&notice.source) == run_of(source));
            prop_assert!(is_told, "{source} has {lines} lines of {bytes} bytes, and its end says {told:?}");
        }
        Ok(())
    }

    fn is_announced(&self, source: &str, seq: u64) -> bool {
        self.notices.iter().any(|notice| {
            // A run that ends does so for all its streams; what is said of one of them stands for those of which nothing was known.
            let same_source = notice.source == source;
            let run_ends =
                ends_run(notice) && run_of(&notice.source) == run_of(source) && (!same_source || notice.seq <= seq);
            let announced = notice.announced().is_some_and(|(from, to)| (from..to).contains(&seq));
            run_ends || (same_source && announced)
        })
    }
}

/// A source without its stream.
fn run_of(source: &str) -> &str {
    source.rsplit_once('/').map_or(source, |(run, _)| run)
}

/// Whether a source ends with a notice: how many lines are missing is not known, or they go on under another source.
fn ends_run(notice: &Notice<'_>) -> bool {
    notice.kind == NoticeKind::Gap && (notice.lines.is_none() || notice.next_source.is_some())
}

/// Whether a source is one of these instances'.
fn is_in(instances: &BTreeSet<String>, source: &str) -> bool {
    let end = source.match_indices('/').nth(2).map_or(source.len(), |(at, _)| at);
    instances.contains(&source[..end])
}

/// Whether its first fragment is refused: then all that was joined with it.
fn is_refused(line: &Line) -> bool {
    line.number % 10 == 3
}

/// The whole contents in a text.
fn contents_of(text: &str) -> Vec<&str> {
    text.split_inclusive('>').filter(|piece| piece.starts_with('<') && piece.ends_with('>')).collect()
}

fn own(notice: Notice<'_>) -> Notice<'static> {
    Notice {
        source: notice.source.into_owned().into(),
        next_source: notice.next_source.map(|source| source.into_owned().into()),
        ..notice
    }
}
