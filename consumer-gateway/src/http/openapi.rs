//! `GET /openapi.json`: the description of the API that clients are made from.

use axum::{http::header, response::IntoResponse};

const DOCUMENT: &str = include_str!("openapi.json");

/// Serves the document.
pub async fn document() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "application/vnd.oai.openapi+json;version=3.1"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;
    use crate::http::{PATHS, query::PARAMETERS};

    fn read() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    #[test]
    fn describes_the_routes_that_are_there() {
        let document = read();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
        let described: Vec<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = PATHS.to_vec();
        expected.sort_unstable();
        assert_eq!(described, expected);
    }

    #[test]
    fn describes_the_parameters_that_are_taken() {
        let document = read();
        let parameters = document["paths"]["/v1/namespaces/{namespace}/logs"]["get"]["parameters"].as_array().unwrap();
        let described: BTreeMap<&str, bool> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| (parameter["name"].as_str().unwrap(), parameter["schema"]["type"] == "array"))
            .collect();
        assert_eq!(described, PARAMETERS.into_iter().collect());
        for parameter in parameters {
            assert!(parameter["description"].as_str().is_some_and(|text| !text.is_empty()), "{parameter}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(members) => members.iter().for_each(|(name, value)| match value {
                    Value::String(text) if name == "$ref" => found.push(text),
                    _ => references(value, found),
                }),
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let document = read();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 5);
        for reference in found {
            assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
        }
    }

    #[test]
    fn all_but_public_paths_want_a_token() {
        let document = read();
        assert_eq!(document["security"], serde_json::json!([{"bearer": []}]));
        for (path, item) in document["paths"].as_object().unwrap() {
            let public = item["get"]["security"] == serde_json::json!([]);
            assert_eq!(public, path == "/openapi.json", "{path}");
            assert_eq!(item["get"]["responses"].get("401").is_some(), !public, "{path}");
        }
    }
}
