//! Wrong configuration and a hostile place: every fault named at once, one clear line, a code that is not 0, no panic.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use fairlead_integration::child::Child;
use fairlead_integration::folders::{binary, repository, scratch};
use fairlead_integration::ports::free_port;

#[test]
fn check_names_every_fault_of_a_router_at_once() {
    let folder = scratch("faults").unwrap();
    let text = "node_name: \"\"\nstate_dir: relative/path\nlogs: {pods_dir: /var/log/pods, record_bytes_max: 12 parsecs}\n\
                kafka:\n  bootstrap_servers: \"\"\n  properties: {message.timeout.ms: \"3000\", sasl.password: secret}\n\
                topics:\n  template: \"all-in-one\"\n  rules:\n    - {regex: \"[\", exclude: true}\n\
                admin: {listen: nowhere}\ncolour: red\n";
    let output =
        run(folder.path(), "fairlead-router", text, &["check"], &[("FAIRLEAD_ROUTER__KAFKA__LINGER", "90 moons")]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for key in [
        "logs.record_bytes_max",
        "kafka.bootstrap_servers",
        "message.timeout.ms",
        "sasl.password",
        "topics.template",
        "topics.rules",
        "admin.listen",
        "colour",
        "FAIRLEAD_ROUTER__KAFKA__LINGER",
        "config.yaml",
    ] {
        assert!(said.contains(key), "{key} is not named in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn check_names_every_fault_of_a_gateway_at_once() {
    let folder = scratch("faults").unwrap();
    let text = "listen: nowhere\nkafka: {bootstrap_servers: \"\"}\ntopics: {template: \"fairlead.{namespace}\"}\n\
                auth:\n  issuers:\n    - {issuer: https://issuer.example, audiences: [], algorithms: [none], jwks_file: missing.json}\n\
                tenants:\n  payments: {namespaces: [\"Not A Name\"], rights: [fly]}\n  shop: {members: 7}\nnonsense: 1\n";
    let output = run(folder.path(), "fairlead-gateway", text, &["check"], &[]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for key in [
        "listen",
        "kafka.bootstrap_servers",
        "topics.template",
        "audiences",
        "algorithms",
        "payments",
        "shop",
        "nonsense",
    ] {
        assert!(said.contains(key), "{key} is not named in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_good_configuration_passes() {
    let folder = scratch("faults").unwrap();
    let text = router_text(folder.path());
    std::fs::create_dir_all(folder.path().join("pods")).unwrap();
    let output = run(folder.path(), "fairlead-router", &text, &["check"], &[]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn the_readmes_examples_pass() {
    let folder = scratch("readme").unwrap();
    std::fs::create_dir_all(folder.path().join("pods")).unwrap();
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let blocks: Vec<String> = readme
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once("```")?.0.replace("/var/log", &folder.path().display().to_string())))
        .collect();
    let [router, gateway] = &blocks[..] else { panic!("one example for each program: {blocks:?}") };
    let output = run(folder.path(), "fairlead-router", router, &["check"], &[]);
    assert!(output.status.success(), "{}", said(&output));
    for words in [&["keys", "init"][..], &["check"]] {
        let output = run(folder.path(), "fairlead-gateway", gateway, words, &[]);
        assert!(output.status.success(), "{words:?}: {}", said(&output));
    }
}

#[test]
fn a_hostile_place_gives_one_clear_line() {
    let folder = scratch("faults").unwrap();
    let place = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(place("pods")).unwrap();
    // A file where the state folder should be: unwritable for root too.
    std::fs::write(place("state"), "in the way").unwrap();
    ends_with_a_reason("fairlead-router", "run", folder.path(), &router_text(folder.path()), "state");

    std::fs::write(place("local.pub"), "not a key").unwrap();
    let gateway = format!(
        "listen: 127.0.0.1:{}\nkafka: {{bootstrap_servers: 127.0.0.1:1}}\nauth:\n  local: {{public_key_files: [\"{}\"]}}\n\
         tenants: {{a: {{namespaces: [a], rights: [read]}}}}\nadmin: {{listen: \"127.0.0.1:{}\"}}\n",
        free_port(),
        place("local.pub").display(),
        free_port()
    );
    ends_with_a_reason("fairlead-gateway", "serve", folder.path(), &gateway, "local.pub");
    ends_with_a_reason("fairlead-gateway", "serve", folder.path(), "listen: [", "config.yaml");
}

fn router_text(folder: &Path) -> String {
    format!(
        "node_name: node-1\nstate_dir: \"{0}/state\"\nlogs: {{pods_dir: \"{0}/pods\"}}\n\
         kafka: {{bootstrap_servers: 127.0.0.1:1}}\nkubernetes: {{enabled: false}}\nadmin: {{listen: \"127.0.0.1:{1}\"}}\n",
        folder.display(),
        free_port()
    )
}

/// Starts a program that must end soon by itself, with another code than 0 and the word in its last words.
fn ends_with_a_reason(program: &str, verb: &str, folder: &Path, text: &str, word: &str) {
    let (config, log) = (folder.join("config.yaml"), folder.join("output"));
    std::fs::write(&config, text).unwrap();
    let _ = std::fs::remove_file(&log);
    let mut command = Command::new(binary(program).unwrap());
    command.arg(verb).arg("--config").arg(&config);
    let mut child = Child::start(program, &command, &log).unwrap();
    let status = child.wait(Duration::from_secs(30)).unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(!status.success() && status.code().is_some(), "{program}: {status}\n{said}");
    assert!(said.contains(word) && !said.contains("panicked"), "{program}: {said}");
}

fn run(folder: &Path, program: &str, text: &str, words: &[&str], environment: &[(&str, &str)]) -> Output {
    let config = folder.join("config.yaml");
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(binary(program).unwrap());
    command.args(words).arg("--config").arg(config).envs(environment.iter().copied());
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + String::from_utf8_lossy(&output.stderr).as_ref()
}
