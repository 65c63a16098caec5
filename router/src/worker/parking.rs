//! Which topics take records now. A topic that is missing or refuses parks its namespaces and no other.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use fairlead_contract::{namespace::Namespace, topic::TopicName};

use super::fair::Hold;
use crate::produce::{Destinations, Refusal, TopicState};

const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// A topic that took records for this long after it was parked starts again with the shortest wait.
const GOOD_AFTER: Duration = Duration::from_secs(120);

/// The parked topics.
#[derive(Debug, Default)]
pub struct Parking(HashMap<TopicName, Parked>);

#[derive(Debug)]
struct Parked {
    until: Instant,
    wait: Duration,
    refusal: Refusal,
    why: String,
}

impl Parking {
    /// The number of partitions of a topic that takes records now, or what it waits for.
    pub fn partitions(&self, topic: &TopicName, now: Instant, destinations: &dyn Destinations) -> Result<i32, Hold> {
        if let Some(parked) = self.0.get(topic).filter(|parked| now < parked.until) {
            return Err(Hold::Until(parked.until));
        }
        match destinations.state(topic) {
            TopicState::Ready { partitions } => Ok(partitions),
            TopicState::Unknown | TopicState::Failing { .. } => Err(Hold::Topic),
        }
    }

    /// Forgets a topic that nobody writes to any more.
    pub fn forget(&mut self, topic: &TopicName) {
        self.0.remove(topic);
    }

    /// Parks a topic, longer each time. Returns for how long, or `None` if it is parked already.
    pub fn park(
        &mut self,
        namespace: &Namespace,
        topic: &TopicName,
        refusal: Refusal,
        error: &str,
    ) -> Option<Duration> {
        let now = Instant::now();
        let before = self.0.get(topic);
        if before.is_some_and(|parked| now < parked.until) {
            return None;
        }
        let wait = match before {
            Some(parked) if now < parked.until + GOOD_AFTER => (parked.wait * 2).min(WAIT_MAX),
            _ => WAIT_MIN,
        };
        let why = format!("topic {topic} of namespace {namespace}: {error}");
        self.0.insert(topic.clone(), Parked { until: now + wait, wait, refusal, why });
        Some(wait)
    }

    /// The namespaces whose topic does not take records now, with the reason. `slow_for`: for how long a topic that is
    /// slow has taken none.
    pub fn waiting<'a>(
        &self,
        namespaces: impl Iterator<Item = (&'a Namespace, &'a TopicName)>,
        destinations: &dyn Destinations,
        slow_for: impl Fn(&TopicName) -> Option<Duration>,
    ) -> Vec<(Namespace, Refusal, String)> {
        let now = Instant::now();
        let distinct: BTreeSet<_> = namespaces.collect();
        let why = |topic: &TopicName| match self.0.get(topic).filter(|parked| now < parked.until) {
            Some(parked) => Some((parked.refusal, parked.why.clone())),
            None => match destinations.state(topic) {
                TopicState::Failing { refusal, reason, .. } => Some((refusal, format!("topic {topic}: {reason}"))),
                TopicState::Ready { .. } | TopicState::Unknown => slow_for(topic).map(|stall| {
                    (Refusal::Slow, format!("topic {topic}: nothing was acknowledged for {} s", stall.as_secs()))
                }),
            },
        };
        distinct
            .into_iter()
            .filter_map(|(namespace, topic)| why(topic).map(|(refusal, why)| (namespace.clone(), refusal, why)))
            .collect()
    }
}
