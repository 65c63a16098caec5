//! A real Apache Kafka in KRaft mode on loopback: one process that is broker and controller, or several brokers of which
//! the first is the controller too.

mod install;
mod java;
mod node;
mod rights;
mod settings;
mod validator;

pub(crate) use install::{is_cached, prepare};
pub use node::{Node, Slowed};
pub use validator::Refuses;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::broker::UP_WITHIN;
use crate::mounts::Mount;
use crate::{admin, folders, ports};
use java::Java;
use settings::Ports;
use validator::Validator;

/// What a cluster is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many brokers. With several, topics have three replicas of which two must have a record.
    pub brokers: u32,
    /// Is there a listener whose callers must say who they are and have the right? The harness's own listener has none
    /// of that.
    pub rights: bool,
    /// How large the first broker's disk is, in MiB, if it has one of its own.
    pub disk_mebibytes: Option<u32>,
    /// What the proxy refuses that a single broker has in front of it, if it has one; instead of `rights`.
    pub refuses: Option<Refuses>,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { brokers: 1, rights: false, disk_mebibytes: None, refuses: None }
    }
}

/// A cluster with ports and data of its own.
#[derive(Debug)]
pub struct ApacheKafka {
    validator: Option<Validator>,
    nodes: Vec<Node>,
    ports: Vec<Ports>,
    shape: Shape,
    java: Java,
    /// Removed last.
    folder: TempDir,
}

impl ApacheKafka {
    /// A single broker: see [`ApacheKafka::prepared_as`].
    ///
    /// # Errors
    /// When Maven cannot fetch Kafka, or the folder cannot be made or formatted.
    pub fn prepared() -> Result<ApacheKafka> {
        ApacheKafka::prepared_as(&Shape::default())
    }

    /// Fetches Kafka if the cache has none, chooses ports and formats the data folders. Nothing runs yet.
    ///
    /// # Errors
    /// When Maven cannot fetch Kafka, or a folder or disk cannot be made or formatted.
    pub fn prepared_as(shape: &Shape) -> Result<ApacheKafka> {
        let libraries = install::libraries()?;
        let folder = folders::scratch("kafka")?;
        let java = Java::prepared(libraries, folder.path())?;
        let heap = if shape.brokers > 1 { "-Xmx256m" } else { "-Xmx512m" };
        let controller = ports::free_port();
        let (mut nodes, mut all) = (Vec::new(), Vec::new());
        for id in 1..=shape.brokers {
            let ports = Ports { plain: ports::free_port(), client: ports::free_port(), proxy: ports::free_port() };
            let disk = shape.disk_mebibytes.filter(|_| id == 1).map(Mount::memory).transpose()?;
            let text = settings::server(shape, id, ports, controller);
            nodes.push(Node::prepared(folder.path().join(id.to_string()), &java, &text, heap, disk)?);
            all.push(ports);
        }
        let users: &[_] = if shape.rights { &[rights::USER] } else { &[] };
        // A JVM each: side by side.
        std::thread::scope(|scope| {
            let running: Vec<_> = nodes.iter().map(|node| scope.spawn(|| node.format(users))).collect();
            running.into_iter().try_for_each(|one| one.join().expect("formatting does not panic"))
        })?;
        Ok(ApacheKafka { validator: None, nodes, ports: all, shape: *shape, java, folder: folder })
    }

    /// The command that runs a broker with settings of somebody else's, on a data folder that it makes and formats. For whoever starts it elsewhere.
    ///
    /// # Errors
    /// When Maven cannot fetch Kafka or it refuses the settings.
    pub fn command_for(settings: &str, folder: &std::path::Path) -> Result<std::process::Command> {
        let java = Java::prepared(install::libraries()?, folder)?;
        let node = Node::prepared(folder.join("broker"), &java, settings, "-Xmx512m", None)?;
        node.format(&[])?;
        Ok(node.command())
    }

    /// Starts those of its processes that do not run, again on the same data and ports, and waits until a record is
    /// acknowledged by every broker.
    ///
    /// # Errors
    /// When one ends or is not ready in time; its last lines are in the message.
    pub fn start(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.start()?;
        }
        if let (Some(refuses), Some(ports), None) = (self.shape.refuses, self.ports.first(), &self.validator) {
            self.validator = Some(Validator::start(ports.proxy, ports.client, refuses)?);
        }
        self.wait_ready()
    }

    /// Waits until every broker acknowledges a record.
    ///
    /// # Errors
    /// When one is not ready in time; the last lines of all are in the message.
    pub fn wait_ready(&self) -> Result<()> {
        let tails = || self.nodes.iter().map(Node::log_tail).collect::<Vec<_>>().join("\n----\n");
        admin::prove_ready(&self.bootstrap(), self.shape.brokers, UP_WITHIN)
            .with_context(|| format!("Apache Kafka:\n{}", tails()))
    }

    /// Stops it in good order, the controller last.
    ///
    /// # Errors
    /// When a process had to be killed.
    pub fn stop(&mut self) -> Result<()> {
        self.nodes.iter_mut().rev().try_for_each(Node::stop)
    }

    /// Broker `id`, from 1.
    ///
    /// # Panics
    /// When there is no such broker.
    pub fn node(&mut self, id: usize) -> &mut Node {
        &mut self.nodes[id - 1]
    }

    /// Hosts and ports for clients, without any rights asked.
    pub fn bootstrap(&self) -> String {
        listed(self.ports.iter().map(|ports| ports.plain))
    }

    /// Hosts and ports for a producer: those of the proxy, where there is one.
    pub fn entrance(&self) -> String {
        match self.shape.refuses {
            Some(_) => listed(self.ports.iter().map(|ports| ports.proxy)),
            None => self.bootstrap(),
        }
    }

    /// Makes `replicas` those of a topic's only partition; the first one soon becomes its leader.
    ///
    /// # Errors
    /// When Kafka's tool fails.
    pub fn reassign(&self, topic: &str, replicas: &[u32]) -> Result<()> {
        let plan = serde_json::json!({
            "version": 1,
            "partitions": [{"topic": topic, "partition": 0, "replicas": replicas}],
        });
        let file = self.folder.path().join("reassignment.json");
        std::fs::write(&file, plan.to_string()).context("write the reassignment")?;
        let file = file.display().to_string();
        let class = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
        let bootstrap = self.bootstrap();
        let arguments = ["--bootstrap-server", &bootstrap, "--execute", "--reassignment-json-file", &file];
        self.java.tool(class, &arguments).map(|_| ())
    }
}

fn listed(ports: impl Iterator<Item = u16>) -> String {
    ports.map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
}
