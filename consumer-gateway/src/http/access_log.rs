//! One log line and one count for each request, when its head is answered. Never a token, a query or a line of a log.

use std::time::Instant;

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{Method, Response},
    middleware::Next,
};
use fairlead_contract::namespace::Namespace;
use fairlead_service_kit::telemetry::field;

use super::{Gateway, PATHS, problem::Refused};

/// Left in a response by its handler.
#[derive(Clone, Debug)]
pub struct Noted {
    /// Who asked.
    pub caller: String,
    /// The account that the request goes by.
    pub account: String,
    /// The namespace that was allowed.
    pub namespace: Option<Namespace>,
}

/// Times and counts a request.
pub async fn layer(State(gateway): State<Gateway>, request: Request, next: Next) -> Response<Body> {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("other", |path| known(path.as_str()));
    let method = shown(request.method());
    let response = next.run(request).await;
    let (status, elapsed) = (response.status().as_u16(), begun.elapsed());
    gateway.0.metrics.answered(route, status, elapsed.as_secs_f64());
    let noted = response.extensions().get::<Noted>();
    let caller = noted.map_or("", |noted| noted.caller.as_str());
    let account = noted.map_or("", |noted| noted.account.as_str());
    let namespace = noted.and_then(|noted| noted.namespace.as_ref()).map_or("", Namespace::as_str);
    let problem = response.extensions().get::<Refused>().map_or("", |refused| refused.0);
    let duration_ms = elapsed.as_micros() as f64 / 1000.0;
    if route == "page" {
        tracing::debug!(method, route, status, duration_ms, "request");
    } else {
        tracing::info!(
            method,
            route,
            status,
            duration_ms,
            caller,
            account,
            { field::K8S_NAMESPACE_NAME } = namespace,
            problem,
            "request"
        );
    }
    response
}

/// The label of a route: a path of the API, or `page`.
fn known(path: &str) -> &'static str {
    PATHS.into_iter().find(|known| *known == path).unwrap_or("page")
}

/// A method as a word of a closed set.
fn shown(method: &Method) -> &'static str {
    const SHOWN: [(&Method, &str); 7] = [
        (&Method::GET, "GET"),
        (&Method::HEAD, "HEAD"),
        (&Method::OPTIONS, "OPTIONS"),
        (&Method::POST, "POST"),
        (&Method::PUT, "PUT"),
        (&Method::DELETE, "DELETE"),
        (&Method::PATCH, "PATCH"),
    ];
    SHOWN.iter().find(|(known, _)| *known == method).map_or("other", |(_, name)| name)
}
