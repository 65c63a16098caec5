//! Several namespaces on one stage: each byte known, judged together.

use std::collections::BTreeMap;
use std::time::Duration;

use fairlead_integration::consume::{Line, record_count};
use fairlead_integration::generator::kept::KeptLog;
use fairlead_integration::soak::{Case, Figures, Witness, judge};
use fairlead_integration::stage::Stage;
use fairlead_integration::steady::Steady;
use fairlead_integration::wait::{pace, wait_until};

/// Lets time pass in which containers write.
pub fn write_for(time: Duration) {
    pace(time);
}

/// Ends these containers.
pub fn stopped(writers: Vec<Steady>) -> Vec<KeptLog> {
    writers.into_iter().map(|writer| writer.stop().unwrap()).collect()
}

/// Waits until everything that these containers wrote is in their namespaces' topics or announced there, reports the
/// case's row, and fails unless all is explained. `before` has what topics held that are no more.
pub fn prove(case: Case, stage: &Stage, logs: &[KeptLog], before: &[Line]) -> Figures {
    let mut namespaces: BTreeMap<&str, Vec<Witness>> = BTreeMap::new();
    for log in logs {
        let witness = Witness::new(&log.identity, &log.files);
        namespaces.entry(&log.identity.namespace).or_default().push(witness);
    }
    let (mut sum, mut faults) = (Figures::default(), Vec::new());
    for (namespace, witnesses) in namespaces {
        let earlier: Vec<Line> = before.iter().filter(|line| line.namespace == namespace).cloned().collect();
        let whole = |lines: &[Line]| [earlier.as_slice(), lines].concat();
        let total: u64 = witnesses.iter().map(Witness::total).sum();
        let (bootstrap, topic) = (stage.broker.bootstrap(), stage.topic(namespace));
        // Reading a long topic again and again costs; if this many never come, the judgement says what is missing.
        let _ = wait_until("about as many records as lines", super::arrives_within(), || {
            let count = record_count(&bootstrap, &topic).unwrap_or(0).cast_unsigned();
            count + earlier.len() as u64 >= total
        });
        let lines = super::arrived(stage, namespace, |lines| judge(&whole(lines), &witnesses).unexplained == 0);
        let figures = judge(&whole(&lines), &witnesses);
        super::say(&format!("{namespace}: {figures:?}"));
        faults.extend(witnesses.iter().flat_map(|witness| witness.faults(&whole(&lines))));
        sum = sum.and(&figures);
    }
    faults.truncate(20);
    let memory = stage.router.peak_memory() >> 20;
    super::say(&format!("together: {sum:?}, the router had at most {memory} MiB"));
    let finished = case.finish(sum.clone(), &stage.router);
    if finished.is_err() {
        super::say(&format!("{faults:#?}"));
    }
    finished.unwrap();
    sum
}
