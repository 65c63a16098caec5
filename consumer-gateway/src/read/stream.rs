//! One open stream: history, then what comes, then `end`. Input: a prepared request. Output: frames for the response's body.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fairlead_contract::topic::TopicName;
use fairlead_service_kit::telemetry::field;
use futures::FutureExt;
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::{Instant, interval_at, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    event::EndReason,
    history::{FRAME_BYTES, History, HistoryEnd},
    hub::{Batch, Follower},
    outbox::{Outbox, Sent, Valve, Watch},
    position::Positions,
    request::{Plan, Prepared, Reading},
    shape::{Counts, Shaper, Verdict},
    walk_back,
};
use crate::metrics::Open;

/// How many batches are shown before other things get their turn.
const BATCHES_PER_TURN: usize = 8;

/// How long records are shown before other things get their turn: on a thread that serves others too, and on one that may take long.
const SLICE: Duration = Duration::from_millis(5);
const SLICE_APART: Duration = Duration::from_millis(50);
/// How many records are shown between two looks at the clock where each is quick.
const RECORDS_PER_LOOK: usize = 64;

/// Why nothing more can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With an `end` for this reason.
    Because(EndReason),
    /// The client is gone.
    Gone,
}

/// An account's part of what all share, so that one account cannot take it all. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Share {
    /// Of the history readers' places.
    pub readers: Arc<Semaphore>,
    /// Of the threads that match patterns for follows.
    pub matching: Arc<Semaphore>,
}

impl Share {
    /// So many readers at one time, at least one, and one thread.
    pub fn new(readers: usize) -> Self {
        Self { readers: Arc::new(Semaphore::new(readers.max(1))), matching: Arc::new(Semaphore::new(1)) }
    }
}

/// The parts of a running stream.
struct Running<'e> {
    reading: Arc<Reading>,
    topic: TopicName,
    shaper: Option<Box<Shaper>>,
    outbox: Outbox,
    ended: Pin<&'e mut (dyn Future<Output = EndReason> + Send)>,
    limit: Option<u64>,
    follow: bool,
    patterned: bool,
    share: Share,
    reported: Counts,
    namespace: String,
}

/// How far showing a batch came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// To its end.
    All,
    /// As far as one frame or one turn goes.
    Some,
    /// Up to a record before which this partition is to be looked back in.
    LookBack(i32),
    /// To the asked number of lines.
    Limit,
}

impl Prepared {
    /// Sends the stream to its end. `share` is the account's.
    pub async fn run(self, outbox: Outbox, watch: Watch, share: Share) {
        let mut ended = pin!(watch.ended());
        let namespace = self.namespace.to_string();
        let Some(topic) = self.topic else {
            let mut shaper = self.shaper;
            let mut out = Vec::new();
            shaper.end(EndReason::Excluded, &mut out);
            outbox.finish(out).await;
            return;
        };
        let mut running = Running {
            reading: self.reading,
            topic,
            shaper: Some(Box::new(self.shaper)),
            outbox,
            ended: ended.as_mut() as Pin<&mut _>,
            limit: self.limit,
            follow: self.follow,
            patterned: self.patterned,
            share,
            reported: Counts::default(),
            namespace,
        };
        let end = match running.past(self.plan).await {
            Ok(_) if self.follow => running.follow().await,
            Ok(reason) => Ended::Because(reason.unwrap_or(EndReason::Complete)),
            Err(end) => end,
        };
        running.end(end).await;
    }
}

