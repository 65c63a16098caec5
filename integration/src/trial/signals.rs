//! Ctrl-C and SIGTERM: the first asks to stop, the second ends at once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::http::RUNTIME;

static ASKED: AtomicBool = AtomicBool::new(false);
/// One Ctrl-C may come twice, from the terminal and from what started us; a second one comes later.
const SAME: Duration = Duration::from_millis(500);

/// Has someone asked to stop?
pub(super) struct Stop(Mutex<Receiver<()>>);

impl Stop {
    /// Takes the signals from here on.
    pub(super) fn listen() -> Result<Stop> {
        let (sender, receiver) = channel();
        let _inside = RUNTIME.enter();
        let mut interrupt = signal(SignalKind::interrupt()).context("take SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("take SIGTERM")?;
        RUNTIME.spawn(async move {
            let mut first: Option<Instant> = None;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                ASKED.store(true, Ordering::Relaxed);
                let _ = sender.send(());
                if first.get_or_insert_with(Instant::now).elapsed() > SAME {
                    std::process::exit(130);
                }
            }
        });
        Ok(Stop(Mutex::new(receiver)))
    }

    pub(super) fn asked(&self) -> bool {
        ASKED.load(Ordering::Relaxed)
    }

    /// Waits so long, or until someone asks; says whether someone has.
    pub(super) fn wait(&self, longest: Duration) -> bool {
        let receiver = self.0.lock().expect("no holder of this lock panics");
        let _ = receiver.recv_timeout(longest);
        self.asked()
    }
}
