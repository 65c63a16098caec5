//! A proxy in front of a broker that refuses records as proxies and brokers that validate them do. Apache Kafka by itself calls
//! no record with a key invalid.
//!
//! Of a batch with a bad record it takes nothing, and it does not say which record it was.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, ensure};
use tansu_sans_io::produce_request::ProduceRequest;
use tansu_sans_io::produce_response::{PartitionProduceResponse, ProduceResponse, TopicProduceResponse};
use tansu_sans_io::record::inflated::Batch;
use tansu_sans_io::{Body, ErrorCode, Frame, Header};

/// Which records are bad.
#[derive(Clone, Copy, Debug)]
pub struct Refuses {
    /// The topics that are looked at.
    pub topics: &'static [&'static str],
    /// What no record there may contain.
    pub text: &'static str,
}

/// The proxy, for as long as this lives.
#[derive(Debug)]
pub(super) struct Validator {
    port: u16,
    over: Arc<AtomicBool>,
    connections: Connections,
    thread: Option<JoinHandle<()>>,
}

type Connections = Arc<Mutex<Vec<TcpStream>>>;

impl Validator {
    /// Listens on `port` for clients of the broker's listener on port `broker`, which must tell clients of this one.
    ///
    /// # Errors
    /// When the port is taken.
    pub(super) fn start(port: u16, broker: u16, refuses: Refuses) -> Result<Validator> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("listen for clients")?;
        let over = Arc::new(AtomicBool::new(false));
        let connections = Connections::default();
        let (seen, kept) = (Arc::clone(&over), Arc::clone(&connections));
        let thread = std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if seen.load(Ordering::Relaxed) {
                    break;
                }
                // A client whose connection ends comes again.
                let Ok(copy) = client.try_clone() else { continue };
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
                std::thread::spawn(move || {
                    let _ = serve(&client, broker, refuses);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Ok(Validator { port, over, connections, thread: Some(thread) })
    }
}

impl Drop for Validator {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for connection in self.connections.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

/// Passes on one request after the other, with its answer.
fn serve(client: &TcpStream, port: u16, refuses: Refuses) -> Result<()> {
    let broker = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("connect to the broker")?;
    for stream in [client, &broker] {
        stream.set_nodelay(true).context("send at once")?;
    }
    loop {
        let request = frame(client)?;
        let answer = match refusal(&request, refuses)? {
            Some(answer) => answer,
            None => {
                (&broker).write_all(&request).context("pass a request on")?;
                frame(&broker)?
            }
        };
        (&*client).write_all(&answer).context("answer")?;
    }
}

/// One request or answer, with the length in front of it.
fn frame(mut stream: &TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).context("read a length")?;
    let mut frame = length.to_vec();
    let bytes = u64::from(u32::from_be_bytes(length));
    ensure!(stream.take(bytes).read_to_end(&mut frame).context("read a frame")? as u64 == bytes, "a torn frame");
    Ok(frame)
}

/// The answer to a request with a bad record; none for one that the broker is to answer.
fn refusal(request: &[u8], refuses: Refuses) -> Result<Option<Vec<u8>>> {
    const PRODUCE: [u8; 2] = [0, 0];
    if request.get(4..6) != Some(&PRODUCE) {
        return Ok(None);
    }
    let parsed = Frame::request_from_bytes(request).map_err(|error| anyhow!("a request of a producer: {error}"))?;
    let (Body::ProduceRequest(produce), Header::Request { api_key, api_version, correlation_id, .. }) =
        (parsed.body, parsed.header)
    else {
        return Ok(None);
    };
    if !is_bad(&produce, refuses)? {
        return Ok(None);
    }
    let body = Body::ProduceResponse(refused(&produce));
    let answer = Frame::response(Header::Response { correlation_id }, body, api_key, api_version);
    Ok(Some(answer.map_err(|error| anyhow!("an answer for a producer: {error}"))?.to_vec()))
}

fn is_bad(produce: &ProduceRequest, refuses: Refuses) -> Result<bool> {
    let text = refuses.text.as_bytes();
    for topic in produce.topic_data.iter().flatten().filter(|topic| refuses.topics.contains(&topic.name.as_str())) {
        let frames = topic.partition_data.iter().flatten().filter_map(|partition| partition.records.as_ref());
        for batch in frames.flat_map(|frame| &frame.batches) {
            let batch = Batch::try_from(batch).map_err(|error| anyhow!("a batch: {error}"))?;
            let mut values = batch.records.iter().filter_map(|record| record.value.as_ref());
            if values.any(|value| value.windows(text.len()).any(|part| part == text)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Refuses all of a request, which has one batch where librdkafka sends it.
fn refused(produce: &ProduceRequest) -> ProduceResponse {
    let of_topics = produce.topic_data.iter().flatten().map(|topic| {
        let of_partitions = topic.partition_data.iter().flatten().map(|partition| {
            PartitionProduceResponse::default()
                .index(partition.index)
                .error_code(i16::from(ErrorCode::InvalidRecord))
                .base_offset(-1)
                .log_append_time_ms(Some(-1))
                .log_start_offset(Some(-1))
                .record_errors(Some(Vec::new()))
                .error_message(Some("not what this topic takes".to_owned()))
        });
        TopicProduceResponse::default().name(topic.name.clone()).partition_responses(Some(of_partitions.collect()))
    });
    ProduceResponse::default().responses(Some(of_topics.collect())).throttle_time_ms(Some(0))
}
