//! What was asked of the API server, by its audit log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// Requests of one user by verb and resource, for example `watch pods`; each counted once, however it ended.
///
/// # Errors
/// When the log cannot be read.
pub fn of_user(audit_log: &Path, user: &str) -> Result<BTreeMap<String, u64>> {
    let text = std::fs::read_to_string(audit_log).context("read the audit log")?;
    Ok(count(&text, user))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(rename = "auditID")]
    audit_id: String,
    verb: String,
    user: User,
    object_ref: Option<Object>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct Object {
    resource: String,
}

fn count(text: &str, user: &str) -> BTreeMap<String, u64> {
    let (mut seen, mut counted) = (BTreeSet::new(), BTreeMap::new());
    // The last line may be half written.
    for event in text.lines().filter_map(|line| serde_json::from_str::<Event>(line).ok()) {
        if event.user.username == user && seen.insert(event.audit_id) {
            let resource = event.object_ref.map_or_else(|| "-".to_owned(), |object| object.resource);
            *counted.entry(format!("{} {resource}", event.verb)).or_default() += 1;
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_each_request_once() {
        let line = |id: &str, verb: &str, user: &str, resource: Option<&str>| {
            let object = resource.map(|resource| json!({"resource": resource}));
            json!({"auditID": id, "verb": verb, "user": {"username": user}, "objectRef": object}).to_string()
        };
        let text = [
            line("1", "watch", "router", Some("pods")),
            line("1", "watch", "router", Some("pods")),
            line("2", "watch", "router", Some("pods")),
            line("3", "get", "router", None),
            line("4", "get", "other", Some("pods")),
            "{\"auditID\":".to_owned(),
        ];
        let expected = [("get -".to_owned(), 1), ("watch pods".to_owned(), 2)];
        assert_eq!(count(&text.join("\n"), "router"), expected.into());
    }
}
