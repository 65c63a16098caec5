//! The durable state of a container instance.

use std::{cmp::Ordering, fmt};

use fairlead_contract::record::Notice;
use serde::{Deserialize, Serialize};

use crate::{enrich::PodFacts, pipeline::Break, tail::Positions};

/// A container instance: one container of one pod between two restarts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceKey {
    /// `<namespace>_<pod>_<uid>`.
    pub pod_folder: String,
    /// The container's name.
    pub container: String,
    /// How often the container had been restarted.
    pub restart: u32,
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.pod_folder, self.container, self.restart)
    }
}

/// All that is remembered of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceState {
    /// Which instance.
    #[serde(flatten)]
    pub key: InstanceKey,
    /// The number of the next link of this instance; none is used twice.
    pub next_link: u32,
    /// Its epochs, oldest first.
    pub epochs: Vec<EpochState>,
    /// Notices that Kafka does not have yet, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owed: Vec<Owed>,
    /// Its files that open descriptors hold instead of links.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub descriptors: Vec<DescriptorState>,
}

/// What is remembered of a pod for its instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodState {
    /// `<namespace>_<pod>_<uid>`.
    pub pod_folder: String,
    /// What Kubernetes said of it last.
    pub facts: PodFacts,
}

/// A file that no link holds, as it is known again while it has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorState {
    /// The number that its link would have.
    pub link: u32,
    /// Its device.
    pub device: u64,
    /// Its inode number.
    pub inode: u64,
    /// Its birth in nanoseconds since 1970, where the file system tells it.
    pub born: Option<i128>,
}

/// One epoch: a list of files that is only ever appended to, and how far it was delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochState {
    /// The short random text in `fairlead.source`.
    pub epoch: String,
    /// The topic that its records go to.
    pub topic: String,
    /// The partition, chosen once, when the topic was first seen.
    pub partition: Option<i32>,
    /// The version of the grammar that decided what parses.
    pub grammar: u32,
    /// Whether it holds bytes that came to a file after it was complete; it does not wait for the epochs before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// Its files in reading order; those let go at the front are gone.
    pub files: Vec<FileState>,
    /// How far each stream was acknowledged.
    pub at: Positions,
    /// What stood before the lowest position, to know the file again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
    /// Whether all of it was read and acknowledged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finished: bool,
    /// Whether its last file was truncated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub abandoned: bool,
    /// What follows it, where that is another run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<Break>,
}

/// A notice that is owed to a container's readers until Kafka has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    /// The epoch of its source.
    pub epoch: String,
    /// The file descriptor of its source.
    pub fd: u8,
    /// The partition of its source, where that was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// What it says.
    pub notice: Notice<'static>,
}

impl EpochState {
    /// Whether positions and the first numbers of files say the same: no position is before a number that its file begins with, nor behind one
    /// that a later file begins with.
    pub fn is_sound(&self) -> bool {
        self.files.iter().filter_map(|file| Some((file.place, file.first?))).all(|(place, first)| {
            self.at.0.iter().zip(first).all(|(at, first)| match at.place.file.cmp(&place) {
                Ordering::Less => at.next <= first,
                Ordering::Equal if at.place.offset == 0 => at.next == first,
                Ordering::Equal | Ordering::Greater => at.next >= first,
            })
        })
    }
}

/// A file of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// Its place in the epoch's list.
    pub place: u32,
    /// The last part of its link's name.
    pub link: u32,
    /// Its size in bytes once nobody writes to it and its successor exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<u64>,
    /// Each stream's first number in it, by file descriptor, once the file before it is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<[u64; 3]>,
}

/// Proof that a file is still the one whose position was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// The file's place in the epoch's list.
    pub place: u32,
    /// The offset in bytes before which the checksum was taken.
    pub offset: u64,
    /// CRC-32 of the up to 256 bytes before that offset.
    pub checksum: u32,
    /// The file's birth in nanoseconds since 1970, where the file system tells it.
    pub born: Option<i128>,
}
