//! What is parsed of a pod object; everything else is skipped where it is read, and never built.
//!
//! Nothing in it is required and nothing may be of a kind that stops the parsing: one odd object must not hide the others.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use kube::Resource;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

/// A longer value of an annotation is never taken, so it is not kept until that is decided.
const VALUE_BYTES_MAX: usize = 16 << 10;

/// A pod, as far as it is looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "RawPod")]
pub struct Pod {
    /// Name, namespace, uid, resource version and labels alone: what the watch needs, too.
    pub metadata: ObjectMeta,
    /// When it was made; its own seconds, by the API server's clock.
    pub created: Option<Timestamp>,
    /// None where the value is too long to be taken.
    pub annotations: BTreeMap<String, Option<String>>,
    /// The owner that made it, if one did.
    pub controller: Option<OwnerReference>,
    /// The node that it is bound to.
    pub node: String,
    /// Ordinary, init, sidecar and ephemeral containers.
    pub containers: Vec<Container>,
    /// What is told of them.
    pub statuses: Vec<Status>,
}

/// Who made a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct OwnerReference {
    /// `ReplicaSet`, `DaemonSet`, …
    pub kind: String,
    /// Its name.
    pub name: String,
    controller: Option<bool>,
}

/// A container as it is wished for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image.
    #[serde(deserialize_with = "or_default")]
    pub image: String,
}

/// A container as it is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// Its name.
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    restart_count: i64,
    #[serde(rename = "containerID", deserialize_with = "or_default")]
    container_id: String,
    #[serde(deserialize_with = "or_default")]
    state: State,
    #[serde(deserialize_with = "or_default")]
    last_state: State,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    #[serde(deserialize_with = "or_default")]
    terminated: Terminated,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Terminated {
    #[serde(rename = "containerID", deserialize_with = "or_default")]
    container_id: String,
}

impl Status {
    /// The runtime's ids that it tells, with the restart count of each: of the present instance, and of the one before.
    ///
    /// While a container waits for its next start, both places name the one that ended last, and it is counted as the present one.
    pub fn ids(&self) -> impl Iterator<Item = (u32, &str)> {
        let count = u32::try_from(self.restart_count).ok();
        let present = [&self.container_id, &self.state.terminated.container_id].into_iter().find(|id| !id.is_empty());
        let last = Some(&self.last_state.terminated.container_id).filter(|id| !id.is_empty() && Some(*id) != present);
        // Without a present one, the last may be of this count or of the one before: nothing is said of it.
        let last = last.filter(|_| present.is_some());
        let present = count.zip(present);
        let last = count.and_then(|count| count.checked_sub(1)).zip(last);
        present
            .into_iter()
            .chain(last)
            .map(|(count, id)| (count, id.split_once("://").map_or(id.as_str(), |(_, id)| id)))
    }
}

