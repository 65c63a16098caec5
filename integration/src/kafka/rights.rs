//! Rights of the one user that must have some: given and taken by Kafka's own tool.

use anyhow::Result;

use super::{ApacheKafka, listed};

/// The user and its password.
pub(super) const USER: (&str, &str) = ("router", "router-pw");
const CLASS: &str = "org.apache.kafka.tools.AclCommand";
/// What a router does with a topic.
const OPERATIONS: [&str; 4] = ["Write", "Describe", "DescribeConfigs", "Create"];

impl ApacheKafka {
    /// Hosts and ports, user and password for a client that must say who it is and have rights (SCRAM-SHA-512); `None`
    /// if nothing is asked here.
    pub fn guarded(&self) -> Option<(String, &'static str, &'static str)> {
        let bootstrap = listed(self.ports.iter().map(|ports| ports.client));
        self.shape.rights.then_some((bootstrap, USER.0, USER.1))
    }

    /// Gives the user what a router needs on these topics.
    ///
    /// # Errors
    /// When Kafka's tool fails.
    pub fn allow(&self, topics: &[&str]) -> Result<()> {
        self.acl("--add", &[], topics)
    }

    /// Takes it away again.
    ///
    /// # Errors
    /// When Kafka's tool fails.
    pub fn forbid(&self, topics: &[&str]) -> Result<()> {
        self.acl("--remove", &["--force"], topics)
    }

    fn acl(&self, verb: &str, more: &[&str], topics: &[&str]) -> Result<()> {
        let bootstrap = self.bootstrap();
        let principal = format!("User:{}", USER.0);
        let mut arguments = vec!["--bootstrap-server", bootstrap.as_str(), verb, "--allow-principal", &principal];
        arguments.extend(more);
        arguments.extend(OPERATIONS.iter().flat_map(|operation| ["--operation", operation]));
        arguments.extend(topics.iter().flat_map(|topic| ["--topic", topic]));
        self.java.tool(CLASS, &arguments).map(|_| ())
    }
}
