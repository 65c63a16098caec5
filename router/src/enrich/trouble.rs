//! What went wrong with the API server: a reason from a closed set, and words.

use std::error::Error as StdError;

use fairlead_service_kit::telemetry::chain;
use kube::{Error, core::Status, runtime::watcher};

use super::meter::MeterError;

/// Why an answer did not come or could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// From a closed set.
    pub reason: Reason,
    /// For people. Holds nothing of an object and no token.
    pub text: String,
}

/// The kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// What is needed for a connection is missing or wrong: files, certificates, the address.
    Settings,
    /// No connection, or it broke.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// It does not know us.
    Unauthorized,
    /// A right is missing.
    Forbidden,
    /// It has too much to do.
    Throttled,
    /// What the watch goes on from is too old: all is listed again, which is no fault.
    Expired,
    /// There is no such object.
    NotFound,
    /// It does not take the request.
    Refused,
    /// It failed.
    Server,
    /// What came is no answer of an API server.
    Garbage,
    /// What came is more than is taken.
    TooLarge,
}

impl Reason {
    /// Its name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Settings => "settings",
            Reason::Unreachable => "unreachable",
            Reason::Timeout => "timeout",
            Reason::Unauthorized => "unauthorized",
            Reason::Forbidden => "forbidden",
            Reason::Throttled => "throttled",
            Reason::Expired => "expired",
            Reason::NotFound => "not_found",
            Reason::Refused => "refused",
            Reason::Server => "server_error",
            Reason::Garbage => "garbage",
            Reason::TooLarge => "too_large",
        }
    }

    /// By an HTTP status; none if that is no failure.
    pub fn of_status(code: u16) -> Option<Reason> {
        match code {
            ..400 => None,
            401 => Some(Reason::Unauthorized),
            403 => Some(Reason::Forbidden),
            404 => Some(Reason::NotFound),
            410 => Some(Reason::Expired),
            429 => Some(Reason::Throttled),
            400..500 => Some(Reason::Refused),
            // It starts, stops, or is overloaded.
            503 => Some(Reason::Throttled),
            500.. => Some(Reason::Server),
        }
    }

    /// Whether an administrator must act before it can pass.
    pub fn needs_somebody(self) -> bool {
        matches!(self, Reason::Settings | Reason::Unauthorized | Reason::Forbidden)
    }
}

impl Trouble {
    /// Trouble of a kind.
    pub fn new(reason: Reason, text: impl Into<String>) -> Trouble {
        Trouble { reason, text: text.into() }
    }

    /// What a watch says.
    pub fn of_watch(error: &watcher::Error) -> Trouble {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Trouble::of(error),
            watcher::Error::WatchError(status) => Trouble::of_answer(status),
            watcher::Error::NoResourceVersion => Trouble::new(Reason::Garbage, "an object without resourceVersion"),
        }
    }

    /// What the client says.
    pub fn of(error: &Error) -> Trouble {
        if let Some(error) = find::<MeterError>(error) {
            let reason = match error {
                MeterError::NoAnswer(_) => Reason::Timeout,
                MeterError::TooLarge(_) => Reason::TooLarge,
            };
            return Trouble::new(reason, error.to_string());
        }
        if let Some(error) = find::<rustls::Error>(error) {
            return Trouble::new(Reason::Settings, format!("TLS: {error}"));
        }
        match error {
            Error::Api(status) => Trouble::of_answer(status),
            Error::HyperError(error) => Trouble::new(Reason::Unreachable, chain(error)),
            Error::ReadEvents(error) => Trouble::new(Reason::Unreachable, chain(error)),
            Error::Service(error) => Trouble::new(Reason::Unreachable, chain(error.as_ref())),
            // The text of a parser shows where, and at most a word of what.
            Error::SerdeError(error) => {
                let (line, column) = (error.line(), error.column());
                Trouble::new(
                    Reason::Garbage,
                    format!("an answer that is not the JSON of this resource, at line {line}, column {column}"),
                )
            }
            Error::FromUtf8(_) => Trouble::new(Reason::Garbage, "an answer that is not UTF-8"),
            error => Trouble::new(Reason::Settings, error.to_string()),
        }
    }

    fn of_answer(status: &Status) -> Trouble {
        // Almost any JSON can be taken for a Status; one that is meant has a code.
        if status.code == 0 {
            return Trouble::new(Reason::Garbage, "an answer that is none of an API server");
        }
        let reason = Reason::of_status(status.code).unwrap_or(Reason::Server);
        // An HTTP answer that is no Status comes with its whole body as the message.
        let message: String = status.message.chars().filter(|c| !c.is_control()).take(300).collect();
        Trouble::new(reason, if message.is_empty() { format!("HTTP status {}", status.code) } else { message })
    }
}

/// Finds an error of a kind among the sources.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    // Deeper than any of them nests.
    const DEPTH_MAX: usize = 16;
    let mut current = Some(error);
    for _ in 0..DEPTH_MAX {
        let error = current?;
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An I/O error gives its inner error's source for its own, and leaves the inner error out.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        current = match inner {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn reasons_by_status() {
        let cases = [
            (200, None),
            (302, None),
            (400, Some("refused")),
            (401, Some("unauthorized")),
            (403, Some("forbidden")),
            (404, Some("not_found")),
            (410, Some("expired")),
            (422, Some("refused")),
            (429, Some("throttled")),
            (500, Some("server_error")),
            (503, Some("throttled")),
            (504, Some("server_error")),
        ];
        for (code, expected) in cases {
            assert_eq!(Reason::of_status(code).map(Reason::as_str), expected, "{code}");
        }
    }

    #[test]
    fn what_the_meter_says_is_found_wherever_it_nests() {
        let error = Error::ReadEvents(io::Error::other(io::Error::other(MeterError::TooLarge(5))));
        assert_eq!(Trouble::of(&error).reason, Reason::TooLarge);
        let error = Error::Service(Box::new(MeterError::NoAnswer(5)));
        assert_eq!(Trouble::of(&error).reason, Reason::Timeout);
        let error = Error::Service("no route".into());
        assert_eq!(Trouble::of(&error), Trouble::new(Reason::Unreachable, "no route"));
    }

    #[test]
    fn nothing_of_what_came_is_shown() {
        let error = serde_json::from_str::<u32>(r#""a-secret-in-an-annotation""#).unwrap_err();
        let trouble = Trouble::of(&Error::SerdeError(error));
        assert!(trouble.reason == Reason::Garbage && !trouble.text.contains("secret"), "{trouble:?}");
        assert_eq!(Trouble::of(&Error::Api(Status::default().boxed())).reason, Reason::Garbage);
        let status = Status { code: 502, message: "<html>\n".repeat(1_000), ..Status::default() };
        let trouble = Trouble::of(&Error::Api(status.boxed()));
        assert!(trouble.text.len() <= 300 && !trouble.text.contains('\n'), "{trouble:?}");
    }
}
