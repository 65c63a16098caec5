//! Asks brokers to describe topics, with what this client may do with them. librdkafka can, its safe wrapper does not; this is the one place of the
//! plan with `unsafe`.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    ptr, slice,
    time::Duration,
};

use rdkafka::{
    bindings::{
        rd_kafka_AclOperation_t as Operation, rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new,
        rd_kafka_AdminOptions_set_include_authorized_operations, rd_kafka_AdminOptions_set_request_timeout,
        rd_kafka_DescribeTopics, rd_kafka_DescribeTopics_result_topics, rd_kafka_TopicCollection_destroy,
        rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_authorized_operations,
        rd_kafka_TopicDescription_error, rd_kafka_TopicDescription_name, rd_kafka_TopicDescription_partitions,
        rd_kafka_TopicDescription_t, rd_kafka_TopicPartitionInfo_isr, rd_kafka_TopicPartitionInfo_leader,
        rd_kafka_TopicPartitionInfo_replicas, rd_kafka_admin_op_t, rd_kafka_error_code, rd_kafka_error_destroy,
        rd_kafka_event_DescribeTopics_result, rd_kafka_event_destroy, rd_kafka_event_error, rd_kafka_event_t,
        rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_poll,
    },
    client::{Client, ClientContext},
    types::{RDKafkaErrorCode as Code, RDKafkaRespErr},
};

/// What brokers say of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Described {
    /// It is there.
    There {
        /// Partitions.
        partitions: u64,
        /// Partitions without a leader.
        leaderless: u64,
        /// The fewest replicas of a partition.
        replicas_min: u64,
        /// The fewest replicas in sync of a partition.
        in_sync_min: u64,
        /// Whether this client may write; none where the broker does not say.
        may_write: Option<bool>,
    },
    /// It is not there, or said to be something else than usable.
    Not(Code),
}

/// Asks for topics; each answer with the topic's name. `None` when no answer came in time.
pub fn describe<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    timeout: Duration,
) -> Option<Vec<(String, Described)>> {
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(*topic).ok()).collect();
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let rk = client.native_ptr();
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: `rk` is a live client for as long as `client` is borrowed. Each object made here is given back before the function ends, the
    // event (which owns the result) after the last read of it. librdkafka copies the names before `DescribeTopics` returns. An error that an
    // option gives is ours to destroy; destroying none is nothing.
    unsafe {
        let collection = rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let options = rd_kafka_AdminOptions_new(rk, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let refused = rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
        if !refused.is_null() {
            rd_kafka_error_destroy(refused);
        }
        rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, ptr::null_mut(), 0);
        let queue = rd_kafka_queue_new(rk);
        rd_kafka_DescribeTopics(rk, collection, options, queue);
        let event = rd_kafka_queue_poll(queue, timeout_ms);
        let answer = if event.is_null() { None } else { read(event) };
        if !event.is_null() {
            rd_kafka_event_destroy(event);
        }
        rd_kafka_queue_destroy(queue);
        rd_kafka_AdminOptions_destroy(options);
        rd_kafka_TopicCollection_destroy(collection);
        answer
    }
}

/// Reads the answer.
///
/// # Safety
/// `event` is a live event.
unsafe fn read(event: *mut rd_kafka_event_t) -> Option<Vec<(String, Described)>> {
    // SAFETY: the event is live; librdkafka answers null for an event of another kind, and what it points to lives as long as the event.
    unsafe {
        let result = rd_kafka_event_DescribeTopics_result(event);
        if rd_kafka_event_error(event) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || result.is_null() {
            return None;
        }
        let mut count = 0;
        let topics = rd_kafka_DescribeTopics_result_topics(result, &mut count);
        let topics = if topics.is_null() { &[] } else { slice::from_raw_parts(topics, count) };
        Some(topics.iter().filter(|topic| !topic.is_null()).map(|topic| read_topic(*topic)).collect())
    }
}

/// Reads what is said of one topic.
///
/// # Safety
/// `topic` is a live description.
unsafe fn read_topic(topic: *const rd_kafka_TopicDescription_t) -> (String, Described) {
    // SAFETY: as for the description itself, whose parts live as long as it does; the counts that are given belong to the pointers.
    unsafe {
        let name = CStr::from_ptr(rd_kafka_TopicDescription_name(topic)).to_string_lossy().into_owned();
        let error = rd_kafka_TopicDescription_error(topic);
        if !error.is_null() && rd_kafka_error_code(error) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return (name, Described::Not(rd_kafka_error_code(error).into()));
        }
        let mut count = 0;
        let partitions = rd_kafka_TopicDescription_partitions(topic, &mut count);
        let partitions = if partitions.is_null() { &[] } else { slice::from_raw_parts(partitions, count) };
        let (mut leaderless, mut replicas_min, mut in_sync_min) = (0, u64::MAX, u64::MAX);
        for partition in partitions.iter().copied() {
            let (mut replicas, mut in_sync) = (0, 0);
            rd_kafka_TopicPartitionInfo_replicas(partition, &mut replicas);
            rd_kafka_TopicPartitionInfo_isr(partition, &mut in_sync);
            leaderless += u64::from(rd_kafka_TopicPartitionInfo_leader(partition).is_null());
            replicas_min = replicas_min.min(replicas as u64);
            in_sync_min = in_sync_min.min(in_sync as u64);
        }
        let mut count = 0;
        let operations = rd_kafka_TopicDescription_authorized_operations(topic, &mut count);
        let operations = if operations.is_null() { &[] } else { slice::from_raw_parts(operations, count) };
        let writes = [Operation::RD_KAFKA_ACL_OPERATION_WRITE, Operation::RD_KAFKA_ACL_OPERATION_ALL];
        let may_write = (!operations.is_empty()).then(|| operations.iter().any(|one| writes.contains(one)));
        let partitions = partitions.len() as u64;
        (name, Described::There { partitions, leaderless, replicas_min, in_sync_min, may_write })
    }
}
