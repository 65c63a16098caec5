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
use tokio::{
    sync::OwnedSemaphorePermit,
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

/// How many batches are shown before other things get their turn.
const BATCHES_PER_TURN: usize = 8;

/// Why nothing more can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With an `end` for this reason.
    Because(EndReason),
    /// The client is gone.
    Gone,
}

/// The parts of a running stream.
struct Running<'e> {
    reading: Arc<Reading>,
    topic: TopicName,
    shaper: Option<Box<Shaper>>,
    outbox: Outbox,
    ended: Pin<&'e mut (dyn Future<Output = EndReason> + Send)>,
    limit: Option<u64>,
    reported: Counts,
    namespace: String,
}

impl Prepared {
    /// Sends the stream to its end.
    pub async fn run(self, outbox: Outbox, watch: Watch) {
        let mut ended = pin!(watch.ended());
        let namespace = self.namespace.to_string();
        let Some(topic) = self.topic else {
            let mut shaper = self.shaper;
            let mut out = Vec::new();
            shaper.end(EndReason::Excluded, &mut out);
            outbox.send(out, std::future::pending::<()>()).await;
            return;
        };
        let mut running = Running {
            reading: self.reading,
            topic,
            shaper: Some(Box::new(self.shaper)),
            outbox,
            ended: ended.as_mut() as Pin<&mut _>,
            limit: self.limit,
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
                let told = complete.clone();
                self.blocking(move |history, shaper| match walk_back::last_lines(history, shaper, &walk) {
                    Ok(found) => {
                        told.store(found.complete, Ordering::Relaxed);
                        walk_back::begin(shaper, &found.spans);
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
                batch = follower.batches.recv() => match batch {
                    Some(batch) => self.show(batch, &mut follower).await?,
                    None => return Ok(()),
                },
                _ = tick.tick() => self.heartbeat().await?,
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
            for record in now.records() {
                let mut verdict = self.shaper().take(&record, &mut out);
                while verdict == Verdict::LookBack {
                    self.send(std::mem::take(&mut out)).await?;
                    let partition = record.partition;
                    self.blocking(move |history, shaper| match history.look_back(shaper, partition) {
                        Ok(()) => HistoryEnd::Reached,
                        Err(error) => history.unavailable(&error),
                    })
                    .await?;
                    verdict = self.shaper().take(&record, &mut out);
                }
                if verdict == Verdict::Shown {
                    if self.limit.is_some_and(|limit| self.shaper().counts().lines >= limit) {
                        self.send(out).await?;
                        return Err(Ended::Because(EndReason::Limit));
                    }
                    if out.len() >= FRAME_BYTES {
                        self.send(std::mem::take(&mut out)).await?;
                    }
                }
            }
            shown += 1;
            let more = out.len() < FRAME_BYTES && shown < BATCHES_PER_TURN;
            batch = if more { follower.batches.try_recv().ok() } else { None };
        }
        self.send(out).await?;
        self.report();
        Ok(())
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
        reading.metrics.readers.inc();
        let mut task: JoinHandle<(Box<Shaper>, HistoryEnd, bool)> = tokio::task::spawn_blocking(move || {
            let history = History { kafka: &reading.kafka, topic: &topic, settings: &reading.settings, valve: &valve };
            let end = work(&history, &mut shaper);
            drop(place);
            reading.metrics.readers.dec();
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
    async fn place(&mut self) -> Result<OwnedSemaphorePermit, Ended> {
        let readers = self.reading.readers.clone();
        let mut place = pin!(readers.acquire_owned());
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
        self.outbox.send(out, std::future::ready(())).await;
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
