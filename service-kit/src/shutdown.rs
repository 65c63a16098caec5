//! One root token that SIGTERM or SIGINT cancels; a second signal ends the process at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The process's root token and the task that listens for signals.
#[derive(Debug)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Begins to listen for SIGTERM and SIGINT; the first cancels the token, the second exits with 128 + its number.
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
            let number = next(&mut terminate, &mut interrupt).await;
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

/// Waits for either signal and gives its number.
async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}
