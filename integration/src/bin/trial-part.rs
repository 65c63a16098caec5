//! What the containers of `docker-compose.yml` run besides Kafka, router and gateway: see [`fairlead_integration::trial::parts`].
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use std::process::ExitCode;

use fairlead_integration::trial::parts;

fn main() -> ExitCode {
    let wish = std::env::args().nth(1).unwrap_or_default();
    let done = match wish.as_str() {
        "logs" => parts::logs(&mut std::io::stdout()),
        "greet" => parts::greet(&mut std::io::stdout()),
        _ => Err(anyhow::anyhow!("say `logs` or `greet`")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trial-part: {error:#}");
            ExitCode::FAILURE
        }
    }
}
