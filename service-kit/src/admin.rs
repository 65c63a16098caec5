//! The admin port: `/livez`, `/readyz` and `/metrics`, without authentication, by default on loopback only.
//!
//! `/readyz` says in words what is not well: a condition that blocks makes it 503, one that is only noted is listed.

mod health;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::health::{Heartbeat, Liveness, Readiness};

/// The media type of OpenMetrics text.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the admin port shows.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// The metrics.
    pub registry: Arc<Registry>,
    /// Whether work can be done, and why not.
    pub readiness: Readiness,
    /// Whether all loops still turn.
    pub liveness: Liveness,
}

/// Why the admin port is not there.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be had.
    #[error("admin.listen = {address}: cannot listen there")]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Serving ended by itself.
    #[error("the admin port failed")]
    Serve {
        /// What the system says.
        source: io::Error,
    },
}

/// Listens on the configured address.
///
/// # Errors
/// If the address is taken or not this machine's.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, AdminError> {
    TcpListener::bind(address).await.map_err(|source| AdminError::Bind { address, source })
}

/// Serves until `stop` is cancelled.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener, endpoints: Endpoints, stop: CancellationToken) -> Result<(), AdminError> {
    let routes = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(endpoints);
    axum::serve(listener, routes)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .map_err(|source| AdminError::Serve { source })
}

async fn livez(State(endpoints): State<Endpoints>) -> impl IntoResponse {
    answer(endpoints.liveness.silent().is_empty(), endpoints.liveness.report())
}

async fn readyz(State(endpoints): State<Endpoints>) -> impl IntoResponse {
    answer(endpoints.readiness.is_ready(), endpoints.readiness.report())
}

async fn metrics(State(endpoints): State<Endpoints>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &endpoints.registry) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, OPENMETRICS)], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            format!("metrics cannot be written: {error}\n"),
        ),
    }
}

fn answer(well: bool, report: String) -> (StatusCode, String) {
    (if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, report)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_three_endpoints_answer() {
        let mut registry = Registry::default();
        let lines = prometheus_client::metrics::counter::Counter::<u64>::default();
        registry.register("lines", "Lines", lines.clone());
        lines.inc_by(3);
        let endpoints =
            Endpoints { registry: Arc::new(registry), readiness: Readiness::new(), liveness: Liveness::new() };
        let readiness = endpoints.readiness.clone();
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, endpoints, stop.clone()));

        let answer = fetch(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("not ready: start: not started yet"), "{answer}");
        readiness.clear("start");
        readiness.note("namespace payments", "topic logs.payments is refused");
        let answer = fetch(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("note: namespace payments: topic logs.payments is refused"), "{answer}");
        assert!(fetch(address, "/livez").await.starts_with("HTTP/1.1 200"));
        let answer = fetch(address, "/metrics").await;
        assert!(answer.contains("lines_total 3") && answer.contains("openmetrics-text"), "{answer}");

        let taken = bind(address).await.unwrap_err();
        assert_eq!(taken.to_string(), format!("admin.listen = {address}: cannot listen there"));
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
