//! `GET /v1/me`: who the caller is, and what its account may use and uses.

use axum::{
    Json,
    extract::{RawQuery, State},
    http::header,
    response::IntoResponse,
};
use fairlead_contract::tenant::Authority;
use serde::Serialize;

use super::{Gateway, access_log::Noted, accounts::Use, bearer::Authenticated, problem::ApiError, query};

#[derive(Serialize)]
struct Me<'a> {
    authority: &'a str,
    subject: &'a str,
    groups: &'a [String],
    account: &'a str,
    tenants: Vec<&'a str>,
    expires: Option<String>,
    limits: Limits,
    r#use: Use,
}

#[derive(Serialize)]
struct Limits {
    follows: u32,
    ranges: u32,
    bytes_per_second: Option<u64>,
}

/// Tells the caller about itself.
pub async fn me(
    State(gateway): State<Gateway>,
    Authenticated(caller): Authenticated,
    RawQuery(raw_query): RawQuery,
) -> Result<impl IntoResponse, ApiError> {
    query::none(raw_query.as_deref())?;
    let parts = &gateway.0;
    let account = parts.authorizer.account(&caller);
    let limits = parts.authorizer.limits(&caller);
    let streams = limits.streams.unwrap_or(parts.reading.settings.streams_default);
    let me = Me {
        authority: match &caller.identity.authority {
            Authority::Local => "local",
            Authority::Issuer(issuer) => issuer,
        },
        subject: &caller.identity.subject,
        groups: &caller.identity.groups,
        account: &account,
        tenants: parts.authorizer.tenants(&caller),
        expires: caller.expires.and_then(|at| jiff::Timestamp::try_from(at).ok()).map(|at| at.to_string()),
        limits: Limits { follows: streams, ranges: streams, bytes_per_second: limits.bytes_per_second },
        r#use: parts.accounts.in_use(&account),
    };
    let mut response =
        ([(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], Json(&me)).into_response();
    response.extensions_mut().insert(Noted { caller: caller.describe(), account, namespace: None });
    Ok(response)
}
