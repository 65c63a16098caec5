//! A real Prometheus that scrapes our programs every second, and promtool.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::child::Child;
use crate::folders;
use crate::http::Client;
use crate::ports::free_port;
use crate::wait::wait_until;

const UP_WITHIN: Duration = Duration::from_secs(60);

/// A running Prometheus with data of its own.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    api: Client,
    _folder: TempDir,
}

impl Prometheus {
    /// Scrapes each job's addresses, and evaluates the rules of a file, every second; waits until it answers.
    ///
    /// # Errors
    /// When it refuses its configuration or does not come up.
    pub fn start(jobs: &[(&str, &[String])], rules: &Path) -> Result<Prometheus> {
        let folder = folders::scratch("prometheus")?;
        let scraped = jobs.iter().map(|(job, addresses)| {
            json!({"job_name": job, "honor_labels": true, "static_configs": [{"targets": addresses}]})
        });
        let configuration = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": scraped.collect::<Vec<_>>(),
        });
        let file = folder.path().join("prometheus.yml");
        // JSON is YAML.
        std::fs::write(&file, configuration.to_string()).context("write Prometheus' configuration")?;
        let port = free_port();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let log = folder.path().join("prometheus.log");
        let child = Child::start("prometheus", &command, &log)?;
        let api = Client::new(&format!("http://127.0.0.1:{port}"));
        wait_until("Prometheus", UP_WITHIN, || api.get("/-/ready").is_ok_and(|answer| answer.status == 200))
            .with_context(|| child.log_tail(20))?;
        Ok(Prometheus { child, api, _folder: folder })
    }

    /// What an expression gives now: its series, each with `metric` and `value`.
    ///
    /// # Errors
    /// When Prometheus refuses the expression.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let query: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let answer = self.ask(&format!("/api/v1/query?query={query}")).with_context(|| expression.to_owned())?;
        let series = answer["data"]["result"].as_array().context("a list of series")?;
        Ok(series.clone())
    }

    /// Its rules with their health, as its API has them.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn rules(&self) -> Result<Vec<Value>> {
        let answer = self.ask("/api/v1/rules")?;
        let groups = answer["data"]["groups"].as_array().context("groups")?;
        Ok(groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect())
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let answer = self.api.get(path).with_context(|| self.child.log_tail(20))?;
        let value = answer.json()?;
        ensure!(value["status"] == "success", "{}", answer.body);
        Ok(value)
    }
}

/// Runs promtool in a folder.
///
/// # Errors
/// When it cannot be run.
pub fn promtool(folder: &PathBuf, words: &[&str]) -> Result<Output> {
    Command::new("promtool").args(words).current_dir(folder).output().context("run promtool")
}
