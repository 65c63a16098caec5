//! A router that delivers a prepared node: what it costs.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::input::Shape;
use super::runs::Run;
use crate::consume::OffsetWatch;
use crate::ports::free_port;
use crate::process::Program;
use crate::settings::RouterSettings;
use crate::wait::wait_until;

/// `compression.type`.
pub const COMPRESSION: &str = "lz4";
/// `linger.ms`.
pub const LINGER_MS: &str = "5";
const DONE_WITHIN: Duration = Duration::from_secs(300);

/// A prepared node and where it is to go.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// For configuration, logs and state.
    pub folder: &'a Path,
    /// `logs.pods_dir`, in the same folder.
    pub pods: &'a Path,
    /// `kafka.bootstrap_servers`.
    pub bootstrap: &'a str,
    /// How much there is.
    pub shape: &'a Shape,
    /// Lines in all files.
    pub lines: u64,
}

impl Delivery<'_> {
    /// A router that has never seen these files, from its start until the last record is acknowledged. Topics begin with
    /// `prefix`; `kubernetes` are keys of that block.
    ///
    /// # Errors
    /// When it does not start, or not all is delivered in time.
    pub fn run(&self, prefix: &str, kubernetes: &[String]) -> Result<Run> {
        let settings = RouterSettings {
            node_name: "node-1".to_owned(),
            state_dir: self.folder.join("log").join(format!("state-{prefix}")),
            pods_dir: self.pods.to_path_buf(),
            bootstrap: self.bootstrap.to_owned(),
            properties: vec![
                ("compression.type".to_owned(), COMPRESSION.to_owned()),
                ("linger.ms".to_owned(), LINGER_MS.to_owned()),
            ],
            kafka: Vec::new(),
            kubernetes: kubernetes.to_vec(),
            hold: Vec::new(),
            template: format!("{prefix}.{{namespace}}"),
            partitions: 1,
            admin_port: free_port(),
            logs: Vec::new(),
            extra: Vec::new(),
        };
        let topics = self.shape.topics(prefix);
        let mut program = Program::router(&self.folder.join(prefix), &settings)?;
        let watch = OffsetWatch::new(self.bootstrap)?;
        let began = Instant::now();
        program.start()?;
        wait_until("all lines in Kafka", DONE_WITHIN, || {
            let stored: i64 = topics.iter().map(|topic| watch.count(topic).unwrap_or(0)).sum();
            u64::try_from(stored).is_ok_and(|stored| stored >= self.lines) || program.ended().is_some()
        })
        .with_context(|| program.log_tail())?;
        let seconds = began.elapsed().as_secs_f64();
        let cpu_seconds = program.child()?.cpu_seconds().with_context(|| program.log_tail())?;
        program.terminate()?;
        let _ = std::fs::remove_dir_all(&settings.state_dir);
        Ok(Run { cpu_seconds, seconds })
    }
}
