//! The live-tail page: three static files and an icon, with headers that let them load nothing but each other.
//!
//! No token passes through here: the page asks the API with the token that its reader pasted.

use axum::Router;
use axum::http::{HeaderName, header};
use axum::response::IntoResponse;
use axum::routing::get;

/// Nothing inline, nothing from elsewhere, never in a frame; scripts may not turn texts into markup.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// The page at `/` and what it loads. All addresses in it are relative, so it also works below a path of a proxy.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(|| async { file("text/html; charset=utf-8", include_str!("index.html")) }))
        .route("/page/app.js", get(|| async { file("text/javascript; charset=utf-8", include_str!("app.js")) }))
        .route("/page/app.css", get(|| async { file("text/css; charset=utf-8", include_str!("app.css")) }))
        .route("/page/icon.svg", get(|| async { file("image/svg+xml", include_str!("icon.svg")) }))
}

fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, &'static str); 7] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    (headers, text)
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn every_file_is_served_with_its_headers() {
        let check = async |path: &str, kind: &str, begins: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = routes::<()>().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], kind, "{path}");
            assert_eq!(response.headers()[header::CONTENT_SECURITY_POLICY], CONTENT_SECURITY_POLICY, "{path}");
            assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
            let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
            assert!(body.starts_with(begins.as_bytes()), "{path}");
        };
        check("/", "text/html; charset=utf-8", "<!doctype html>").await;
        check("/page/app.js", "text/javascript; charset=utf-8", "//").await;
        check("/page/app.css", "text/css; charset=utf-8", ":root").await;
        check("/page/icon.svg", "image/svg+xml", "<svg").await;
    }

    #[test]
    fn nothing_inline_nothing_from_elsewhere_and_text_stays_text() {
        let html = include_str!("index.html");
        let script = include_str!("app.js");
        for (text, forbidden) in [
            (html, &[" style=", " onclick=", "javascript:", "http:", "https:", "<style", "src=\"/", "href=\"/"][..]),
            (
                script,
                &[
                    "innerHTML",
                    "outerHTML",
                    "insertAdjacentHTML",
                    "document.write",
                    "eval(",
                    "Function(",
                    "localStorage",
                    "sessionStorage",
                    "cookie",
                    "DOMParser",
                    "http:",
                    "https:",
                ][..],
            ),
            (include_str!("app.css"), &["@import", "url(", "http:", "https:"][..]),
        ] {
            for word in forbidden {
                assert!(!text.contains(word), "{word}");
            }
        }
        assert!(html.match_indices("<script").all(|(at, _)| html[at..].starts_with("<script src=\"page/")));
    }
}
