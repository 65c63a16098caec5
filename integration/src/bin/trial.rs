//! `make trial`: see [`fairlead_integration::trial`].
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use std::process::ExitCode;

use fairlead_integration::trial::{Options, run};

fn main() -> ExitCode {
    // Two providers are linked through the embedded broker: name one before anything asks.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match run(&Options::from_environment(), &mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ntrial: {error:#}");
            ExitCode::FAILURE
        }
    }
}
