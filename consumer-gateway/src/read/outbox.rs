//! The way from a stream to its connection. Input: frames. Output: the same frames, no faster than the connection and the account take them.
//!
//! A frame that was handed over is sent or the stream breaks off without an `end`: no cursor is ever shown behind lines that were not sent.

use std::{
    future::Future,
    ops::ControlFlow,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{event::EndReason, pace::Pace};

/// How often it is asked again whether the caller may still read.
const RIGHT_EVERY: Duration = Duration::from_secs(5);
/// How long a stream that is to end waits for a frame to be taken.
const LAST_WORD: Duration = Duration::from_secs(5);
/// Frames that wait for the connection.
const FRAMES: usize = 2;

/// Where a stream's frames go.
#[derive(Clone)]
pub struct Outbox {
    frames: mpsc::Sender<Bytes>,
    pace: Option<Arc<Pace>>,
    stall: Duration,
    whole: Arc<AtomicBool>,
}

/// A stream's frames on their way out.
pub struct Frames {
    frames: mpsc::Receiver<Bytes>,
    whole: Arc<AtomicBool>,
}

/// The stream stopped without its last word. Whoever reads it must not take it for whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream broke off")]
pub struct BrokenOff;

/// How sending a frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent<R> {
    /// It was taken.
    Taken,
    /// It was taken, and the stream is to end.
    TakenLast(R),
    /// It was not taken: the client is gone, or took too long.
    Lost,
}

/// The outbox as threads use it that may block.
pub struct Valve {
    outbox: Outbox,
    stop: CancellationToken,
    lost: AtomicBool,
    runtime: Handle,
}

/// What ends a stream from outside.
pub struct Watch {
    /// When the caller's token expires.
    pub expires: Option<SystemTime>,
    /// Cancelled when the process is to stop.
    pub shutdown: CancellationToken,
    /// Whether the caller may still read; asked every few seconds.
    pub allowed: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Outbox {
    /// Makes an outbox and the receiver of its frames. `pace` slows it down; a frame that is not taken for as long as `stall` is lost.
    pub fn new(pace: Option<Arc<Pace>>, stall: Duration) -> (Self, Frames) {
        let (frames, receiver) = mpsc::channel(FRAMES);
        let whole = Arc::new(AtomicBool::new(false));
        (Self { frames, pace, stall, whole: whole.clone() }, Frames { frames: receiver, whole })
    }

    /// Sends the last frame, soon or never. Only a stream that was given it ends as a whole one.
    pub async fn finish(&self, frame: Vec<u8>) {
        if self.send(frame, std::future::ready(())).await != Sent::Lost {
            self.whole.store(true, Ordering::Release);
        }
    }

    /// Sends a frame once the account may be sent more and the connection takes it. When `ending` comes first, the frame goes at once or is
    /// lost. An empty frame is taken by whoever is there.
    ///
    /// # Cancel safety
    /// None: a frame whose sending is dropped is lost.
    pub async fn send<R>(&self, frame: Vec<u8>, ending: impl Future<Output = R>) -> Sent<R> {
        if frame.is_empty() {
            return if self.frames.is_closed() { Sent::Lost } else { Sent::Taken };
        }
        let mut ending = pin!(ending);
        let mut ends = None;
        if let Some(pace) = &self.pace {
            let debt = pace.debt();
            pace.take(frame.len());
            if !debt.is_zero() {
                tokio::select! {
                    biased;
                    reason = &mut ending => ends = Some(reason),
                    () = self.frames.closed() => return Sent::Lost,
                    () = sleep(debt) => {}
                }
            }
        }
        let mut sending = pin!(self.frames.send(frame.into()));
        let reason = match ends {
            Some(reason) => reason,
            None => tokio::select! {
                biased;
                sent = &mut sending => return if sent.is_ok() { Sent::Taken } else { Sent::Lost },
                reason = &mut ending => reason,
                () = sleep(self.stall) => return Sent::Lost,
            },
        };
        match timeout(LAST_WORD, sending).await {
            Ok(Ok(())) => Sent::TakenLast(reason),
            _ => Sent::Lost,
        }
    }

    /// Waits until the client is gone.
    pub async fn closed(&self) {
        self.frames.closed().await;
    }
}

impl Frames {
    /// The next frame; an error once where the stream broke off, then nothing.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        self.frames.poll_recv(context).map(|frame| match frame {
            Some(frame) => Some(Ok(frame)),
            None => (!self.whole.swap(true, Ordering::AcqRel)).then_some(Err(BrokenOff)),
        })
    }

    #[cfg(test)]
    async fn recv(&mut self) -> Option<Result<Bytes, BrokenOff>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }
}

impl Valve {
    /// Makes a valve that `stop` shuts. To be called on a thread of the runtime.
    pub fn new(outbox: Outbox, stop: CancellationToken) -> Self {
        Self { outbox, stop, lost: AtomicBool::new(false), runtime: Handle::current() }
    }

