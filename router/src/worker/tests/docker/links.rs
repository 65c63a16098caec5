//! Which links are followed, and that no other file is ever opened.

use std::process::Command;

use super::*;

const SECRET: &str = "root:secret";

/// A node with one good container, and something beside it that must not be read.
fn node_with(make: impl Fn(&Node, &Container)) -> (Node, Container) {
    let node = Node::with_docker();
    let mut container = node.container(0);
    container.write(1);
    let line = format!("{{\"log\":\"{SECRET}\\n\",\"stream\":\"stdout\",\"time\":\"{TIME}\"}}\n");
    fs::write(node._folder.path().join("secret"), line).unwrap();
    make(&node, &container);
    (node, container)
}

fn point(container: &Container, to: impl AsRef<std::path::Path>) {
    let _ = fs::remove_file(&container.link);
    symlink(to, &container.link).unwrap();
}

#[test]
fn a_link_that_leads_anywhere_else_is_not_followed_and_that_is_said() {
    let check = |case: &str, is_said: bool, make: &dyn Fn(&Node, &Container)| {
        let (mut node, _container) = node_with(make);
        node.start();
        node.settle();
        node.worker.as_mut().unwrap().scan_all(false);
        let (unfollowed, report) = node.unfollowed();
        assert_eq!(unfollowed, i64::from(is_said), "{case}: {report}");
        assert_eq!(report.contains("1 links among log files are not followed"), is_said, "{case}: {report}");
        let stored = node.finish_all();
        assert!(stored.is_empty(), "{case}: {:?}", logs(&stored));
    };
    let secret = |node: &Node| node._folder.path().join("secret");
    check("to a file outside", true, &|node, container| point(container, secret(node)));
    check("by ..", true, &|_, container| {
        point(container, container.folder.join("..").join(&container.id).join(container.file("").file_name().unwrap()));
    });
    check("relative", true, &|_, container| {
        point(container, format!("../../../docker/{0}/{0}-json.log", container.id))
    });
    check("to a rotated file", true, &|_, container| {
        fs::rename(container.file(""), container.file(".1")).unwrap();
        point(container, container.file(".1"));
    });
    check("to another file of the container's", true, &|_, container| {
        fs::rename(container.file(""), container.folder.join("config.v2.json")).unwrap();
        point(container, container.folder.join("config.v2.json"));
    });
    check("to a link", true, &|node, container| {
        let other = node._folder.path().join("other");
        symlink(container.file(""), &other).unwrap();
        point(container, other);
    });
    check("under a rotated name", true, &|_, container| {
        fs::rename(&container.link, container.link.with_file_name("0.log.1")).unwrap();
    });
    check("without the folder being configured for it", true, &|_, container| {
        let other = container.folder.with_file_name("b".repeat(64));
        fs::rename(&container.folder, &other).unwrap();
        point(container, other.join(format!("{}-json.log", container.id)));
    });
    // The link says the right thing, and what it leads to is not what it seems.
    check("the file is a link", false, &|node, container| {
        fs::remove_file(container.file("")).unwrap();
        symlink(secret(node), container.file("")).unwrap();
    });
    check("the container's folder is a link", false, &|node, container| {
        let outside = node._folder.path().join("outside");
        fs::rename(&container.folder, &outside).unwrap();
        symlink(outside, &container.folder).unwrap();
    });
    check("the file is a pipe", false, &|_, container| {
        fs::remove_file(container.file("")).unwrap();
        assert!(Command::new("mkfifo").arg(container.file("")).status().unwrap().success());
    });
    check("the file is a folder", false, &|_, container| {
        fs::remove_file(container.file("")).unwrap();
        fs::create_dir(container.file("")).unwrap();
    });
    check("the container is gone", false, &|_, container| fs::remove_dir_all(&container.folder).unwrap());
    check("a rotated file is a link", false, &|node, container| {
        fs::remove_file(container.file("")).unwrap();
        symlink(secret(node), container.file(".1")).unwrap();
        symlink(secret(node), container.file(".1.gz")).unwrap();
    });
}

