//! Listens, and serves connections within limits: time for a request's head, time without progress, and how many there are.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use super::stall::StallGuard;
use crate::metrics::Metrics;

/// How long the head of a request may take, and the wait for the next one on a connection that is kept.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// What a connection may gather of a head, and what waits to be written, in bytes.
const BUFFER_BYTES: usize = 128 * 1024;
/// How many streams an HTTP/2 connection may have.
const HTTP2_STREAMS_MAX: u32 = 200;
/// How long open connections may take to end at shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// Limits of the server.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Connections at one time; more wait to be accepted.
    pub connections_max: usize,
    /// How long a peer may take nothing.
    pub stall: Duration,
}

/// Serves until `stop` is cancelled, then lets open requests end within a bound.
/// A connection that cannot be accepted is logged and the next is waited for.
pub async fn serve(
    listener: TcpListener,
    routes: Router,
    limits: ServerLimits,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let builder = Arc::new(builder());
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections_max));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly too many open files; the next attempt is no better at once.
                tracing::warn!(error = %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let io = TokioIo::new(StallGuard::new(stream, limits.stall));
        let service = TowerToHyperService::new(routes.clone());
        let (builder, metrics, watcher) = (builder.clone(), metrics.clone(), graceful.watcher());
        tokio::spawn(async move {
            metrics.connections.inc();
            let connection = builder.serve_connection(io, service).into_owned();
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(error = %error, "a connection broke");
            }
            metrics.connections.dec();
            drop(place);
        });
    }
    drop(listener);
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still open and are cut off");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Without a timer hyper keeps no time at all.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(BUFFER_BYTES)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_send_buf_size(BUFFER_BYTES)
        .max_header_list_size(64 * 1024);
    builder
}
