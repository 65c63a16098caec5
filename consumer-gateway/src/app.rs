//! The only place that builds the gateway's parts and joins them.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use axum::Router;
use fairlead_service_kit::{
    admin::{self, Endpoints, Liveness, Readiness},
    shutdown::Shutdown,
    telemetry,
};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    authenticate::Authenticator,
    authorize::Authorizer,
    config::Config,
    http::{
        self, Gateway,
        server::{self, ServerLimits},
    },
    metrics::Metrics,
    read::{
        Reading,
        kafka::{Kafka, ReadError},
    },
};

/// How often Kafka is asked whether it is there, while it is and while it is not.
const PROBE_EVERY: Duration = Duration::from_secs(5);
const PROBE_AGAIN: Duration = Duration::from_millis(500);
/// How long one such question may take.
const PROBE_TIME: Duration = Duration::from_secs(3);
/// The readiness condition that Kafka answers.
const KAFKA: &str = "kafka";

/// Serves until a signal says to stop.
///
/// # Errors
/// What keeps the gateway from starting: an address that is taken, a key file that cannot be used. A Kafka that is not there is none.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    telemetry::init(&config.log)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
    run(config, shutdown.token()).await
}

/// Serves until `stop` is cancelled.
///
/// # Errors
/// As [`serve`].
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    // Another provider may be installed in a process that does more than this; the first one stays.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut registry = Registry::default();
    let (readiness, liveness) = (Readiness::new(), Liveness::new());
    let built = build(&config, &mut registry, stop.clone())?;

    let admin_listener = admin::bind(config.admin_listen).await?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listen = {}: cannot listen there", config.listen))?;
    readiness.block(KAFKA, "no broker has answered yet");
    readiness.clear("start");

    // The admin port outlives the API, so that readiness and metrics can be read while it drains.
    let admin_stop = CancellationToken::new();
    let endpoints = Endpoints { registry: Arc::new(registry), readiness: readiness.clone(), liveness };
    let admin = tokio::spawn(admin::serve(admin_listener, endpoints, admin_stop.clone()));
    let keys_stay_fresh = tokio::spawn(built.authenticator.keep_fresh(stop.clone()));
    let brokers = config.kafka.bootstrap_servers().to_owned();
    let probe = tokio::spawn(watch_kafka(built.kafka, brokers, readiness.clone(), stop.clone()));

    tracing::info!(listen = %listener.local_addr()?, public_url = %config.public_url, "serving");
    let limits = ServerLimits { connections_max: config.read.connections_max, stall: config.read.stall };
    server::serve(listener, built.routes, limits, built.metrics, stop).await;

    tracing::info!("stopped");
    admin_stop.cancel();
    let _ = tokio::join!(probe, keys_stay_fresh, admin);
    Ok(())
}

/// The joined parts.
pub struct Built {
    /// The API, ready to be served.
    pub routes: Router,
    /// Asks Kafka.
    pub kafka: Arc<Kafka>,
    /// Believes tokens.
    pub authenticator: Arc<Authenticator>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Builds the parts and joins them. Nothing is connected or listened on yet.
///
/// # Errors
/// A key file that cannot be used, or settings that make no Kafka client.
pub fn build(config: &Config, registry: &mut Registry, stop: CancellationToken) -> anyhow::Result<Built> {
    let metrics = Arc::new(Metrics::new(registry));
    let counted = metrics.clone();
    let authenticator =
        Authenticator::new(&config.auth.settings, Arc::new(move |_, read| counted.key_file(read.is_ok())))?;
    let authenticator = Arc::new(authenticator);
    let authorizer = Authorizer::new(config.tenants.clone(), config.tenant_limits.clone());
    let kafka = Arc::new(Kafka::new(&config.kafka, &config.read)?);
    let (topics, keys) = (config.topics.map.clone(), config.cursor_keys()?);
    let reading = Reading::new(kafka.clone(), topics, keys, config.read.clone(), metrics.clone());
    let gateway = Gateway::new(authenticator.clone(), authorizer, reading, metrics.clone(), stop);
    Ok(Built { routes: http::routes(gateway), kafka, authenticator, metrics })
}

/// Keeps readiness true to whether Kafka answers.
async fn watch_kafka(kafka: Arc<Kafka>, brokers: String, readiness: Readiness, stop: CancellationToken) {
    let mut was_there = None;
    loop {
        let asked = kafka.clone();
        let answer = tokio::task::spawn_blocking(move || asked.probe(PROBE_TIME)).await;
        let there = matches!(answer, Ok(Ok(())));
        let changed = was_there.replace(there) != Some(there);
        match answer {
            Ok(Ok(())) => {
                readiness.clear(KAFKA);
                if changed {
                    tracing::info!("a broker answers at {brokers}");
                }
            }
            failed => {
                let reason = format!("no broker answers at {brokers}");
                if changed {
                    tracing::warn!(cause = cause(failed), "{reason}");
                }
                readiness.block(KAFKA, reason);
            }
        }
        let pause = if there { PROBE_EVERY } else { PROBE_AGAIN };
        tokio::select! {
            () = stop.cancelled() => return readiness.block("stopping", "the process was told to stop"),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn cause(answer: Result<Result<(), ReadError>, tokio::task::JoinError>) -> String {
    match answer {
        Ok(Ok(())) => String::new(),
        Ok(Err(error)) => telemetry::chain(&error),
        Err(_) => "the question failed".into(),
    }
}
