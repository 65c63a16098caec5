//! The one thread that does the work: discover, tail, parse, enrich, route, produce, and remember what was acknowledged.
//!
//! Input: the pods folder and the state folder. Output: records in the [`Sink`], positions in the [`Store`]. It owns all state, so nothing here is
//! locked; other threads see metrics and readiness alone.

mod budget;
mod fair;
mod grip;
mod guilty;
mod instance;
mod lanes;
mod missed;
mod owed;
mod parking;
mod place;
mod pods;
mod reach;
mod recover;
mod scan;
mod settle;
mod turn;
mod waiting;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_contract::{
    namespace::Namespace,
    topic::{TopicMap, TopicName},
};
use fairlead_service_kit::{
    admin::{Heartbeat, Readiness},
    telemetry::{ThrottleBy, field},
};
use tracing::{info, warn};

use crate::{
    checkpoint::{InstanceKey, Store, StoreError},
    discover::{ContainerDir, DockerDir, Watcher},
    enrich::Pods,
    hold::{Budget, HeldFolder, HoldError},
    metrics::Metrics,
    parse::docker,
    pipeline::Limits,
    produce::{Destinations, Pending, Refusal, Sink, Slot},
    tail::Epoch,
};
use fair::{Fair, Hold};
use instance::Instance;
use lanes::Lanes;
use parking::Parking;
use pods::KnownPods;
use reach::NotFollowed;

/// What the worker is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node's name, `host` in every record.
    pub node_name: String,
    /// The kubelet's pods folder.
    pub pods_dir: PathBuf,
    /// The one folder that links in the pods folder are followed into.
    pub docker_containers_dir: Option<DockerDir>,
    /// The state folder.
    pub state_dir: PathBuf,
    /// Namespace to topic.
    pub topics: TopicMap,
    /// Whether files that are there at the very first start are read from their end.
    pub skip_existing: bool,
    /// Limits of joining and cutting.
    pub limits: Limits,
    /// The bound on bytes that only the router keeps.
    pub budget: Budget,
    /// How often everything is looked at again, whatever the watch said.
    pub rescan_interval: Duration,
    /// How often positions are stored while they move.
    pub store_interval: Duration,
    /// Bytes of records that may be in flight.
    pub in_flight_bytes_max: u64,
    /// How long a stop may take.
    pub drain_max: Duration,
    /// How long a new instance's first read waits for what Kubernetes knows of its pod.
    pub metadata_wait: Duration,
}

/// What else the worker works with.
pub struct Parts {
    /// The producer.
    pub sink: Box<dyn Sink>,
    /// The counters that its reports lower.
    pub pending: Arc<Pending>,
    /// What is known of topics.
    pub destinations: Arc<dyn Destinations>,
    /// Why no broker answers, if none does; told whether connections failed since it was last asked.
    pub broker_down: Box<dyn Fn(bool) -> Option<String>>,
    /// What Kubernetes knows of pods.
    pub pods: Arc<dyn Pods>,
    /// The metrics.
    pub metrics: Metrics,
    /// What `/readyz` says.
    pub readiness: Readiness,
    /// What `/livez` listens to.
    pub heartbeat: Heartbeat,
}

/// Why the worker cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Files cannot be held.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// Positions cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state folder cannot be used.
    #[error("cannot use {}", path.display())]
    State {
        /// What cannot be made or locked.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another router works with the state folder.
    #[error("state_dir {} is in use by another router", .0.display())]
    InUse(PathBuf),
}

