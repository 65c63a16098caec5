//! The consumer gateway: an HTTP API over the namespaces' topics. Input: a request with a token. Output: the lines that its caller may read.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod app;
pub mod cli;
pub mod config;

pub mod http;

pub mod authenticate;

pub mod authorize;

pub mod read;

pub mod page;

pub mod metrics;
