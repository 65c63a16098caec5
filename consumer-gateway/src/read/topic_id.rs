//! The id that Kafka gave a topic. librdkafka knows it, its safe wrapper does not; this is the one place of this crate with `unsafe`.
#![allow(unsafe_code)]

use std::{ffi::CString, ptr, time::Duration};

use rdkafka::{
    bindings::{
        rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new, rd_kafka_AdminOptions_set_request_timeout,
        rd_kafka_DescribeTopics, rd_kafka_DescribeTopics_result_topics, rd_kafka_TopicCollection_destroy,
        rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_error, rd_kafka_TopicDescription_topic_id,
        rd_kafka_Uuid_least_significant_bits, rd_kafka_Uuid_most_significant_bits, rd_kafka_admin_op_t,
        rd_kafka_error_code, rd_kafka_event_DescribeTopics_result, rd_kafka_event_destroy, rd_kafka_event_error,
        rd_kafka_event_t, rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_poll, rd_kafka_resp_err_t,
    },
    client::{Client, ClientContext},
};

/// What a broker says about a topic's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicId {
    /// The id.
    Known([u8; 16]),
    /// The broker gives topics no ids, or the topic is not there.
    Unknown,
    /// No answer came in time.
    NoAnswer,
}

/// Asks for a topic's id.
pub fn topic_id<C: ClientContext>(client: &Client<C>, topic: &str, timeout: Duration) -> TopicId {
    let Ok(name) = CString::new(topic) else { return TopicId::Unknown };
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let rk = client.native_ptr();
    // SAFETY: `rk` is a live client for as long as `client` is borrowed. Each object made here is given back before the function ends, the
    // event (which owns the result) after the last read of it. librdkafka copies the names before `DescribeTopics` returns.
    unsafe {
        let mut names = [name.as_ptr()];
        let topics = rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options = rd_kafka_AdminOptions_new(rk, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let queue = rd_kafka_queue_new(rk);
        rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, ptr::null_mut(), 0);
        rd_kafka_DescribeTopics(rk, topics, options, queue);
        let event = rd_kafka_queue_poll(queue, timeout_ms);
        let id = if event.is_null() {
            TopicId::NoAnswer
        } else {
            let id = read_id(event);
            rd_kafka_event_destroy(event);
            id
        };
        rd_kafka_queue_destroy(queue);
        rd_kafka_AdminOptions_destroy(options);
        rd_kafka_TopicCollection_destroy(topics);
        id
    }
}

/// Reads the id from the answer about one topic.
///
/// # Safety
/// `event` is a live event.
unsafe fn read_id(event: *mut rd_kafka_event_t) -> TopicId {
    const NO_ERROR: rd_kafka_resp_err_t = rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    // SAFETY: the event is live; librdkafka answers null for an event of another kind, and what it points to lives as long as the event.
    unsafe {
        let result = rd_kafka_event_DescribeTopics_result(event);
        if rd_kafka_event_error(event) != NO_ERROR || result.is_null() {
            return TopicId::NoAnswer;
        }
        let mut count = 0;
        let descriptions = rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if descriptions.is_null() || count != 1 {
            return TopicId::Unknown;
        }
        let description = *descriptions;
        let error = rd_kafka_TopicDescription_error(description);
        if !error.is_null() && rd_kafka_error_code(error) != NO_ERROR {
            return TopicId::Unknown;
        }
        let id = rd_kafka_TopicDescription_topic_id(description);
        if id.is_null() {
            return TopicId::Unknown;
        }
        let (most, least) = (rd_kafka_Uuid_most_significant_bits(id), rd_kafka_Uuid_least_significant_bits(id));
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&most.to_be_bytes());
        bytes[8..].copy_from_slice(&least.to_be_bytes());
        if bytes == [0; 16] { TopicId::Unknown } else { TopicId::Known(bytes) }
    }
}