#[test]
fn without_dockers_folder_no_link_is_followed_and_that_is_said() {
    let (mut node, container) = node_with(|_, _| {});
    let docker = node.settings.docker_containers_dir.take();
    node.start();
    node.settle();
    let (unfollowed, report) = node.unfollowed();
    assert_eq!(unfollowed, 1);
    assert!(report.contains("logs.docker_containers_dir is not set"), "{report}");
    node.stop();
    assert!(node.stored.is_empty());
    // Once it is, the file is read from its beginning.
    node.settings.docker_containers_dir = docker;
    node.start();
    assert_eq!(node.unfollowed().0, 0);
    assert_eq!(rows(&node.finish()), one_run(container.lines));
}

#[test]
fn a_link_that_comes_to_lead_elsewhere_is_not_followed_there() {
    either_way(|mut node, _| {
        let mut container = node.container(0);
        container.write(2);
        node.start();
        node.settle();
        let secret = node._folder.path().join("secret");
        fs::write(&secret, format!("{{\"log\":\"{SECRET}\\n\",\"stream\":\"stdout\",\"time\":\"{TIME}\"}}\n")).unwrap();
        // What is held is read on, whatever the link says now.
        point(&container, &secret);
        container.write(1);
        node.settle();
        assert_eq!(node.unfollowed().0, 1);
        fs::remove_file(container.file("")).unwrap();
        symlink(&secret, container.file("")).unwrap();
        node.settle();
        point(&container, container.file(""));
        node.settle();
        assert_eq!(rows(&node.finish()), one_run(3));
    });
}

#[test]
fn a_link_to_another_container_begins_another_run() {
    either_way(|mut node, _| {
        let mut first = node.container(0);
        first.write(2);
        node.start();
        node.settle();
        let mut second = node.container(7);
        fs::remove_file(&second.link).unwrap();
        second.write(2);
        point(&first, second.file(""));
        node.settle();
        second.rotate().write(1);
        let found: Vec<_> = rows(&node.finish()).into_iter().map(|(source, seq, log, _)| (source, seq, log)).collect();
        let row = |source, line: u64| (source, line, format!("line {line}"));
        assert_eq!(found, [row(0, 0), row(0, 1), row(1, 0), row(1, 1), row(1, 2)]);
    });
}

#[test]
fn one_file_belongs_to_one_container() {
    let mut node = Node::with_docker();
    let mut container = node.container(0);
    container.write(2);
    node.start();
    node.settle();
    // Another team's pod says that these are its lines.
    let theirs = node.settings.pods_dir.join("shop_web-0_uid-2/web");
    fs::create_dir_all(&theirs).unwrap();
    symlink(container.file(""), theirs.join("0.log")).unwrap();
    node.settle();
    let (unfollowed, report) = node.unfollowed();
    assert_eq!(unfollowed, 1);
    assert!(report.contains("another link leads to the same file"), "{report}");
    container.rotate().write(2);
    node.settle();
    assert!(node.sink.borrow().stored.iter().all(|sent| sent.topic == "logs.payments"));
    assert_eq!(rows(&node.finish()), one_run(4), "and the first is watched on");
}

#[test]
fn an_ordinary_file_and_a_link_under_one_name_are_two_runs() {
    let mut node = Node::with_docker();
    node.lines("0.log", 0, 2);
    node.start();
    node.settle();
    fs::remove_file(node.dir().join("0.log")).unwrap();
    let mut container = node.container(0);
    container.lines = 2;
    container.write(2);
    node.settle();
    node.kill(0);
    container.write(1);
    node.start();
    node.settle();
    fs::remove_file(&container.link).unwrap();
    node.lines("0.log", 5, 1);
    let found: Vec<_> = rows(&node.finish()).into_iter().map(|(source, seq, log, _)| (source, seq, log)).collect();
    let row = |source, seq, line| (source, seq, format!("line {line}"));
    assert_eq!(found, [row(0, 0, 0), row(0, 1, 1), row(1, 0, 2), row(1, 1, 3), row(1, 2, 4), row(2, 0, 5)]);
}
