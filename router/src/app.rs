//! The only place that builds the parts and joins them: one worker thread that does the work, a small runtime for signals and the admin port, the
//! topics thread, and the thread that asks the API server.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use fairlead_service_kit::{
    admin::{self, AdminError, Endpoints, Liveness, Readiness},
    shutdown::Shutdown,
    telemetry::field,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    config::{Config, Existing},
    discover::DockerDir,
    enrich::{ApiPods, NoPods, Pods},
    hold::ignore_lease_breaks,
    metrics::Metrics,
    pipeline::Limits,
    produce::{Connection, KafkaSink, Pending, ProduceError, Topics},
    worker::{Drained, Parts, Settings, Worker, WorkerError},
};

/// The longest time the worker may be silent before `/livez` says so.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Why the router cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The runtime or a thread cannot be made, or signals cannot be taken.
    #[error("cannot start")]
    Start(#[source] io::Error),
    /// The admin port cannot be served.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// No producer can be made.
    #[error(transparent)]
    Produce(#[from] ProduceError),
    /// The worker cannot begin.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The worker ended by itself, which it never should.
    #[error("the worker ended unexpectedly")]
    WorkerDied,
}

/// Runs until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// [`AppError`].
pub fn run(config: Config) -> Result<(), AppError> {
    ignore_lease_breaks().map_err(AppError::Start)?;
    raise_open_files_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Start)?;
    runtime.block_on(serve(config))
}

/// A backlog opens one file for each container that is read: as many as the system allows.
fn raise_open_files_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!({ field::ERROR } = %error, "cannot raise the limit of open files");
    }
}

async fn serve(config: Config) -> Result<(), AppError> {
    let shutdown = Shutdown::on_signals().map_err(AppError::Start)?;
    let stop = shutdown.token();
    let (metrics, registry) = Metrics::new();
    let (readiness, liveness) = (Readiness::new(), Liveness::new());
    let listener = admin::bind(config.admin_listen).await?;
    let endpoints =
        Endpoints { registry: Arc::new(registry), readiness: readiness.clone(), liveness: liveness.clone() };
    let admin_stop = CancellationToken::new();
    let admin = tokio::spawn(admin::serve(listener, endpoints, admin_stop.clone()));

    let (told, outcome) = oneshot::channel();
    let worker = start_worker(config, metrics, readiness, &liveness, stop.clone(), told)?;
    let outcome = outcome.await;
    let ended = worker.join();
    admin_stop.cancel();
    // The admin port has nothing left to lose.
    let _ = admin.await;
    match (outcome, ended) {
        (Ok(Err(error)), _) => Err(error),
        (Ok(Ok(drained)), Ok(())) if stop.is_cancelled() => {
            info!(records_left = drained.records_left, stored = drained.stored, "stopped");
            Ok(())
        }
        _ => {
            error!("the worker ended unexpectedly");
            Err(AppError::WorkerDied)
        }
    }
}

type Outcome = Result<Drained, AppError>;

/// Starts the worker's thread; what the worker is made of is made there, as it never leaves it.
fn start_worker(
    config: Config,
    metrics: Metrics,
    readiness: Readiness,
    liveness: &Liveness,
    stop: CancellationToken,
    told: oneshot::Sender<Outcome>,
) -> Result<JoinHandle<()>, AppError> {
    let heartbeat = liveness.heartbeat("worker", SILENCE_MAX);
    let work = move || {
        let outcome = work(config, metrics, readiness, heartbeat, &stop);
        // Nobody waits any more only when the process is ending.
        let _ = told.send(outcome);
    };
    thread::Builder::new().name("worker".to_owned()).spawn(work).map_err(AppError::Start)
}

fn work(
    config: Config,
    metrics: Metrics,
    readiness: Readiness,
    heartbeat: admin::Heartbeat,
    stop: &CancellationToken,
) -> Outcome {
    let pending = Arc::new(Pending::new(Pending::SLOTS));
    let sink = KafkaSink::new(&config.kafka, config.in_flight_bytes_max, Arc::clone(&pending))?;
    let pods = pods(&config, &metrics, &readiness)?;
    let topics = Arc::new(Topics::start(&config.kafka, config.create, Some(sink.refresher()))?);
    let asked = Arc::clone(&topics);
    let broker_down = move |trouble| {
        if trouble {
            asked.doubt();
        }
        match asked.connection() {
            Connection::Up => None,
            Connection::Unknown => Some("no broker has answered yet".to_owned()),
            Connection::Down { reason } => Some(reason),
        }
    };
    let parts = Parts {
        sink: Box::new(sink),
        pending,
        destinations: topics,
        broker_down: Box::new(broker_down),
        pods,
        metrics,
        readiness,
        heartbeat,
    };
    let settings = Settings {
        node_name: config.node_name,
        pods_dir: config.logs.pods_dir,
        docker_containers_dir: config.logs.docker_containers_dir.map(DockerDir::new),
        state_dir: config.state_dir,
        topics: config.topics,
        skip_existing: config.logs.existing == Existing::Skip,
        limits: Limits {
            record_bytes_max: config.logs.record_bytes_max,
            partial_flush: config.logs.partial_flush,
            too_long: config.logs.too_long,
        },
        budget: config.budget,
        rescan_interval: config.logs.rescan_interval,
        store_interval: config.store_interval,
        in_flight_bytes_max: config.in_flight_bytes_max,
        drain_max: config.shutdown_deadline,
        metadata_wait: config.kubernetes.metadata_wait,
    };
    let worker = Worker::start(settings, parts)?;
    Ok(worker.run(&|| stop.is_cancelled()))
}

/// The thread that asks the API server, or nobody.
fn pods(config: &Config, metrics: &Metrics, readiness: &Readiness) -> Result<Arc<dyn Pods>, AppError> {
    let Some(access) = config.kubernetes.access.clone() else { return Ok(Arc::new(NoPods)) };
    let (metrics, readiness) = (metrics.kubernetes.clone(), readiness.clone());
    let pods = ApiPods::start(access, &config.kubernetes, &config.node_name, metrics, readiness);
    Ok(Arc::new(pods.map_err(AppError::Start)?))
}
