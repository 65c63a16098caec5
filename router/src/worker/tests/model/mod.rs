//! Plays whatever may happen to a node against the worker, and judges what Kafka has then.
//!
//! `PROPTEST_CASES` says how many plays; a play that fails is made short, and printed with a seed that plays it again: `FAIRLEAD_MODEL_SEED`.

mod acts;
mod judge;
mod world;

use fairlead_contract::record::Provenance;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use super::*;
use crate::enrich::{ContainerFacts, PodFacts, Standing};
use crate::hold::FAIL_LINKS;
use acts::{Act, act};
use world::World;

/// How many plays there are unless `PROPTEST_CASES` says so.
const PLAYS: u64 = 60;
const ACTS_MAX: usize = 60;
const DEAD_LETTER: &str = "{topic}.dlq";

/// Who writes the files, and how they are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runtime {
    /// CRI files in the kubelet's folder, linked.
    Cri,
    /// The same, and Kafka refuses some lines for what they are, with all that is in their batch.
    Refused,
    /// Docker's files behind the kubelet's links, linked.
    Docker,
    /// The same, held by descriptors alone.
    DockerUnlinked,
}

/// A file that was cut to nothing, and by which epochs it was known then.
struct Cut {
    instance: String,
    inode: (u64, u64),
    epochs: BTreeSet<String>,
}

struct Play {
    node: Node,
    world: World,
    cuts: Vec<Cut>,
    /// Whether the last router ended by a kill.
    killed: bool,
    /// Whether a link and positions were lost since a router started.
    lost: (bool, bool),
    /// Whether lines that come again from a link that was lost must be marked.
    strict: bool,
    runtime: Runtime,
}

impl Play {
    fn act(&mut self, act: &Act) {
        self.world.held.clear();
        if let Some(worker) = self.node.worker.as_ref().filter(|_| self.runtime == Runtime::DockerUnlinked) {
            let links = worker.instances.values().flat_map(|instance| instance.links.values());
            self.world.held.extend(links.map(|link| link.inode));
        }
        match *act {
            Act::Write { spot, lines, fragments, stderr } => {
                self.world.write(spot, lines, fragments, stderr);
            }
            Act::Half { spot } => self.world.half(spot),
            Act::Bad { spot } => self.world.bad(spot),
            Act::Rotate { spot, keep, same_second, reopen } => self.world.rotate(spot, keep, same_second, reopen),
            Act::Compress { spot } => self.world.compress(spot),
            Act::Clean { spot } => self.world.clean(spot),
            Act::Late { spot, by_name } => self.world.late(spot, by_name),
            Act::CloseLate { spot } => self.world.close_late(spot),
            Act::Truncate { spot, lines } => self.truncate(spot, lines),
            Act::RestartContainer { spot, keep } => self.world.restart_container(spot, keep),
            Act::DeletePod { spot, keep } => self.world.delete_pod(spot, keep),
            Act::DeleteFolder { spot } => self.world.delete_folder(spot),
            Act::Clock(seconds) => self.world.clock(seconds),
            Act::Facts { spot, version, whole } => {
                let facts = facts_of(&self.world, spot, version, whole);
                self.node.pods.set(&self.world.uid(spot), facts);
            }
            Act::NoFacts { spot } => self.node.pods.forget(&self.world.uid(spot)),
            Act::Answers(answers) => self.node.pods.stand(if answers { Standing::Known } else { Standing::Away }),
            Act::LoseLink(which) => {
                let links = HeldFolder::open(&self.node.settings.state_dir).unwrap();
                let list = links.list().unwrap();
                if let Some(held) = list.get(which) {
                    self.lost.0 = true;
                    // What was delivered as a whole is forgotten with its link; then nothing tells that it was read.
                    self.world.unmarked |= !self.strict;
                    self.world.lose_link(&links.path(&held.key, held.link));
                }
            }
            _ if self.node.worker.is_some() => self.act_on_router(act),
            _ => self.act_meanwhile(act),
        }
    }

    fn act_on_router(&mut self, act: &Act) {
        match *act {
            Act::Rounds(count) => self.node.rounds(count),
            Act::Acknowledge(records) => self.node.sink.borrow_mut().acknowledge(records),
            Act::Fail { records, stored } => self.node.sink.borrow_mut().fail(records, FailureKind::Retry, stored),
            Act::DeadProducer => self.node.sink.borrow_mut().dead = Some("fenced".to_owned()),
            Act::TopicAway { spot } => {
                let topic = format!("logs.{}", self.world.namespace(spot));
                self.node.topics.set(&topic, TopicState::Unknown);
            }
            Act::TopicsBack => self.topics_back(),
            Act::Unpark => self.unpark(),
            Act::Kill { arrived } => {
                self.blur_unnoticed();
                self.killed = true;
                self.node.kill(arrived);
                self.descriptors_go();
            }
            Act::Stop => {
                self.topics_back();
                self.killed = false;
                self.node.stop();
                self.descriptors_go();
            }
            Act::Flush => self.flush(),
            _ => {}
        }
    }

