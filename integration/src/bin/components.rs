//! Says which suites will run on this machine and, for each that will not, why. Fails in CI if one will not. Fetches and builds
//! the components that are not in the cache yet.
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::process::ExitCode;

use fairlead_integration::component::{Component, in_ci};

fn main() -> ExitCode {
    let mut missing = false;
    for component in Component::ALL {
        match component.missing() {
            None => {
                println!("suites on {component}: run");
                if let Err(error) = component.prepare() {
                    println!("suites on {component}: CANNOT RUN: {error:#}");
                    missing = true;
                }
            }
            Some(reason) => {
                println!("suites on {component}: LEFT OUT: {reason} ({})", component.remedy());
                missing = true;
            }
        }
    }
    if missing && in_ci() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
