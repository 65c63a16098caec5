//! Listens, and serves connections within limits: time for a request's head, time without progress, and how many there are.

use std::{
    collections::HashMap,
    future::pending,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::Router;
use hyper::service::{Service, service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::stall::StallGuard;
use crate::metrics::{Metrics, Open};

/// How long the head of a request may take, and the wait for the next one on a connection that is kept.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// When a silent peer is asked whether it is there, how often again, and how many times before the connection is given up.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMES: u32 = 3;
/// What a connection may gather of a head, and what waits to be written, in bytes.
const BUFFER_BYTES: usize = 128 * 1024;
/// How many streams an HTTP/2 connection may have.
const HTTP2_STREAMS_MAX: u32 = 200;
/// How long open connections may take to end at shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// Limits of the server.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Connections at one time; more wait to be accepted. One address has at most half of them, so that others find a place.
    pub connections_max: usize,
    /// How long a peer may take nothing.
    pub stall: Duration,
}

/// Serves until `stop` is cancelled, then lets open requests end within a bound.
/// A connection that cannot be accepted is logged and the next is waited for.
pub async fn serve(
    listener: TcpListener,
    routes: Router,
    limits: ServerLimits,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let builder = Arc::new(builder());
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let peers = Peers::new(limits.connections_max.div_ceil(2));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, peer, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly too many open files; the next attempt is no better at once.
                tracing::warn!(error = %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(peer) = peers.enter(peer.ip()) else {
            tracing::debug!(peer = %peer.ip(), "too many connections of one address");
            continue;
        };
        prepare(&stream, limits.stall);
        let io = TokioIo::new(StallGuard::new(stream, limits.stall));
        let (routes, asked) = (TowerToHyperService::new(routes.clone()), CancellationToken::new());
        let first = asked.clone();
        let service = service_fn(move |request| {
            first.cancel();
            routes.call(request)
        });
        let (builder, open, watcher) = (builder.clone(), Open::new(&metrics.connections), graceful.watcher());
        tokio::spawn(async move {
            let _held = (open, place, peer);
            let connection = watcher.watch(builder.serve_connection(io, service).into_owned());
            let mut connection = pin!(connection);
            tokio::select! {
                served = &mut connection => if let Err(error) = served {
                    tracing::debug!(error = %error, "a connection broke");
                },
                () = never_asked(asked) => tracing::debug!("a connection on which no request came in time is closed"),
            }
        });
    }
    drop(listener);
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still open and are cut off");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

/// Waits until the time for the first request's head is over; for ever once there was one. hyper keeps no time before it knows which version
/// of HTTP a peer speaks, nor for the first request of HTTP/2.
async fn never_asked(asked: CancellationToken) {
    if timeout(HEAD_TIME, asked.cancelled()).await.is_ok() {
        pending().await
    }
}

/// Sends without delay, and notices a peer that went without a word. What a system does not know is left out.
fn prepare(stream: &TcpStream, stall: Duration) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY).with_retries(KEEPALIVE_TIMES);
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(stall));
    #[cfg(not(target_os = "linux"))]
    let _ = stall;
}

/// How many connections each address has.
#[derive(Clone, Debug)]
struct Peers {
    each_max: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection of an address; given back when dropped.
#[derive(Debug)]
struct Peer {
    peers: Peers,
    address: IpAddr,
}

impl Peers {
    fn new(each_max: usize) -> Self {
        Self { each_max, open: Arc::default() }
    }

    fn enter(&self, address: IpAddr) -> Option<Peer> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= self.each_max {
            return None;
        }
        *count += 1;
        Some(Peer { peers: self.clone(), address })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut open = self.peers.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Without a timer hyper keeps no time at all.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(BUFFER_BYTES)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_send_buf_size(BUFFER_BYTES)
        .max_header_list_size(64 * 1024);
    builder
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::{Instant, sleep},
    };

    use super::*;

    /// Serves one route that takes a minute, on a port of its own.
    async fn start(stop: &CancellationToken) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let slow = get(|| async {
            sleep(Duration::from_secs(60)).await;
            "late"
        });
        let limits = ServerLimits { connections_max: 10, stall: Duration::from_secs(600) };
        let metrics = Arc::new(Metrics::new(&mut prometheus_client::registry::Registry::default()));
        tokio::spawn(serve(listener, Router::new().route("/slow", slow), limits, metrics, stop.clone()));
        address
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_is_closed() {
        let stop = CancellationToken::new();
        let address = start(&stop).await;
        for sent in ["", "G", "PRI * HT", "GET /slow HTTP/1.1\r\nhost: a\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let begun = Instant::now();
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            let mut received = Vec::new();
            let closed = timeout(HEAD_TIME * 3, stream.read_to_end(&mut received)).await;
            assert!(closed.is_ok(), "{sent:?} is still open after {:?}", begun.elapsed());
        }
        stop.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_take_longer_than_its_head() {
        let stop = CancellationToken::new();
        let mut stream = TcpStream::connect(start(&stop).await).await.unwrap();
        stream.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut received = String::new();
        stream.read_to_string(&mut received).await.unwrap();
        assert!(received.starts_with("HTTP/1.1 200 OK") && received.ends_with("late"), "{received}");
        stop.cancel();
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_cut_and_not_closed() {
        let broken = get(|| async {
            let (outbox, mut frames) = crate::read::Outbox::new(None, Duration::from_secs(60));
            outbox.send(b"part".to_vec(), pending::<()>()).await;
            drop(outbox);
            let frames = futures::stream::poll_fn(move |context| frames.poll_next(context));
            axum::body::Body::from_stream(frames)
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let limits = ServerLimits { connections_max: 10, stall: Duration::from_secs(60) };
        let metrics = Arc::new(Metrics::new(&mut prometheus_client::registry::Registry::default()));
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, Router::new().route("/", broken), limits, metrics, stop.clone()));
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut received = Vec::new();
        // The connection ends by itself, and there is no chunk of length 0.
        let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut received)).await.unwrap();
        let received = String::from_utf8(received).unwrap();
        assert!(!received.contains("\r\n0\r\n"), "{received}");
        stop.cancel();
    }

    #[test]
    fn one_address_has_a_part_of_the_connections() {
        let peers = Peers::new(2);
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = peers.enter(a);
        let second = peers.enter(a);
        assert!(first.is_some() && second.is_some() && peers.enter(a).is_none() && peers.enter(b).is_some());
        drop(first);
        assert!(peers.enter(a).is_some());
        drop(second);
        assert!(peers.open.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn sockets_notice_that_a_peer_went() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        prepare(&stream, Duration::from_secs(60));
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_AFTER);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(60)));
    }
}