    fn act_meanwhile(&mut self, act: &Act) {
        let positions = self.node.settings.state_dir.join("positions");
        let loses = matches!(act, Act::LosePositions | Act::TearPositions(_) | Act::DamagePositions(_));
        if loses {
            let sources = self.node.arrived.iter().map(|sent| source_of(&sent.value));
            self.world.forgotten.extend(sources);
            self.lost.1 = true;
        }
        match *act {
            Act::Start => self.start(),
            Act::LosePositions => _ = fs::remove_file(positions),
            Act::TearPositions(bytes) => {
                if let Ok(metadata) = fs::metadata(&positions) {
                    let size = metadata.len().saturating_sub(bytes as u64);
                    OpenOptions::new().write(true).open(&positions).unwrap().set_len(size).unwrap();
                }
            }
            Act::DamagePositions(place) => {
                if let Ok(mut bytes) = fs::read(&positions)
                    && let Some(byte) = bytes.get_mut(place)
                {
                    *byte ^= 0x55;
                    fs::write(&positions, bytes).unwrap();
                }
            }
            Act::OtherLimits(bytes) => self.node.settings.limits.record_bytes_max = bytes,
            Act::OtherTopics(others) => {
                let template = if others { "others.{namespace}" } else { "logs.{namespace}" };
                self.node.settings.topics = TopicMap::new(template, &[]).unwrap();
                self.node.settings.topics.set_dead_letter(DEAD_LETTER).unwrap();
            }
            _ => {}
        }
    }

    fn start(&mut self) {
        // Where neither a position nor a link is left, nothing tells that a file was ever read.
        let (link, positions) = self.lost;
        self.world.unmarked |= positions && (link || self.runtime == Runtime::DockerUnlinked);
        self.lost = (false, false);
        self.node.start();
        if self.runtime == Runtime::Refused {
            let topics = ["logs.payments", "logs.shop", "others.payments", "others.shop"];
            let refused = topics.map(|topic| (topic.to_owned(), judge::REFUSED.to_owned()));
            self.node.sink.borrow_mut().poison.extend(refused);
        }
    }

    fn descriptors_go(&mut self) {
        if self.runtime == Runtime::DockerUnlinked {
            self.world.let_descriptors_go();
        }
    }

    fn topics_back(&mut self) {
        for namespace in ["payments", "shop"] {
            self.node.topics.set(&format!("logs.{namespace}"), TopicState::Ready { partitions: 1 });
        }
    }

    fn unpark(&mut self) {
        let worker = self.node.worker.as_mut().unwrap();
        worker.parking = Parking::default();
        worker.fair.release(|_| true);
    }

    fn flush(&mut self) {
        self.node.worker.as_mut().unwrap().flush_overdue(Instant::now() + Duration::from_secs(3_600));
    }

    /// Which epochs know a file.
    fn epochs_of(&self, inode: (u64, u64)) -> BTreeSet<String> {
        let Some(worker) = &self.node.worker else { return BTreeSet::new() };
        let of_file = |instance: &Instance| {
            let link = instance.link_of(inode);
            let epochs =
                instance.epochs.iter().filter(move |epoch| link.is_some_and(|link| epoch.covers(link).is_some()));
            epochs.map(|epoch| epoch.id.clone()).collect::<Vec<_>>()
        };
        worker.instances.values().flat_map(of_file).collect()
    }

    fn is_read(&self, inode: (u64, u64), size: u64) -> bool {
        let reads = |instance: &Instance| {
            let link = instance.link_of(inode);
            instance
                .epochs
                .iter()
                .any(|epoch| link.is_some() && epoch.current_link() == link && epoch.cursor.offset >= size)
        };
        self.node.worker.as_ref().is_some_and(|worker| worker.instances.values().any(reads))
    }

