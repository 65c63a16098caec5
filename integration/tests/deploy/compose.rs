//! `docker-compose.yml` and the images, as far as a machine without a container engine can tell: the file is read by Debian's docker-compose, the images
//! are built step by step and the services run, all as plain processes.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use fairlead_integration::child::Child;
use fairlead_integration::component::Component;
use fairlead_integration::containers::{Compose, Service, Step, Wish, Workshop, parse};
use fairlead_integration::folders::{repository, scratch};
use fairlead_integration::kafka::ApacheKafka;
use fairlead_integration::wait::wait_until;
use serde_json::json;

use super::deploy;

/// Services that run and end.
const ENDING: [&str; 2] = ["keys", "greeting"];
/// Packages of Debian that its slim image has, as far as our programs need them.
const IN_BASE: [&str; 3] = ["libc6", "libgcc-s1", "zlib1g"];
const WITHIN: Duration = Duration::from_secs(60);

#[test]
fn docker_compose_takes_the_file_and_its_parts_are_there() {
    if !Component::DockerCompose.usable() {
        return;
    }
    let stages = parse(&std::fs::read_to_string(deploy("images/Dockerfile")).unwrap()).unwrap();
    for variables in [vec![], vec![("LOGS", "/var/lib/docker/containers"), ("PORT", "8081")]] {
        let compose = Compose::read(&variables).unwrap();
        let names: Vec<String> = compose.services().into_iter().map(|service| service.name).collect();
        assert_eq!(names, ["gateway", "generator", "greeting", "kafka", "keys", "router"]);
        for service in compose.services() {
            judge(&compose, &service);
            if service.name != "kafka" {
                let target = service.target().unwrap();
                assert!(stages.iter().any(|stage| stage.name == target), "{}: no stage {target}", service.name);
                without_privilege(&service);
            }
        }
        let logs = variables.first().map_or("no-logs", |(_, folder)| folder);
        for name in ["generator", "router"] {
            let mounted = compose.service(name).unwrap().texts("/volumes");
            assert!(mounted.contains(&format!("{logs}:/var/lib/docker/containers:ro")), "{name}: {mounted:?}");
        }
        let port = variables.get(1).map_or("8080", |(_, port)| port);
        let gateway = compose.service("gateway").unwrap();
        assert_eq!(gateway.config["ports"], json!([format!("127.0.0.1:{port}:8080/tcp")]));
        for (service, variable) in [("gateway", "FAIRLEAD_GATEWAY__PUBLIC_URL"), ("greeting", "URL")] {
            let service = compose.service(service).unwrap();
            assert_eq!(service.config["environment"][variable], format!("http://127.0.0.1:{port}"));
        }
    }
}

/// Whether it is known when a service is well, what it waits for is there, and so is what it mounts.
fn judge(compose: &Compose, service: &Service) {
    let (name, config) = (&service.name, &service.config);
    let ends = ENDING.contains(&name.as_str());
    assert_eq!(config["restart"], if ends { "no" } else { "unless-stopped" }, "{name}");
    assert_eq!(config.get("healthcheck").is_none(), ends, "{name}");
    for (other, wish) in config["depends_on"].as_object().into_iter().flatten() {
        let expected =
            if ENDING.contains(&other.as_str()) { "service_completed_successfully" } else { "service_healthy" };
        assert_eq!(wish["condition"], expected, "{name} waits for {other}");
        assert!(compose.service(other).is_ok());
    }
    for volume in service.texts("/volumes") {
        let source = volume.split(':').next().unwrap();
        let is_there = if source.starts_with('/') {
            !source.starts_with(&*repository().to_string_lossy()) || Path::new(source).is_file()
        } else {
            compose.volumes().contains(&source.to_owned())
        };
        assert!(is_there, "{name}: {volume}");
    }
}

fn without_privilege(service: &Service) {
    let (name, config) = (&service.name, &service.config);
    assert_eq!(config["read_only"], true, "{name}");
    assert_eq!(config["cap_drop"], json!(["ALL"]), "{name}");
    assert_eq!(config["security_opt"], json!(["no-new-privileges:true"]), "{name}");
    assert!(config.get("privileged").is_none() && config.get("network_mode").is_none(), "{name}");
}

mod soak {
    /// In its long form with cargo's own cold build, a quarter of an hour on two cores.
    #[test]
    fn images_build_by_their_own_steps_and_hold_what_their_programs_need() {
        super::images_build(fairlead_integration::soak::long());
    }
}

