//! The thread that asks the API server: one watch of this node's pods, and few questions besides.
//!
//! It runs beside the worker with a small runtime of its own. Whatever goes wrong here costs labels, never a line.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use fairlead_service_kit::{
    admin::Readiness,
    telemetry::{ThrottleBy, field},
};
use kube::runtime::watcher::Event;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    PodFacts, PodPath, Pods, Standing,
    access::Access,
    asks::{Answered, Asks},
    meter::Meter,
    metrics::KubernetesMetrics,
    object::Pod,
    prune::{Unfit, prune},
    settings::{Kubernetes, Names},
    spread,
    table::{Change, Table},
    trouble::{Reason, Trouble},
    watch::PodWatch,
};

/// The same trouble is logged once in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// Nothing is ever due later than this.
const IDLE_MAX: Duration = Duration::from_secs(3_600);
/// The conditions of `/readyz` that are noted here.
const PODS: &str = "kubernetes pods";
const NAMESPACES: &str = "kubernetes namespaces";
const NODE: &str = "kubernetes node";

/// How long things take; others in tests alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// The first list waits for up to this, and for half of what lines wait at most, if they do: all nodes may start at once.
    start_spread: Duration,
    /// Failures of this length are waited out; while one lasts longer, nothing is expected.
    away_after: Duration,
    /// How long the head of an answer is waited for; that of a watch comes at once too.
    answer_max: Duration,
    /// How long a watch may be silent: the server sends a bookmark about once a minute.
    silence_max: Duration,
    /// How long nothing may come while all pods are being told.
    progress_max: Duration,
}

const TIMING: Timing = Timing {
    start_spread: Duration::from_millis(2_500),
    away_after: Duration::from_secs(10),
    answer_max: Duration::from_secs(20),
    silence_max: Duration::from_secs(150),
    progress_max: Duration::from_secs(20),
};

/// What the API server tells, as [`Pods`]. The thread ends with this value.
#[derive(Debug)]
pub struct ApiPods {
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl ApiPods {
    /// Starts the thread. `access`, `settings`: the `kubernetes` block. `node`: whose pods are asked for.
    ///
    /// # Errors
    /// If no thread or runtime can be made.
    pub fn start(
        access: Access,
        settings: &Kubernetes,
        node: &str,
        metrics: KubernetesMetrics,
        readiness: Readiness,
    ) -> io::Result<ApiPods> {
        ApiPods::start_with(access, settings, node, metrics, readiness, TIMING)
    }

    fn start_with(
        access: Access,
        settings: &Kubernetes,
        node: &str,
        metrics: KubernetesMetrics,
        readiness: Readiness,
        timing: Timing,
    ) -> io::Result<ApiPods> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (shared, stop) = (Arc::new(Shared::default()), CancellationToken::new());
        let (theirs, stopped) = (Arc::clone(&shared), stop.clone());
        let (settings, node) = (settings.clone(), node.to_owned());
        thread::Builder::new().name("pods".to_owned()).spawn(move || {
            let _nobody_asks_any_more = Ended(Arc::clone(&theirs));
            runtime.block_on(async move {
                let asker = Asker::new(access, &settings, &node, theirs, metrics, readiness, timing);
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = asker.run() => {}
                }
            });
            // A name that is being resolved does not keep the thread.
            runtime.shutdown_background();
        })?;
        Ok(ApiPods { shared, stop })
    }
}

impl Drop for ApiPods {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Pods for ApiPods {
    fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Acquire)
    }

    fn pod(&self, path: PodPath<'_>) -> Option<Arc<PodFacts>> {
        self.shared.lock().table.find(path)
    }

    fn standing(&self) -> Standing {
        self.shared.lock().pods
    }

    fn namespaces(&self) -> Standing {
        self.shared.lock().namespaces
    }
}

/// What both threads see.
#[derive(Debug, Default)]
struct Shared {
    version: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    table: Table,
    pods: Standing,
    namespaces: Standing,
}

