//! A small HTTP client for the gateway and the admin ports. Calls wait for the answer; streams are in [`crate::follow`].

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap};
use serde_json::Value;
use tokio::runtime::Runtime;

/// Where requests and streams run.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("http")
        .enable_all()
        .build()
        .expect("a runtime needs only threads and descriptors")
});

const ANSWER: Duration = Duration::from_secs(30);

/// What holds connections. The library that it is built on wants a TLS provider named even where none is used.
pub(crate) fn connections() -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::new()
}

/// A caller of one server.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    token: Option<String>,
    http: reqwest::Client,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

impl Client {
    /// A caller without a token.
    pub fn new(base: &str) -> Client {
        Client { base: base.to_owned(), token: None, http: connections() }
    }

    /// The server's address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The same with a bearer token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Client {
        Client { token: Some(token.to_owned()), ..self.clone() }
    }

    /// `GET`, the answer read whole.
    ///
    /// # Errors
    /// When the server does not answer, or not within half a minute.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.get_as(path, "*/*")
    }

    /// `GET` with an `Accept` header.
    ///
    /// # Errors
    /// When the server does not answer, or not within half a minute.
    pub fn get_as(&self, path: &str, accept: &str) -> Result<Answer> {
        let request = self.request(path, accept).timeout(ANSWER);
        RUNTIME.block_on(async {
            let response = request.send().await.with_context(|| format!("GET {path}"))?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let body = response.text().await.with_context(|| format!("the body of GET {path}"))?;
            Ok(Answer { status, headers, body })
        })
    }

    pub(crate) fn request(&self, path: &str, accept: &str) -> reqwest::RequestBuilder {
        let request = self.http.get(format!("{}{path}", self.base)).header(ACCEPT, accept);
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }
}

impl Answer {
    /// The body as one JSON document.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("status {}: {:.300}", self.status, self.body))
    }

    /// The body's lines as JSON: NDJSON.
    ///
    /// # Errors
    /// When a line is none.
    pub fn ndjson(&self) -> Result<Vec<Value>> {
        let parse = |line: &str| serde_json::from_str(line).with_context(|| format!("{line:.300}"));
        self.body.lines().filter(|line| !line.is_empty()).map(parse).collect()
    }

    /// The records among the body's NDJSON lines.
    ///
    /// # Errors
    /// When a line is no JSON.
    pub fn records(&self) -> Result<Vec<Value>> {
        Ok(self.ndjson()?.into_iter().filter(|line| line.get("event").is_none()).collect())
    }

    /// The `log` of each record.
    ///
    /// # Errors
    /// When a line is no JSON.
    pub fn logs(&self) -> Result<Vec<String>> {
        Ok(self.records()?.iter().map(log_of).collect())
    }

    /// The events of one kind.
    ///
    /// # Errors
    /// When a line is no JSON.
    pub fn events(&self, kind: &str) -> Result<Vec<Value>> {
        Ok(self.ndjson()?.into_iter().filter(|line| line.get("event").and_then(Value::as_str) == Some(kind)).collect())
    }
}

/// A namespace's whole history as a client gets it who reads page by page: every record of the last hour but notices.
///
/// # Errors
/// When a request fails, or a page ends for another reason than its limit or completeness.
pub fn history(client: &Client, namespace: &str, page_records: usize) -> Result<Vec<Value>> {
    let path = format!("/v1/namespaces/{namespace}/logs?limit={page_records}");
    let mut answer = client.get(&format!("{path}&since=1h"))?;
    let mut records = Vec::new();
    loop {
        anyhow::ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.body);
        records.extend(answer.records()?.into_iter().filter(|record| record.pointer("/fairlead/notice").is_none()));
        let end = answer.events("end")?.pop().with_context(|| format!("{path}: no end"))?;
        match end.get("reason").and_then(Value::as_str) {
            Some("complete") => return Ok(records),
            Some("limit") => answer = client.get(&format!("{path}&cursor={}", cursor_of(&end)?))?,
            other => anyhow::bail!("{path}: ended because of {other:?}"),
        }
    }
}

/// A record's `log`.
pub fn log_of(record: &Value) -> String {
    record.get("log").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A record's or event's `cursor`.
///
/// # Errors
/// When it has none.
pub fn cursor_of(line: &Value) -> Result<String> {
    let cursor = line.get("cursor").and_then(Value::as_str).with_context(|| format!("no cursor in {line:.300}"))?;
    Ok(cursor.to_owned())
}
