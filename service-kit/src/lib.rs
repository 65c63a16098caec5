//! What any of Fairlead's processes needs around its own work: configuration, Kafka client settings, telemetry,
//! the admin port and shutdown.
//!
//! Nothing here knows what a router or a gateway does. Each program reads its settings with [`config_source`], hands
//! [`kafka_client`] and [`topics`] the blocks that both programs share, and joins [`telemetry`], [`admin`] and
//! [`shutdown`] in its composition root.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config_source;
pub mod units;

pub mod kafka_client;
pub mod topics;

pub mod admin;
pub mod shutdown;
pub mod telemetry;