    /// Sends a frame and waits until it is taken. Breaks when nothing more is to be sent.
    pub fn send(&self, frame: Vec<u8>) -> ControlFlow<()> {
        let sent = self.runtime.block_on(self.outbox.send(frame, self.stop.cancelled()));
        if sent == Sent::Lost {
            self.lost.store(true, Ordering::Relaxed);
        }
        if self.is_shut() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Whether nothing more is to be sent.
    pub fn is_shut(&self) -> bool {
        self.stop.is_cancelled() || self.has_lost() || self.outbox.frames.is_closed()
    }

    /// Whether a frame could not be sent, so that no cursor may follow.
    pub fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Watch {
    /// Waits for what ends the stream.
    pub async fn ended(self) -> EndReason {
        let Self { expires, shutdown, allowed } = self;
        let expired = async {
            match expires {
                Some(at) => sleep(at.duration_since(SystemTime::now()).unwrap_or_default()).await,
                None => std::future::pending().await,
            }
        };
        let denied = async {
            while allowed() {
                sleep(RIGHT_EVERY).await;
            }
        };
        tokio::select! {
            () = denied => EndReason::Denied,
            () = expired => EndReason::Expired,
            () = shutdown.cancelled() => EndReason::Shutdown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::Instant;

    use super::*;

    const STALL: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_its_last_word_breaks_off() {
        let (outbox, mut frames) = Outbox::new(None, STALL);
        outbox.send(frame(), pending::<()>()).await;
        drop(outbox);
        assert!(matches!(frames.recv().await, Some(Ok(_))));
        assert_eq!(frames.recv().await, Some(Err(BrokenOff)));
        assert_eq!(frames.recv().await, None);

        let (outbox, mut frames) = Outbox::new(None, STALL);
        outbox.finish(frame()).await;
        drop(outbox);
        assert!(matches!(frames.recv().await, Some(Ok(_))));
        assert_eq!(frames.recv().await, None);

        // A last word that nobody takes is none.
        let (outbox, mut frames) = Outbox::new(None, STALL);
        for _ in 0..FRAMES {
            outbox.send(frame(), pending::<()>()).await;
        }
        outbox.finish(frame()).await;
        drop(outbox);
        for _ in 0..FRAMES {
            assert!(matches!(frames.recv().await, Some(Ok(_))));
        }
        assert_eq!(frames.recv().await, Some(Err(BrokenOff)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_nobody_takes_is_lost_in_the_end() {
        let (outbox, _frames) = Outbox::new(None, STALL);
        for _ in 0..FRAMES {
            assert_eq!(outbox.send(frame(), pending::<()>()).await, Sent::Taken);
        }
        let begun = Instant::now();
        assert_eq!(outbox.send(frame(), pending::<()>()).await, Sent::Lost);
        assert_eq!(begun.elapsed(), STALL);
    }

    fn frame() -> Vec<u8> {
        vec![0; 100]
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_is_taken_or_lost_and_nothing_between() {
        let (outbox, mut frames) = Outbox::new(None, STALL);
        for _ in 0..FRAMES {
            assert_eq!(outbox.send(frame(), pending::<()>()).await, Sent::Taken);
        }
        // The connection takes nothing: an end waits for a while, then the frame is lost.
        let begun = Instant::now();
        assert_eq!(outbox.send(frame(), ready(7)).await, Sent::Lost);
        assert_eq!(begun.elapsed(), LAST_WORD);
        // It takes one within that while.
        let (sent, _) = tokio::join!(outbox.send(frame(), ready(7)), async {
            sleep(Duration::from_secs(1)).await;
            frames.recv().await
        });
        assert_eq!(sent, Sent::TakenLast(7));
        assert_eq!(outbox.send(Vec::new(), pending::<()>()).await, Sent::Taken, "nothing to send takes no place");
        drop(frames);
        assert_eq!(outbox.send(frame(), pending::<()>()).await, Sent::Lost);
        assert_eq!(outbox.send(Vec::new(), pending::<()>()).await, Sent::Lost);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_does_not_wait_for_the_pace() {
        // A bucket of 100 bytes that the first frame empties three times over.
        let (outbox, mut frames) = Outbox::new(Some(Arc::new(Pace::new(100))), STALL);
        let drain = tokio::spawn(async move { while frames.recv().await.is_some() {} });
        assert_eq!(outbox.send(vec![0; 400], pending::<()>()).await, Sent::Taken);
        let begun = Instant::now();
        assert_eq!(outbox.send(frame(), ready(7)).await, Sent::TakenLast(7));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(outbox.send(frame(), pending::<()>()).await, Sent::Taken);
        assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
        drop(outbox);
        drain.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_for_the_first_reason() {
        let watch = |seconds: Option<u64>, allowed: bool| Watch {
            expires: seconds.map(|seconds| SystemTime::now() + Duration::from_secs(seconds)),
            shutdown: CancellationToken::new(),
            allowed: Box::new(move || allowed),
        };
        assert_eq!(watch(None, false).ended().await, EndReason::Denied);
        assert_eq!(watch(Some(3600), true).ended().await, EndReason::Expired);
        assert_eq!(watch(Some(0), true).ended().await, EndReason::Expired);
        let stopping = watch(None, true);
        stopping.shutdown.cancel();
        assert_eq!(stopping.ended().await, EndReason::Shutdown);
    }
}
