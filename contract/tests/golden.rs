//! The golden records hold to the schema, to the reader and to the writer.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use fairlead_contract::record::{
    Chunk, Head, JsonObject, KubernetesHead, Line, LossReason, Metadata, Notice, NoticeKind, Owner, Record, Source,
    Stream, Timestamp, encode, encode_notice, encode_processed,
};

const UID: &str = "0b1f6c9e-54f4-4f2a-9d5e-1f6f0c1d2e3f";

fn golden() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/v1");
    let mut values = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "ndjson") {
            let bytes = fs::read(&path).unwrap();
            values.extend(
                bytes
                    .split(|b| *b == b'\n')
                    .filter(|v| !v.is_empty())
                    .map(|v| (path.display().to_string(), v.to_vec())),
            );
        }
    }
    assert!(values.len() >= 22);
    values
}

/// What is constant for a record's run, as it was read.
fn head_of(record: &Record<'_>) -> Head {
    let kubernetes = &record.kubernetes;
    let read = KubernetesHead {
        namespace_name: &kubernetes.namespace_name,
        namespace_id: kubernetes.namespace_id.as_deref(),
        pod_name: &kubernetes.pod_name,
        pod_id: &kubernetes.pod_id,
        container_name: &kubernetes.container_name,
        host: &kubernetes.host,
        docker_id: kubernetes.docker_id.as_deref(),
        container_image: kubernetes.container_image.as_deref(),
        labels: kubernetes.labels.as_ref(),
        annotations: kubernetes.annotations.as_ref(),
        owner: kubernetes.owner.as_ref(),
        namespace_labels: kubernetes.namespace_labels.as_ref(),
        node_labels: kubernetes.node_labels.as_ref(),
    };
    let metadata = match record.fairlead.metadata.as_deref() {
        Some("path") => Metadata::Path,
        Some("partial") => Metadata::Partial,
        other => {
            assert_eq!(other, None);
            Metadata::Complete
        }
    };
    Head::new(&read, metadata, &record.fairlead.source.parse().unwrap())
}

fn head() -> Head {
    let kubernetes = KubernetesHead {
        namespace_name: "payments",
        pod_name: "api-7d9f4-x2x",
        pod_id: UID,
        container_name: "api",
        host: "node-3",
        ..KubernetesHead::default()
    };
    let source = Source { pod_uid: UID.into(), container: "api".into(), restart: 0, epoch: "k3v9".into(), fd: 1 };
    Head::new(&kubernetes, Metadata::Path, &source)
}