fn images_build(with_cargo: bool) {
    if !Component::Mounts.usable() {
        return;
    }
    let workshop = Workshop::with(with_cargo).unwrap();
    for (target, program, user) in [
        ("router", "fairlead-router", "0:0"),
        ("gateway", "fairlead-gateway", "65532:65532"),
        ("trial", "trial-part", "0:0"),
    ] {
        let image = workshop.build(target).unwrap();
        assert_eq!(
            (image.user.as_str(), image.entrypoint.as_slice()),
            (user, [format!("/usr/local/bin/{program}")].as_slice())
        );
        let file = workshop.of_image(&image, &image.entrypoint[0]).unwrap();
        let needed = packages_of(&file);
        let given: Vec<String> = installed().into_iter().chain(IN_BASE.map(str::to_owned)).collect();
        let missing: Vec<&String> = needed.iter().filter(|package| !given.contains(package)).collect();
        assert!(missing.is_empty(), "{program} needs {missing:?}, which its image has not");
        if target != "trial" {
            assert!(needed.contains(&"libssl3".to_owned()), "{needed:?}");
            let words = vec![image.entrypoint[0].clone(), "version".to_owned()];
            let wish = Wish { words, user: image.user.clone(), read_only: true, ..Wish::default() };
            let output = workshop.command(&image, &wish).unwrap().output().unwrap();
            assert!(output.status.success() && text(&output).starts_with(program), "{output:?}");
        }
        for tool in ["cargo", "rustc", "source"] {
            assert!(
                workshop.of_image(&image, &format!("/usr/local/bin/{tool}")).is_none()
                    && workshop.of_image(&image, &format!("/{tool}")).is_none()
            );
        }
    }
}

/// Packages that the Dockerfile installs.
fn installed() -> Vec<String> {
    let stages = parse(&std::fs::read_to_string(deploy("images/Dockerfile")).unwrap()).unwrap();
    let base = stages.into_iter().find(|stage| stage.name == "base").unwrap();
    let lines = base.steps.into_iter().filter_map(|step| if let Step::Run(_, text) = step { Some(text) } else { None });
    let installs: Vec<String> =
        lines.flat_map(|text| text.split("&&").map(str::to_owned).collect::<Vec<_>>()).collect();
    let install = installs.iter().find(|text| text.contains("apt-get install")).unwrap();
    install.split_whitespace().skip(2).filter(|word| !word.starts_with('-')).map(str::to_owned).collect()
}

/// The packages of this machine that a program's libraries are in.
fn packages_of(program: &Path) -> Vec<String> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let listed = text(&output);
    assert!(!listed.contains("not found"), "{listed}");
    let paths = listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    let mut found = Vec::new();
    for path in paths {
        // The package's own list may have the path from before /lib became a link.
        let name = Path::new(path).file_name().unwrap().to_string_lossy().into_owned();
        let listed = text(&Command::new("dpkg-query").args(["-S", &format!("*/{name}")]).output().unwrap());
        let package =
            listed.lines().find_map(|line| line.split(':').next()).unwrap_or_else(|| panic!("{path}: no package"));
        found.push(package.to_owned());
    }
    assert!(found.len() > 3, "{found:?}");
    found
}

