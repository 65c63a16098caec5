//! One root token that SIGTERM or SIGINT cancels; a second signal ends the process at once, unless it only repeats the first.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Signals so close to the first are one request sent twice: `timeout` signals the process and its group.
const ONE_REQUEST: Duration = Duration::from_millis(250);

/// The process's root token and the task that listens for signals.
#[derive(Debug)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Begins to listen for SIGTERM and SIGINT; the first cancels the token, one that comes later than
    /// 250 ms after it exits with 128 + its number.
    ///
    /// # Errors
    /// If a signal listener cannot be installed.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn on_signals() -> std::io::Result<Shutdown> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let token = CancellationToken::new();
        let first = token.clone();
        tokio::spawn(async move {
            let number = next(&mut terminate, &mut interrupt).await;
            tracing::info!(signal = number, "stopping");
            first.cancel();
            let asked = Instant::now();
            let number = loop {
                let number = next(&mut terminate, &mut interrupt).await;
                if !is_same_request(asked.elapsed()) {
                    break number;
                }
            };
            tracing::warn!(signal = number, "second signal, ending at once");
            std::process::exit(128 + number);
        });
        Ok(Shutdown { token })
    }

    /// The token that the first signal cancels.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

/// Whether a signal so long after the first says nothing new.
fn is_same_request(after: Duration) -> bool {
    after < ONE_REQUEST
}

/// Waits for either signal and gives its number.
async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_double_is_one_request_and_a_later_signal_another() {
        let check = |after_ms, same| assert_eq!(is_same_request(Duration::from_millis(after_ms)), same, "{after_ms}");
        check(0, true);
        check(249, true);
        check(250, false);
        check(5_000, false);
    }
}
