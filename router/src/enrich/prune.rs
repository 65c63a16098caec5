//! From a pod object to the facts that are kept: what is taken, how it is named, and how much of it at most.

use std::collections::BTreeMap;

use fairlead_contract::namespace::Namespace;
use k8s_openapi::jiff::Timestamp;

use super::{ContainerFacts, Owner, PodFacts, object::Pod, settings::Names, wishes};

/// Labels and annotations of a pod, as JSON; what is more goes, the largest first.
pub const TEXTS_BYTES_MAX: usize = 16 << 10;
/// Containers of a pod.
const CONTAINERS_MAX: usize = 256;
/// The runtime's ids of a container: the latest.
const IDS_MAX: usize = 5;
/// The longest of names, images and ids.
const NAME_BYTES_MAX: usize = 253;
const IMAGE_BYTES_MAX: usize = 1_024;
/// Annotations of ours on a pod, and the longest value of one. A longer one is cut and a sign put behind it, so that nobody takes it for well.
const WISHES_MAX: usize = 16;
const WISH_BYTES_MAX: usize = 4 << 10;
const CUT_SIGN: &str = "…";

/// The kubelet puts a static pod's hash here, on the object that mirrors it.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The label by which a Deployment's ReplicaSet and its pods know each other.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// A pod as it is stored.
#[derive(Clone, Debug)]
pub struct Pruned {
    /// Its UID.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// The static pod's hash that it mirrors.
    pub mirror: Option<String>,
    /// What is known of it, without what its namespace and node add.
    pub facts: PodFacts,
}

/// Why a pod is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is bound to another node: the server did not filter.
    OtherNode,
    /// It has no UID, or names that are none.
    Odd,
}

/// Takes of a pod what is kept.
///
/// # Errors
/// [`Unfit`].
pub fn prune(mut pod: Pod, node: &str, annotations: &Names) -> Result<Pruned, Unfit> {
    if pod.node != node {
        return Err(Unfit::OtherNode);
    }
    let plain = |text: Option<String>| text.filter(|text| is_name(text)).ok_or(Unfit::Odd);
    let namespace = plain(pod.metadata.namespace.take())?;
    Namespace::parse(&namespace).map_err(|_| Unfit::Odd)?;
    let (uid, name) = (plain(pod.metadata.uid.take())?, plain(pod.metadata.name.take())?);

    let mirror = pod.annotations.get(MIRROR).cloned().flatten().filter(|hash| is_name(hash));
    let mut facts = PodFacts {
        namespace,
        labels: pod.metadata.labels.take().unwrap_or_default(),
        containers: containers(&mut pod),
        ..PodFacts::default()
    };
    facts.cut = pod.containers.len() > facts.containers.len();
    facts.owner = owner(&pod, &facts.labels);
    for (name, value) in pod.annotations {
        if let Some(wish) = name.strip_prefix(wishes::PREFIX).filter(|wish| is_name(wish)) {
            if facts.wishes.len() < WISHES_MAX {
                facts.wishes.insert(wish.to_owned(), bounded_wish(value.as_deref()));
            } else {
                facts.cut = true;
            }
        }
        if annotations.take(&name) {
            match value {
                Some(value) => drop(facts.annotations.insert(name, value)),
                None => facts.cut = true,
            }
        }
    }
    facts.cut |= bound(&mut [&mut facts.labels, &mut facts.annotations]);
    Ok(Pruned { uid, name, created: pod.created, mirror, facts })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn containers(pod: &mut Pod) -> BTreeMap<String, ContainerFacts> {
    let mut found = BTreeMap::new();
    let wished = std::mem::take(&mut pod.containers);
    for container in wished.iter().filter(|container| is_name(&container.name)).take(CONTAINERS_MAX) {
        let image = Some(&container.image).filter(|image| !image.is_empty() && image.len() <= IMAGE_BYTES_MAX);
        found.insert(container.name.clone(), ContainerFacts { image: image.cloned(), ids: BTreeMap::new() });
    }
    pod.containers = wished;
    for status in &pod.statuses {
        let Some(container) = found.get_mut(&status.name) else { continue };
        for (restart, id) in status.ids().filter(|(_, id)| is_name(id)) {
            container.ids.insert(restart, id.to_owned());
        }
    }
    found
}

/// The workload. A Deployment's ReplicaSet is named after it and the hash that its pods have as a label: no need to ask for it.
fn owner(pod: &Pod, labels: &BTreeMap<String, String>) -> Option<Owner> {
    let reference = pod.controller.as_ref().filter(|owner| is_name(&owner.kind) && is_name(&owner.name))?;
    let (mut kind, mut name) = (reference.kind.as_str(), reference.name.as_str());
    if kind == "ReplicaSet"
        && let Some(hash) = labels.get(TEMPLATE_HASH).filter(|hash| !hash.is_empty())
        && let Some(deployment) = name.strip_suffix(hash.as_str()).and_then(|rest| rest.strip_suffix('-'))
        && !deployment.is_empty()
    {
        (kind, name) = ("Deployment", deployment);
    }
    Some(Owner { kind: kind.to_owned(), name: name.to_owned() })
}

fn bounded_wish(value: Option<&str>) -> String {
    match value {
        Some(value) if value.len() <= WISH_BYTES_MAX => value.to_owned(),
        Some(value) => {
            let end = (0..=WISH_BYTES_MAX).rev().find(|end| value.is_char_boundary(*end)).unwrap_or(0);
            value[..end].to_owned() + CUT_SIGN
        }
        None => CUT_SIGN.to_owned(),
    }
}

/// Takes out the largest texts until all of them together are small enough. Whether it took one.
pub fn bound(maps: &mut [&mut BTreeMap<String, String>]) -> bool {
    let size = |name: &str, value: &str| json_bytes(name) + json_bytes(value) + 2;
    let mut left: usize = maps.iter().flat_map(|map| map.iter()).map(|(name, value)| size(name, value)).sum();
    if left <= TEXTS_BYTES_MAX {
        return false;
    }
    let mut all: Vec<(usize, usize, String)> = Vec::new();
    for (index, map) in maps.iter().enumerate() {
        all.extend(map.iter().map(|(name, value)| (size(name, value), index, name.clone())));
    }
    all.sort_unstable_by(|one, other| other.cmp(one));
    for (size, index, name) in all {
        if left <= TEXTS_BYTES_MAX {
            break;
        }
        maps[index].remove(&name);
        left -= size;
    }
    true
}

/// Bytes of a text as JSON, quotes included.
fn json_bytes(text: &str) -> usize {
    let extra = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 1,
        0..0x20 => 5,
        _ => 0,
    };
    text.len() + 2 + text.bytes().map(extra).sum::<usize>()
}