impl Default for State {
    fn default() -> State {
        State { table: Table::default(), pods: Standing::Starting, namespaces: Standing::Starting }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called behind a change, not before it: whoever sees the new version sees what changed.
    fn changed(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// However the thread ends, nothing is expected from then on.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        (state.pods, state.namespaces) = (Standing::Away, Standing::Away);
        drop(state);
        self.0.changed();
    }
}

/// The thread's own side.
struct Asker {
    node: String,
    annotations: Names,
    away_after: Duration,
    shared: Arc<Shared>,
    metrics: KubernetesMetrics,
    readiness: Readiness,
    meter: Arc<Meter>,
    watch: PodWatch,
    asks: Asks,
    /// Since when pods are not watched, and why, as last heard.
    unwell_since: Option<Instant>,
    trouble: Option<Trouble>,
    of_node: Standing,
    complaints: ThrottleBy<(&'static str, &'static str)>,
}

impl Asker {
    fn new(
        access: Access,
        settings: &Kubernetes,
        node: &str,
        shared: Arc<Shared>,
        metrics: KubernetesMetrics,
        readiness: Readiness,
        timing: Timing,
    ) -> Asker {
        let wait = settings.metadata_wait;
        let longest = if wait.is_zero() { timing.start_spread } else { timing.start_spread.min(wait / 2) };
        let start_at = Instant::now() + spread(longest);
        let meter = Arc::new(Meter::new(metrics.clone(), timing.answer_max, timing.silence_max));
        metrics.stand(Standing::Starting);
        Asker {
            node: node.to_owned(),
            annotations: settings.annotations.clone(),
            away_after: timing.away_after.max(settings.metadata_wait),
            shared,
            metrics,
            readiness,
            watch: PodWatch::new(access, node, Arc::clone(&meter), start_at, timing.progress_max),
            asks: Asks::new(settings, node, start_at),
            meter,
            unwell_since: Some(start_at),
            trouble: None,
            of_node: Standing::Starting,
            complaints: ThrottleBy::new(COMPLAIN_EVERY, 64),
        }
    }

    async fn run(mut self) {
        loop {
            let due = self.tick();
            tokio::select! {
                told = self.watch.next() => match told {
                    Ok(event) => self.told(event),
                    Err(trouble) => self.failed(trouble),
                },
                () = self.meter.watching.notified() => {
                    if self.watch.is_told() {
                        self.well();
                    }
                }
                answered = self.asks.answered() => self.answered(answered),
                () = sleep_until(due) => {}
            }
        }
    }

    /// Does what is due, and gives the time at which something will be.
    fn tick(&mut self) -> Instant {
        let now = Instant::now();
        let mut state = self.shared.lock();
        let (forgot, forget_at) = state.table.forget_gone(now);
        if let Some(client) = self.watch.client() {
            self.asks.ask(client, state.table.tenures(), now);
        }
        let ask_at = self.asks.ask_at(state.table.tenures(), now).filter(|_| self.watch.client().is_some());
        let (live, gone) = state.table.counts();
        self.metrics.pods(live, gone);
        self.metrics.namespaces.set(state.table.tenures().known_count() as i64);
        drop(state);
        if forgot {
            self.shared.changed();
        }
        self.stand(now);
        let away_at = |since: Option<Instant>| since.map(|since| since + self.away_after).filter(|at| *at > now);
        let unwell = [self.unwell_since, self.asks.of_namespaces.unwell_since, self.asks.of_node.unwell_since];
        let away = unwell.into_iter().filter_map(away_at);
        away.chain(forget_at).chain(ask_at).chain([now + IDLE_MAX]).min().unwrap_or(now)
    }

    /// An event of the watch.
    fn told(&mut self, event: Event<Pod>) {
        let now = Instant::now();
        let change = match event {
            Event::Init => {
                self.shared.lock().table.begin_list();
                Change::default()
            }
            Event::InitApply(pod) => self.with(pod, |table, pod| table.listed(pod)),
            Event::Apply(pod) => self.with(pod, |table, pod| table.apply(pod)),
            Event::Delete(pod) => self.with(pod, |table, pod| table.delete(pod, now)),
            Event::InitDone => {
                let change = self.shared.lock().table.end_list(now);
                self.well();
                change
            }
        };
        self.account(change);
    }

    fn with(&mut self, pod: Pod, put: impl FnOnce(&mut Table, super::prune::Pruned) -> Change) -> Change {
        match prune(pod, &self.node, &self.annotations) {
            Ok(pod) => put(&mut self.shared.lock().table, pod),
            Err(unfit) => {
                let reason = match unfit {
                    Unfit::OtherNode => "other_node",
                    Unfit::Odd => "odd_object",
                };
                self.metrics.error(reason);
                if let Some(left_out) = self.complaints.allow(&(PODS, reason)) {
                    warn!(
                        { field::REASON } = reason,
                        { field::LEFT_OUT } = left_out,
                        "the API server told of a pod that is not this node's, or is none"
                    );
                }
                Change::default()
            }
        }
    }

    fn account(&mut self, change: Change) {
        if change.facts || change.forgotten > 0 {
            self.shared.changed();
        }
        if change.cut {
            self.metrics.pods_cut.inc();
            if let Some(left_out) = self.complaints.allow(&(PODS, "cut")) {
                warn!(
                    { field::LEFT_OUT } = left_out,
                    "a pod has more labels, annotations or containers than are taken: the largest are left out"
                );
            }
        }
        if change.forgotten > 0 {
            self.metrics.pods_forgotten.inc_by(change.forgotten as u64);
            if let Some(left_out) = self.complaints.allow(&(PODS, "forgotten")) {
                warn!(
                    pods = change.forgotten,
                    { field::LEFT_OUT } = left_out,
                    "more pods than are kept: some are not known"
                );
            }
        }
    }

