//! `GET /v1/namespaces/{namespace}/logs`. Rights are decided before anything else is looked at, and before Kafka is touched.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::{RawPathParams, RawQuery, State, rejection::RawPathParamsRejection},
    http::{HeaderMap, HeaderName, HeaderValue, Response, header},
    response::IntoResponse,
};
use bytes::Bytes;
use fairlead_contract::{
    namespace::Namespace,
    tenant::{Decision, Right},
};
use http_body::{Body as HttpBody, Frame};
use prometheus_client::metrics::counter::Counter;

use super::{Gateway, access_log::Noted, accounts::Kind, bearer::Authenticated, problem::ApiError, query};
use crate::{
    metrics::Open,
    read::{BrokenOff, Frames, Outbox, Watch},
};

/// The body of one stream. It fails where the stream breaks off, so that the connection does too.
struct Lines {
    frames: Frames,
    sent: Counter,
}

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.frames.poll_next(context).map(|frame| {
            frame.map(|frame| {
                let frame = frame?;
                self.sent.inc_by(frame.len() as u64);
                Ok(Frame::data(frame))
            })
        })
    }
}

/// Serves the lines of one namespace.
pub async fn logs(
    State(gateway): State<Gateway>,
    Authenticated(caller): Authenticated,
    path: Result<RawPathParams, RawPathParamsRejection>,
    RawQuery(raw_query): RawQuery,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let parts = gateway.0.clone();
    // A name that is none, one that nobody has and one that is another's get the same answer, in the same time.
    let name = path.ok().and_then(|path| path.iter().next().map(|(_, name)| name.to_owned()));
    let namespace = name.and_then(|name| Namespace::parse(&name).ok()).ok_or(ApiError::NotFound)?;
    let account = match parts.authorizer.decide(&caller, Right::Read, &namespace) {
        Decision::Allowed { tenant, .. } => tenant.to_owned(),
        Decision::Hidden => return Err(ApiError::NotFound),
    };
    let settings = &parts.reading.settings;
    let accept = headers.get_all(header::ACCEPT).iter().map(|value| value.to_str().unwrap_or_default());
    let accepted = query::accepted(accept);
    let request = query::logs(namespace.clone(), raw_query.as_deref(), accepted, jiff::Timestamp::now(), settings)?;
    let kind = if request.follow { Kind::Follow } else { Kind::Range };
    let limits = parts.authorizer.limits_of(&account);
    let limit = limits.streams.unwrap_or(settings.streams_default);
    let place = parts.accounts.open(&account, kind, limit, &limits).ok_or(ApiError::TooManyStreams { limit })?;
    let content_type = request.format.content_type();
    let prepared = parts.reading.prepare(request).await?;

    let sent = if prepared.topic_exists() { parts.metrics.bytes(&namespace) } else { Counter::default() };
    let (outbox, frames) = Outbox::new(place.pace(), settings.stall);
    let (expires, who) = (caller.expires, caller.describe());
    let allowed = {
        let (parts, namespace) = (parts.clone(), namespace.clone());
        Box::new(move || parts.authorizer.decide(&caller, Right::Read, &namespace) != Decision::Hidden)
    };
    let watch = Watch { expires, shutdown: parts.shutdown.clone(), allowed };
    let open = Open::new(&parts.metrics.streams(kind.as_str()));
    tokio::spawn(async move {
        prepared.run(outbox, watch, place.share()).await;
        drop((open, place));
    });
    let mut response = Response::new(Body::new(Lines { frames, sent }));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store, no-transform"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response.extensions_mut().insert(Noted { caller: who, account, namespace: Some(namespace) });
    Ok(response.into_response())
}