/// Adds the ids that were known before: a status may go back for a while, and it only tells the last two. The newest are kept.
///
/// What is told of the present instance is so. That the one before had the count before is a guess: if the runtime lost its state, counts go on from
/// the names of files, and what was known of it when it was present is better.
pub fn remember_ids(facts: &mut PodFacts, before: &PodFacts) {
    for (name, container) in &mut facts.containers {
        let ids = &mut container.ids;
        let present = ids.keys().next_back().copied();
        for (restart, id) in before.containers.get(name).into_iter().flat_map(|known| &known.ids) {
            let told = ids.iter().find(|(_, told)| *told == id).map(|(restart, _)| *restart);
            if told.is_some() && told == present {
                continue;
            }
            if let Some(guess) = told {
                ids.remove(&guess);
            }
            ids.entry(*restart).or_insert_with(|| id.clone());
        }
        while ids.len() > IDS_MAX {
            ids.pop_first();
        }
    }
}

/// About how many bytes the facts take in memory.
pub fn cost(pod: &Pruned) -> usize {
    const ENTRY: usize = 64;
    const POD: usize = 1_024;
    let texts = |map: &BTreeMap<String, String>| -> usize {
        map.iter().map(|(name, value)| name.len() + value.len() + ENTRY).sum()
    };
    let facts = &pod.facts;
    let containers: usize = facts
        .containers
        .iter()
        .map(|(name, container)| name.len() + container.image.as_deref().map_or(0, str::len) + 8 * ENTRY)
        .sum();
    POD + texts(&facts.labels) + texts(&facts.annotations) + texts(&facts.wishes) + containers
}

#[cfg(test)]
#[path = "prune_tests.rs"]
mod tests;
