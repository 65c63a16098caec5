//! Prints lines whose every byte is known beforehand; runs as the workload inside a container.

use std::io::{BufWriter, Write};
use std::time::Duration;

use clap::Parser;
use fairlead_integration::workload::Script;

#[derive(Parser)]
struct Arguments {
    /// Begins every line.
    #[arg(long)]
    name: String,
    /// Lines on standard output.
    #[arg(long)]
    lines: u64,
    /// Lines between two pauses; 0 for no pause.
    #[arg(long, default_value_t = 0)]
    burst: u64,
    /// The pause in milliseconds.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
}

fn main() -> std::io::Result<()> {
    let Arguments { name, lines, burst, pause_ms } = Arguments::parse();
    let script = Script { name, lines, burst, pause: Duration::from_millis(pause_ms) };
    // Standard output's own buffer cuts at newlines; this one cuts anywhere, as real services do.
    let mut stdout = BufWriter::with_capacity(6_000, std::io::stdout().lock());
    let mut stderr = std::io::stderr().lock();
    script.print(&mut stdout, &mut stderr)?;
    stdout.flush()
}