/// Takes the state folder for this process; the lock ends with it, however it ends.
fn lock(state_dir: &Path) -> Result<File, WorkerError> {
    let path = state_dir.join("lock");
    let failed = |source| WorkerError::State { path: path.clone(), source };
    fs::create_dir_all(state_dir).map_err(failed)?;
    let file = File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(WorkerError::InUse(state_dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// How a stop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Records that were not acknowledged in time; they will be sent again.
    pub records_left: usize,
    /// Whether the positions are stored.
    pub stored: bool,
}

/// Bytes read at once from one file. Which lines are read in pieces depends on it; what parses, and its number, does not.
const READ_BYTES: usize = 256 << 10;
const _: () = assert!(READ_BYTES > docker::LINE_BYTES_MAX, "a line of Docker's and its newline fit one read");
/// Reads before deliveries are looked at again.
const TURNS_PER_ROUND_MAX: usize = 16;
/// Turns before that, of which most find nothing to read.
const LOOKS_PER_ROUND_MAX: usize = 512;
/// Slots that no read may take: what must go out besides always finds one.
const SLOTS_SPARE: usize = 1_024;
/// How long the end of a file is waited for before it is looked at again.
const ENDING_WAIT: Duration = Duration::from_millis(20);
/// How long a wait for something outside may take before everything is looked at again.
const IDLE_WAIT: Duration = Duration::from_millis(250);
/// How often metrics and readiness are brought up to date.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// What must be stored before it is read on is stored together with what comes within this time.
const COMMIT_GAP: Duration = Duration::from_millis(5);
const COMMITS_AT_END_MAX: usize = 4;
const STORE_RETRY: Duration = Duration::from_secs(1);
/// How often all positions are stored while the disk is full.
const TIGHT_INTERVAL: Duration = Duration::from_secs(5);

/// The worker.
pub struct Worker {
    settings: Settings,
    parts: Parts,
    /// While it is open, no other router works with this state folder.
    _lock: File,
    held: HeldFolder,
    store: Store,
    watcher: Watcher,
    instances: BTreeMap<InstanceKey, Instance>,
    /// What Kubernetes knows of their pods.
    pods: KnownPods,
    /// Whose turn it is to be read.
    fair: Fair,
    /// Which producer a topic's records go through.
    lanes: Lanes,
    /// What was known of topics when those that wait for them were last looked at.
    topics_version: u64,
    /// Instances that are looked at again after a while: an end is awaited, or a topic.
    again: BTreeMap<InstanceKey, Instant>,
    again_at: Instant,
    /// Instances whose state changed since it was stored.
    dirty: BTreeSet<InstanceKey>,
    /// Instances with records in flight.
    flying: BTreeSet<InstanceKey>,
    /// Whose read stands in which slot.
    slots: HashMap<Slot, InstanceKey>,
    free: Vec<Slot>,
    parking: Parking,
    /// Namespaces whose last instance is gone, with their topic, and since when.
    gone: BTreeMap<Namespace, (TopicName, Instant)>,
    /// The namespaces that wait for their topics, as last reported.
    parked: BTreeSet<(Namespace, Refusal)>,
    buffer: Vec<u8>,
    value: Vec<u8>,
    scratch: Vec<u8>,
    /// Whether positions were lost before this start: what has none may have been read before.
    state_lost: bool,
    /// How many folders could not be watched or read when everything was last looked at.
    unwatched: usize,
    /// Why files cannot be linked, if they cannot.
    not_linked: Option<String>,
    /// The links that are not followed, by name.
    unfollowed: BTreeMap<ContainerDir, BTreeMap<String, NotFollowed>>,
    /// Whether something waits for the next store.
    urgent: bool,
    stored_at: Instant,
    /// When all that had changed was last stored.
    stored_all_at: Instant,
    scanned_at: Instant,
    ticked_at: Instant,
    reported_at: Instant,
    waiting_measured_at: Instant,
    complaints: ThrottleBy<String>,
}

impl Worker {
    /// Takes up the work where it was left: reads the positions, adopts what is held, and looks at everything that is there.
    ///
    /// # Errors
    /// [`WorkerError`] when the state folder cannot be used.
    pub fn start(settings: Settings, parts: Parts) -> Result<Self, WorkerError> {
        let lock = lock(&settings.state_dir)?;
        let held = HeldFolder::open(&settings.state_dir)?;
        let loaded = Store::open(&settings.state_dir)?;
        let now = Instant::now();
        let mut worker = Self {
            watcher: Watcher::new(),
            _lock: lock,
            held,
            store: loaded.store,
            instances: BTreeMap::new(),
            pods: KnownPods::new(parts.pods.as_ref()),
            fair: Fair::new(settings.in_flight_bytes_max, Pending::SLOTS - SLOTS_SPARE),
            lanes: Lanes::new(),
            topics_version: parts.destinations.version(),
            again: BTreeMap::new(),
            again_at: now,
            dirty: BTreeSet::new(),
            flying: BTreeSet::new(),
            slots: HashMap::new(),
            free: (0..Pending::SLOTS as u32).rev().map(Slot).collect(),
            parking: Parking::default(),
            gone: BTreeMap::new(),
            parked: BTreeSet::new(),
            buffer: vec![0; READ_BYTES],
            value: Vec::new(),
            scratch: Vec::new(),
            unwatched: 0,
            state_lost: loaded.bad_lines > 0,
            not_linked: None,
            unfollowed: BTreeMap::new(),
            urgent: false,
            stored_at: now,
            stored_all_at: now,
            scanned_at: now,
            ticked_at: now,
            reported_at: now,
            waiting_measured_at: now,
            complaints: ThrottleBy::new(Duration::from_secs(10), 1_024),
            settings,
            parts,
        };
        if loaded.bad_lines > 0 {
            warn!(
                lines = loaded.bad_lines,
                "part of the positions file did not check and was left out; held files are read again where needed"
            );
        }
        worker.take_up_pods(loaded.pods);
        let first_start = worker.recover(loaded.instances, loaded.ended_clean, loaded.is_new)?;
        worker.scan_all(first_start && worker.settings.skip_existing);
        worker.place_orphans();
        worker.forget_pods();
        worker.commit();
        worker.parts.metrics.held_bytes_max.set(worker.settings.budget.bytes_max.cast_signed());
        worker.report();
        worker.parts.readiness.clear("start");
        info!(instances = worker.instances.len(), watched = worker.watcher.len(), "reading container logs");
        Ok(worker)
    }

    /// Works until `stop` says so, then drains.
    pub fn run(mut self, stop: &dyn Fn() -> bool) -> Drained {
        while !stop() {
            self.parts.heartbeat.beat();
            let more = self.round();
            if !more && !stop() {
                self.wait();
            }
        }
        self.drain()
    }

    /// One round: look, store what must be stored, read, deliver, settle. Returns whether there is more to do at once.
    pub fn round(&mut self) -> bool {
        self.look();
        self.look_at_pods();
        self.tick();
        self.commit_if_due();
        self.read_ready();
        self.parts.sink.poll(Duration::ZERO);
        self.settle();
        if self.lanes.watch(Instant::now(), &self.parts.pending, self.parts.sink.as_mut()) {
            self.fair.release(|hold| hold == Hold::Deliveries);
        }
        self.parts.metrics.in_flight_bytes.set(self.fair.in_flight_bytes() as i64);
        // Asked last: what was settled may have taken something back.
        self.may_read_on()
    }

    /// Waits until something happens: a file event, a delivery report, or the next thing that is due.
    fn wait(&self) {
        let mut longest = IDLE_WAIT;
        if !self.again.is_empty() {
            longest = longest.min(self.again_at.saturating_duration_since(Instant::now()));
        }
        if self.urgent {
            longest = longest.min((self.stored_at + COMMIT_GAP).saturating_duration_since(Instant::now()));
        }
        if self.pods.is_waited_for() {
            longest = longest.min(pods::LOOK_EVERY);
        }
        if !self.dirty.is_empty() || self.pods.is_dirty() {
            longest =
                longest.min((self.stored_at + self.settings.store_interval).saturating_duration_since(Instant::now()));
        }
        if let Some(at) = self.fair.next_due() {
            longest = longest.min(at.saturating_duration_since(Instant::now()));
        }
        if self.lanes.is_flying() {
            longest = longest.min(lanes::WATCH_EVERY);
        }
        self.watcher.wait(self.parts.sink.wake_fd(), longest);
    }

    /// What is done now and then: instances that wait are looked at, fragments that waited too long are sent.
    fn tick(&mut self) {
        let now = Instant::now();
        if now >= self.again_at && !self.again.is_empty() {
            let due: Vec<_> = self.again.extract_if(.., |_, at| *at <= now).map(|(key, _)| key).collect();
            for key in due {
                self.let_go(&key); // a file that was still written to keeps its instance here
                self.queue(&key);
            }
            self.again_at = self.again.values().min().copied().unwrap_or(now);
        }
        if now.duration_since(self.ticked_at) >= IDLE_WAIT {
            self.ticked_at = now;
            self.flush_overdue(now);
            if now.duration_since(self.reported_at) >= REPORT_EVERY {
                self.reported_at = now;
                let held_bytes = self.keep_budget();
                self.parts.metrics.held_bytes.set(held_bytes as i64);
                self.measure_waiting_if_due(now);
                self.report();
            }
        }
    }

    /// Looks at an instance again after a while.
    fn later(&mut self, key: &InstanceKey, wait: Duration) {
        let at = Instant::now() + wait;
        self.again_at = if self.again.is_empty() { at } else { self.again_at.min(at) };
        let due = self.again.entry(key.clone()).or_insert(at);
        *due = at.min(*due);
    }

    /// Stops reading, waits for deliveries and stores the positions, within the time that a stop may take.
    fn drain(mut self) -> Drained {
        let deadline = Instant::now() + self.settings.drain_max;
        info!(records = self.parts.sink.in_flight(), "stopping: waiting for deliveries");
        while self.parts.sink.in_flight() > 0 && Instant::now() < deadline {
            self.parts.heartbeat.beat();
            self.parts.sink.poll(ENDING_WAIT);
            self.settle();
            self.commit_if_due();
        }
        self.settle();
        // Letting files go, after a commit, is a change of its own.
        for _ in 0..COMMITS_AT_END_MAX {
            self.commit();
            if self.dirty.is_empty() && !self.pods.is_dirty() {
                break;
            }
        }
        let records_left = self.parts.sink.in_flight();
        let told = |epoch: &Epoch| !epoch.pipeline.sent_beyond(&epoch.acknowledged);
        let all_told = records_left == 0 && self.flying.is_empty() && self.dirty.is_empty() && self.epochs().all(told);
        let stored = if all_told { self.store.end_clean().is_ok() } else { self.dirty.is_empty() };
        if records_left > 0 {
            warn!(
                records = records_left,
                "stopped before all deliveries were acknowledged; these records will be sent again"
            );
        }
        Drained { records_left, stored }
    }

    fn epochs(&self) -> impl Iterator<Item = &Epoch> {
        self.instances.values().flat_map(|instance| &instance.epochs)
    }

    /// Says something about a file or a topic, at most once in ten seconds for each.
    fn complain(&mut self, subject: &str, say: impl FnOnce(u64)) {
        if let Some(left_out) = self.complaints.allow(&subject.to_owned()) {
            say(left_out);
        }
    }

    fn commit_if_due(&mut self) {
        let due = self.stored_at.elapsed() >= self.settings.store_interval;
        let changed = !self.dirty.is_empty() || self.pods.is_dirty();
        if !(self.urgent && self.stored_at.elapsed() >= COMMIT_GAP || due && changed) {
            return;
        }
        // On a full disk what is left of the room is for what must be durable before it is read on.
        if self.store.is_tight() && self.stored_all_at.elapsed() < TIGHT_INTERVAL {
            let waits = |key: &&InstanceKey| self.instances.get(*key).is_none_or(Instance::awaits_store);
            let waiting: BTreeSet<_> = self.dirty.iter().filter(waits).cloned().collect();
            self.stored_at = Instant::now();
            if !waiting.is_empty() {
                self.commit_some(waiting);
            }
        } else {
            self.commit();
        }
    }

    /// Stores the state of every instance that changed, then lets go what is durably done with.
    fn commit(&mut self) {
        self.stored_all_at = Instant::now();
        let pods = self.pods.put_into(&mut self.store);
        if !self.commit_some(self.dirty.clone()) {
            self.pods.not_stored(pods);
        }
    }

    /// Stores some instances, and whatever else was put. Returns whether that is durable.
    fn commit_some(&mut self, keys: BTreeSet<InstanceKey>) -> bool {
        for key in &keys {
            match self.instances.get_mut(key) {
                Some(instance) => self.store.put(&instance.snapshot(&self.held)),
                None => self.store.remove(key),
            }
        }
        self.stored_at = Instant::now();
        match self.store.commit() {
            Ok(()) => {
                self.urgent = false;
                self.parts.metrics.store_writes.inc();
                self.report_store();
                self.dirty.retain(|key| !keys.contains(key));
                for key in &keys {
                    if let Some(instance) = self.instances.get_mut(key)
                        && instance.stored()
                    {
                        self.queue(key);
                    }
                    self.let_go(key);
                }
                true
            }
            Err(error) => {
                self.urgent = false;
                self.stored_at = Instant::now() + STORE_RETRY;
                self.parts.metrics.store_errors.inc();
                self.parts.readiness.block("store", error.to_string());
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                self.complain("store", |left_out| {
                    warn!(
                        { field::ERROR } = cause,
                        left_out, "{error}; files stay held and are read again after a restart"
                    );
                });
                false
            }
        }
    }
}
