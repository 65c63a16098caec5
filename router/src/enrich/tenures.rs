//! Namespaces with a pod on this node, and what is to be asked about them.
//!
//! While a pod is in a namespace the namespace cannot be removed, so it cannot be another one under the same name. The time from its first pod here
//! to its last one is a tenure: one question for each, and what is answered holds until its end.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

/// Tenures that ended before they were asked about: pods may live for less than the question takes.
const ENDED_MAX: usize = 256;

/// One tenure of one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tenure(u64);

/// What is answered about a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its UID.
    pub uid: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Those labels that go into records.
    pub labels: BTreeMap<String, String>,
}

/// A question about a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Its name.
    pub namespace: Arc<str>,
    /// For whom it is asked.
    pub tenure: Tenure,
}

/// The namespaces with a pod on this node.
#[derive(Debug, Default)]
pub struct Tenures {
    present: HashMap<Arc<str>, Present>,
    ended: VecDeque<Ask>,
    last: u64,
}

#[derive(Debug)]
struct Present {
    tenure: Tenure,
    pods: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Wanted,
    /// Wanted, but not before this.
    Later(Instant),
    Asked,
    Known {
        answer: Answer,
        refresh_at: Option<Instant>,
    },
}

impl Tenures {
    /// A pod of a namespace came.
    pub fn enter(&mut self, namespace: &str) -> Tenure {
        if let Some(present) = self.present.get_mut(namespace) {
            present.pods += 1;
            return present.tenure;
        }
        self.last += 1;
        let tenure = Tenure(self.last);
        self.present.insert(namespace.into(), Present { tenure, pods: 1, state: State::Wanted });
        tenure
    }

    /// A pod of a namespace is gone.
    pub fn leave(&mut self, namespace: &str) {
        let Some(present) = self.present.get_mut(namespace) else { return };
        present.pods -= 1;
        if present.pods > 0 {
            return;
        }
        let Some((namespace, present)) = self.present.remove_entry(namespace) else { return };
        if matches!(present.state, State::Wanted) {
            self.ended.push_back(Ask { namespace, tenure: present.tenure });
            if self.ended.len() > ENDED_MAX {
                self.ended.pop_front();
            }
        }
    }

    /// What is known of a namespace.
    pub fn known(&self, namespace: &str) -> Option<&Answer> {
        match &self.present.get(namespace)?.state {
            State::Known { answer, .. } => Some(answer),
            _ => None,
        }
    }

    /// How many namespaces are known.
    pub fn known_count(&self) -> usize {
        self.present.values().filter(|present| matches!(present.state, State::Known { .. })).count()
    }

    /// The next question, if one is due. It is not given again before it is answered or not.
    pub fn ask(&mut self, now: Instant) -> Option<Ask> {
        let is_due = |present: &Present| match present.state {
            State::Wanted => true,
            State::Later(at) => at <= now,
            State::Asked => false,
            State::Known { refresh_at, .. } => refresh_at.is_some_and(|at| at <= now),
        };
        let Some((namespace, present)) = self.present.iter_mut().find(|(_, present)| is_due(present)) else {
            return self.ended.pop_front();
        };
        match &mut present.state {
            State::Known { refresh_at, .. } => *refresh_at = None,
            state => *state = State::Asked,
        }
        Some(Ask { namespace: Arc::clone(namespace), tenure: present.tenure })
    }

    /// When the next question is due, if one will be.
    pub fn ask_at(&self, now: Instant) -> Option<Instant> {
        let at = |present: &Present| match present.state {
            State::Wanted => Some(now),
            State::Later(at) => Some(at),
            State::Asked => None,
            State::Known { refresh_at, .. } => refresh_at,
        };
        let ended = self.ended.front().map(|_| now);
        self.present.values().filter_map(at).chain(ended).min()
    }

    /// A question was answered. `refresh_at`: when it is to be asked again.
    pub fn answered(&mut self, ask: &Ask, answer: Answer, refresh_at: Option<Instant>) {
        if let Some(present) = self.of(ask) {
            present.state = State::Known { answer, refresh_at };
        }
    }

