//! Between the client and the wire: counts requests and bytes, bounds answers and the wait for them, and keeps requests for lists and watches apart.
//!
//! The last is for what no back-off sees: a watch that is accepted and at once closed is no error to the client, which opens the next one.

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use http_body::{Body as HttpBody, Frame, SizeHint};
use kube::client::Body;
use tokio::{
    sync::Notify,
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};
use tower::{BoxError, Layer, Service};

use super::{metrics::KubernetesMetrics, trouble::Reason};

/// The longest that a server may ask us to wait.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Lists and watches at once, and the time after which one more may be.
const BURST: u32 = 5;
const REFILL: Duration = Duration::from_secs(2);
/// The most bytes of one event, of one list and of any other answer. An object in etcd has at most 1.5 MiB there.
const EVENT_BYTES_MAX: u64 = 16 << 20;
const LIST_BYTES_MAX: u64 = 64 << 20;
const OBJECT_BYTES_MAX: u64 = 16 << 20;

/// Why the meter gave up.
#[derive(Debug, thiserror::Error)]
pub enum MeterError {
    /// No answer in so many seconds.
    #[error("no answer in {0} s")]
    NoAnswer(u64),
    /// An answer, or an event of a watch, of more bytes than that.
    #[error("an answer of more than {0} bytes")]
    TooLarge(u64),
}

/// What the layers of successive clients share.
#[derive(Debug)]
pub struct Meter {
    metrics: KubernetesMetrics,
    /// How long the head of an answer is waited for; that of a watch comes at once too.
    answer_max: Duration,
    /// How long a watch may be silent: the server sends a bookmark about once a minute.
    silence_max: Duration,
    /// Told when a watch is answered: from then on changes are told.
    pub watching: Notify,
    pace: Mutex<Pace>,
}

#[derive(Debug)]
struct Pace {
    tokens: u32,
    refilled_at: Instant,
    /// The server asked us to wait until then.
    quiet_until: Instant,
}

impl Meter {
    /// Counts here. `answer_max`: how long the head of an answer is waited for. `silence_max`: how long a watch may be silent.
    pub fn new(metrics: KubernetesMetrics, answer_max: Duration, silence_max: Duration) -> Meter {
        let now = Instant::now();
        let pace = Pace { tokens: BURST, refilled_at: now, quiet_until: now };
        Meter { metrics, answer_max, silence_max, watching: Notify::new(), pace: Mutex::new(pace) }
    }

    /// Until when the server asked us to wait.
    pub fn quiet_until(&self) -> Instant {
        self.pace().quiet_until
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    /// When a request may go out.
    fn take(&mut self, kind: Kind, now: Instant) -> Instant {
        if kind.verb == "get" {
            return self.quiet_until.max(now);
        }
        let gained = now.saturating_duration_since(self.refilled_at).as_secs() / REFILL.as_secs();
        if gained > 0 {
            let gained = u32::try_from(gained).unwrap_or(BURST).min(BURST);
            self.tokens = (self.tokens + gained).min(BURST);
            self.refilled_at = now;
        }
        if self.tokens > 0 {
            self.tokens -= 1;
            return self.quiet_until.max(now);
        }
        // Whoever comes next waits behind this one.
        self.refilled_at = self.refilled_at.max(now) + REFILL;
        self.quiet_until.max(self.refilled_at)
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    verb: &'static str,
    resource: &'static str,
    /// Of the whole answer; of a watch, of one line.
    bytes_max: u64,
}

impl Kind {
    fn of<B>(request: &Request<B>) -> Kind {
        let mut segments = request.uri().path().rsplit('/');
        let resource = match (segments.next(), segments.next()) {
            (_, Some("namespaces")) => "namespaces",
            (_, Some("nodes")) => "nodes",
            (Some("pods"), _) => "pods",
            _ => "other",
        };
        let is_watch = request.uri().query().unwrap_or_default().split('&').any(|pair| pair == "watch=true");
        let (verb, bytes_max) = match resource {
            "pods" if is_watch => ("watch", EVENT_BYTES_MAX),
            "pods" => ("list", LIST_BYTES_MAX),
            _ => ("get", OBJECT_BYTES_MAX),
        };
        Kind { verb, resource, bytes_max }
    }
}

impl<S> Layer<S> for Handle {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered { inner, meter: Arc::clone(&self.0) }
    }
}

/// The layer.
#[derive(Clone, Debug)]
pub struct Handle(pub Arc<Meter>);

/// The layer around a client.
#[derive(Clone, Debug)]
pub struct Metered<S> {
    inner: S,
    meter: Arc<Meter>,
}

impl<S, B> Service<Request<Body>> for Metered<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    type Response = Response<MeteredBody<B>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that was polled is the one that is ready.
        let next = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, next);
        let meter = Arc::clone(&self.meter);
        Box::pin(async move {
            let kind = Kind::of(&request);
            let at = meter.pace().take(kind, Instant::now());
            sleep_until(at).await;
            let answer = match timeout(meter.answer_max, ready.call(request)).await {
                Ok(answer) => answer.map_err(Into::into),
                Err(_) => Err(MeterError::NoAnswer(meter.answer_max.as_secs()).into()),
            };
            meter.judge(kind, answer.as_ref().map_err(AsRef::as_ref));
            let silence = (kind.verb == "watch").then(|| Box::pin(sleep(meter.silence_max)));
            answer.map(|answer| answer.map(|body| MeteredBody { body, meter, kind, bytes: 0, silence }))
        })
    }
}

