//! Bounded waiting for a state. Tests never sleep to synchronise: they say what they wait for and for how long at most.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks. Short enough not to blur a measurement in tenths of a second, long enough to cost nothing.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until `look` gives a value.
///
/// # Errors
/// When `within` has passed; the message says `what` was waited for.
pub fn wait_for<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if began.elapsed() >= within {
            bail!("waited {within:?} in vain for {what}");
        }
        std::thread::sleep(PAUSE);
    }
}

/// [`wait_for`] of a condition alone.
///
/// # Errors
/// When `within` has passed.
pub fn wait_until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
    wait_for(what, within, || holds().then_some(()))
}

/// Paces a writer: lets `pause` pass. Not for waiting until something has happened.
pub fn pace(pause: Duration) {
    std::thread::sleep(pause);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_what_was_found_and_names_what_was_not() {
        let mut looks = 0;
        let found = wait_for("three looks", Duration::from_secs(5), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found.unwrap(), 3);
        let error = wait_until("the moon", Duration::ZERO, || false).unwrap_err();
        assert!(error.to_string().contains("the moon"));
    }
}
