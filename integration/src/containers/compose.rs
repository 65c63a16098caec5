//! A compose file as `docker-compose config` reads it, and its services as processes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::image::{Image, Workshop};
use super::process::{Bind, Wish};
use crate::child::Child;
use crate::folders;
use crate::helm::documents;
use crate::wait::wait_until;

const HEALTHY_WITHIN: Duration = Duration::from_secs(90);
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// A compose file.
#[derive(Debug)]
pub struct Compose {
    config: Value,
    /// Named volumes.
    volumes: TempDir,
}

/// A service as the file has it.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// All that is said of it.
    pub config: Value,
}

impl Compose {
    /// Reads `docker-compose.yml` with these variables.
    ///
    /// # Errors
    /// What `docker-compose` says is wrong with it.
    pub fn read(variables: &[(&str, &str)]) -> Result<Compose> {
        let mut command = Command::new("docker-compose");
        command.arg("-f").arg(folders::repository().join("docker-compose.yml")).arg("config");
        for name in ["LOGS", "PORT"] {
            command.env_remove(name);
        }
        let output = command.envs(variables.iter().copied()).output().context("run docker-compose")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "docker-compose config: {said}");
        let text = String::from_utf8(output.stdout).context("text")?;
        let config = documents(&text)?.into_iter().next().context("a document")?;
        Ok(Compose { config, volumes: folders::scratch("volumes")? })
    }

    /// All services.
    pub fn services(&self) -> Vec<Service> {
        let services = self.config["services"].as_object().into_iter().flatten();
        services.map(|(name, config)| Service { name: name.clone(), config: config.clone() }).collect()
    }

    /// One service.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn service(&self, name: &str) -> Result<Service> {
        self.services().into_iter().find(|service| service.name == name).with_context(|| format!("no service {name}"))
    }

    /// The named volumes.
    pub fn volumes(&self) -> Vec<String> {
        self.config["volumes"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    }

    /// Starts a service's process; its output goes to the file that is given back with it.
    ///
    /// # Errors
    /// When its image cannot be built or it cannot be started.
    pub fn start(&self, workshop: &Workshop, name: &str) -> Result<Child> {
        let service = self.service(name)?;
        let image = workshop.build(service.target()?)?;
        let words = service.words(&image);
        let wish = self.wish(workshop, &service, &image, words)?;
        let log = self.volumes.path().join(format!("{name}.log"));
        Child::start(name, &workshop.command(&image, &wish)?, &log)
    }

    /// Runs a service that ends; gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, workshop: &Workshop, name: &str) -> Result<String> {
        let mut child = self.start(workshop, name)?;
        let status = child.wait(ENDS_WITHIN)?;
        let said = std::fs::read_to_string(child.log()).context("its output")?;
        ensure!(status.success(), "{name}: {status}: {said}");
        Ok(said)
    }

    /// Waits until a service's health check succeeds.
    ///
    /// # Errors
    /// When it does not in time, or the service ends.
    pub fn wait_healthy(&self, workshop: &Workshop, child: &mut Child, name: &str) -> Result<()> {
        let service = self.service(name)?;
        let image = workshop.build(service.target()?)?;
        let test = service.texts("/healthcheck/test");
        ensure!(test.first().is_some_and(|kind| kind == "CMD"), "{name}: a health check that needs no shell: {test:?}");
        let wish = self.wish(workshop, &service, &image, test[1..].to_vec())?;
        let mut ended = None;
        wait_until(&format!("{name} to be healthy"), HEALTHY_WITHIN, || {
            ended = child.ended();
            let check = workshop.command(&image, &wish).and_then(|mut command| command.output().context("check"));
            ended.is_some() || check.is_ok_and(|output| output.status.success())
        })
        .with_context(|| child.log_tail(30))?;
        ensure!(ended.is_none(), "{name} ended: {ended:?}: {}", child.log_tail(30));
        Ok(())
    }

    /// Runs another command in a service's image, with its volumes and rights; gives what it printed, and whether it succeeded.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn exec(&self, workshop: &Workshop, name: &str, words: &[&str]) -> Result<(bool, String)> {
        let service = self.service(name)?;
        let image = workshop.build(service.target()?)?;
        let wish = self.wish(workshop, &service, &image, words.iter().map(|&word| word.to_owned()).collect())?;
        let output = workshop.command(&image, &wish)?.output().context("run it")?;
        let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    fn wish(&self, workshop: &Workshop, service: &Service, image: &Image, words: Vec<String>) -> Result<Wish> {
        let mut binds = vec![self.hosts()?];
        for volume in service.texts("/volumes") {
            binds.push(self.bind(workshop, image, &volume)?);
        }
        let environment = service.config["environment"].as_object().into_iter().flatten();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let user = service.config["user"].as_str().unwrap_or(&image.user).to_owned();
        Ok(Wish {
            binds,
            read_only: service.config["read_only"] == true,
            user,
            privileged: service.texts("/cap_drop") != ["ALL"],
            environment: environment.map(|(name, value)| (name.clone(), text(value))).collect::<BTreeMap<_, _>>(),
            workdir: image.workdir.clone(),
            words,
        })
    }

    /// Services find each other by name; here all are on one machine.
    fn hosts(&self) -> Result<Bind> {
        let names: Vec<String> = self.services().into_iter().map(|service| service.name).collect();
        let from = self.volumes.path().join("hosts");
        std::fs::write(&from, format!("127.0.0.1 localhost {}\n", names.join(" "))).context("write hosts")?;
        Ok(Bind { from, to: "/etc/hosts".to_owned(), read_only: true })
    }

    /// A volume as `source:target[:ro]`. A new named one begins as the image's folder of that place is, with its owner.
    fn bind(&self, workshop: &Workshop, image: &Image, volume: &str) -> Result<Bind> {
        let mut parts = volume.split(':');
        let (source, to) = (parts.next().context("a source")?, parts.next().context("a target")?.to_owned());
        let read_only = parts.next() == Some("ro");
        if source.starts_with('/') {
            return Ok(Bind { from: PathBuf::from(source), to, read_only });
        }
        let from = self.volumes.path().join(format!("volume-{source}"));
        if !from.exists() {
            std::fs::create_dir(&from).context("make a volume")?;
        }
        let is_empty = std::fs::read_dir(&from).context("a volume")?.next().is_none();
        if let (true, Some(begins)) = (is_empty, workshop.of_image(image, &to)) {
            own_as(&from, &begins)?;
        }
        Ok(Bind { from, to, read_only })
    }
}

impl Service {
    /// The stage of our Dockerfile that its image is.
    ///
    /// # Errors
    /// When its image is another's.
    pub fn target(&self) -> Result<&str> {
        self.config["build"]["target"].as_str().with_context(|| format!("{} is not built here", self.name))
    }

    /// A list of texts at a place of its configuration; empty where there is none.
    pub fn texts(&self, pointer: &str) -> Vec<String> {
        let list = self.config.pointer(pointer).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    }

    /// What it runs: the image's entry point, and its own command or the image's.
    fn words(&self, image: &Image) -> Vec<String> {
        let own = self.texts("/command");
        [image.entrypoint.clone(), if own.is_empty() { image.cmd.clone() } else { own }].concat()
    }
}

fn own_as(path: &Path, other: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let like = std::fs::metadata(other).context("the image's folder")?;
    std::os::unix::fs::chown(path, Some(like.uid()), Some(like.gid())).context("give a volume its owner")
}