impl Meter {
    fn judge<B>(&self, kind: Kind, answer: Result<&Response<B>, &(dyn StdError + Send + Sync + 'static)>) {
        let result = match answer {
            Ok(answer) => Reason::of_status(answer.status().as_u16()).map_or("ok", Reason::as_str),
            Err(error) if error.is::<MeterError>() => Reason::Timeout.as_str(),
            Err(_) => Reason::Unreachable.as_str(),
        };
        self.metrics.requested(kind.verb, kind.resource, result);
        let Ok(answer) = answer else { return };
        if kind.verb == "watch" && answer.status().is_success() {
            self.watching.notify_one();
        }
        if matches!(answer.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let wait = Duration::from_secs(seconds.unwrap_or(1)).min(RETRY_AFTER_MAX);
            self.pace().quiet_until = Instant::now() + wait;
        }
    }
}

/// A body that is counted and bounded.
#[derive(Debug)]
pub struct MeteredBody<B> {
    body: B,
    meter: Arc<Meter>,
    kind: Kind,
    /// So far; of a watch, of the present line.
    bytes: u64,
    /// Of a watch: when it has been silent for too long. A connection may seem to live though nobody is there any more.
    silence: Option<Pin<Box<Sleep>>>,
}

impl<B> HttpBody for MeteredBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            // Its end, and no error: the next one shows how it is.
            let silent = this.silence.as_mut().is_some_and(|silence| silence.as_mut().poll(context).is_ready());
            return if silent { Poll::Ready(None) } else { Poll::Pending };
        };
        if let Some(silence) = &mut this.silence {
            silence.as_mut().reset(Instant::now() + this.meter.silence_max);
        }
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref) {
            this.meter.metrics.received_bytes.inc_by(data.remaining() as u64);
            let line_began = (this.kind.verb == "watch").then(|| memchr::memrchr(b'\n', data)).flatten();
            this.bytes = match line_began {
                Some(newline) => (data.len() - newline - 1) as u64,
                None => this.bytes + data.len() as u64,
            };
            if this.bytes > this.kind.bytes_max {
                return Poll::Ready(Some(Err(MeterError::TooLarge(this.kind.bytes_max).into())));
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(uri: &str) -> (&'static str, &'static str) {
        let kind = Kind::of(&Request::get(uri).body(()).unwrap());
        (kind.verb, kind.resource)
    }

    #[test]
    fn lists_and_watches_are_kept_apart_and_wait_while_told_to() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let [watch, get] = ["/api/v1/pods?watch=true", "/api/v1/namespaces/a"]
            .map(|uri| Kind::of(&Request::get(uri).body(()).unwrap()));
        let mut pace = Pace { tokens: BURST, refilled_at: start, quiet_until: start };
        for _ in 0..BURST {
            assert_eq!(pace.take(watch, start), start);
        }
        assert_eq!((pace.take(watch, start), pace.take(watch, start)), (at(2), at(4)));
        assert_eq!(pace.take(get, start), start, "others are not kept waiting");
        assert_eq!(pace.take(watch, at(60)), at(60));
        pace.quiet_until = at(90);
        assert_eq!((pace.take(watch, at(60)), pace.take(get, at(60))), (at(90), at(90)));
    }

    /// A body of these frames, and how many of them come through.
    fn through(kind: Kind, frames: &[usize], newline_at_end: bool) -> (usize, bool) {
        struct Frames(Vec<Bytes>);
        impl HttpBody for Frames {
            type Data = Bytes;
            type Error = BoxError;
            fn poll_frame(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
                Poll::Ready(self.0.pop().map(|bytes| Ok(Frame::data(bytes))))
            }
        }
        let bytes = |length: &usize| {
            let mut bytes = vec![b'x'; *length];
            if newline_at_end && let Some(last) = bytes.last_mut() {
                *last = b'\n';
            }
            Bytes::from(bytes)
        };
        let meter = Arc::new(Meter::new(KubernetesMetrics::default(), Duration::ZERO, Duration::ZERO));
        let body = Frames(frames.iter().rev().map(bytes).collect());
        let mut body = MeteredBody { body, meter: Arc::clone(&meter), kind, bytes: 0, silence: None };
        let mut count = 0;
        let mut context = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut context) {
            match frame {
                Ok(_) => count += 1,
                Err(error) => return (count, error.is::<MeterError>()),
            }
        }
        assert_eq!(meter.metrics.received_bytes.get(), frames.iter().sum::<usize>() as u64);
        (count, false)
    }

    #[test]
    fn answers_and_events_are_bounded() {
        let kind = |verb| Kind { verb, resource: "pods", bytes_max: 100 };
        assert_eq!(through(kind("list"), &[50, 50], false), (2, false));
        assert_eq!(through(kind("list"), &[50, 50, 1], false), (2, true));
        assert_eq!(through(kind("list"), &[50, 50, 1], true), (2, true), "whatever lines it has");
        assert_eq!(through(kind("watch"), &[50, 50, 1], false), (2, true));
        assert_eq!(through(kind("watch"), &[50, 50, 50, 100, 100], true), (5, false), "each event is small");
    }

    #[tokio::test]
    async fn requests_are_told_apart() {
        assert_eq!(kind("/api/v1/pods?fieldSelector=spec.nodeName%3Dn&limit=500"), ("list", "pods"));
        assert_eq!(kind("/api/v1/pods?&watch=true&timeoutSeconds=290"), ("watch", "pods"));
        assert_eq!(kind("/prefix/api/v1/pods?"), ("list", "pods"));
        assert_eq!(kind("/api/v1/namespaces/pods"), ("get", "namespaces"));
        assert_eq!(kind("/api/v1/namespaces/payments"), ("get", "namespaces"));
        assert_eq!(kind("/api/v1/nodes/node-1"), ("get", "nodes"));
    }
}
