//! The one error of the API and how it looks outside: an RFC 9457 problem document. What is public stands apart from its cause.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;

use crate::{
    authenticate::AuthenticateError,
    read::{Refusal, cursor::CursorError},
};

/// Why a request is not served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No bearer token came with the request.
    #[error("no token")]
    NoToken,
    /// The token is not believed. The caller does not learn why.
    #[error("token refused")]
    TokenRefused(#[source] AuthenticateError),
    /// There is no such thing, or it is not the caller's: one answer for both.
    #[error("not found")]
    NotFound,
    /// The path is there, the method is not.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// A query parameter is not taken.
    #[error("parameter {name}")]
    Parameter {
        /// Its name, as it was sent.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// None of the formats that the caller takes can be had.
    #[error("not acceptable")]
    NotAcceptable,
    /// The cursor's place is gone.
    #[error("cursor gone")]
    CursorGone {
        /// A cursor that begins where the lines are now.
        fresh: String,
    },
    /// The account has as many streams open as it may.
    #[error("too many streams")]
    TooManyStreams {
        /// How many it may have.
        limit: u32,
    },
    /// Kafka did not answer, or too much is asked at once.
    #[error("unavailable")]
    Unavailable(#[source] Refusal),
}

/// The document. `type` is a URN, since no page describes it.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
}

impl ApiError {
    /// A parameter that is not taken.
    pub fn parameter(name: &str, problem: impl Into<String>) -> Self {
        Self::Parameter { name: name.to_owned(), problem: problem.into() }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::TokenRefused(_) => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Parameter { .. } => StatusCode::BAD_REQUEST,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::CursorGone { .. } => StatusCode::GONE,
            Self::TooManyStreams { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The last part of the document's `type`, and the label in the metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoToken => "no-token",
            Self::TokenRefused(_) => "token-refused",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::Parameter { .. } => "parameter",
            Self::NotAcceptable => "not-acceptable",
            Self::CursorGone { .. } => "cursor-gone",
            Self::TooManyStreams { .. } => "too-many-streams",
            Self::Unavailable(_) => "unavailable",
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::NoToken | Self::TokenRefused(_) => "Not authenticated",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::Parameter { .. } => "Parameter not accepted",
            Self::NotAcceptable => "No such format",
            Self::CursorGone { .. } => "The cursor's place is gone",
            Self::TooManyStreams { .. } => "Too many streams",
            Self::Unavailable(_) => "Not available now",
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::NoToken => "Send a token: `Authorization: Bearer …`.".into(),
            Self::TokenRefused(_) => "The token is not accepted.".into(),
            Self::NotFound => "There is no such thing, or it is not yours.".into(),
            Self::MethodNotAllowed => "This path does not take this method.".into(),
            Self::Parameter { name, problem } => format!("Parameter `{}`: {problem}.", shown(name)),
            Self::NotAcceptable => "There are application/x-ndjson and text/plain.".into(),
            Self::CursorGone { .. } => {
                "The topic was made again, or ends before the cursor. `cursor` is a fresh one.".into()
            }
            Self::TooManyStreams { limit } => {
                format!("Your account may have {limit} of these open at a time. Close one, or try again later.")
            }
            Self::Unavailable(_) => "The logs cannot be read now. Try again soon.".into(),
        }
    }

    fn document(&self) -> Problem<'_> {
        Problem {
            r#type: format!("urn:fairlead:problem:{}", self.kind()),
            title: self.title(),
            status: self.status().as_u16(),
            detail: self.detail(),
            parameter: match self {
                Self::Parameter { name, .. } => Some(shown(name)),
                _ => None,
            },
            cursor: match self {
                Self::CursorGone { fresh } => Some(fresh),
                _ => None,
            },
            limit: match self {
                Self::TooManyStreams { limit } => Some(*limit),
                _ => None,
            },
        }
    }
}

/// A name as the caller sent it, shortened and without control characters.
fn shown(name: &str) -> String {
    let mut shown: String = name.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if shown.len() < name.len() && name.chars().count() > 64 {
        shown.push('…');
    }
    shown
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Cursor(CursorError::TooLong) => Self::parameter("cursor", CursorError::TooLong.to_string()),
            Refusal::Cursor(CursorError::NotOurs) => Self::parameter("cursor", CursorError::NotOurs.to_string()),
            Refusal::Gone { fresh } => Self::CursorGone { fresh },
            Refusal::Busy | Refusal::Kafka(_) => Self::Unavailable(refusal),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let body = serde_json::to_vec(&self.document()).expect("a problem is written to memory");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        match &self {
            Self::NoToken => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"fairlead\""));
            }
            Self::TokenRefused(_) => {
                let challenge = HeaderValue::from_static("Bearer realm=\"fairlead\", error=\"invalid_token\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            Self::TooManyStreams { .. } | Self::Unavailable(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        response.extensions_mut().insert(Refused(self.kind()));
        response
    }
}

/// Left in a response for the access log: which problem it is.
#[derive(Clone, Copy, Debug)]
pub struct Refused(pub &'static str);

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    async fn check(error: ApiError, status: u16, headers: &[(&str, &str)], document: serde_json::Value) {
        let response = error.into_response();
        assert_eq!(response.status().as_u16(), status);
        for (name, value) in
            headers.iter().chain(&[("content-type", "application/problem+json"), ("cache-control", "no-store")])
        {
            assert_eq!(response.headers()[*name], *value);
        }
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).unwrap(), document);
    }

    #[tokio::test]
    async fn problems_as_documents() {
        check(
            ApiError::parameter("tial", "is not known here"),
            400,
            &[],
            serde_json::json!({"type": "urn:fairlead:problem:parameter", "title": "Parameter not accepted", "status": 400,
                "detail": "Parameter `tial`: is not known here.", "parameter": "tial"}),
        )
        .await;
        check(
            ApiError::CursorGone { fresh: "abc".into() },
            410,
            &[],
            serde_json::json!({"type": "urn:fairlead:problem:cursor-gone", "title": "The cursor's place is gone", "status": 410,
                "detail": "The topic was made again, or ends before the cursor. `cursor` is a fresh one.", "cursor": "abc"}),
        )
        .await;
        check(
            ApiError::NoToken,
            401,
            &[("www-authenticate", "Bearer realm=\"fairlead\"")],
            serde_json::json!({"type": "urn:fairlead:problem:no-token", "title": "Not authenticated", "status": 401,
                "detail": "Send a token: `Authorization: Bearer …`."}),
        )
        .await;
        check(
            ApiError::TooManyStreams { limit: 3 },
            429,
            &[("retry-after", "5")],
            serde_json::json!({"type": "urn:fairlead:problem:too-many-streams", "title": "Too many streams", "status": 429,
                "detail": "Your account may have 3 of these open at a time. Close one, or try again later.", "limit": 3}),
        )
        .await;
    }

    #[test]
    fn names_are_shown_short_and_harmless() {
        for (name, expected) in [
            ("a", "a".to_owned()),
            ("a\r\nb\x1b", "a\u{fffd}\u{fffd}b\u{fffd}".to_owned()),
            (&"x".repeat(70), "x".repeat(64) + "…"),
        ] {
            assert_eq!(shown(name), expected);
        }
    }
}
