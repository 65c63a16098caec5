//! The node daemon: a line is discovered, tailed, parsed, routed, produced, acknowledged, and only then remembered.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod app;
pub mod config;
pub mod metrics;
pub mod worker;

pub mod discover;

pub mod hold;

pub mod tail;

pub mod parse;

pub mod enrich;

pub mod pipeline;

pub mod produce;

pub mod checkpoint;

pub mod audit;
pub mod columns;
pub mod plan;