impl Resource for Pod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct RawPod {
    #[serde(deserialize_with = "or_default")]
    metadata: RawMetadata,
    #[serde(deserialize_with = "or_default")]
    spec: RawSpec,
    #[serde(deserialize_with = "or_default")]
    status: RawStatus,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct RawMetadata {
    #[serde(deserialize_with = "or_default")]
    name: String,
    #[serde(deserialize_with = "or_default")]
    namespace: String,
    #[serde(deserialize_with = "or_default")]
    uid: String,
    #[serde(deserialize_with = "or_default")]
    resource_version: String,
    #[serde(deserialize_with = "or_default")]
    creation_timestamp: String,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    annotations: Annotations,
    #[serde(deserialize_with = "or_default")]
    owner_references: Vec<OwnerReference>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct RawSpec {
    #[serde(deserialize_with = "or_default")]
    node_name: String,
    #[serde(deserialize_with = "or_default")]
    containers: Vec<Container>,
    #[serde(deserialize_with = "or_default")]
    init_containers: Vec<Container>,
    #[serde(deserialize_with = "or_default")]
    ephemeral_containers: Vec<Container>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct RawStatus {
    #[serde(deserialize_with = "or_default")]
    container_statuses: Vec<Status>,
    #[serde(deserialize_with = "or_default")]
    init_container_statuses: Vec<Status>,
    #[serde(deserialize_with = "or_default")]
    ephemeral_container_statuses: Vec<Status>,
}

impl From<RawPod> for Pod {
    fn from(raw: RawPod) -> Pod {
        let RawPod { metadata, spec, status } = raw;
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let mut containers = spec.containers;
        containers.extend(spec.init_containers);
        containers.extend(spec.ephemeral_containers);
        let mut statuses = status.container_statuses;
        statuses.extend(status.init_container_statuses);
        statuses.extend(status.ephemeral_container_statuses);
        Pod {
            metadata: ObjectMeta {
                name: some(metadata.name),
                namespace: some(metadata.namespace),
                uid: some(metadata.uid),
                resource_version: some(metadata.resource_version),
                labels: Some(metadata.labels),
                ..ObjectMeta::default()
            },
            created: metadata.creation_timestamp.parse().ok(),
            annotations: metadata.annotations.0,
            controller: metadata.owner_references.into_iter().find(|owner| owner.controller == Some(true)),
            node: spec.node_name,
            containers,
            statuses,
        }
    }
}

/// `null` is what Go writes for an empty list, map or pointer.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Default)]
struct Annotations(BTreeMap<String, Option<String>>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Short;
        impl<'de> Visitor<'de> for Short {
            type Value = Annotations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("annotations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
                let mut found = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name.len() > VALUE_BYTES_MAX {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let value = map.next_value::<String>()?;
                    found.insert(name, Some(value).filter(|value| value.len() <= VALUE_BYTES_MAX));
                }
                Ok(Annotations(found))
            }
        }
        deserializer.deserialize_map(Short)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ids(status: Value) -> Vec<(u32, String)> {
        let status: Status = serde_json::from_value(status).unwrap();
        status.ids().map(|(count, id)| (count, id.to_owned())).collect()
    }

    #[test]
    fn ids_go_with_restart_counts() {
        let check = |status: Value, expected: &[(u32, &str)]| {
            let expected: Vec<_> = expected.iter().map(|(count, id)| (*count, (*id).to_owned())).collect();
            assert_eq!(ids(status.clone()), expected, "{status}");
        };
        check(json!({"name": "api"}), &[]);
        check(json!({"name": "api", "restartCount": 0, "containerID": "containerd://a"}), &[(0, "a")]);
        check(json!({"name": "api", "restartCount": 0, "containerID": ""}), &[]);
        check(json!({"name": "api", "restartCount": 0, "containerID": null, "state": null}), &[]);
        let last = |id: &str| json!({"terminated": {"containerID": id, "exitCode": 1}});
        check(
            json!({"restartCount": 3, "containerID": "cri-o://b", "lastState": last("cri-o://a")}),
            &[(3, "b"), (2, "a")],
        );
        // Waiting for the next start: the one that ended is named twice, and it is the one that is counted.
        check(json!({"restartCount": 3, "containerID": "docker://b", "lastState": last("docker://b")}), &[(3, "b")]);
        check(json!({"restartCount": 0, "containerID": "docker://a", "lastState": last("docker://b")}), &[(0, "a")]);
        check(json!({"restartCount": 2, "state": last("x://b"), "lastState": last("x://a")}), &[(2, "b"), (1, "a")]);
        check(json!({"restartCount": 2, "lastState": last("x://a")}), &[]);
        check(json!({"restartCount": -1, "containerID": "x://a"}), &[]);
    }

    #[test]
    fn what_is_not_there_or_null_is_nothing() {
        for object in [
            json!({}),
            json!({"metadata": null, "spec": null, "status": null}),
            json!({"metadata": {"labels": null, "annotations": null, "ownerReferences": null, "creationTimestamp": null},
                "spec": {"containers": null, "nodeName": null}, "status": {"containerStatuses": null}}),
            json!({"metadata": {"creationTimestamp": "yesterday", "managedFields": [{"fieldsV1": {"f:x": {}}}]}}),
        ] {
            let pod: Pod = serde_json::from_value(object.clone()).unwrap();
            assert!(pod.created.is_none() && pod.containers.is_empty() && pod.meta().uid.is_none(), "{object}");
        }
    }

    #[test]
    fn only_a_controller_owns() {
        let owners = json!([{"kind": "A", "name": "a"}, {"kind": "B", "name": "b", "controller": true}]);
        let pod: Pod = serde_json::from_value(json!({"metadata": {"ownerReferences": owners}})).unwrap();
        assert_eq!(pod.controller.unwrap().kind, "B");
        let owners = json!([{"kind": "A", "name": "a", "controller": false}]);
        let pod: Pod = serde_json::from_value(json!({"metadata": {"ownerReferences": owners}})).unwrap();
        assert!(pod.controller.is_none());
    }

    #[test]
    fn a_long_annotation_is_not_kept() {
        let long = "x".repeat(VALUE_BYTES_MAX + 1);
        let object = json!({"metadata": {"annotations": {"long": long, "short": "y", long.clone(): "z"}}});
        let pod: Pod = serde_json::from_value(object).unwrap();
        let expected = [("long".to_owned(), None), ("short".to_owned(), Some("y".to_owned()))];
        assert_eq!(pod.annotations, BTreeMap::from(expected));
    }
}
