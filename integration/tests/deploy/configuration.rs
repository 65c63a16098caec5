//! The files that the chart makes for the programs, held against the programs' own `check`.

use std::path::Path;
use std::process::{Command, Output};

use fairlead_integration::component::Component;
use fairlead_integration::folders::{binary, repository, scratch};
use fairlead_integration::helm::documents;
use fairlead_integration::identity::Issuer;
use serde_json::Value;

use super::Rendered;

/// A program's file in its ConfigMap, read.
pub fn file(rendered: &Rendered, program: &str) -> Value {
    documents(&text(rendered, program)).unwrap().remove(0)
}

fn text(rendered: &Rendered, program: &str) -> String {
    let map = rendered.one("ConfigMap", &format!("-{program}"));
    map["data"][format!("{program}.yaml")].as_str().unwrap().to_owned()
}

#[test]
fn programs_find_their_files_well() {
    if !Component::Helm.usable() {
        return;
    }
    for rendered in Rendered::all() {
        for program in ["router", "gateway"] {
            let node = Mounted::new(&rendered, program);
            let output = node.check(&text(&rendered, program));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let summary = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                output.status.success() && summary.contains("the configuration is well"),
                "{}: {program}: {said}",
                rendered.set
            );
            // Docker's folder is mounted before the router reads it.
            let warnings: Vec<&str> =
                said.lines().filter(|line| !line.contains("logs.docker_containers_dir")).collect();
            assert!(warnings.is_empty(), "{}: {program}: {warnings:?}", rendered.set);
        }
    }
}

#[test]
fn a_fault_in_the_values_is_named_by_the_program() {
    if !Component::Helm.usable() {
        return;
    }
    let arguments = ["--set".to_owned(), "config.topics.rules[0].topic=fairlead.{namespace}".to_owned()];
    let rendered = Rendered { set: "faulty", objects: fairlead_integration::helm::objects(&arguments).unwrap() };
    for program in ["router", "gateway"] {
        let output = Mounted::new(&rendered, program).check(&text(&rendered, program));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("topics.rules[0]"), "{program}: {said}");
    }
}

#[test]
fn a_token_is_minted_as_the_documentation_says() {
    if !Component::Helm.usable() {
        return;
    }
    let rendered = Rendered { set: "default", objects: fairlead_integration::helm::objects(&[]).unwrap() };
    let admin = Mounted::new(&rendered, "gateway");
    let documented = std::fs::read_to_string(repository().join("docs/operations.md")).unwrap();
    let line = documented.lines().find(|line| line.contains(" token mint ")).unwrap();
    let words = line.split(" token mint ").nth(1).unwrap().trim_end_matches(')').split(' ').skip(2);
    let mut command = admin.command(&["token", "mint"], &text(&rendered, "gateway"));
    command.args(words);
    let variable = "FAIRLEAD_GATEWAY__AUTH__LOCAL__PRIVATE_KEY_FILE";
    assert!(documented.contains(&format!("-e {variable}=/etc/fairlead/files/keys/local.key")));
    command.env(variable, admin.folder.path().join("files/keys/local.key"));
    let output = command.output().unwrap();
    let token = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && token.matches('.').count() == 2, "{}", String::from_utf8_lossy(&output.stderr));
}

/// A pod's folders and variables, with the paths in the file led into a scratch folder.
struct Mounted {
    folder: tempfile::TempDir,
    program: &'static str,
    variables: Vec<String>,
    writable: String,
    /// Whether its pods have the account's token.
    asks: bool,
}

/// Whose server nobody asks.
pub const KUBECONFIG: &str = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "it",
    "clusters": [{"name": "it", "cluster": {"server": "https://10.0.0.1"}}], "users": [{"name": "it", "user": {"token": "t"}}],
    "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}]}"#;

impl Mounted {
    fn new(rendered: &Rendered, program: &'static str) -> Mounted {
        let folder = scratch("mounted").unwrap();
        let spec = &rendered.pod(program)["spec"];
        let variables = spec["containers"][0]["env"].as_array().into_iter().flatten();
        let variables = variables.map(|variable| variable["name"].as_str().unwrap().to_owned()).collect();
        let mounts = spec["containers"][0]["volumeMounts"].as_array().unwrap();
        let writable = mounts.iter().find(|mount| mount["readOnly"] != true);
        let writable = writable.map_or("/nowhere", |mount| mount["mountPath"].as_str().unwrap()).to_owned();
        std::fs::create_dir_all(folder.path().join("node/pods")).unwrap();
        for mount in mounts {
            let path = mount["mountPath"].as_str().unwrap();
            if let Some(name) = path.strip_prefix("/etc/fairlead/files/") {
                fill(&folder.path().join("files").join(name));
            }
        }
        let asks = spec["automountServiceAccountToken"] == true;
        Mounted { folder, program, variables, writable, asks }
    }

    fn check(&self, text: &str) -> Output {
        self.command(&["check"], text).output().unwrap()
    }

    /// A command of the program on this file, as in its pod.
    fn command(&self, words: &[&str], text: &str) -> Command {
        let place = |name: &str| self.folder.path().join(name).display().to_string();
        let here = text.replace("/etc/fairlead/files", &place("files")).replace(&self.writable, &place("node"));
        let path = self.folder.path().join(format!("{}.yaml", self.program));
        std::fs::write(&path, here).unwrap();
        let mut command = Command::new(binary(&format!("fairlead-{}", self.program)).unwrap());
        command.args(words).arg("--config").arg(&path);
        for variable in &self.variables {
            command.env(variable, "node-1");
        }
        if self.asks {
            // In the place of the account's mounted folder, which is only in a pod.
            let file = self.folder.path().join("kubeconfig");
            std::fs::write(&file, KUBECONFIG).unwrap();
            command.env("FAIRLEAD_ROUTER__KUBERNETES__KUBECONFIG_FILE", file);
        }
        command
    }
}

/// Whatever a folder of key files may hold.
fn fill(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("password"), "secret\n").unwrap();
    Issuer::new("https://issuer.example", "key-1").unwrap().publish(&folder.join("jwks.json")).unwrap();
    // As docs/operations.md makes them, and a certificate authority.
    let documented = std::fs::read_to_string(repository().join("docs/operations.md")).unwrap();
    let block = documented.split("<!-- keys: begin").nth(1).unwrap().split("```").nth(1).unwrap();
    let lines = format!(
        "{}\nmv keys/* .\nopenssl req -x509 -newkey ed25519 -nodes -keyout ca.key -out ca.crt -subj /CN=ca",
        block.trim_start_matches("sh")
    );
    let output = Command::new("sh").args(["-ec", &lines]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
