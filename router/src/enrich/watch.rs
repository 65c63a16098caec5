//! The one watch of this node's pods: which way it lists, when it begins anew, and how long it waits between failures.

use std::{sync::Arc, time::Duration};

use fairlead_service_kit::telemetry::field;
use futures::{StreamExt as _, stream::BoxStream};
use kube::{
    Api, Client,
    runtime::{
        utils::Backoff as _,
        watcher::{self, DefaultBackoff, Event, InitialListStrategy, ListSemantic, watcher},
    },
};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::info;

use super::{
    access::Access,
    client::connect,
    meter::Meter,
    object::Pod,
    spread,
    trouble::{Reason, Trouble},
};

/// The longest wait between failures, where the back-off says none.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The server ends a watch after this; spread, so that nodes that start at once do not come back at once for ever.
const WATCH_SECONDS: u32 = 240;
const WATCH_SPREAD: Duration = Duration::from_secs(50);

/// The watch. It never ends; after a failure it goes on or begins anew.
pub struct PodWatch {
    access: Access,
    meter: Arc<Meter>,
    config: watcher::Config,
    client: Option<Client>,
    stream: Option<BoxStream<'static, watcher::Result<Event<Pod>>>>,
    /// Whether the stream has told all pods and tells changes.
    is_told: bool,
    backoff: DefaultBackoff,
    resume_at: Instant,
    progress_max: Duration,
    progress_by: Instant,
}

impl PodWatch {
    /// Begins at `start_at`. `progress_max`: how long nothing may come while all pods are being told.
    pub fn new(access: Access, node: &str, meter: Arc<Meter>, start_at: Instant, progress_max: Duration) -> PodWatch {
        let spread = u32::try_from(spread(WATCH_SPREAD).as_secs()).unwrap_or(0);
        PodWatch {
            access,
            meter,
            config: watcher::Config {
                field_selector: Some(format!("spec.nodeName={}", escaped(node))),
                timeout: Some(WATCH_SECONDS + spread),
                // From the server's memory, by its index of nodes. The client would leave this out if it asked for pages.
                list_semantic: ListSemantic::Any,
                page_size: None,
                initial_list_strategy: InitialListStrategy::StreamingList,
                ..watcher::Config::default()
            },
            client: None,
            stream: None,
            is_told: false,
            backoff: DefaultBackoff::default(),
            resume_at: start_at,
            progress_max,
            progress_by: start_at,
        }
    }

    /// The client, to ask other things with; none while none can be made.
    pub fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// Whether all pods are told, and changes as they come as long as nothing goes wrong.
    pub fn is_told(&self) -> bool {
        self.is_told
    }

    /// The next event, or what went wrong; after that, the next call waits.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Event<Pod>, Trouble> {
        loop {
            sleep_until(self.resume_at).await;
            let next = self.step().await;
            match &next {
                Ok(event) => {
                    self.progress_by = Instant::now() + self.progress_max;
                    match event {
                        Event::Init => self.is_told = false,
                        Event::InitDone => self.is_told = true,
                        _ => {}
                    }
                }
                Err(trouble) if self.lists_otherwise(trouble) => continue,
                Err(trouble) => self.failed(trouble),
            }
            return next;
        }
    }

    /// Makes the next attempt a new one with a new client: files are read anew, and all pods are listed again.
    pub fn renew(&mut self) {
        (self.client, self.stream) = (None, None);
        self.is_told = false;
    }

    async fn step(&mut self) -> Result<Event<Pod>, Trouble> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.open()?,
        };
        let (is_told, by, progress_max) = (self.is_told, self.progress_by, self.progress_max);
        let stream = self.stream.insert(stream);
        let next = if is_told {
            stream.next().await
        } else {
            timeout_at(by, stream.next()).await.map_err(|_| {
                Trouble::new(
                    Reason::Timeout,
                    format!("no progress in {} s while all pods were listed", progress_max.as_secs()),
                )
            })?
        };
        match next {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Trouble::of_watch(&error)),
            None => Err(Trouble::new(Reason::Unreachable, "the watch ended")),
        }
    }

    fn open(&mut self) -> Result<BoxStream<'static, watcher::Result<Event<Pod>>>, Trouble> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(connect(&self.access, &self.meter)?).clone(),
        };
        self.is_told = false;
        self.progress_by = Instant::now() + self.progress_max;
        Ok(watcher(Api::<Pod>::all(client), self.config.clone()).boxed())
    }

    /// Whether it is the streaming of lists that failed: then it is not tried again, and the next attempt is made at once.
    fn lists_otherwise(&mut self, trouble: &Trouble) -> bool {
        let streams = self.config.initial_list_strategy == InitialListStrategy::StreamingList;
        if self.is_told || !streams || !refuses_streams(trouble.reason) {
            return false;
        }
        let (reason, text) = (trouble.reason.as_str(), &trouble.text);
        info!(
            { field::REASON } = reason,
            { field::ERROR } = text,
            "the API server streams no list: it is asked for an ordinary one"
        );
        self.config.initial_list_strategy = InitialListStrategy::ListWatch;
        self.stream = None;
        true
    }

    fn failed(&mut self, trouble: &Trouble) {
        if self.is_told {
            // The stream itself goes on from where it was, or lists again if that is too old.
            self.is_told = trouble.reason != Reason::Expired;
        } else {
            self.stream = None;
        }
        if matches!(trouble.reason, Reason::Unauthorized | Reason::Settings) {
            // The token, or an authority, may have been replaced.
            self.renew();
        }
        let wait = self.backoff.next().unwrap_or(BACKOFF_MAX);
        self.resume_at = self.meter.quiet_until().max(Instant::now() + wait);
        self.progress_by = self.resume_at + self.progress_max;
    }

    /// Failures are over: the next one waits as little as the first.
    pub fn is_well(&mut self) {
        self.backoff.reset();
    }
}

/// Whether an ordinary list may work where a streamed one did not: old servers do not know it, and with an old etcd they cannot do it.
fn refuses_streams(reason: Reason) -> bool {
    match reason {
        Reason::Refused | Reason::NotFound | Reason::Server | Reason::Garbage | Reason::Timeout | Reason::TooLarge => {
            true
        }
        Reason::Settings
        | Reason::Unreachable
        | Reason::Unauthorized
        | Reason::Forbidden
        | Reason::Throttled
        | Reason::Expired => false,
    }
}

/// A value in a field selector: what separates its parts is escaped, as apimachinery's `fields.EscapeValue` does it.
fn escaped(value: &str) -> String {
    value.chars().flat_map(|c| matches!(c, '\\' | ',' | '=').then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_has_one_part_whatever_the_name() {
        assert_eq!(escaped("node-1.eu.internal"), "node-1.eu.internal");
        assert_eq!(escaped(r"a,spec.nodeName=b\"), r"a\,spec.nodeName\=b\\");
    }
}
