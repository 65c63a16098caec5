//! A descriptor that becomes readable when delivery reports wait, so that one thread can wait for them and for file
//! events at once. This is the only place where the router touches librdkafka's C interface.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings;
use rdkafka::client::{Client, ClientContext};

/// What librdkafka writes into the descriptor: one event, as eventfd(2) counts them.
const ONE: [u8; 8] = 1u64.to_ne_bytes();

/// A descriptor that becomes readable when any of the queues that were attached to it has something.
#[derive(Debug)]
pub(super) struct Event(File);

impl Event {
    /// Makes a descriptor that nothing is attached to.
    pub(super) fn new() -> io::Result<Event> {
        // SAFETY: eventfd(2) takes no pointers; its result is checked and, if well, owned by nobody else.
        unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Event(File::from(OwnedFd::from_raw_fd(fd))))
        }
    }

    /// Makes the descriptor unreadable until the next event. To be called before the queues are served: what comes
    /// after that is then told again.
    pub(super) fn clear(&self) {
        let mut count = [0; 8];
        let _nothing_there = (&self.0).read(&mut count);
    }

    /// Makes the descriptor readable: more is waiting than was served.
    pub(super) fn raise(&self) {
        let _already_readable = (&self.0).write(&ONE);
    }

    /// Waits until the descriptor is readable, at most `wait`.
    pub(super) fn wait(&self, wait: Duration) {
        let wait_ms = i32::try_from(wait.as_millis().max(1)).unwrap_or(i32::MAX);
        let mut entry = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `entry` is one valid entry for the time of the call. An error, such as a signal, ends the wait.
        unsafe { libc::poll(&raw mut entry, 1, wait_ms) };
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The main queue of a client, attached to an [`Event`]. Must be dropped before the client.
#[derive(Debug)]
pub(super) struct Wake {
    queue: *mut bindings::rd_kafka_queue_t,
    /// Outlives the attachment.
    _event: Arc<Event>,
}

// SAFETY: librdkafka's queues may be used from any thread; the pointer is a counted reference that only `drop` gives up.
unsafe impl Send for Wake {}

impl Wake {
    /// Has the client's main queue write to the event's descriptor when its first report comes.
    pub(super) fn attach<C: ClientContext>(client: &Client<C>, event: &Arc<Event>) -> Wake {
        // SAFETY: the client lives, so its handle is valid and has a main queue; the reference that is returned is ours.
        // The payload is copied by the call; the descriptor outlives the setting, which `drop` takes back.
        let queue = unsafe {
            let queue = bindings::rd_kafka_queue_get_main(client.native_ptr());
            bindings::rd_kafka_queue_io_event_enable(
                queue,
                event.0.as_raw_fd(),
                ONE.as_ptr().cast::<c_void>(),
                ONE.len(),
            );
            queue
        };
        Wake { queue, _event: Arc::clone(event) }
    }

    /// Events in the queue; a report of a whole batch is one.
    pub(super) fn waiting(&self) -> usize {
        // SAFETY: `queue` is a reference of ours until `drop`.
        unsafe { bindings::rd_kafka_queue_length(self.queue) }
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        // SAFETY: `queue` is a reference of ours, given up here; -1 takes the descriptor back before it may be closed.
        unsafe {
            bindings::rd_kafka_queue_io_event_enable(self.queue, -1, std::ptr::null(), 0);
            bindings::rd_kafka_queue_destroy(self.queue);
        }
    }
}
