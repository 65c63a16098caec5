//! Questions about single objects: the namespaces that have a pod on this node, and the node itself if its labels are wanted.

use std::{collections::BTreeMap, time::Duration};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use k8s_openapi::{
    api::core::v1::{Namespace, Node},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client};
use tokio::time::{Instant, timeout};

use super::{
    Standing, prune,
    settings::{Kubernetes, Names},
    spread,
    tenures::{Answer, Ask, Tenures},
    trouble::{Reason, Trouble},
};

/// The longest time that a question takes.
const ANSWER_MAX: Duration = Duration::from_secs(25);
/// Questions at once; how many may be asked without a pause, and how many in a second after that.
const RUNNING_MAX: usize = 4;
const BURST: u32 = 20;
const PER_SECOND: u32 = 10;
/// The first wait after a failure, and the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How soon an object that is not there is asked for again.
const NOT_FOUND_WAIT: Duration = Duration::from_secs(10);
/// How often labels are looked at again, about.
const REFRESH_EVERY: Duration = Duration::from_secs(600);
const REFRESH_SPREAD: Duration = Duration::from_secs(60);

/// What came of a question.
pub enum Answered {
    /// About a namespace.
    Namespace(Ask, Result<Answer, Trouble>),
    /// About the node: its labels.
    Node(Result<BTreeMap<String, String>, Trouble>),
}

/// How one kind of question fares.
#[derive(Debug)]
pub struct Fare {
    failures: u32,
    resume_at: Instant,
    /// Since when nothing was answered.
    pub unwell_since: Option<Instant>,
    /// Why, when it was last asked.
    pub trouble: Option<Trouble>,
    answered: bool,
}

impl Fare {
    fn new(now: Instant) -> Fare {
        Fare { failures: 0, resume_at: now, unwell_since: None, trouble: None, answered: false }
    }

    fn well(&mut self) {
        (self.failures, self.unwell_since, self.trouble, self.answered) = (0, None, None, true);
    }

    fn failed(&mut self, trouble: &Trouble, now: Instant) {
        let wait = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        self.resume_at = now + wait + spread(wait / 2);
        self.unwell_since.get_or_insert(now);
        self.trouble = Some(trouble.clone());
    }

    /// What can be expected, if nothing was answered for `away_after`.
    pub fn standing(&self, now: Instant, away_after: Duration) -> Standing {
        let needs_somebody = self.trouble.as_ref().is_some_and(|trouble| trouble.reason.needs_somebody());
        match self.unwell_since {
            Some(since) if needs_somebody || now.duration_since(since) >= away_after => Standing::Away,
            _ if self.answered => Standing::Known,
            _ => Standing::Starting,
        }
    }
}

/// The questions.
pub struct Asks {
    node: String,
    node_labels: Names,
    namespace_labels: Names,
    running: FuturesUnordered<BoxFuture<'static, Answered>>,
    tokens: u32,
    refilled_at: Instant,
    node_at: Option<Instant>,
    /// How questions about namespaces fare.
    pub of_namespaces: Fare,
    /// How those about the node do.
    pub of_node: Fare,
}

impl Asks {
    /// Asks what the settings want to know.
    pub fn new(settings: &Kubernetes, node: &str, start_at: Instant) -> Asks {
        Asks {
            node: node.to_owned(),
            node_labels: settings.node_labels.clone(),
            namespace_labels: settings.namespace_labels.clone(),
            running: FuturesUnordered::new(),
            tokens: BURST,
            refilled_at: start_at,
            node_at: (!settings.node_labels.is_empty()).then_some(start_at),
            of_namespaces: Fare::new(start_at),
            of_node: Fare::new(start_at),
        }
    }

