//! Some namespaces of pods that keep writing: rotation, restarts, jobs of a second or two whose pods are deleted.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::Identity;
use super::cri::CriWriter;
use super::dice::Dice;
use super::lines::{Style, event};
use crate::wait::pace;

/// A workload: so many pods of one service, whose lines look alike.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The pods' namespace.
    pub namespace: &'static str,
    /// The first part of the pods' names.
    pub name: &'static str,
    /// The container's name.
    pub container: &'static str,
    /// What they print.
    pub style: Style,
    /// How many at a time.
    pub pods: usize,
    /// Events each pod prints in a second.
    pub events_per_second: u64,
}

/// What the trial shows: two teams and the cluster's own components.
pub fn trial_workloads() -> Vec<Workload> {
    let workload = |namespace, name, container, style, pods, events_per_second| Workload {
        namespace,
        name,
        container,
        style,
        pods,
        events_per_second,
    };
    vec![
        workload("payments", "api-7d9f4b6c5", "api", Style::Json, 2, 12),
        workload("payments", "ledger-5f6d8", "ledger", Style::Java, 1, 5),
        workload("shop", "web-6c5b9d7f8", "nginx", Style::Access, 2, 15),
        workload("shop", "stock-84b7c", "stock", Style::Java, 1, 5),
        workload("kube-system", "kube-proxy", "kube-proxy", Style::Klog, 1, 2),
    ]
}

/// Namespaces in which a job's pod appears now and then.
const JOB_NAMESPACES: [&str; 2] = ["payments", "shop"];
const JOB_EVERY: Duration = Duration::from_secs(4);
const JOB_LASTS: Duration = Duration::from_millis(1200);
/// Between a job's end and the removal of its folder, as a kubelet takes.
const JOB_REMOVED_AFTER: Duration = Duration::from_secs(2);
const ROTATE_AT_BYTES: u64 = 128 * 1024;
const ROTATED_FILES: usize = 5;
const RESTART_EVERY: Duration = Duration::from_secs(45);
const TICK: Duration = Duration::from_millis(50);

/// The running generator.
#[derive(Debug)]
pub struct Fleet {
    stop: Arc<AtomicBool>,
    lines: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Fleet {
    /// Starts writing under `pods`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn start(pods: &Path, workloads: &[Workload]) -> Result<Fleet> {
        let (stop, lines) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut writers = Writers::new(pods, workloads, lines.clone())?;
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("fleet".to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    writers.tick()?;
                    pace(TICK);
                }
                Ok(())
            })
            .context("the generator's thread")?;
        Ok(Fleet { stop, lines, thread: Some(thread) })
    }

    /// Lines written so far.
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// Stops writing.
    ///
    /// # Errors
    /// What ended the generator before, if something did.
    pub fn stop(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take() {
            Some(thread) => thread.join().map_err(|_| anyhow::anyhow!("the generator panicked"))?,
            None => Ok(()),
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

struct Writers {
    pods: PathBuf,
    dice: Dice,
    lines: Arc<AtomicU64>,
    services: Vec<Service>,
    jobs: VecDeque<Job>,
    next_job: Instant,
    next_restart: Instant,
}

struct Service {
    identity: Identity,
    writer: CriWriter,
    restart: u32,
    style: Style,
    events_per_second: u64,
}

struct Job {
    identity: Identity,
    writer: Option<CriWriter>,
    began: Instant,
}

impl Writers {
    fn new(pods: &Path, workloads: &[Workload], lines: Arc<AtomicU64>) -> Result<Writers> {
        let mut dice = Dice::new(u64::from(std::process::id()));
        let mut services = Vec::new();
        for workload in workloads {
            for _ in 0..workload.pods {
                let pod = format!("{}-{}", workload.name, dice.suffix(5));
                let identity = Identity::new(workload.namespace, &pod, workload.container);
                let writer = CriWriter::create(pods, &identity, 0)?;
                let (style, events_per_second) = (workload.style, workload.events_per_second);
                services.push(Service { identity, writer, restart: 0, style, events_per_second });
            }
        }
        let now = Instant::now();
        let (next_job, next_restart) = (now + JOB_EVERY, now + RESTART_EVERY);
        Ok(Writers { pods: pods.to_path_buf(), dice, lines, services, jobs: VecDeque::new(), next_job, next_restart })
    }

    fn tick(&mut self) -> Result<()> {
        let ticks_per_second = u64::try_from(1000 / TICK.as_millis()).expect("a small number");
        for service in &mut self.services {
            let events = service.events_per_second;
            let due =
                events / ticks_per_second + u64::from(self.dice.below(ticks_per_second) < events % ticks_per_second);
            for _ in 0..due {
                print(&mut service.writer, service.style, &mut self.dice, &self.lines)?;
            }
            service.writer.flush()?;
            if service.writer.bytes() >= ROTATE_AT_BYTES {
                service.writer.rotate(ROTATED_FILES)?;
            }
        }
        self.run_jobs()?;
        if Instant::now() >= self.next_restart {
            self.next_restart += RESTART_EVERY;
            self.restart_one()?;
        }
        Ok(())
    }

    fn run_jobs(&mut self) -> Result<()> {
        let now = Instant::now();
        if now >= self.next_job {
            self.next_job = now + JOB_EVERY;
            let namespace = *self.dice.one_of(&JOB_NAMESPACES);
            let identity = Identity::new(namespace, &format!("report-{}", self.dice.suffix(5)), "report");
            let writer = Some(CriWriter::create(&self.pods, &identity, 0)?);
            self.jobs.push_back(Job { identity, writer, began: now });
        }
        for job in &mut self.jobs {
            if let Some(writer) = &mut job.writer {
                print(writer, Style::Job, &mut self.dice, &self.lines)?;
                writer.flush()?;
            }
            if job.began.elapsed() >= JOB_LASTS {
                job.writer = None;
            }
        }
        while self.jobs.front().is_some_and(|job| job.began.elapsed() >= JOB_LASTS + JOB_REMOVED_AFTER) {
            let Some(job) = self.jobs.pop_front() else { break };
            let folder = job.identity.pod_folder(&self.pods);
            std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        Ok(())
    }

    /// A container crashes and comes back under the next restart count; the kubelet keeps one dead run.
    fn restart_one(&mut self) -> Result<()> {
        let index = usize::try_from(self.dice.below(self.services.len() as u64)).context("an index")?;
        let Some(service) = self.services.get_mut(index) else { return Ok(()) };
        service.writer.flush()?;
        if let Some(old) = service.restart.checked_sub(1) {
            let log = service.identity.log(&self.pods, old);
            for path in super::rotation::rotated(&log)?.into_iter().chain([log]) {
                let _ = std::fs::remove_file(path);
            }
        }
        service.restart += 1;
        service.writer = CriWriter::create(&self.pods, &service.identity, service.restart)?;
        Ok(())
    }
}

fn print(writer: &mut CriWriter, style: Style, dice: &mut Dice, lines: &AtomicU64) -> Result<()> {
    let now = Timestamp::now();
    let (stream, printed) = event(style, now, dice);
    for line in &printed {
        writer.line(now, stream, line.as_bytes())?;
    }
    lines.fetch_add(printed.len() as u64, Ordering::Relaxed);
    Ok(())
}
