//! What may happen to a node, and how likely it is.

use proptest::prelude::*;

/// How many containers write.
pub const SPOTS: usize = 3;

/// One thing that happens. A `spot` is the place of a container.
#[derive(Clone, Debug)]
pub enum Act {
    /// Lines are written, each whole or in three fragments.
    Write { spot: usize, lines: usize, fragments: bool, stderr: bool },
    /// The first half of a line is written; the next write begins with the rest.
    Half { spot: usize },
    /// A line that is not in the CRI format.
    Bad { spot: usize },
    /// As the kubelet rotates: the live file gets another name, the runtime makes a new one and may still write to the old one.
    Rotate { spot: usize, keep: bool, same_second: bool, reopen: bool },
    /// As the kubelet compresses the oldest file that is not the newest rotated one.
    Compress { spot: usize },
    /// The oldest file that is not live is removed.
    Clean { spot: usize },
    /// Bytes come to a rotated file: from a writer that kept it open, or by its name.
    Late { spot: usize, by_name: bool },
    /// A writer closes the rotated file that it kept open.
    CloseLate { spot: usize },
    /// The live file is cut to nothing in place, and written again at once.
    Truncate { spot: usize, lines: usize },
    /// The container begins again under the next restart count.
    RestartContainer { spot: usize, keep: bool },
    /// The pod goes with all its files; the next one has the same name and another UID.
    DeletePod { spot: usize, keep: bool },
    /// The container's folder goes, its pod stays.
    DeleteFolder { spot: usize },
    /// The clock jumps by so many seconds.
    Clock(i64),
    /// The router works.
    Rounds(usize),
    /// Kafka acknowledges.
    Acknowledge(usize),
    /// Deliveries fail; Kafka may have the records all the same.
    Fail { records: usize, stored: bool },
    /// The producer dies.
    DeadProducer,
    /// A topic goes.
    TopicAway { spot: usize },
    /// All topics are there.
    TopicsBack,
    /// Waiting is over for every parked topic.
    Unpark,
    /// `kill -9`; Kafka has some of what was on its way.
    Kill { arrived: usize },
    /// SIGTERM.
    Stop,
    /// A router starts.
    Start,
    /// The positions are lost.
    LosePositions,
    /// The end of the positions is lost.
    TearPositions(usize),
    /// A byte of the positions is damaged.
    DamagePositions(usize),
    /// Somebody removes a held file.
    LoseLink(usize),
    /// Another `logs.record_bytes_max`.
    OtherLimits(usize),
    /// Another `topics.template`.
    OtherTopics(bool),
    /// The API server tells of a spot's pod, or of something that changed.
    Facts { spot: usize, version: u8, whole: bool },
    /// It knows nothing of the pod any more.
    NoFacts { spot: usize },
    /// It can be expected to answer, or cannot.
    Answers(bool),
    /// As another `logs.partial_flush`: every fragment that waits has waited long enough.
    Flush,
}

pub fn act() -> impl Strategy<Value = Act> {
    let spot = || prop_oneof![4 => Just(0_usize), 1 => 1..SPOTS];
    let any = any::<bool>;
    let files = prop_oneof![
        12 => (spot(), 1_usize..6, any(), any()).prop_map(|(spot, lines, fragments, stderr)| Act::Write { spot, lines, fragments, stderr }),
        2 => spot().prop_map(|spot| Act::Half { spot }),
        1 => spot().prop_map(|spot| Act::Bad { spot }),
        6 => (spot(), any(), 0..4, any()).prop_map(|(spot, keep, same, reopen)| Act::Rotate { spot, keep, same_second: same == 0, reopen }),
        4 => spot().prop_map(|spot| Act::Compress { spot }),
        2 => spot().prop_map(|spot| Act::Clean { spot }),
        3 => (spot(), any()).prop_map(|(spot, by_name)| Act::Late { spot, by_name }),
        2 => spot().prop_map(|spot| Act::CloseLate { spot }),
        1 => (spot(), 0_usize..6).prop_map(|(spot, lines)| Act::Truncate { spot, lines }),
        2 => (spot(), any()).prop_map(|(spot, keep)| Act::RestartContainer { spot, keep }),
        1 => (spot(), any()).prop_map(|(spot, keep)| Act::DeletePod { spot, keep }),
        1 => spot().prop_map(|spot| Act::DeleteFolder { spot }),
        1 => (-30_i64..30).prop_map(Act::Clock),
    ];
    let kafka = prop_oneof![
        8 => (1_usize..20).prop_map(Act::Acknowledge),
        2 => (1_usize..4, any()).prop_map(|(records, stored)| Act::Fail { records, stored }),
        1 => Just(Act::DeadProducer),
        1 => spot().prop_map(|spot| Act::TopicAway { spot }),
        1 => Just(Act::TopicsBack),
        2 => Just(Act::Unpark),
    ];
    let router = prop_oneof![
        14 => (1_usize..5).prop_map(Act::Rounds),
        1 => Just(Act::Flush),
        4 => (0_usize..20).prop_map(|arrived| Act::Kill { arrived }),
        2 => Just(Act::Stop),
        6 => Just(Act::Start),
        1 => Just(Act::LosePositions),
        1 => (1_usize..200).prop_map(Act::TearPositions),
        1 => (1_usize..2_000).prop_map(Act::DamagePositions),
        1 => (0_usize..8).prop_map(Act::LoseLink),
        1 => (8_usize..40).prop_map(Act::OtherLimits),
        1 => any().prop_map(Act::OtherTopics),
    ];
    let api = prop_oneof![
        4 => (spot(), 0_u8..4, any()).prop_map(|(spot, version, whole)| Act::Facts { spot, version, whole }),
        1 => spot().prop_map(|spot| Act::NoFacts { spot }),
        2 => any().prop_map(Act::Answers),
    ];
    prop_oneof![40 => files, 15 => kafka, 33 => router, 6 => api]
}
