//! CPU seconds of `fairlead-router` that reads prepared CRI files and delivers them to Apache Kafka, over those of a bare
//! librdkafka producer that sends the same record bytes to the same broker. Median of five, in turns.
//!
//! `BENCH_LINES` sets the number of lines (default 1,000,000).
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use fairlead_integration::admin;
use fairlead_integration::broker::{Broker, Kind};
use fairlead_integration::component::Component;
use fairlead_integration::consume::read_topic;
use fairlead_integration::folders::{binary, scratch};
use fairlead_integration::measure::capture;
use fairlead_integration::measure::delivery::{COMPRESSION, Delivery, LINGER_MS};
use fairlead_integration::measure::input::{Shape, identities, prepare};
use fairlead_integration::measure::runs::{Run, median, median_cpu, median_seconds};

const RUNS: usize = 5;
const TARGET: f64 = 3.0;
const AIM: f64 = 1.4;

fn main() -> Result<()> {
    // `cargo test` runs benchmarks without this, only to see that they start.
    if !std::env::args().any(|argument| argument == "--bench") || !Component::ApacheKafka.usable() {
        return Ok(());
    }
    let lines = std::env::var("BENCH_LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(1_000_000);
    let shape = Shape { namespaces: 4, containers: 5, lines, line_bytes: 300 };
    let folder = scratch("bench")?;
    let pods = folder.path().join("log/pods");
    let (lines, bytes) = prepare(&pods, &shape, &identities(&shape))?;
    println!("{lines} lines of {} B, {} containers in {} namespaces", bytes / lines, 20, shape.namespaces);

    let broker = Broker::started(Kind::ApacheKafka)?;
    let bootstrap = broker.bootstrap();
    let delivery = Delivery { folder: folder.path(), pods: &pods, bootstrap: &bootstrap, shape: &shape, lines };
    // A first round warms the broker and gives the bytes that the baseline sends.
    delivery.run("warm", &[])?;
    let topics = shape.topics("warm");
    let stored = topics.iter().map(|topic| read_topic(&bootstrap, topic)).collect::<Result<Vec<_>>>()?;
    let record_bytes: usize = stored.iter().flatten().map(|record| record.value.len()).sum();
    println!(
        "records of {} B on average, acks=all, idempotent, {COMPRESSION}, linger {LINGER_MS} ms",
        record_bytes as u64 / lines
    );
    let records = folder.path().join("records");
    capture::write(&records, &stored)?;
    drop(stored);
    remove(&bootstrap, &topics)?;

    let (mut routers, mut baselines) = (Vec::new(), Vec::new());
    println!(
        "{:>4} {:>14} {:>14} {:>9} {:>12} {:>12}",
        "run", "router CPU s", "baseline CPU s", "ratio", "router s", "baseline s"
    );
    for run in 1..=RUNS {
        let own = delivery.run(&format!("r{run}"), &[])?;
        remove(&bootstrap, &shape.topics(&format!("r{run}")))?;
        let bare = baseline(&records, &bootstrap, &format!("b{run}"), &shape)?;
        remove(&bootstrap, &shape.topics(&format!("b{run}")))?;
        print_row(&run.to_string(), own, bare);
        routers.push(own);
        baselines.push(bare);
    }
    let middle = |runs: &[Run]| Run { cpu_seconds: median_cpu(runs), seconds: median_seconds(runs) };
    let (own, bare) = (middle(&routers), middle(&baselines));
    print_row("mid", own, bare);
    let ratio = median(routers.iter().zip(&baselines).map(|(own, bare)| own.cpu_seconds / bare.cpu_seconds));
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let rate = lines as f64 / own.cpu_seconds;
    println!(
        "router: {rate:.0} lines per CPU second; ratio to bare librdkafka {ratio:.2} (at most {TARGET}, aim {AIM})"
    );
    ensure!(ratio <= TARGET, "the ratio {ratio:.2} is above {TARGET}");
    Ok(())
}

fn print_row(name: &str, own: Run, bare: Run) {
    println!(
        "{name:>4} {:>14.2} {:>14.2} {:>9.2} {:>12.2} {:>12.2}",
        own.cpu_seconds,
        bare.cpu_seconds,
        own.cpu_seconds / bare.cpu_seconds,
        own.seconds,
        bare.seconds
    );
}

fn remove(bootstrap: &str, topics: &[String]) -> Result<()> {
    admin::delete_topics(bootstrap, &topics.iter().map(String::as_str).collect::<Vec<_>>())
}

/// librdkafka alone, from its first send until the last record is acknowledged.
fn baseline(records: &Path, bootstrap: &str, prefix: &str, shape: &Shape) -> Result<Run> {
    let mut command = Command::new(binary("librdkafka-baseline")?);
    command.args(["--bootstrap", bootstrap]).arg("--records").arg(records);
    command.args(["--property", &format!("compression.type={COMPRESSION}")]);
    command.args(["--property", &format!("linger.ms={LINGER_MS}")]);
    // As much in flight as the router allows itself; a larger queue only costs the caches.
    command.args(["--property", "queue.buffering.max.messages=0", "--property", "queue.buffering.max.kbytes=32768"]);
    for topic in shape.topics(prefix) {
        admin::create_topic(bootstrap, &topic, 1, &[])?;
        command.args(["--topic", &topic]);
    }
    let output = command.output().context("run the baseline")?;
    ensure!(output.status.success(), "the baseline: {}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).context("the baseline's figures")?;
    let (cpu, seconds) = printed.trim().split_once(' ').context("two figures")?;
    Ok(Run { cpu_seconds: cpu.parse()?, seconds: seconds.parse()? })
}
