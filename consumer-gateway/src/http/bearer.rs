//! The token of a request. Input: its headers. Output: the caller that it proves.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use fairlead_service_kit::telemetry::field;

use super::{Gateway, problem::ApiError};
use crate::authenticate::Caller;

/// The caller of a request, proved by its `Authorization: Bearer …`.
pub struct Authenticated(pub Caller);

impl FromRequestParts<Gateway> for Authenticated {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, ApiError> {
        let token = token(&parts.headers).ok_or(ApiError::NoToken)?;
        match gateway.0.authenticator.authenticate(token) {
            Ok(caller) => Ok(Self(caller)),
            Err(error) => {
                gateway.0.metrics.refuse_token(error.reason());
                tracing::info!({ field::REASON } = error.reason(), { field::ERROR } = %error, "token refused");
                Err(ApiError::TokenRefused(error))
            }
        }
    }
}

/// The text after `Bearer`. Two headers are none: which one counts would depend on who looks.
fn token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn tokens_in_headers() {
        let cases: [(&[&str], Option<&str>); 10] = [
            (&[], None),
            (&["Bearer abc"], Some("abc")),
            (&["bearer  abc "], Some("abc")),
            (&["BEARER a.b.c"], Some("a.b.c")),
            (&["Bearer"], None),
            (&["Bearer "], None),
            (&["Basic abc"], None),
            (&["abc"], None),
            (&["Bearer a", "Bearer a"], None),
            (&["Bearerabc"], None),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(token(&headers), expected, "{values:?}");
        }
    }
}
