//! A connection that can be broken: a TCP proxy on loopback that cuts, refuses and delays, and counts bytes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::http::RUNTIME;
use crate::ports::free_port;

/// A running proxy. When it is dropped, its connections end.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    target: SocketAddr,
    open: AtomicBool,
    delay_ms: AtomicU64,
    connections: AtomicU64,
    to_target: AtomicU64,
    from_target: AtomicU64,
    /// Every change cuts the connections there are.
    cuts: watch::Sender<u64>,
}

impl Proxy {
    /// Passes connections on to `target`, which need not listen yet.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(target: SocketAddr) -> Result<Proxy> {
        let state = Arc::new(State {
            target,
            open: AtomicBool::new(true),
            delay_ms: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            to_target: AtomicU64::new(0),
            from_target: AtomicU64::new(0),
            cuts: watch::Sender::new(0),
        });
        let listener = RUNTIME.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, free_port()))).context("listen")?;
        let address = listener.local_addr().context("its own address")?;
        let task = RUNTIME.spawn(accept(listener, Arc::clone(&state)));
        Ok(Proxy { address, state, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all connections there are; new ones are passed on.
    pub fn cut(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// From now on connections are passed on, or closed as soon as they are made.
    pub fn open(&self, open: bool) {
        self.state.open.store(open, Ordering::Relaxed);
        if !open {
            self.cut();
        }
    }

    /// From now on each piece of up to 16 KiB waits so long before it goes on, in both directions.
    pub fn delay(&self, delay: Duration) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.state.delay_ms.store(delay_ms, Ordering::Relaxed);
    }

    /// Connections passed on so far.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Bytes passed on so far, to the target and from it.
    pub fn bytes(&self) -> (u64, u64) {
        (self.state.to_target.load(Ordering::Relaxed), self.state.from_target.load(Ordering::Relaxed))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.open(false);
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        if state.open.load(Ordering::Relaxed) {
            tokio::spawn(connect(client, Arc::clone(&state)));
        }
    }
}

async fn connect(client: TcpStream, state: Arc<State>) {
    let mut cuts = state.cuts.subscribe();
    let Ok(target) = TcpStream::connect(state.target).await else { return };
    state.connections.fetch_add(1, Ordering::Relaxed);
    let _ = (client.set_nodelay(true), target.set_nodelay(true));
    let ((from_client, to_client), (from_target, to_target)) = (client.into_split(), target.into_split());
    let there = pass_on(from_client, to_target, &state.to_target, &state.delay_ms);
    let back = pass_on(from_target, to_client, &state.from_target, &state.delay_ms);
    tokio::select! {
        _ = async { tokio::join!(there, back) } => {}
        _ = cuts.changed() => {}
    }
}

async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, counter: &AtomicU64, delay_ms: &AtomicU64) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let delay = Duration::from_millis(delay_ms.load(Ordering::Relaxed));
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        counter.fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&piece[..length]).await.is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::time::Instant;

    use super::*;

    /// Sends back what it is sent.
    fn echo() -> SocketAddr {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                std::thread::spawn(move || std::io::copy(&mut client.try_clone().unwrap(), &mut client));
            }
        });
        address
    }

    fn asked(stream: &mut std::net::TcpStream) -> std::io::Result<[u8; 4]> {
        let mut answer = [0; 4];
        stream.write_all(b"ping")?;
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn passes_on_counts_delays_cuts_and_refuses() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut stream = std::net::TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(asked(&mut stream).unwrap(), *b"ping");
        assert_eq!((proxy.bytes(), proxy.connections()), ((4, 4), 1));
        proxy.delay(Duration::from_millis(50));
        let began = Instant::now();
        assert_eq!(asked(&mut stream).unwrap(), *b"ping");
        assert!(began.elapsed() >= Duration::from_millis(100), "there and back");
        proxy.delay(Duration::ZERO);
        proxy.cut();
        asked(&mut stream).unwrap_err();
        let mut again = std::net::TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(asked(&mut again).unwrap(), *b"ping");
        proxy.open(false);
        asked(&mut again).unwrap_err();
        let mut refused = std::net::TcpStream::connect(proxy.address()).unwrap();
        asked(&mut refused).unwrap_err();
        proxy.open(true);
        assert_eq!(asked(&mut std::net::TcpStream::connect(proxy.address()).unwrap()).unwrap(), *b"ping");
    }
}
