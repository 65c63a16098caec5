//! What Fairlead's programs agree on: names, topics, the record in Kafka and who may read it.
//!
//! A type lives here only if changing it changes the bytes in Kafka or who may read them. Everything is pure: no file, no socket, no clock, no
//! environment. The router writes with [`record::encode`]; the gateway reads with [`record::Record::parse`]; both use [`topic::TopicMap`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod namespace;
pub mod topic;

pub mod record;

pub mod tenant;