impl Running<'_> {
    /// Sends the asked history. Says so if it is not all that was asked.
    async fn past(&mut self, plan: Plan) -> Result<Option<EndReason>, Ended> {
        let limit = self.limit;
        match plan {
            Plan::Nothing => Ok(None),
            Plan::Spans { spans, missing } => {
                if !missing.is_empty() {
                    let mut out = Vec::new();
                    self.shaper().gap(&missing, &mut out);
                    self.send(out).await?;
                }
                if spans.iter().all(super::range::Span::is_empty) {
                    return Ok(None);
                }
                self.blocking(move |history, shaper| history.send(shaper, spans, limit)).await?;
                Ok(None)
            }
            Plan::Last(walk) => {
                let complete = Arc::new(AtomicBool::new(true));
                let (told, follow) = (complete.clone(), self.follow);
                self.blocking(move |history, shaper| match walk_back::last_lines(history, shaper, &walk) {
                    Ok(found) => {
                        told.store(found.complete, Ordering::Relaxed);
                        walk_back::begin(shaper, &found.spans);
                        if history.valve.is_shut() {
                            return HistoryEnd::Stopped;
                        }
                        if follow && !found.complete {
                            // A range says so at its end; this stream may have none for a long time.
                            let mut out = Vec::new();
                            shaper.not_searched(&walk.before(&found.spans), &mut out);
                            if history.valve.send(out).is_break() {
                                return HistoryEnd::Stopped;
                            }
                        }
                        shaper.skip_lines(found.skip);
                        let end = history.send(shaper, found.spans, limit);
                        shaper.skip_lines(0);
                        end
                    }
                    Err(error) => history.unavailable(&error),
                })
                .await?;
                Ok((!complete.load(Ordering::Relaxed)).then_some(EndReason::ScanLimit))
            }
        }
    }

    /// Sends what comes until something ends it.
    async fn follow(&mut self) -> Ended {
        let mut first = true;
        loop {
            match self.join_and_follow(&mut first).await {
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    /// Joins the topic's followers, catches up to where the others are, and sends what comes until the fetcher lets go.
    async fn join_and_follow(&mut self, first: &mut bool) -> Result<(), Ended> {
        let mut answer = self.reading.hub.join(&self.topic);
        let every = self.reading.settings.heartbeat;
        let mut tick = interval_at(Instant::now() + every, every);
        let mut follower = loop {
            tokio::select! {
                biased;
                reason = &mut self.ended => return Err(Ended::Because(reason)),
                () = self.outbox.closed() => return Err(Ended::Gone),
                answer = &mut answer => match answer {
                    Ok(follower) => break follower,
                    Err(_) => {
                        sleep(Duration::from_millis(100)).await;
                        return Ok(());
                    }
                },
                _ = tick.tick() => self.heartbeat().await?,
            }
        };
        self.meet(&follower).await?;
        if std::mem::take(first) {
            self.heartbeat().await?;
            tick.reset();
        }
        loop {
            tokio::select! {
                biased;
                reason = &mut self.ended => return Err(Ended::Because(reason)),
                () = self.outbox.closed() => return Err(Ended::Gone),
                // Before the batches, which may never pause.
                _ = tick.tick() => self.heartbeat().await?,
                batch = follower.recv() => match batch {
                    Some(batch) => self.show(batch, &mut follower).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    /// Reads what lies between this stream's positions and the follower's first records.
    async fn meet(&mut self, follower: &Follower) -> Result<(), Ended> {
        let shaper = self.shaper();
        if !shaper.topic().may_be(&follower.topic) {
            return Err(self.topic_changed().await);
        }
        if follower.topic.has_id() && !shaper.topic().has_id() {
            shaper.set_topic(follower.topic);
        }
        let positions = shaper.positions();
        let behind = (0..)
            .zip(&follower.next)
            .any(|(partition, next)| positions.get(partition).is_none_or(|at| at < *next) && *next > 0);
        let ahead =
            (0..).zip(&follower.next).any(|(partition, next)| positions.get(partition).is_some_and(|at| at > *next));
        if !behind && !ahead {
            for (partition, next) in (0..).zip(&follower.next) {
                self.shaper().advance(partition, *next);
            }
            return Ok(());
        }
        let (mark, next, limit) = (follower.topic, follower.next.clone(), self.limit);
        self.blocking(move |history, shaper| history.catch_up(shaper, mark, &next, limit)).await
    }

    /// Sends a batch, and what else is at hand, up to a frame.
    async fn show(&mut self, first: Arc<Batch>, follower: &mut Follower) -> Result<(), Ended> {
        let mut out = Vec::new();
        let mut batch = Some(first);
        let mut shown = 0;
        while let Some(now) = batch {
            let mut next = 0;
            loop {
                match self.shape(&now, &mut next, &mut out).await? {
                    Shown::All => break,
                    Shown::Some => {
                        self.shaper().heartbeat_if_due(&mut out);
                        self.send(std::mem::take(&mut out)).await?;
                        if let Some(reason) = self.ended.as_mut().now_or_never() {
                            return Err(Ended::Because(reason));
                        }
                        tokio::task::yield_now().await;
                    }
                    Shown::LookBack(partition) => {
                        self.send(std::mem::take(&mut out)).await?;
                        self.blocking(move |history, shaper| match history.look_back(shaper, partition) {
                            Ok(()) => HistoryEnd::Reached,
                            Err(error) => history.unavailable(&error),
                        })
                        .await?;
                    }
                    Shown::Limit => {
                        self.send(out).await?;
                        return Err(Ended::Because(EndReason::Limit));
                    }
                }
            }
            shown += 1;
            let more = out.len() < FRAME_BYTES && shown < BATCHES_PER_TURN;
            batch = if more { follower.try_recv() } else { None };
        }
        self.send(out).await?;
        self.report();
        Ok(())
    }

    /// Shows what one turn takes of a batch: here where that is quick, and on a thread of its own where patterns are matched.
    async fn shape(&mut self, batch: &Arc<Batch>, next: &mut usize, out: &mut Vec<u8>) -> Result<Shown, Ended> {
        let limit = self.limit;
        if !self.patterned {
            return Ok(show(self.shaper(), batch, next, limit, SLICE, RECORDS_PER_LOOK, out));
        }
        let turn = both(self.share.matching.clone(), self.reading.matching.clone());
        let turn = tokio::select! {
            biased;
            reason = &mut self.ended => return Err(Ended::Because(reason)),
            () = self.outbox.closed() => return Err(Ended::Gone),
            turn = turn => turn.map_err(|_| Ended::Because(EndReason::Shutdown))?,
        };
        let mut shaper = self.shaper.take().expect("a stream's state is at hand between its steps");
        let (batch, mut at, mut frame) = (batch.clone(), *next, std::mem::take(out));
        let apart = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let shown = show(&mut shaper, &batch, &mut at, limit, SLICE_APART, 1, &mut frame);
            (shaper, shown, at, frame)
        });
        let Ok((shaper, shown, at, frame)) = apart.await else {
            tracing::error!("showing a batch panicked");
            return Err(Ended::Gone);
        };
        self.shaper = Some(shaper);
        (*next, *out) = (at, frame);
        Ok(shown)
    }

    /// Does work that blocks, on a thread that may, with one of the readers' places.
    async fn blocking(
        &mut self,
        work: impl FnOnce(&History<'_>, &mut Shaper) -> HistoryEnd + Send + 'static,
    ) -> Result<(), Ended> {
        let place = self.place().await?;
        let (reading, topic) = (self.reading.clone(), self.topic.clone());
        let stop = CancellationToken::new();
        let valve = Valve::new(self.outbox.clone(), stop.clone());
        let mut shaper = self.shaper.take().expect("a stream's state is at hand between its steps");
        let mut task: JoinHandle<(Box<Shaper>, HistoryEnd, bool)> = tokio::task::spawn_blocking(move || {
            // Given back however the work ends.
            let _held = (place, Open::new(&reading.metrics.readers));
            let history = History { kafka: &reading.kafka, topic: &topic, settings: &reading.settings, valve: &valve };
            let end = work(&history, &mut shaper);
            (shaper, end, valve.has_lost())
        });
        let (outcome, reason) = tokio::select! {
            biased;
            outcome = &mut task => (outcome, None),
            reason = &mut self.ended => {
                stop.cancel();
                (task.await, Some(reason))
            }
        };
        let Ok((shaper, end, lost)) = outcome else {
            tracing::error!("a reader panicked");
            return Err(Ended::Gone);
        };
        self.shaper = Some(shaper);
        self.report();
        if lost {
            return Err(Ended::Gone);
        }
        match (reason, end) {
            (Some(reason), _) => Err(Ended::Because(reason)),
            (None, HistoryEnd::Reached) => Ok(()),
            (None, HistoryEnd::Limit) => Err(Ended::Because(EndReason::Limit)),
            (None, HistoryEnd::Stopped) => Err(Ended::Gone),
            (None, HistoryEnd::Unavailable) => Err(Ended::Because(EndReason::Unavailable)),
            (None, HistoryEnd::TopicChanged) => Err(self.topic_changed().await),
        }
    }

    /// Waits for one of the readers' places.
    async fn place(&mut self) -> Result<Permits, Ended> {
        let mut place = pin!(both(self.share.readers.clone(), self.reading.readers.clone()));
        let every = self.reading.settings.heartbeat;
        let mut tick = interval_at(Instant::now() + every, every);
        loop {
            tokio::select! {
                biased;
                place = &mut place => return place.map_err(|_| Ended::Because(EndReason::Shutdown)),
                reason = &mut self.ended => return Err(Ended::Because(reason)),
                () = self.outbox.closed() => return Err(Ended::Gone),
                _ = tick.tick() => self.heartbeat().await?,
            }
        }
    }

    /// Points the stream's last cursor at the beginning of the topic as it is now.
    async fn topic_changed(&mut self) -> Ended {
        let (lows, mark) = self.reading.beginning(&self.topic).await;
        let shaper = self.shaper();
        shaper.set_topic(mark);
        shaper.start_at(Positions::from_offsets(&lows));
        Ended::Because(EndReason::TopicChanged)
    }

    async fn heartbeat(&mut self) -> Result<(), Ended> {
        let mut out = Vec::new();
        self.shaper().heartbeat(&mut out);
        self.send(out).await
    }

    async fn send(&mut self, frame: Vec<u8>) -> Result<(), Ended> {
        match self.outbox.send(frame, self.ended.as_mut()).await {
            Sent::Taken => Ok(()),
            Sent::TakenLast(reason) => Err(Ended::Because(reason)),
            Sent::Lost => Err(Ended::Gone),
        }
    }

    async fn end(mut self, end: Ended) {
        self.report();
        let (Ended::Because(reason), Some(mut shaper)) = (end, self.shaper.take()) else { return };
        let mut out = Vec::new();
        shaper.end(reason, &mut out);
        // Whatever comes now, it is the last word: it waits for the connection, but not for ever.
        self.outbox.finish(out).await;
        self.reading.metrics.ended(reason);
        let Counts { lines, scanned, .. } = shaper.counts();
        tracing::info!(
            { field::K8S_NAMESPACE_NAME } = self.namespace,
            reason = reason.as_str(),
            lines,
            scanned,
            "stream ended"
        );
    }

    /// Adds to the metrics what was counted since the last time.
    fn report(&mut self) {
        let Some(shaper) = &self.shaper else { return };
        let now = shaper.counts();
        self.reading.metrics.shown(&self.namespace, &self.reported, &now);
        self.reported = now;
    }

    fn shaper(&mut self) -> &mut Shaper {
        self.shaper.as_deref_mut().expect("a stream's state is at hand between its steps")
    }
}

/// A place among the account's, and one among all.
type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// Waits for a place among the account's before one among all, so that an account that waits for itself keeps nobody waiting.
async fn both(own: Arc<Semaphore>, all: Arc<Semaphore>) -> Result<Permits, AcquireError> {
    let own = own.acquire_owned().await?;
    Ok((own, all.acquire_owned().await?))
}

/// Shows the records of a batch from `next` on, for one turn: up to a frame or about as long as `slice`.
fn show(
    shaper: &mut Shaper,
    batch: &Batch,
    next: &mut usize,
    limit: Option<u64>,
    slice: Duration,
    per_look: usize,
    out: &mut Vec<u8>,
) -> Shown {
    let begun = std::time::Instant::now();
    for record in batch.records_from(*next) {
        match shaper.take(&record, out) {
            Verdict::LookBack => return Shown::LookBack(record.partition),
            Verdict::Shown if limit.is_some_and(|limit| shaper.counts().lines >= limit) => return Shown::Limit,
            Verdict::Shown | Verdict::LeftOut => *next += 1,
        }
        if out.len() >= FRAME_BYTES || (next.is_multiple_of(per_look) && begun.elapsed() >= slice) {
            return Shown::Some;
        }
    }
    Shown::All
}