#[test]
fn the_trial_in_containers_does_what_the_trial_does() {
    if !(Component::Mounts.usable() && Component::DockerCompose.usable() && Component::ApacheKafka.usable()) {
        return;
    }
    let _turn = super::turn();
    let up = Up::new(&[]);
    let greeting = up.compose.run(&up.workshop, "greeting").unwrap();
    let lines: Vec<&str> = greeting.lines().filter(|line| line.starts_with("curl ")).collect();
    assert_eq!(lines.len(), 6, "{greeting}");
    wait_until("lines of payments", WITHIN, || up.paste(lines[1], 10).contains(r#""namespace_name":"payments""#))
        .unwrap();
    assert!(up.paste(lines[0], 4).lines().count() > 3);
    assert!(up.paste(lines[2], 4).lines().count() > 3);
    assert!(up.paste(lines[3], 10).starts_with("HTTP/1.1 404"));
    assert!(up.paste(lines[4], 10).contains("payments"));
    let namespaces = up.paste(lines[5], 10);
    assert!(namespaces.contains("logs.payments") && !namespaces.contains("shop"), "{namespaces}");
    up.down("payments");
}

#[test]
fn a_docker_hosts_own_containers_are_read_in_the_place_of_generated_ones() {
    if !(Component::Mounts.usable() && Component::DockerCompose.usable() && Component::ApacheKafka.usable()) {
        return;
    }
    let _turn = super::turn();
    let host = scratch("docker-host").unwrap();
    let labels = json!({"com.docker.compose.project": "My_Blog", "com.docker.compose.service": "web"});
    docker_container(host.path(), 'a', "/My_Blog-web-1", &labels, 500);
    docker_container(host.path(), 'b', "/lonely", &json!({}), 300);
    let up = Up::new(&[("LOGS", &host.path().display().to_string())]);
    let greeting = up.compose.run(&up.workshop, "greeting").unwrap();
    assert!(greeting.contains("Namespaces: docker, my-blog"), "{greeting}");
    let lines: Vec<&str> = greeting.lines().filter(|line| line.starts_with("curl ")).collect();
    assert_eq!(lines.len(), 3, "{greeting}");
    for (namespace, count) in [("docker", 300), ("my-blog", 500)] {
        let line = lines
            .iter()
            .find(|line| line.contains(&format!("/{namespace}/")))
            .unwrap()
            .replace("tail=10&follow=true", "since=1h");
        wait_until(namespace, WITHIN, || up.paste(&line, 20).matches("of Docker").count() == count).unwrap();
    }
    // One that starts later is found.
    docker_container(host.path(), 'c', "/late", &json!({}), 10);
    let all = lines.iter().find(|line| line.contains("/docker/")).unwrap().replace("tail=10&follow=true", "since=1h");
    wait_until("the late one", WITHIN, || up.paste(&all, 20).matches("of Docker").count() == 310).unwrap();
    up.down("docker");
}

/// A container as Docker keeps it, which has printed so many lines.
fn docker_container(host: &Path, digit: char, name: &str, labels: &serde_json::Value, lines: usize) {
    let id = digit.to_string().repeat(64);
    let folder = host.join(&id);
    std::fs::create_dir(&folder).unwrap();
    let line = |number: usize| {
        let time = jiff::Timestamp::now().to_string();
        json!({"log": format!("line {number} of Docker\n"), "stream": "stdout", "time": time}).to_string() + "\n"
    };
    std::fs::write(folder.join(format!("{id}-json.log")), (0..lines).map(line).collect::<String>()).unwrap();
    let description = json!({"ID": id, "Name": name, "Config": {"Labels": labels}}).to_string();
    std::fs::write(folder.join("config.v2.json"), description).unwrap();
}

/// Kafka, generator, router and gateway, started in the order that the file says.
struct Up {
    // Dropped in this order.
    generator: Child,
    router: Child,
    gateway: Child,
    _kafka: Child,
    compose: Compose,
    workshop: Workshop,
    _folder: tempfile::TempDir,
}

impl Up {
    fn new(variables: &[(&str, &str)]) -> Up {
        let compose = Compose::read(variables).unwrap();
        let mut workshop = Workshop::new().unwrap();
        workshop.own_network().unwrap();
        let folder = scratch("compose").unwrap();
        let kafka = start_kafka(&compose.service("kafka").unwrap(), &workshop, folder.path());
        compose.run(&workshop, "keys").unwrap();
        let started = |name: &str| {
            let mut child = compose.start(&workshop, name).unwrap();
            compose.wait_healthy(&workshop, &mut child, name).unwrap();
            child
        };
        let generator = started("generator");
        let router = started("router");
        let gateway = started("gateway");
        Up { generator, router, gateway, _kafka: kafka, compose, workshop, _folder: folder }
    }

    /// Runs a line as a shell does, for so many seconds at most.
    fn paste(&self, line: &str, seconds: u32) -> String {
        let mut command = Command::new("timeout");
        command.arg(seconds.to_string()).args(["sh", "-c", line]);
        text(&self.workshop.in_network(&command).output().unwrap())
    }

    /// Stops in good order; then every line must be accounted for.
    fn down(mut self, namespace: &str) {
        for child in [&mut self.generator, &mut self.router, &mut self.gateway] {
            let status = child.terminate(WITHIN).unwrap();
            assert!(status.success(), "{status} {}", child.log_tail(20));
        }
        let words =
            ["fairlead-router", "audit", "--config", "/etc/fairlead/config/router.yaml", "--namespace", namespace];
        let (complete, said) = self.compose.exec(&self.workshop, "router", &words).unwrap();
        assert!(complete, "{said}");
    }
}

/// Kafka as its image would run it: the variables are the keys of server.properties.
fn start_kafka(service: &Service, workshop: &Workshop, folder: &Path) -> Child {
    let variables = service.config["environment"].as_object().unwrap();
    let key = |name: &str| name.strip_prefix("KAFKA_").unwrap().to_lowercase().replace('_', ".");
    let value = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let settings = variables.iter().filter(|(name, _)| *name != "KAFKA_HEAP_OPTS");
    let settings: String = settings.map(|(name, text)| format!("{}={}\n", key(name), value(text))).collect();
    let data = service.texts("/volumes")[0].split(':').nth(1).unwrap().to_owned();
    assert!(settings.contains(&format!("log.dirs={data}\n")), "{settings}");
    let command = ApacheKafka::command_for(&settings.replace(&data, "{data}"), folder).unwrap();
    let kafka = Child::start("kafka", &workshop.in_network(&command), &folder.join("kafka.log")).unwrap();
    let mut probe = Command::new("bash");
    // The health check of its image, by the name that this machine knows.
    let check = service.texts("/healthcheck/test").join(" ");
    assert_eq!(check, "CMD bash -c exec 3<>/dev/tcp/kafka/9092");
    probe.args(["-c", "exec 3<>/dev/tcp/127.0.0.1/9092"]);
    wait_until("Kafka", WITHIN, || workshop.in_network(&probe).output().is_ok_and(|output| output.status.success()))
        .unwrap_or_else(|error| panic!("{error}: {}", kafka.log_tail(30)));
    kafka
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
