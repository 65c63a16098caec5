//! A live stream of the gateway, read as it comes, each line with the moment of its arrival.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt as _;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::http::{Client, RUNTIME};

/// An open stream; dropped, it is closed.
#[derive(Debug)]
pub struct Follow {
    lines: Receiver<(Instant, String)>,
    task: JoinHandle<()>,
}

impl Follow {
    /// Opens a stream of NDJSON.
    ///
    /// # Errors
    /// When the server does not answer with 200.
    pub fn open(client: &Client, path: &str) -> Result<Follow> {
        let request = client.request(path, "application/x-ndjson");
        let response = RUNTIME.block_on(request.send()).with_context(|| format!("GET {path}"))?;
        if !response.status().is_success() {
            bail!("GET {path}: {}", response.status());
        }
        let (sender, lines) = channel();
        let task = RUNTIME.spawn(read(response, sender));
        Ok(Follow { lines, task })
    }

    /// The next line, records and events alike.
    ///
    /// # Errors
    /// When none comes within `within`, or the stream has ended.
    pub fn next(&self, within: Duration) -> Result<(Instant, Value)> {
        match self.lines.recv_timeout(within) {
            Ok((at, line)) => Ok((at, serde_json::from_str(&line).with_context(|| format!("{line:.300}"))?)),
            Err(RecvTimeoutError::Timeout) => bail!("no line for {within:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("the stream has ended"),
        }
    }

    /// The next record; events are passed over.
    ///
    /// # Errors
    /// When none comes within `within`, or the stream has ended.
    pub fn next_record(&self, within: Duration) -> Result<(Instant, Value)> {
        let until = Instant::now() + within;
        loop {
            let (at, line) = self.next(until.saturating_duration_since(Instant::now()))?;
            if line.get("event").is_none() {
                return Ok((at, line));
            }
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(response: reqwest::Response, lines: Sender<(Instant, String)>) {
    let mut body = response.bytes_stream();
    let mut pending = Vec::new();
    while let Some(Ok(bytes)) = body.next().await {
        let at = Instant::now();
        pending.extend_from_slice(&bytes);
        while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let text = String::from_utf8_lossy(&line[..end]).into_owned();
            if !text.is_empty() && lines.send((at, text)).is_err() {
                return;
            }
        }
    }
}
