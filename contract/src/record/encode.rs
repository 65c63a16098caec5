//! The writer of the value. What is constant for a container is encoded once, in [`Head`]; a line adds the rest behind it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Chunk, JsonObject, Metadata, Owner, Source, Stream, Timestamp, escape};

/// What is known of a container, in the order of the record's members. Always there: namespace, pod, UID, container, host.
#[derive(Clone, Debug, Default, Serialize)]
pub struct KubernetesHead<'a> {
    /// The namespace in the kubelet's path.
    pub namespace_name: &'a str,
    /// The namespace's UID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_id: Option<&'a str>,
    /// The pod's name.
    pub pod_name: &'a str,
    /// The pod's UID in the kubelet's path.
    pub pod_id: &'a str,
    /// The container's name.
    pub container_name: &'a str,
    /// The node.
    pub host: &'a str,
    /// The container's id in the runtime, without a scheme.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_id: Option<&'a str>,
    /// The container's image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_image: Option<&'a str>,
    /// The pod's labels; there, if empty, where they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// Those annotations of the pod that are taken; there, if empty, where they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<&'a BTreeMap<String, String>>,
    /// The workload that owns the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<&'a Owner>,
    /// Those labels of the namespace that are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_labels: Option<&'a BTreeMap<String, String>>,
    /// Those labels of the node that are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_labels: Option<&'a BTreeMap<String, String>>,
}

/// The bytes that every record of one run begins with, up to the number. Its streams differ in one digit, the source's `fd`, which is written with
/// each record.
#[derive(Clone, Debug)]
pub struct Head {
    bytes: Vec<u8>,
    fd_at: usize,
}

impl Head {
    /// Encodes what is constant for a run of lines. The source's own `fd` counts for nothing: each record has that of its stream.
    pub fn new(kubernetes: &KubernetesHead<'_>, metadata: Metadata, source: &Source) -> Self {
        let mut out = b"{\"kubernetes\":".to_vec();
        serde_json::to_writer(&mut out, kubernetes).expect("text is written to memory");
        out.extend_from_slice(b",\"fairlead\":{");
        match metadata {
            Metadata::Path => out.extend_from_slice(b"\"metadata\":\"path\","),
            Metadata::Partial => out.extend_from_slice(b"\"metadata\":\"partial\","),
            Metadata::Complete => {}
        }
        out.extend_from_slice(b"\"source\":\"");
        escape::push_text(&mut out, &source.to_string());
        let fd_at = out.len() - 1;
        out.extend_from_slice(b"\",\"seq\":");
        Self { bytes: out, fd_at }
    }

    /// How many bytes a record has before its number.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the head of one stream's records; `fd` is a digit.
    #[inline]
    pub(super) fn write(&self, out: &mut Vec<u8>, fd: u8) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        out[start + self.fd_at] = b'0' + fd;
    }
}

/// One record's own part: a line, several joined fragments, or one chunk of a long line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The number of the first physical line.
    pub seq: u64,
    /// How many physical lines the record covers; 0 for a chunk that is not the last.
    pub lines: u64,
    /// How many lines directly before it policy left out.
    pub left_out: u64,
    /// Whether it may repeat a record that was sent before the last start or rewind.
    pub again: bool,
    /// Set where the line is cut.
    pub chunk: Option<Chunk>,
    /// The runtime's stamp of the first fragment.
    pub time: Timestamp<'a>,
    /// Where it was written.
    pub stream: Stream,
    /// The line as the application wrote it, without the newline.
    pub log: &'a [u8],
}

/// Appends one record's value. Returns how many byte sequences were not UTF-8 and became U+FFFD.
#[inline]
pub fn encode(out: &mut Vec<u8>, head: &Head, line: &Line<'_>) -> usize {
    out.reserve(head.bytes.len() + line.log.len() + 160);
    head.write(out, line.stream.fd());
    push_number(out, line.seq);
    if line.lines != 1 {
        push_member(out, b",\"lines\":", line.lines);
    }
    if line.left_out != 0 {
        push_member(out, b",\"left_out\":", line.left_out);
    }
    if line.again {
        out.extend_from_slice(b",\"again\":true");
    }
    if let Some(chunk) = &line.chunk {
        push_chunk(out, chunk);
    }
    out.extend_from_slice(b"},\"time\":\"");
    line.time.write_utc(out);
    out.extend_from_slice(match line.stream {
        Stream::Stdout => b"\",\"stream\":\"stdout\",\"log\":\"".as_slice(),
        Stream::Stderr => b"\",\"stream\":\"stderr\",\"log\":\"".as_slice(),
    });
    let replaced = escape::push_lossy(out, line.log);
    out.extend_from_slice(b"\"}");
    replaced
}

/// As [`encode`], with the line as an object behind it. That is never more than three bytes for each byte of the line, escapes included, and a
/// member's name: less than the six that any line may need.
pub fn encode_processed(out: &mut Vec<u8>, head: &Head, line: &Line<'_>, object: JsonObject<'_>) -> usize {
    let replaced = encode(out, head, line);
    out.pop();
    out.extend_from_slice(b",\"log_processed\":");
    object.write(out);
    out.push(b'}');
    replaced
}

/// How many bytes of `bytes` a reader sees as text: what is not UTF-8 counts as the three bytes of its U+FFFD. Chunk offsets count so.
pub fn text_bytes(bytes: &[u8]) -> u64 {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.len() as u64,
        Err(_) => String::from_utf8_lossy(bytes).len() as u64,
    }
}

fn push_chunk(out: &mut Vec<u8>, chunk: &Chunk) {
    push_member(out, b",\"chunk\":{\"index\":", u64::from(chunk.index));
    push_member(out, b",\"offset\":", chunk.offset);
    out.extend_from_slice(if chunk.last { b",\"last\":true}" } else { b",\"last\":false}" });
}

#[inline]
fn push_member(out: &mut Vec<u8>, name: &[u8], number: u64) {
    out.extend_from_slice(name);
    push_number(out, number);
}

#[inline]
fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
