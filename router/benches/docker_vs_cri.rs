//! CPU time that one line costs the router before it hands the record over (finding the line's end, parsing, encoding): Docker's files over CRI files
//! with the same lines. The least of nine runs each, in turns.
//!
//! `BENCH_LINES` sets the number of lines (default 200,000).
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::hint::black_box;

use anyhow::{Context, Result, ensure};
use fairlead_contract::record::{Head, KubernetesHead, Line, Metadata, Source, encode};
use fairlead_router::parse::Grammar;
use memchr::memchr;
use rustix::time::{ClockId, clock_gettime};

const RUNS: usize = 9;
/// Docker's lines may cost this many times what CRI's do.
const TARGET: f64 = 3.0;

fn main() -> Result<()> {
    // `cargo test` runs benchmarks without this, only to see that they start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let lines = std::env::var("BENCH_LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(200_000);
    println!("{:>34} {:>10} {:>10} {:>8}", "lines", "CRI, ns", "Docker, ns", "ratio");
    let attrs = r#""attrs":{"env":"prod","rack":"101"},"#;
    let json = |number: usize| {
        format!(
            r#"{{"ts":"2026-11-20T10:00:00.{number:09}Z","level":"info","msg":"payment captured","trace_id":"4bf92f3577b34da6{number:016x}","order":"{number:x}","amount_cents":{number},"duration_ms":12,"detail":"{}"}}"#,
            "seven77 ".repeat(12)
        )
    };
    let access = |number: usize| {
        format!(
            r#"10.8.1.7 - - [20/Nov/2026:10:00:00 +0000] "GET /api/v2/products?page={number} HTTP/1.1" 200 {number} "-" "Mozilla/5.0 (X11; Linux x86_64)" rt=0.012"#
        )
    };
    let plain = |number: usize| {
        format!("2026-11-20 10:00:00,123 INFO  [worker-7] c.example.stock.Inventory - reserved {number} of x2x4k9")
    };
    let cases: [(&str, &dyn Fn(usize) -> String, &str); 4] = [
        ("plain text of 90 B", &plain, ""),
        ("access log of 150 B, a few quotes", &access, ""),
        ("JSON of 300 B, many quotes", &json, ""),
        ("the same with two attrs", &json, attrs),
    ];
    for (name, text, attrs) in cases {
        let (cri, docker) = files(lines, text, attrs);
        let (mut least, mut least_docker) = (f64::MAX, f64::MAX);
        for _ in 0..RUNS {
            least = least.min(nanoseconds_per_line(Grammar::Cri, &cri, lines)?);
            least_docker = least_docker.min(nanoseconds_per_line(Grammar::Docker, &docker, lines)?);
        }
        let ratio = least_docker / least;
        println!("{name:>34} {least:>10.0} {least_docker:>10.0} {ratio:>8.2}");
        ensure!(ratio <= TARGET, "{name}: the ratio {ratio:.2} is above {TARGET}");
    }
    Ok(())
}

/// The same lines as a CRI runtime and as Docker write them.
fn files(lines: usize, text: &dyn Fn(usize) -> String, attrs: &str) -> (Vec<u8>, Vec<u8>) {
    let (mut cri, mut docker) = (String::new(), String::new());
    for number in 0..lines {
        let (text, time) = (text(number), format!("2026-11-20T10:00:00.{number:09}Z"));
        cri += &format!("{time} stdout F {text}\n");
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
        docker += &format!("{{\"log\":\"{escaped}\\n\",\"stream\":\"stdout\",{attrs}\"time\":\"{time}\"}}\n");
    }
    (cri.into_bytes(), docker.into_bytes())
}

fn nanoseconds_per_line(grammar: Grammar, file: &[u8], lines: usize) -> Result<f64> {
    let kubernetes = KubernetesHead {
        namespace_name: "payments",
        pod_name: "api-7d9f4b6c5-x2x4k",
        pod_id: "0b1f6c9e-54f4-4f2a-9d5e-1f6f0c1d2e3f",
        container_name: "api",
        host: "node-3",
        ..KubernetesHead::default()
    };
    let source = "0b1f6c9e-54f4-4f2a-9d5e-1f6f0c1d2e3f/api/0/k3v9qwm7ht/1".parse::<Source>().context("a source")?;
    let head = Head::new(&kubernetes, Metadata::Path, &source);
    let (mut value, mut scratch, mut rest, mut seq) = (Vec::new(), Vec::new(), file, 0);
    let began = cpu_nanoseconds();
    while let Some(end) = memchr(b'\n', rest) {
        let line = grammar.parse(&rest[..end], &mut scratch).context("a line that does not parse")?;
        value.clear();
        let (time, stream, log) = (line.time, line.stream, line.content);
        let line = Line { seq, lines: 1, left_out: 0, again: false, chunk: None, time, stream, log };
        encode(&mut value, &head, &line);
        black_box(&value);
        rest = &rest[end + 1..];
        seq += 1;
    }
    let spent = cpu_nanoseconds() - began;
    ensure!(seq == lines as u64, "{seq} of {lines} lines");
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok(spent as f64 / lines as f64)
}

fn cpu_nanoseconds() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
