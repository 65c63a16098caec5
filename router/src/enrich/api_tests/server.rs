//! A small API server over plain HTTP: pods of several nodes, namespaces and nodes, lists and watches as the real one answers them, and ways to fail.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use futures::stream;
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime, sync::watch};

/// How a watch that asks for the initial events is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streaming {
    /// As asked.
    #[default]
    Told,
    /// The feature gate is off.
    Invalid,
    /// The server's etcd is too old: HTTP 500.
    OldEtcd,
    /// The same, told as an event.
    OldEtcdEvent,
    /// The server does not know the parameter: the initial events come, and nothing says that they end.
    Unknown,
}

/// What does not go as it should.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub streaming: Streaming,
    /// Verbs and resources that are forbidden.
    pub forbidden: Vec<(&'static str, &'static str)>,
    /// Connections are accepted and nothing is answered.
    pub silent: bool,
    /// Watches are answered, and nothing comes.
    pub silent_watches: bool,
    /// Watches tell nothing that happens.
    pub deaf: bool,
    /// What every answer is, with status 200.
    pub garbage: Option<&'static str>,
    /// A line before each event of a watch.
    pub garbage_line: Option<&'static str>,
    /// Watches are accepted and closed at once.
    pub hang_up: bool,
    /// The field selector is not looked at.
    pub all_nodes: bool,
    /// Every request is answered with 429 and this Retry-After.
    pub throttle: Option<u64>,
    /// The one token that is known, if any is asked for.
    pub token: Option<String>,
}

#[derive(Default)]
pub struct World {
    pub faults: Faults,
    /// `verb path?query`, as they came.
    pub requests: Vec<String>,
    pub namespaces: BTreeMap<String, Value>,
    pub node_labels: BTreeMap<String, String>,
    pods: BTreeMap<String, Value>,
    /// What happened, with the version that it made.
    events: Vec<(u64, Value)>,
    version: u64,
    /// Watches from before this are too old.
    oldest: u64,
}

struct Shared {
    world: Mutex<World>,
    changed: watch::Sender<u64>,
}

pub struct FakeApi {
    shared: Arc<Shared>,
    pub address: SocketAddr,
    runtime: Option<Runtime>,
}

impl FakeApi {
    pub fn start() -> FakeApi {
        let shared = Arc::new(Shared { world: Mutex::default(), changed: watch::Sender::new(0) });
        shared.lock().version = 100;
        let mut api = FakeApi { shared, address: "127.0.0.1:0".parse().unwrap(), runtime: None };
        api.come();
        api
    }

    /// Listens, at the same address as before.
    pub fn come(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(self.address)).unwrap();
        self.address = listener.local_addr().unwrap();
        let app = Router::new().fallback(answer).with_state(Arc::clone(&self.shared));
        runtime.spawn(async move { axum::serve(listener, app).await });
        self.runtime = Some(runtime);
    }

    /// Closes every connection and refuses new ones.
    pub fn go(&mut self) {
        self.runtime.take().unwrap().shutdown_timeout(std::time::Duration::from_secs(5));
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.shared.lock()
    }

    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.world().faults);
    }

    /// Sets a pod, and tells the watches.
    pub fn put(&self, pod: Value) {
        self.change(|world| {
            let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
            let kind = if world.pods.contains_key(&uid) { "MODIFIED" } else { "ADDED" };
            let pod = world.stamped(pod);
            world.pods.insert(uid, pod.clone());
            world.tell(kind, pod);
        });
    }

    pub fn delete(&self, uid: &str) {
        self.change(|world| {
            let pod = world.pods.remove(uid).unwrap();
            let pod = world.stamped(pod);
            world.tell("DELETED", pod);
        });
    }

    /// Removes a pod of which nothing will be told.
    pub fn lose(&self, uid: &str) {
        self.world().pods.remove(uid).unwrap();
    }

    pub fn namespace(&self, name: &str, uid: &str, created: &str, labels: Value) {
        let metadata =
            json!({"name": name, "uid": uid, "creationTimestamp": created, "labels": labels, "resourceVersion": "5"});
        self.world().namespaces.insert(name.to_owned(), metadata);
    }

    /// Tells all watches that they are behind; whoever comes back with an older version is told so too.
    pub fn expire(&self) {
        self.change(|world| {
            world.version += 1;
            world.oldest = world.version;
        });
    }

    /// Requests whose text contains all of these.
    pub fn asked(&self, parts: &[&str]) -> usize {
        self.world().requests.iter().filter(|request| parts.iter().all(|part| request.contains(part))).count()
    }

    fn change(&self, change: impl FnOnce(&mut World)) {
        let mut world = self.world();
        change(&mut world);
        let version = world.version;
        drop(world);
        self.shared.changed.send_replace(version);
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }
}