    /// Asks what is due.
    pub fn ask(&mut self, client: &Client, tenures: &mut Tenures, now: Instant) {
        if self.running.len() < RUNNING_MAX && self.node_due().is_some_and(|at| at <= now) {
            self.node_at = None;
            let (api, name, names) = (Api::<Node>::all(client.clone()), self.node.clone(), self.node_labels.clone());
            let answer = async move { Answered::Node(metadata(api, &name).await.map(|found| labels(found, &names))) };
            self.running.push(answer.boxed());
        }
        while self.running.len() < RUNNING_MAX && self.of_namespaces.resume_at <= now {
            if tenures.ask_at(now).is_none_or(|at| at > now) || !self.take_token(now) {
                return;
            }
            let Some(ask) = tenures.ask(now) else { return };
            let (api, names) = (Api::<Namespace>::all(client.clone()), self.namespace_labels.clone());
            let answer = async move {
                let found = metadata(api, &ask.namespace).await.and_then(|found| answer(found, &names));
                Answered::Namespace(ask, found)
            };
            self.running.push(answer.boxed());
        }
    }

    /// When there is something to ask, if there will be.
    pub fn ask_at(&self, tenures: &Tenures, now: Instant) -> Option<Instant> {
        if self.running.len() >= RUNNING_MAX {
            return None;
        }
        let token_at = if self.tokens > 0 { now } else { self.refilled_at + Duration::from_secs(1) / PER_SECOND };
        let namespace = tenures.ask_at(now).map(|at| at.max(self.of_namespaces.resume_at).max(token_at));
        namespace.into_iter().chain(self.node_due()).min()
    }

    /// The next answer; never, while nothing is asked.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn answered(&mut self) -> Answered {
        match self.running.next().await {
            Some(answered) => answered,
            None => std::future::pending().await,
        }
    }

    /// Notes what came of a question about a namespace: when it is to be asked again, if it is.
    pub fn note_namespace(&mut self, result: Result<(), &Trouble>, now: Instant) -> Option<Instant> {
        match result {
            Ok(()) => {
                self.of_namespaces.well();
                (!self.namespace_labels.is_empty()).then(|| refresh_at(now))
            }
            // It was answered; only this one is not there.
            Err(trouble) if trouble.reason == Reason::NotFound => {
                self.of_namespaces.well();
                Some(now + NOT_FOUND_WAIT)
            }
            Err(trouble) => {
                self.of_namespaces.failed(trouble, now);
                Some(now)
            }
        }
    }

    /// Notes what came of the question about the node.
    pub fn note_node(&mut self, result: Result<(), &Trouble>, now: Instant) {
        self.node_at = Some(match result {
            Ok(()) => {
                self.of_node.well();
                refresh_at(now)
            }
            Err(trouble) => {
                self.of_node.failed(trouble, now);
                now
            }
        });
    }

    fn node_due(&self) -> Option<Instant> {
        self.node_at.map(|at| at.max(self.of_node.resume_at))
    }

    fn take_token(&mut self, now: Instant) -> bool {
        let every = Duration::from_secs(1) / PER_SECOND;
        let gained = now.saturating_duration_since(self.refilled_at).as_millis() / every.as_millis();
        if gained > 0 {
            self.tokens = u32::try_from(gained).unwrap_or(BURST).saturating_add(self.tokens).min(BURST);
            self.refilled_at = now;
        }
        let has = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        has
    }
}

fn refresh_at(now: Instant) -> Instant {
    now + REFRESH_EVERY + spread(REFRESH_SPREAD)
}

async fn metadata<K>(api: Api<K>, name: &str) -> Result<ObjectMeta, Trouble>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match timeout(ANSWER_MAX, api.get_metadata(name)).await {
        Ok(Ok(found)) => Ok(found.metadata),
        Ok(Err(error)) => Err(Trouble::of(&error)),
        Err(_) => Err(Trouble::new(Reason::Timeout, format!("no answer in {} s", ANSWER_MAX.as_secs()))),
    }
}

fn answer(found: ObjectMeta, names: &Names) -> Result<Answer, Trouble> {
    let created = found.creation_timestamp.as_ref().map(|time| time.0);
    match found.uid.clone() {
        Some(uid) if !uid.is_empty() => Ok(Answer { uid, created, labels: labels(found, names) }),
        _ => Err(Trouble::new(Reason::Garbage, "a namespace without a UID")),
    }
}

fn labels(found: ObjectMeta, names: &Names) -> BTreeMap<String, String> {
    let mut labels = found.labels.unwrap_or_default();
    labels.retain(|name, _| names.take(name));
    prune::bound(&mut [&mut labels]);
    labels
}