    /// The watch failed; it goes on by itself.
    fn failed(&mut self, trouble: Trouble) {
        self.metrics.error(trouble.reason.as_str());
        if trouble.reason == Reason::Expired {
            return;
        }
        self.complain(PODS, "list and watch on pods", &trouble);
        // One object that cannot be parsed breaks no watch.
        if self.watch.is_told() && trouble.reason == Reason::Garbage {
            return;
        }
        let now = Instant::now();
        let since = *self.unwell_since.get_or_insert(now);
        // What is gone for so long may come back at another address, or under another authority.
        if now.duration_since(since) >= self.away_after && trouble.reason != Reason::Forbidden {
            self.watch.renew();
        }
        self.trouble = Some(trouble);
    }

    /// All pods are known, and changes are told.
    fn well(&mut self) {
        self.watch.is_well();
        (self.unwell_since, self.trouble) = (None, None);
        self.stand(Instant::now());
    }

    fn answered(&mut self, answered: Answered) {
        let now = Instant::now();
        match answered {
            Answered::Namespace(ask, Ok(answer)) => {
                let refresh_at = self.asks.note_namespace(Ok(()), now);
                if self.shared.lock().table.answer(&ask, answer, refresh_at) {
                    self.shared.changed();
                }
            }
            Answered::Namespace(ask, Err(trouble)) => {
                self.metrics.error(trouble.reason.as_str());
                self.complain(NAMESPACES, "get on namespaces", &trouble);
                let again_at = self.asks.note_namespace(Err(&trouble), now).unwrap_or(now);
                self.shared.lock().table.tenures().not_answered(&ask, again_at);
            }
            Answered::Node(Ok(labels)) => {
                self.asks.note_node(Ok(()), now);
                if self.shared.lock().table.label_node(labels) {
                    self.shared.changed();
                }
            }
            Answered::Node(Err(trouble)) => {
                self.metrics.error(trouble.reason.as_str());
                self.complain(NODE, "get on nodes", &trouble);
                self.asks.note_node(Err(&trouble), now);
            }
        }
    }

    fn complain(&mut self, subject: &'static str, rights: &'static str, trouble: &Trouble) {
        let reason = trouble.reason.as_str();
        let Some(left_out) = self.complaints.allow(&(subject, reason)) else { return };
        let text = &trouble.text;
        if trouble.reason == Reason::Forbidden {
            error!(
                { field::REASON } = reason,
                { field::ERROR } = text,
                { field::LEFT_OUT } = left_out,
                "the API server forbids what the router needs: {rights}; lines go on without it"
            );
        } else {
            warn!(
                { field::REASON } = reason,
                { field::ERROR } = text,
                { field::LEFT_OUT } = left_out,
                "the API server does not tell: {rights}; lines go on without it"
            );
        }
    }

    /// Says how it stands, where that changed.
    fn stand(&mut self, now: Instant) {
        let needs_somebody = self.trouble.as_ref().is_some_and(|trouble| trouble.reason.needs_somebody());
        let mut state = self.shared.lock();
        let before = (state.pods, state.namespaces);
        state.pods = match self.unwell_since {
            None => Standing::Known,
            Some(since) if needs_somebody || now.saturating_duration_since(since) >= self.away_after => Standing::Away,
            // Waited out: as it was.
            Some(_) => state.pods,
        };
        state.namespaces = self.asks.of_namespaces.standing(now, self.away_after);
        let after = (state.pods, state.namespaces);
        let (live, _) = state.table.counts();
        drop(state);
        if before != after {
            self.shared.changed();
            self.metrics.stand(after.0);
        }
        match after.0 {
            Standing::Known if before.0 != Standing::Known => {
                info!(pods = live, "the API server tells of this node's pods");
            }
            Standing::Away if before.0 != Standing::Away => {
                warn!("the API server does not tell of this node's pods: lines go on without waiting for it");
            }
            _ => {}
        }
        note(&self.readiness, PODS, (before.0, after.0), "list and watch on pods", self.trouble.as_ref());
        let trouble = self.asks.of_namespaces.trouble.as_ref();
        note(&self.readiness, NAMESPACES, (before.1, after.1), "get on namespaces", trouble);
        let of_node = self.asks.of_node.standing(now, self.away_after);
        note(&self.readiness, NODE, (self.of_node, of_node), "get on nodes", self.asks.of_node.trouble.as_ref());
        self.of_node = of_node;
    }
}

/// Lines go on, so the router is ready; `/readyz` says what they lack.
fn note(
    readiness: &Readiness,
    condition: &str,
    (before, after): (Standing, Standing),
    rights: &str,
    trouble: Option<&Trouble>,
) {
    if after == Standing::Away {
        let why = trouble.map_or_else(
            || "no answer yet".to_owned(),
            |trouble| format!("{}: {}", trouble.reason.as_str(), trouble.text),
        );
        readiness.note(condition, format!("the API server does not tell, {rights}: {why}; lines go on without it"));
    } else if before == Standing::Away {
        readiness.clear(condition);
    }
}

#[cfg(test)]
#[path = "api_tests/mod.rs"]
mod tests;