impl World {
    fn stamped(&mut self, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        object
    }

    fn tell(&mut self, kind: &str, object: Value) {
        self.events.push((self.version, json!({"type": kind, "object": object})));
    }

    fn is_of(&self, pod: &Value, query: &BTreeMap<String, String>) -> bool {
        let node = query.get("fieldSelector").and_then(|selector| selector.strip_prefix("spec.nodeName="));
        self.faults.all_nodes || node.is_none_or(|node| pod["spec"]["nodeName"] == node)
    }
}

fn status(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "", "message": message})
}

fn refuse(code: u16, message: &str) -> Response {
    (StatusCode::from_u16(code).unwrap(), axum::Json(status(code, message))).into_response()
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let query: BTreeMap<String, String> = request.uri().query().map(pairs).unwrap_or_default();
    let (resource, name) = match path.strip_prefix("/api/v1/").unwrap_or("").split_once('/') {
        Some((resource, name)) => (resource.to_owned(), Some(name.to_owned())),
        None => (path.rsplit('/').next().unwrap().to_owned(), None),
    };
    let verb = match (&name, query.get("watch")) {
        (Some(_), _) => "get",
        (None, Some(_)) => "watch",
        (None, None) => "list",
    };
    let faults = {
        let mut world = shared.lock();
        let decoded: Vec<String> = query.iter().map(|(key, value)| format!("{key}={value}")).collect();
        world.requests.push(format!("{verb} {path}?{}", decoded.join("&")));
        world.faults.clone()
    };
    if faults.silent {
        std::future::pending::<()>().await;
    }
    if let Some(seconds) = faults.throttle {
        return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds.to_string())], "slow down").into_response();
    }
    if let Some(token) = &faults.token {
        let sent = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        if sent != Some(&format!("Bearer {token}")) {
            return refuse(401, "Unauthorized");
        }
    }
    if faults.forbidden.contains(&(verb, resource.as_str())) {
        let message = format!(
            "{resource} is forbidden: User \"router\" cannot {verb} resource \"{resource}\" in API group \"\" at the cluster scope"
        );
        return refuse(403, &message);
    }
    if let Some(garbage) = faults.garbage {
        return garbage.into_response();
    }
    match (verb, resource.as_str(), name) {
        ("list", "pods", _) => list(&shared, &query),
        ("watch", "pods", _) => watch(shared, query, faults),
        ("get", "namespaces", Some(name)) => match shared.lock().namespaces.get(&name) {
            Some(metadata) => axum::Json(
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}),
            )
            .into_response(),
            None => refuse(404, &format!("namespaces \"{name}\" not found")),
        },
        ("get", "nodes", Some(name)) => {
            let labels = shared.lock().node_labels.clone();
            let metadata = json!({"name": name, "uid": "node-uid", "labels": labels});
            axum::Json(json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}))
                .into_response()
        }
        _ => refuse(404, "not found"),
    }
}