#[test]
fn golden_records_hold_to_the_schema() {
    let schema = serde_json::from_str(include_str!("../schema/record-v1.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for (name, value) in golden() {
        let instance = serde_json::from_slice(&value).unwrap();
        let faults: Vec<_> = validator.iter_errors(&instance).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{name}: {faults:?}");
    }
    assert!(!validator.is_valid(&serde_json::json!({"log": "no provenance"})));
}

#[test]
fn notices_hold_to_the_schema() {
    let schema = serde_json::from_str(include_str!("../schema/record-v1.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let kinds = [
        NoticeKind::Gap,
        NoticeKind::Truncated,
        NoticeKind::ParseErrors,
        NoticeKind::Throttled,
        NoticeKind::EndOfStream,
        NoticeKind::Settings,
    ];
    for kind in kinds {
        let bare = Notice::new(kind, format!("{UID}/api/0/k3v9/1"), 7);
        let whole = Notice {
            lines: Some(2),
            bytes: Some(90),
            offset: Some(4),
            reason: Some(LossReason::Budget),
            next_source: Some(format!("{UID}/api/0/x4t2/1").into()),
            annotations: vec!["fairlead.dev/exclude".into()],
            ..bare.clone()
        };
        let of_bad_lines = Notice { source: format!("{UID}/api/0/k3v9/0").into(), ..bare.clone() };
        for notice in [bare, whole, of_bad_lines] {
            let mut value = Vec::new();
            encode_notice(&mut value, &head(), &notice, false, (1_795_255_200, 0));
            let instance = serde_json::from_slice(&value).unwrap();
            let faults: Vec<_> = validator.iter_errors(&instance).map(|fault| fault.to_string()).collect();
            assert!(faults.is_empty(), "{notice:?}: {faults:?}");
            assert_eq!(Record::parse(&value).unwrap().fairlead.source, notice.source);
        }
    }
}

#[test]
fn what_is_read_and_written_again_is_the_same_bytes() {
    for (name, value) in golden() {
        let record = Record::parse(&value).unwrap();
        let stream = if record.stream == "stdout" { Stream::Stdout } else { Stream::Stderr };
        let line = Line {
            seq: record.fairlead.seq,
            lines: record.fairlead.lines,
            left_out: record.fairlead.left_out,
            again: record.fairlead.again,
            chunk: record.fairlead.chunk,
            time: Timestamp::parse(record.time.as_bytes()).unwrap(),
            stream,
            log: record.log.as_bytes(),
        };
        let mut out = Vec::new();
        let replaced = match record.log_processed {
            Some(object) => {
                let object = JsonObject::parse(object.get().as_bytes()).unwrap();
                encode_processed(&mut out, &head_of(&record), &line, object)
            }
            None => encode(&mut out, &head_of(&record), &line),
        };
        assert_eq!(replaced, 0);
        assert_eq!(String::from_utf8(out).unwrap(), String::from_utf8(value).unwrap(), "{name}");
    }
}

#[test]
fn every_member_has_its_place() {
    let line = Line {
        seq: u64::MAX,
        lines: 0,
        left_out: 7,
        again: true,
        chunk: Some(Chunk { index: 2, offset: 262_144, last: false }),
        time: Timestamp::parse(b"2026-11-20T10:00:00.5+01:00").unwrap(),
        stream: Stream::Stderr,
        log: b"x",
    };
    let mut out = Vec::new();
    encode(&mut out, &head(), &line);
    let text = String::from_utf8(out).unwrap();
    let expected = format!(
        r#""fairlead":{{"metadata":"path","source":"{UID}/api/0/k3v9/2","seq":18446744073709551615,"lines":0,"left_out":7,"again":true,"chunk":{{"index":2,"offset":262144,"last":false}}}},"time":"2026-11-20T09:00:00.5Z","stream":"stderr","log":"x"}}"#
    );
    assert!(text.ends_with(&expected), "{text}");
    let record = Record::parse(text.as_bytes()).unwrap();
    assert_eq!((record.fairlead.lines, record.fairlead.left_out, record.fairlead.again), (0, 7, true));
    assert!(record.kubernetes.labels.is_none() && record.fairlead.notice.is_none());
}

#[test]
fn what_is_known_of_a_pod_is_read_as_it_was_written() {
    let known: Vec<_> = golden().into_iter().filter(|(name, _)| name.ends_with("complete.ndjson")).collect();
    assert_eq!(known.len(), 2);
    for (_, value) in known {
        let kubernetes = Record::parse(&value).unwrap().kubernetes;
        assert_eq!(kubernetes.namespace_id.as_deref(), Some("5c0d2b1e-7a43-4d0f-8e55-2b6d1f0a9c77"));
        assert_eq!(kubernetes.container_image.as_deref(), Some("registry.example/pay/api:1.9"));
        assert_eq!(kubernetes.labels.unwrap()["app"], "api");
        assert_eq!(kubernetes.annotations.unwrap()["example.com/on-call"], "team \"pay\"\nroom 7");
        assert_eq!(kubernetes.owner.unwrap(), Owner { kind: "Deployment".into(), name: "api".into() });
        assert_eq!(kubernetes.namespace_labels.unwrap()["team"], "pay");
        assert_eq!(kubernetes.node_labels.unwrap()["topology.kubernetes.io/zone"], "b");
    }
}

#[test]
fn what_is_no_record_is_said_without_its_content() {
    for bad in ["", "{}", "secret", r#"{"log":"secret"}"#, "[1]"] {
        let error = Record::parse(bad.as_bytes()).map(|_| ()).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn a_processed_line_never_needs_more_room_than_any_line_may() {
    let lines = [r#"{}"#, r#"{"a":""}"#, r#"{"a":"\"\"\"\"\"\"\\"}"#, "{\t\r\t\r\t\r\t\r\t\r\t\r\t\r\t\r}"];
    for text in lines {
        let line = Line {
            seq: 0,
            lines: 1,
            left_out: 0,
            again: false,
            chunk: None,
            time: Timestamp::parse(b"2026-11-20T10:00:00Z").unwrap(),
            stream: Stream::Stdout,
            log: text.as_bytes(),
        };
        let (mut plain, mut processed) = (Vec::new(), Vec::new());
        encode(&mut plain, &head(), &Line { log: b"", ..line });
        encode_processed(&mut processed, &head(), &line, JsonObject::parse(text.as_bytes()).unwrap());
        let room = 3 * text.len() + br#","log_processed":"#.len();
        assert!(processed.len() <= plain.len() + room, "{text}: {} of {room}", processed.len() - plain.len());
    }
}