    fn truncate(&mut self, spot: usize, lines: usize) {
        let instance = self.world.instance(spot);
        let Some((inode, size)) = self.world.live_file(spot) else { return };
        // What a router that was killed had sent of it, and this one has not read again, is known to nobody.
        if self.killed && !self.is_read(inode, size) {
            self.world.blurred.insert(instance.clone());
        }
        if self.node.worker.is_some() {
            let epochs = self.epochs_of(inode);
            self.cuts.push(Cut { instance, inode, epochs });
        }
        self.world.truncate(spot);
        self.world.write(spot, lines, false, false);
    }

    fn forget_noticed(&mut self) {
        let cuts = std::mem::take(&mut self.cuts);
        self.cuts = cuts.into_iter().filter(|cut| self.epochs_of(cut.inode).is_subset(&cut.epochs)).collect();
    }

    /// A file that was cut and a router that was killed before it saw that: what it had sent is known to nobody.
    fn blur_unnoticed(&mut self) {
        self.forget_noticed();
        let cuts = std::mem::take(&mut self.cuts);
        self.world.blurred.extend(cuts.into_iter().map(|cut| cut.instance));
    }

    fn settle(&mut self) {
        // Whoever waits for facts waits in vain from here on.
        self.node.pods.stand(Standing::Away);
        self.unpark();
        self.node.settle_for(3, Duration::ZERO, true);
        self.flush();
        // Bytes that came late to a file that is done with are looked for when something changes beside it.
        let worker = self.node.worker.as_mut().unwrap();
        let keys: Vec<_> = worker.instances.keys().cloned().collect();
        keys.iter().for_each(|key| worker.let_go(key));
        self.node.settle_for(3, Duration::ZERO, true);
    }
}

fn play(acts: &[Act], remove: bool, strict: bool, runtime: Runtime) -> Result<(), TestCaseError> {
    FAIL_LINKS.set((runtime == Runtime::DockerUnlinked).then_some(rustix::io::Errno::XDEV));
    let is_cri = matches!(runtime, Runtime::Cri | Runtime::Refused);
    let mut node = if is_cri { Node::new() } else { Node::with_docker() };
    node.settings.topics.set_dead_letter(DEAD_LETTER).unwrap();
    node.settings.metadata_wait = Duration::from_secs(3_600);
    let docker = node.settings.docker_containers_dir.as_ref().map(|docker| docker.path().to_owned());
    let world = World::new(&node.settings.pods_dir, docker);
    let mut play = Play { node, world, cuts: Vec::new(), killed: false, lost: (false, false), strict, runtime };
    play.start();
    acts.iter().for_each(|act| play.act(act));
    play.world.rest();
    if play.node.worker.is_none() {
        play.start();
    }
    play.topics_back();
    play.settle();
    if remove {
        for spot in 0..acts::SPOTS {
            play.world.delete_pod(spot, false);
        }
        play.settle();
        prop_assert_eq!(play.node.held(), 0, "files are held for nothing");
        let left = play.node.worker.as_ref().unwrap().instances.len();
        prop_assert_eq!(left, 0, "instances are remembered for nothing");
    }
    play.node.stop();
    judge::judge(&play.world, &play.node.arrived, remove, runtime == Runtime::Refused).map_err(|error| {
        let shown: Vec<_> = play.node.arrived.iter().map(|sent| shown(&sent.value)).collect();
        TestCaseError::fail(format!("{error}\nwhat Kafka has:\n{}", shown.concat()))
    })
}

