//! `GET /v1/namespaces`: what the caller may read, and what is there.

use std::{
    sync::Mutex,
    sync::PoisonError,
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{RawQuery, State},
    http::header,
    response::IntoResponse,
};
use fairlead_contract::{
    namespace::Namespace,
    topic::{Route, TopicName},
};
use serde::Serialize;

use super::{Gateway, access_log::Noted, bearer::Authenticated, problem::ApiError, query};
use crate::read::overview::Overview;

/// How long the list of topics is kept.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// The namespaces that have a topic, as lately asked.
#[derive(Debug, Default)]
pub struct Topics(Mutex<Option<(Instant, Vec<Namespace>)>>);

#[derive(Serialize)]
struct Listing {
    namespaces: Vec<Entry>,
}

/// `oldest`, `newest` and `records` are null where the topic is shared: they would tell of others.
#[derive(Serialize)]
struct Entry {
    name: Namespace,
    topic: Option<String>,
    oldest: Option<String>,
    newest: Option<String>,
    records: Option<i64>,
}

/// Lists the caller's namespaces.
pub async fn namespaces(
    State(gateway): State<Gateway>,
    Authenticated(caller): Authenticated,
    RawQuery(raw_query): RawQuery,
) -> Result<impl IntoResponse, ApiError> {
    query::none(raw_query.as_deref())?;
    let parts = &gateway.0;
    let existing = existing(&gateway).await?;
    let names = parts.authorizer.namespaces(&caller, &existing);
    let routes: Vec<Option<(TopicName, bool)>> = names
        .iter()
        .map(|name| match parts.reading.topics.route(name) {
            Route::Topic { topic, shared } => Some((topic, shared)),
            Route::Excluded => None,
        })
        .collect();
    let own: Vec<TopicName> =
        routes.iter().flatten().filter(|(_, shared)| !shared).map(|(topic, _)| topic.clone()).collect();
    let mut overviews = parts.overviews.of(&parts.reading, own).await?.into_iter();
    let entry = |(name, route): (Namespace, Option<(TopicName, bool)>)| {
        let overview = route.as_ref().filter(|(_, shared)| !shared).and_then(|_| overviews.next());
        entry(name, route.map(|(topic, _)| topic), overview)
    };
    let listing = Listing { namespaces: names.into_iter().zip(routes).map(entry).collect() };
    let mut response =
        ([(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], Json(listing))
            .into_response();
    response.extensions_mut().insert(Noted {
        caller: caller.describe(),
        account: parts.authorizer.account(&caller),
        namespace: None,
    });
    Ok(response)
}

fn entry(name: Namespace, topic: Option<TopicName>, overview: Option<Overview>) -> Entry {
    let stamp = |at: Option<i64>| at.and_then(|at| jiff::Timestamp::from_millisecond(at).ok()).map(|at| at.to_string());
    Entry {
        name,
        topic: topic.map(|topic| topic.as_str().to_owned()),
        oldest: stamp(overview.and_then(|overview| overview.oldest)),
        newest: stamp(overview.and_then(|overview| overview.newest)),
        records: overview.map(|overview| overview.records),
    }
}

/// The namespaces that have a topic of their own.
async fn existing(gateway: &Gateway) -> Result<Vec<Namespace>, ApiError> {
    let parts = &gateway.0;
    {
        let kept = parts.topics.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, namespaces)) = &*kept
            && at.elapsed() < KEPT_FOR
        {
            return Ok(namespaces.clone());
        }
    }
    let topics = parts.reading.ask(|kafka| kafka.topics()).await?;
    let namespaces: Vec<Namespace> =
        topics.iter().filter_map(|topic| parts.reading.topics.namespace_of(topic)).collect();
    *parts.topics.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), namespaces.clone()));
    Ok(namespaces)
}
