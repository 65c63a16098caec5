//! `GET /v1/namespaces`: what the caller may read, and what is there.

use std::{sync::Arc, time::Duration};

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
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{Gateway, access_log::Noted, accounts::Kind, bearer::Authenticated, problem::ApiError, query};
use crate::{
    authenticate::Caller,
    read::{Refusal, overview::Overview},
};

/// How long the list of topics is kept.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// How many lists an account may ask for at a time.
const LISTINGS_MAX: u32 = 4;

/// The namespaces that have a topic, as lately asked.
#[derive(Debug, Default)]
pub struct Topics(Mutex<Option<(Instant, Arc<[Namespace]>)>>);

impl Topics {
    /// What was asked lately, or what `ask` answers. Who comes while it is asked waits for the same answer; a question that fails or whose
    /// asker goes is asked again by the next.
    async fn get<E>(&self, ask: impl Future<Output = Result<Vec<Namespace>, E>>) -> Result<Arc<[Namespace]>, E> {
        let mut kept = self.0.lock().await;
        if let Some((at, namespaces)) = &*kept
            && at.elapsed() < KEPT_FOR
        {
            return Ok(namespaces.clone());
        }
        let namespaces: Arc<[Namespace]> = ask.await?.into();
        *kept = Some((Instant::now(), namespaces.clone()));
        Ok(namespaces)
    }
}

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
    let (account, limits) = (parts.authorizer.account(&caller), parts.authorizer.limits(&caller));
    let place = parts.accounts.open(&account, Kind::Listing, LISTINGS_MAX, &limits);
    let _place = place.ok_or(ApiError::TooManyStreams { limit: LISTINGS_MAX })?;
    // One deadline for all questions together.
    let listing = timeout(parts.reading.settings.kafka_timeout, listing(&gateway, &caller)).await;
    let listing = listing.map_err(|_| ApiError::Unavailable(Refusal::Busy))??;
    let mut response =
        ([(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], Json(listing))
            .into_response();
    response.extensions_mut().insert(Noted { caller: caller.describe(), account, namespace: None });
    Ok(response)
}

async fn listing(gateway: &Gateway, caller: &Caller) -> Result<Listing, ApiError> {
    let parts = &gateway.0;
    let existing = existing(gateway).await?;
    let names = parts.authorizer.namespaces(caller, &existing);
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
    Ok(Listing { namespaces: names.into_iter().zip(routes).map(entry).collect() })
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
async fn existing(gateway: &Gateway) -> Result<Arc<[Namespace]>, ApiError> {
    let reading = &gateway.0.reading;
    let ask = async {
        let topics = reading.ask(|kafka| kafka.topics()).await?;
        Ok(topics.iter().filter_map(|topic| reading.topics.namespace_of(topic)).collect())
    };
    gateway.0.topics.get(ask).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_question_answers_all_who_ask_at_a_time() {
        let (topics, asked) = (Topics::default(), AtomicU32::new(0));
        let ask = |good: bool| {
            let asked = &asked;
            topics.get(async move {
                asked.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_secs(1)).await;
                if good { Ok(vec![Namespace::parse("payments").unwrap()]) } else { Err("no answer") }
            })
        };
        let answers = futures::future::join_all((0..50).map(|_| ask(true))).await;
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|names| names.len() == 1)));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        sleep(KEPT_FOR).await;
        assert!(timeout(Duration::from_millis(1), ask(true)).await.is_err(), "the asker goes");
        assert!(ask(false).await.is_err());
        assert!(ask(true).await.is_ok());
        assert_eq!(asked.load(Ordering::Relaxed), 4);
    }
}
