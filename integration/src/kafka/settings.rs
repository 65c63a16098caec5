//! A broker's `server.properties`.

use std::fmt::Write as _;

use super::Shape;

/// Ports of one broker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    /// Plaintext: for the harness, and between brokers.
    pub(super) plain: u16,
    /// For clients that must say who they are, and for those behind a proxy.
    pub(super) client: u16,
    /// The proxy's.
    pub(super) proxy: u16,
}

/// The text for broker `id` (from 1; the first is the controller too). `{data}` stands for its data folder.
pub(super) fn server(shape: &Shape, id: u32, ports: Ports, controller: u16) -> String {
    let first = id == 1;
    let mut listeners = format!("PLAINTEXT://127.0.0.1:{}", ports.plain);
    if shape.rights {
        let _ = write!(listeners, ",CLIENT://127.0.0.1:{}", ports.client);
    }
    let mut advertised = listeners.clone();
    if shape.refuses.is_some() {
        let _ = write!(listeners, ",PROXIED://127.0.0.1:{}", ports.client);
        let _ = write!(advertised, ",PROXIED://127.0.0.1:{}", ports.proxy);
    }
    if first {
        let _ = write!(listeners, ",CONTROLLER://127.0.0.1:{controller}");
    }
    let mut text = format!(
        "process.roles={}\n\
         node.id={id}\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listeners={listeners}\n\
         advertised.listeners={advertised}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CLIENT:SASL_PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         inter.broker.listener.name=PLAINTEXT\n\
         auto.create.topics.enable=false\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=1\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n\
         log.segment.bytes={}\n\
         log.dirs={{data}}\n",
        if first { "broker,controller" } else { "broker" },
        if shape.disk_mebibytes.is_some() { 1 << 20 } else { 64 << 20 },
    );
    if shape.brokers > 1 {
        text += "default.replication.factor=3\n\
                 min.insync.replicas=2\n\
                 # A broker that stands still stays in sync, so that others wait for it.\n\
                 broker.session.timeout.ms=30000\n\
                 replica.lag.time.max.ms=90000\n\
                 auto.leader.rebalance.enable=true\n\
                 leader.imbalance.check.interval.seconds=1\n\
                 leader.imbalance.per.broker.percentage=0\n";
    } else {
        // There is nobody to hand leaderships over to.
        text += "controlled.shutdown.max.retries=1\n";
    }
    if shape.disk_mebibytes.is_some() {
        // Preallocated by default with more than a small disk has.
        text += "log.index.size.max.bytes=65536\nlog.cleaner.enable=false\n";
    }
    if shape.rights {
        text += "sasl.enabled.mechanisms=SCRAM-SHA-512\n\
                 listener.name.client.scram-sha-512.sasl.jaas.config=\
                 org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
                 authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                 super.users=User:ANONYMOUS\n\
                 allow.everyone.if.no.acl.found=false\n";
    }
    text
}
