//! The harness itself: do the real parts come up, come back on their data, and write what they should?
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use fairlead_integration::admin;
use fairlead_integration::broker::{Broker, Kind};
use fairlead_integration::component::Component;
use fairlead_integration::conmon::Conmon;
use fairlead_integration::consume::{read_topic, record_count};
use fairlead_integration::folders::{binary, scratch};
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::fleet::{Fleet, trial_workloads};
use fairlead_integration::generator::rotation::rotated;
use fairlead_integration::wait::wait_until;
use fairlead_integration::workload::Script;

const TOPIC: &str = "logs.kept";

#[test]
fn apache_kafka_keeps_its_data_over_a_restart() {
    keeps_its_data(Kind::ApacheKafka);
}

#[test]
fn tansu_keeps_its_data_over_a_restart() {
    keeps_its_data(Kind::Tansu);
}

fn keeps_its_data(kind: Kind) {
    if !kind.usable() {
        return;
    }
    let mut broker = Broker::started(kind).unwrap();
    let bootstrap = broker.bootstrap();
    admin::create_topic(&bootstrap, TOPIC, 2, &[("retention.ms", "604800000")]).unwrap();
    admin::create_topic(&bootstrap, TOPIC, 2, &[]).unwrap();
    admin::produce(&bootstrap, TOPIC, (0..50).map(|n| (n % 2, format!("key {n}"), format!("value {n}")))).unwrap();
    broker.stop().unwrap();
    assert!(std::net::TcpStream::connect(&bootstrap).is_err(), "stopped, it must not answer");
    broker.start().unwrap();
    assert_eq!(record_count(&bootstrap, TOPIC).unwrap(), 50);
    let read = read_topic(&bootstrap, TOPIC).unwrap();
    assert_eq!(read.len(), 50);
    assert_eq!((read[25].partition, read[25].offset, read[25].value.as_slice()), (1, 0, b"value 1".as_slice()));
}

#[test]
fn conmon_writes_every_line_across_rotation() {
    if !Component::Conmon.usable() {
        return;
    }
    let pods = scratch("conmon").unwrap();
    let identity = Identity::new("payments", "api-1", "api");
    let script = Script { name: "c".to_owned(), lines: 3_000, burst: 100, pause: Duration::from_millis(50) };
    let program = binary("numbered-lines").unwrap();
    let mut conmon = Conmon::start(pods.path(), &identity, 0, &program, &script.arguments()).unwrap();
    let log = identity.log(pods.path(), 0);
    wait_until("the first lines", Duration::from_secs(10), || log.metadata().is_ok_and(|meta| meta.len() > 0)).unwrap();
    assert!(conmon.rotate(5).unwrap());
    conmon.wait(Duration::from_secs(60)).unwrap();
    let mut files = rotated(&log).unwrap();
    files.push(log);
    assert_eq!(files.len(), 2);
    let bytes: Vec<u8> = files.iter().flat_map(|file| std::fs::read(file).unwrap()).collect();
    for stream in [b"stdout".as_slice(), b"stderr"] {
        let lines = bytes.split(|&byte| byte == b'\n').filter(|line| {
            let mut fields = line.splitn(4, |&byte| byte == b' ').skip(1);
            fields.next() == Some(stream) && fields.next() == Some(b"F")
        });
        let expected = if stream == b"stdout" { script.lines } else { script.lines.div_ceil(3) };
        assert_eq!(lines.count() as u64, expected);
    }
}

#[test]
fn fleet_writes_for_every_namespace() {
    let pods = scratch("fleet").unwrap();
    let mut fleet = Fleet::start(pods.path(), &trial_workloads()).unwrap();
    wait_until("two hundred lines", Duration::from_secs(20), || fleet.lines() > 200).unwrap();
    fleet.stop().unwrap();
    let folders: Vec<String> = std::fs::read_dir(pods.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    for namespace in ["payments_", "shop_", "kube-system_"] {
        assert!(folders.iter().any(|folder| folder.starts_with(namespace)), "{folders:?}");
    }
}
