//! Everything that sees all parts at once: real components to test against, a log generator, the trial, and what the
//! end-to-end tests and benchmarks share.
//!
//! Real parts: [`kafka`] (Apache Kafka), [`tansu`] (an embedded broker), [`conmon`] (a real CRI log writer), [`kubelet`] (the
//! kubelet's rotation), [`kubernetes`] (etcd and kube-apiserver), [`process`] (our own binaries as child processes). Made input: [`generator`]. Judgement:
//! [`consume`], [`audit`], [`http`]; [`soak`] has the rows that scenarios report.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod child;
pub mod component;
pub mod folders;
mod go;
pub mod mounts;
pub mod ports;
pub mod proxy;
pub mod wait;

pub mod admin;
pub mod broker;
pub mod kafka;
pub mod tansu;

pub mod conmon;
pub mod generator;
pub mod kubelet;
pub mod kubernetes;
pub mod steady;
pub mod workload;

pub mod containers;
pub mod custom_resources;
pub mod helm;

pub mod browser;
pub mod follow;
pub mod http;
pub mod identity;
pub mod metrics;
pub mod process;
pub mod prometheus;
pub mod settings;

pub mod audit;
pub mod consume;
pub mod delays;

pub mod measure;
pub mod soak;
pub mod stage;
pub mod trial;
