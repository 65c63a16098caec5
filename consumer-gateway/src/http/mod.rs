//! The HTTP API. Input: requests. Output: responses, or problem documents. What is read and who may read is decided elsewhere.

mod access_log;
pub mod accounts;
mod bearer;
mod listing;
mod logs;
mod me;
mod openapi;
pub mod problem;
pub mod query;
pub mod server;
mod stall;

use std::sync::Arc;

use axum::{Router, middleware, routing::get};
use tokio_util::sync::CancellationToken;

use self::{accounts::Accounts, listing::Topics, problem::ApiError};
use crate::{
    authenticate::Authenticator,
    authorize::Authorizer,
    metrics::Metrics,
    page,
    read::{Reading, overview::Overviews},
};

/// What every request is served with. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Parts>);

struct Parts {
    authenticator: Arc<Authenticator>,
    authorizer: Authorizer,
    reading: Arc<Reading>,
    metrics: Arc<Metrics>,
    /// Cancelled when open streams are to end.
    shutdown: CancellationToken,
    accounts: Accounts,
    overviews: Arc<Overviews>,
    topics: Topics,
}

impl Gateway {
    /// Joins what answers requests. `shutdown` ends open streams.
    pub fn new(
        authenticator: Arc<Authenticator>,
        authorizer: Authorizer,
        reading: Arc<Reading>,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> Self {
        // However many dripping readers one account has, others find a place.
        let accounts = Accounts::new(reading.settings.readers_max / 4);
        let (overviews, topics) = (Arc::default(), Topics::default());
        Self(Arc::new(Parts { authenticator, authorizer, reading, metrics, shutdown, accounts, overviews, topics }))
    }
}

/// The paths of the API, as the router and the OpenAPI document write them.
pub const PATHS: [&str; 4] = ["/v1/me", "/v1/namespaces", "/v1/namespaces/{namespace}/logs", "/openapi.json"];

/// All routes: the API, its description, the page.
pub fn routes(gateway: Gateway) -> Router {
    let [me, namespaces, logs, openapi] = PATHS;
    Router::new()
        .route(me, get(me::me))
        .route(namespaces, get(listing::namespaces))
        .route(logs, get(logs::logs))
        .route(openapi, get(openapi::document))
        .merge(page::routes())
        .fallback(|| async { ApiError::NotFound })
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .layer(middleware::from_fn_with_state(gateway.clone(), access_log::layer))
        .with_state(gateway)
}
