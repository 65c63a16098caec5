//! CPU seconds and peak memory of `fairlead-router audit` over topics on Apache Kafka: fewer and more records of the same
//! containers, and as many records of more containers.
//!
//! `BENCH_LINES` sets the number of lines (default 2,000,000).
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fairlead_integration::broker::{Broker, Kind};
use fairlead_integration::child::Child;
use fairlead_integration::component::Component;
use fairlead_integration::consume::OffsetWatch;
use fairlead_integration::folders::{binary, scratch};
use fairlead_integration::measure::input::{Shape, identities, prepare};
use fairlead_integration::measure::runs::median;
use fairlead_integration::ports::free_port;
use fairlead_integration::process::Program;
use fairlead_integration::settings::RouterSettings;
use fairlead_integration::soak::peak_memory;
use fairlead_integration::wait::{pace, wait_until};

const RUNS: usize = 3;
const DONE_WITHIN: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What an audit took.
struct Took {
    cpu_seconds: f64,
    seconds: f64,
    peak_memory: u64,
}

fn main() -> Result<()> {
    // `cargo test` runs benchmarks without this, only to see that they start.
    if !std::env::args().any(|argument| argument == "--bench") || !Component::ApacheKafka.usable() {
        return Ok(());
    }
    let lines = std::env::var("BENCH_LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(2_000_000);
    let folder = scratch("bench-audit")?;
    let broker = Broker::started(Kind::ApacheKafka)?;
    println!(
        "{:>10} {:>10} {:>8} {:>8} {:>16} {:>12}",
        "records", "containers", "seconds", "CPU s", "CPU s a million", "peak memory"
    );
    for (name, lines, containers) in [("part", lines / 4, 20), ("whole", lines, 20), ("many", lines, 2_000)] {
        let shape = Shape { namespaces: 1, containers, lines, line_bytes: 300 };
        let records = fill(&folder.path().join(name), &broker.bootstrap(), name, &shape)?;
        let took = (0..RUNS)
            .map(|_| audit(folder.path(), &broker.bootstrap(), &topic(name, &shape)))
            .collect::<Result<Vec<_>>>()?;
        let (cpu, seconds) = (median(took.iter().map(|it| it.cpu_seconds)), median(took.iter().map(|it| it.seconds)));
        let peak = took.iter().map(|it| it.peak_memory).max().unwrap_or(0) >> 20;
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let a_million = cpu * 1e6 / records as f64;
        println!("{records:>10} {containers:>10} {seconds:>8.1} {cpu:>8.2} {a_million:>16.2} {peak:>8} MiB");
    }
    Ok(())
}

fn topic(name: &str, shape: &Shape) -> String {
    shape.topics(name).concat()
}

/// Has a router put prepared files into a topic; gives the number of its records.
fn fill(folder: &Path, bootstrap: &str, name: &str, shape: &Shape) -> Result<u64> {
    let pods = folder.join("log/pods");
    let (lines, _) = prepare(&pods, shape, &identities(shape))?;
    let settings = RouterSettings {
        node_name: "node-1".to_owned(),
        state_dir: folder.join("log/state"),
        pods_dir: pods,
        bootstrap: bootstrap.to_owned(),
        properties: Vec::new(),
        kafka: Vec::new(),
        kubernetes: Vec::new(),
        hold: vec!["free_min: 0%".to_owned()],
        template: format!("{name}.{{namespace}}"),
        partitions: 1,
        admin_port: free_port(),
        logs: Vec::new(),
        extra: Vec::new(),
    };
    let topic = topic(name, shape);
    let mut router = Program::router(folder, &settings)?;
    let watch = OffsetWatch::new(bootstrap)?;
    router.start()?;
    let count = || watch.count(&topic).unwrap_or(0).cast_unsigned();
    wait_until("all lines in Kafka", DONE_WITHIN, || count() >= lines || router.ended().is_some())
        .with_context(|| router.log_tail())?;
    router.terminate()?;
    std::fs::remove_dir_all(folder).context("remove the files")?;
    Ok(count())
}

fn audit(folder: &Path, bootstrap: &str, topic: &str) -> Result<Took> {
    let mut command = Command::new(binary("fairlead-router")?);
    command.args(["audit", "--topic", topic]);
    command.env("FAIRLEAD_ROUTER__KAFKA__BOOTSTRAP_SERVERS", bootstrap);
    let began = Instant::now();
    let mut child = Child::start("the audit", &command, &folder.join("audit.log"))?;
    let (mut cpu_seconds, mut peak) = (0.0, 0);
    let status = loop {
        // What it took in the last moment is not seen.
        cpu_seconds = child.cpu_seconds().unwrap_or(cpu_seconds);
        peak = peak_memory(child.pid()).max(peak);
        if let Some(status) = child.ended() {
            break status;
        }
        ensure!(began.elapsed() < DONE_WITHIN, "the audit does not end");
        pace(LOOK_EVERY);
    };
    ensure!(status.success(), "the audit: {status}\n{}", child.log_tail(20));
    Ok(Took { cpu_seconds, seconds: began.elapsed().as_secs_f64(), peak_memory: peak })
}
