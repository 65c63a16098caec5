//! One topic, record by record. Input: keys and values as they lie in Kafka. Output: [`TopicAudit`], whose state is bounded by ranges and sources.

use std::collections::HashMap;

use super::{
    AuditError,
    compare::Memory,
    source::{Numbers, SourceState, Spot, Taken, Told},
};
use fairlead_contract::{
    namespace::Namespace,
    record::{Notice, Record, Source},
    topic::{Route, TopicMap, TopicName},
};

/// Sources and separate ranges of numbers that are kept at most: about 2 GiB.
const SOURCES_MAX: usize = 1_000_000;
const RANGES_MAX: usize = 8_000_000;
/// How often the ranges are counted.
const RECORDS_PER_COUNT: u64 = 1 << 18;
/// Strangers that are named by their place; all are counted.
const PLACES_MAX: usize = 20;
/// A word of a record is kept up to so many characters.
const WORD_CHARS_MAX: usize = 253;

/// One record as it lies in Kafka.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a> {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// When Kafka took it, in milliseconds since 1970.
    pub sent_ms: i64,
    /// The key.
    pub key: &'a [u8],
    /// The value; none of a tombstone.
    pub value: Option<&'a [u8]>,
}

/// Records that should not be there: how many, and where the first few are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strangers {
    /// How many.
    pub count: u64,
    /// Partition and offset of the first few.
    pub places: Vec<(i32, i64)>,
}

/// What a record turned out to be, for whoever follows one container.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Lines.
    Lines(Numbers<'a>, Taken),
    /// A notice.
    Notice(&'a Told, Taken),
}

/// The audit of one topic.
#[derive(Debug)]
pub struct TopicAudit<'m> {
    topic: TopicName,
    map: &'m TopicMap,
    /// The one namespace whose lines the topic holds.
    owner: Option<Namespace>,
    memory: Memory,
    ids: HashMap<String, usize>,
    sources: Vec<SourceState>,
    /// Records that were read.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Values that are no records.
    pub no_records: Strangers,
    /// Records of namespaces that do not belong into this topic.
    pub foreign: Strangers,
    /// Records whose key is not that of their container.
    pub other_key: Strangers,
}

impl<'m> TopicAudit<'m> {
    /// Begins. `records_max`: how many records are remembered to be compared with repeats.
    pub fn new(topic: TopicName, map: &'m TopicMap, records_max: usize) -> Self {
        Self {
            owner: map.namespace_of(topic.as_str()),
            topic,
            map,
            memory: Memory::new(records_max),
            ids: HashMap::new(),
            sources: Vec::new(),
            records: 0,
            bytes: 0,
            no_records: Strangers::default(),
            foreign: Strangers::default(),
            other_key: Strangers::default(),
        }
    }

    /// The topic.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The sources, by name.
    pub fn sources(&self) -> Vec<&SourceState> {
        let mut sources: Vec<&SourceState> = self.sources.iter().collect();
        sources.sort_by(|a, b| (&a.namespace, &a.pod, &a.name).cmp(&(&b.namespace, &b.pod, &b.name)));
        sources
    }