fn pairs(query: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| -> String {
        let bytes = text.replace('+', " ").into_bytes();
        let mut decoded = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some((first, behind)) = rest.split_first() {
            if *first == b'%' {
                decoded.push(u8::from_str_radix(std::str::from_utf8(&behind[..2]).unwrap(), 16).unwrap());
                rest = &behind[2..];
            } else {
                decoded.push(*first);
                rest = behind;
            }
        }
        String::from_utf8(decoded).unwrap()
    };
    query.split('&').filter_map(|pair| pair.split_once('=')).map(|(key, value)| (decode(key), decode(value))).collect()
}

fn list(shared: &Shared, query: &BTreeMap<String, String>) -> Response {
    let world = shared.lock();
    let items: Vec<&Value> = world.pods.values().filter(|pod| world.is_of(pod, query)).collect();
    let metadata = json!({"resourceVersion": world.version.to_string()});
    axum::Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items})).into_response()
}

fn watch(shared: Arc<Shared>, query: BTreeMap<String, String>, faults: Faults) -> Response {
    let initial = query.get("sendInitialEvents").is_some_and(|value| value == "true");
    if initial {
        match faults.streaming {
            Streaming::Told | Streaming::Unknown | Streaming::OldEtcdEvent => {}
            Streaming::Invalid => {
                return refuse(
                    422,
                    "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
                );
            }
            Streaming::OldEtcd => return refuse(500, "required storage feature RequestWatchProgress is disabled"),
        }
    }
    if faults.hang_up {
        return Body::empty().into_response();
    }
    if faults.silent_watches {
        return Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()).into_response();
    }
    let from: u64 = query.get("resourceVersion").map_or(0, |version| version.parse().unwrap());
    let receiver = shared.changed.subscribe();
    let mut first = Vec::new();
    let mut next = from;
    if initial && faults.streaming == Streaming::OldEtcdEvent {
        first.push(json!({"type": "ERROR", "object": status(500, "required storage feature RequestWatchProgress is disabled")}));
        return Body::from_stream(stream::iter([Ok::<_, Infallible>(lines(&first, None))])).into_response();
    }
    if initial || from == 0 {
        let world = shared.lock();
        let added = world.pods.values().filter(|pod| world.is_of(pod, &query));
        first.extend(added.map(|pod| json!({"type": "ADDED", "object": pod})));
        next = world.version;
        if initial && faults.streaming == Streaming::Told {
            let metadata =
                json!({"resourceVersion": next.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}});
            first
                .push(json!({"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": metadata}}));
        }
    }
    let line = faults.garbage_line;
    let begin = (shared, receiver, query, next, Some(first));
    let events = stream::unfold(begin, move |(shared, mut receiver, query, mut next, first)| async move {
        if let Some(first) = first.filter(|first| !first.is_empty()) {
            return Some((Ok::<_, Infallible>(lines(&first, line)), (shared, receiver, query, next, None)));
        }
        loop {
            let told: Vec<Value> = {
                let world = shared.lock();
                if world.faults.deaf {
                    Vec::new()
                } else if next < world.oldest {
                    let expired = json!({"type": "ERROR", "object": status(410, "too old resource version")});
                    vec![expired]
                } else {
                    let new = world.events.iter().filter(|(version, _)| *version > next);
                    let of_it = new.filter(|(_, event)| world.is_of(&event["object"], &query));
                    let told = of_it.map(|(_, event)| event.clone()).collect();
                    next = world.version;
                    told
                }
            };
            if !told.is_empty() {
                return Some((Ok(lines(&told, line)), (shared, receiver, query, next, None)));
            }
            receiver.changed().await.ok()?;
        }
    });
    Body::from_stream(events).into_response()
}

fn lines(events: &[Value], before_each: Option<&str>) -> Bytes {
    let line = |event: &Value| format!("{}{event}\n", before_each.map(|line| format!("{line}\n")).unwrap_or_default());
    events.iter().map(line).collect::<String>().into()
}