    /// A question was not answered, and is to be asked again at `again_at` if anybody is left for whom.
    pub fn not_answered(&mut self, ask: &Ask, again_at: Instant) {
        match self.of(ask).map(|present| &mut present.state) {
            Some(State::Known { refresh_at, .. }) => *refresh_at = Some(again_at),
            Some(state) => *state = State::Later(again_at),
            None => {}
        }
    }

    fn of(&mut self, ask: &Ask) -> Option<&mut Present> {
        self.present.get_mut(&ask.namespace).filter(|present| present.tenure == ask.tenure)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answer(uid: &str) -> Answer {
        Answer { uid: uid.to_owned(), created: None, labels: BTreeMap::new() }
    }

    #[test]
    fn each_tenure_is_asked_about_once() {
        let (mut tenures, now) = (Tenures::default(), Instant::now());
        let first = tenures.enter("a");
        assert_eq!(tenures.enter("a"), first);
        let ask = tenures.ask(now).unwrap();
        assert_eq!((&*ask.namespace, ask.tenure, tenures.ask(now)), ("a", first, None));
        tenures.answered(&ask, answer("1"), None);
        assert_eq!((tenures.known("a"), tenures.known_count()), (Some(&answer("1")), 1));
        assert_eq!(tenures.ask(now), None);
        tenures.leave("a");
        assert_eq!(tenures.known("a"), Some(&answer("1")), "a pod of it is left");
        tenures.leave("a");
        assert_eq!((tenures.known("a").cloned(), tenures.ask(now)), (None, None));
        assert_ne!(tenures.enter("a"), first, "it may be another one now");
        assert_eq!(&*tenures.ask(now).unwrap().namespace, "a");
    }

    #[test]
    fn an_answer_for_an_earlier_tenure_is_not_taken() {
        let (mut tenures, now) = (Tenures::default(), Instant::now());
        tenures.enter("a");
        let ask = tenures.ask(now).unwrap();
        tenures.leave("a");
        tenures.enter("a");
        tenures.answered(&ask, answer("old"), None);
        assert_eq!(tenures.known("a"), None);
        tenures.not_answered(&ask, now + Duration::from_secs(60));
        assert_ne!(tenures.ask(now).unwrap(), ask);
    }

    #[test]
    fn a_tenure_that_ended_too_soon_is_asked_about_all_the_same() {
        let (mut tenures, now) = (Tenures::default(), Instant::now());
        let tenure = tenures.enter("a");
        tenures.leave("a");
        assert_eq!(tenures.ask_at(now), Some(now));
        assert_eq!(tenures.ask(now).map(|ask| ask.tenure), Some(tenure));
        assert_eq!((tenures.ask(now), tenures.ask_at(now)), (None, None));
        for index in 0..2 * ENDED_MAX {
            tenures.enter(&format!("n{index}"));
            tenures.leave(&format!("n{index}"));
        }
        assert_eq!(tenures.ended.len(), ENDED_MAX);
    }

    #[test]
    fn what_was_not_answered_and_what_grows_old_is_asked_again_in_time() {
        let (mut tenures, now) = (Tenures::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        tenures.enter("a");
        let ask = tenures.ask(now).unwrap();
        tenures.not_answered(&ask, later);
        assert_eq!((tenures.ask(now), tenures.ask_at(now), tenures.known_count()), (None, Some(later), 0));
        assert_eq!(tenures.ask(later), Some(ask.clone()));
        tenures.answered(&ask, answer("1"), Some(later));
        assert_eq!((tenures.ask(now), tenures.ask_at(now), tenures.known_count()), (None, Some(later), 1));
        assert_eq!(tenures.ask(later), Some(ask.clone()));
        assert_eq!(tenures.ask(later), None, "once");
        tenures.not_answered(&ask, later);
        assert_eq!(tenures.known("a"), Some(&answer("1")), "what was known stays");
    }
}