    /// Takes one record; `follow` hears what it was.
    ///
    /// # Errors
    /// [`AuditError::TooMuch`] when the topic has more sources or holes than are kept.
    pub fn take(
        &mut self,
        raw: &Raw<'_>,
        follow: &mut dyn FnMut(&SourceState, Spot, Event<'_>),
    ) -> Result<(), AuditError> {
        self.records += 1;
        let value = raw.value.unwrap_or_default();
        self.bytes += value.len() as u64;
        if self.records % RECORDS_PER_COUNT == 0 {
            let weight: usize = self.sources.iter().map(SourceState::weight).sum();
            if weight > RANGES_MAX {
                return Err(AuditError::TooMuch {
                    topic: self.topic.clone(),
                    what: "separate ranges of numbers",
                    max: RANGES_MAX,
                });
            }
        }
        let Some((record, told)) = parse(value) else {
            self.no_records.add(raw);
            return Ok(());
        };
        let kubernetes = &record.kubernetes;
        let namespace = Namespace::parse(&kubernetes.namespace_name);
        if !namespace.is_ok_and(|namespace| self.belongs(&namespace)) {
            self.foreign.add(raw);
            return Ok(());
        }
        let key = [&*kubernetes.namespace_name, &*kubernetes.pod_name, &*kubernetes.container_name].join("/");
        if key.as_bytes() != raw.key {
            self.other_key.add(raw);
        }
        let place = self.place(&record)?;
        let state = &mut self.sources[place];
        let spot = Spot::new(raw.partition, raw.offset, raw.sent_ms, &record.time);
        match &told {
            Some(told) => {
                let taken = state.notice(told, spot);
                follow(state, spot, Event::Notice(told, taken));
            }
            None => {
                let numbers = numbers(&record);
                let taken = state.record(&numbers, spot, &mut self.memory);
                follow(state, spot, Event::Lines(numbers, taken));
            }
        }
        Ok(())
    }

    /// Whether a namespace's lines may lie in this topic. A topic that no rule leads to any more holds what it holds.
    fn belongs(&self, namespace: &Namespace) -> bool {
        match &self.owner {
            Some(owner) => owner == namespace,
            None if self.map.is_shared(self.topic.as_str()) => {
                matches!(self.map.route(namespace), Route::Topic { topic, .. } if topic == self.topic)
            }
            None => true,
        }
    }

    fn place(&mut self, record: &Record<'_>) -> Result<usize, AuditError> {
        let name = &*record.fairlead.source;
        if let Some(&place) = self.ids.get(name) {
            return Ok(place);
        }
        if self.sources.len() >= SOURCES_MAX {
            return Err(AuditError::TooMuch { topic: self.topic.clone(), what: "sources", max: SOURCES_MAX });
        }
        let place = self.sources.len();
        let id = u32::try_from(place).expect("there are fewer sources");
        let (namespace, pod) = (&record.kubernetes.namespace_name, word(&record.kubernetes.pod_name));
        self.sources.push(SourceState::new(id, name, namespace, &pod));
        self.ids.insert(name.to_owned(), place);
        Ok(place)
    }
}

impl Strangers {
    fn add(&mut self, raw: &Raw<'_>) {
        self.count += 1;
        if self.places.len() < PLACES_MAX {
            self.places.push((raw.partition, raw.offset));
        }
    }
}

/// A record whose numbers make sense, and what it says if it is a notice.
fn parse(value: &[u8]) -> Option<(Record<'_>, Option<Told>)> {
    let mut record = Record::parse(value).ok()?;
    let own = &record.fairlead;
    let end = own.seq.checked_add(own.lines)?;
    let sense =
        own.left_out <= own.seq && end < u64::MAX && (own.lines > 0 || own.chunk.is_some() || own.notice.is_some());
    let told = match own.notice {
        None => None,
        Some(text) => {
            let notice = Notice::parse(text.get())?;
            notice.seq.checked_add(notice.lines.unwrap_or(0)).filter(|end| *end < u64::MAX)?;
            let (kind, seq, lines, reason) = (notice.kind, notice.seq, notice.lines, notice.reason);
            let next_source = notice.next_source.as_deref().map(word);
            record.fairlead.source = notice.source;
            Some(Told { kind, seq, lines, reason, next_source })
        }
    };
    let name = &*record.fairlead.source;
    let source: Source = name.parse().ok()?;
    let plain = name.len() <= 4 * WORD_CHARS_MAX && name.bytes().all(|byte| byte.is_ascii_graphic());
    let named = source.pod_uid == record.kubernetes.pod_id && source.container == record.kubernetes.container_name;
    (sense && plain && named).then_some((record, told))
}

fn numbers<'a>(record: &'a Record<'_>) -> Numbers<'a> {
    let own = &record.fairlead;
    Numbers {
        seq: own.seq,
        lines: own.lines,
        left_out: own.left_out,
        again: own.again,
        chunk: own.chunk,
        time: &record.time,
        log: &record.log,
    }
}

/// A word of a record, fit to be printed: hostile characters replaced, not too long.
fn word(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    text.chars().take(WORD_CHARS_MAX).map(plain).collect()
}