/// What once failed.
#[test]
fn plays_that_were_found() {
    use Act::*;
    let write = |lines| Write { spot: 0, lines, fragments: false, stderr: false };
    let rotate = Rotate { spot: 0, keep: false, same_second: false, reopen: true };
    let plays: [(&str, Vec<Act>); 6] = [
        (
            "the link of a file behind an unacknowledged one is lost",
            vec![write(2), rotate.clone(), Rounds(3), LoseLink(1), Rounds(2), Kill { arrived: 1 }],
        ),
        (
            "a file is cut and has grown beyond the place that a failure takes the reading back to",
            vec![
                write(4),
                Rounds(3),
                Fail { records: 1, stored: false },
                Rounds(1),
                Truncate { spot: 0, lines: 1 },
                write(1),
            ],
        ),
        (
            "a file is cut after it was read, and grows to the same size while no router is there",
            vec![write(1), Rounds(3), Acknowledge(1), Truncate { spot: 0, lines: 0 }, Stop, write(1)],
        ),
        (
            "a link that is lost between two kills",
            vec![write(1), Rounds(3), Kill { arrived: 1 }, Start, LoseLink(0), Rounds(1), Kill { arrived: 0 }],
        ),
        (
            "a link that is lost while the next file is held",
            vec![write(1), rotate.clone(), Rounds(3), LoseLink(0), write(1), Rounds(1), Kill { arrived: 1 }],
        ),
        (
            "the link of the live file is lost while the one before it is held",
            vec![write(2), rotate.clone(), write(2), Rounds(4), Kill { arrived: 3 }, LoseLink(1)],
        ),
    ];
    for (what, acts) in plays {
        play(&acts, true, true, Runtime::Cri).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

#[test]
fn whatever_happens_no_line_is_lost_and_no_number_is_given_twice() {
    play_many(Runtime::Cri, PLAYS);
}

#[test]
fn whatever_happens_to_dockers_files_no_line_is_lost_and_no_number_is_given_twice() {
    play_many(Runtime::Docker, PLAYS / 6);
}

#[test]
fn whatever_happens_to_what_descriptors_hold_no_number_is_given_twice() {
    play_many(Runtime::DockerUnlinked, PLAYS / 6);
}

/// What once failed where Kafka refuses lines.
#[test]
fn plays_of_refusals_that_were_found() {
    use Act::*;
    let write = |spot, lines| Write { spot, lines, fragments: false, stderr: false };
    let fragments = |lines| Write { spot: 0, lines, fragments: true, stderr: false };
    let plays: [(&str, Vec<Act>); 2] = [
        ("pieces of a refused line are among the dead letters", vec![write(0, 1), Stop, OtherLimits(24), fragments(3)]),
        (
            "a notice beside a refused line is sent alone, and its container waits for it",
            vec![
                write(0, 4),
                Rounds(1),
                Kill { arrived: 0 },
                write(1, 1),
                Start,
                Kill { arrived: 0 },
                DeletePod { spot: 0, keep: false },
                TearPositions(1),
            ],
        ),
    ];
    for (what, acts) in plays {
        play(&acts, false, true, Runtime::Refused).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

#[test]
fn whatever_kafka_refuses_costs_no_other_line() {
    play_many(Runtime::Refused, PLAYS);
}

fn play_many(runtime: Runtime, plays: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let one = number("FAIRLEAD_MODEL_SEED");
    let plays = if one.is_some() { 1 } else { number("PROPTEST_CASES").unwrap_or(plays) };
    let start = rand_seed();
    for seed in (0..plays).map(|play| one.unwrap_or(start.wrapping_add(play))) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let config = Config {
            cases: 1,
            failure_persistence: None,
            max_shrink_iters: 1_000,
            max_shrink_time: 25_000,
            ..Config::default()
        };
        let strategy = (proptest::collection::vec(act(), 1..ACTS_MAX), any::<bool>());
        let outcome =
            TestRunner::new_with_rng(config, rng).run(&strategy, |(acts, remove)| play(&acts, remove, false, runtime));
        if let Err(TestError::Fail(reason, (acts, remove))) = outcome {
            let acts: Vec<_> = acts.iter().map(|act| format!("    {act:?}\n")).collect();
            panic!(
                "FAIRLEAD_MODEL_SEED={seed} plays this again: {reason}\nshortest play of {runtime:?}, remove={remove}:\n{}",
                acts.concat()
            );
        }
    }
}

/// What the API server tells of a pod: its labels name it, and change with the version.
fn facts_of(world: &World, spot: usize, version: u8, whole: bool) -> PodFacts {
    let labels = [("pod".to_owned(), world.uid(spot)), ("version".to_owned(), version.to_string())];
    let ids: BTreeMap<_, _> = (0..10).filter(|_| whole).map(|restart| (restart, format!("id-{restart}"))).collect();
    let container = |name: &str| (name.to_owned(), ContainerFacts { image: None, ids: ids.clone() });
    PodFacts {
        namespace: world.namespace(spot).to_string(),
        namespace_id: whole.then(|| "n".to_owned()),
        labels: labels.into(),
        containers: ["api", "side", "web"].map(container).into(),
        ..PodFacts::default()
    }
}

fn source_of(value: &[u8]) -> String {
    Record::parse(value).unwrap().fairlead.source.into_owned()
}

fn shown(value: &[u8]) -> String {
    let record = Record::parse(value).unwrap();
    let Provenance { source, seq, lines, again, .. } = &record.fairlead;
    let notice = record.fairlead.notice.map_or("", |notice| notice.get());
    format!("    {source} {seq}+{lines} again={again} {:?} {notice}\n", record.log)
}

fn rand_seed() -> u64 {
    let mut bytes = [0; 8];
    File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes)).unwrap();
    u64::from_le_bytes(bytes)
}
