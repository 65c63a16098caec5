//! Every expression of alerts and dashboard against what the programs really export: a router and a gateway at work and in trouble, scraped by a real
//! Prometheus, which answers every panel and evaluates every rule.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use fairlead_integration::admin;
use fairlead_integration::broker::{Broker, Kind};
use fairlead_integration::component::Component;
use fairlead_integration::consume::wait_for_lines;
use fairlead_integration::folders::{repository, scratch};
use fairlead_integration::follow::Follow;
use fairlead_integration::generator::Identity;
use fairlead_integration::generator::cri::{CriWriter, Stream};
use fairlead_integration::ports::free_port;
use fairlead_integration::prometheus::Prometheus;
use fairlead_integration::stage::{Stage, Wishes};
use fairlead_integration::wait::wait_until;
use jiff::Timestamp;
use regex::Regex;
use serde_json::Value;

use super::{alerts, deploy};

/// Metrics that expressions name and whose series this scenario does not bring about; their labels are held against docs/metrics.md, which a test
/// of each program compares with its code.
const NOT_PROVOKED: [&str; 2] = ["fairlead_router_dead_letters_total", "fairlead_router_delivery_failures_total"];
const WITHIN: Duration = Duration::from_secs(60);

#[test]
fn every_expression_is_answered_from_what_the_programs_export() {
    if !Component::Prometheus.usable() {
        return;
    }
    let _turn = super::turn();
    let stage = in_trouble();
    let _follow =
        Follow::open(&stage.team("payments").unwrap(), "/v1/namespaces/payments/logs?follow=true&tail=5").unwrap();
    let address = |program: &fairlead_integration::process::Program| {
        vec![program.admin().base().trim_start_matches("http://").to_owned()]
    };
    let (router, gateway) = (address(&stage.router), address(&stage.gateway));
    let jobs = [("fairlead-router", router.as_slice()), ("fairlead-gateway", gateway.as_slice())];
    let prometheus = Prometheus::start(&jobs, &deploy("alerts/fairlead.yaml")).unwrap();
    wait_until("some scrapes of both", WITHIN, || {
        let counted = prometheus.query("min(count_over_time(up{job=~\"fairlead-.*\"}[1m]))").unwrap_or_default();
        counted
            .first()
            .and_then(|series| series["value"][1].as_str()?.parse::<u32>().ok())
            .is_some_and(|scrapes| scrapes >= 8)
    })
    .unwrap();

    let exported = Exported::new(&prometheus);
    let mut faults = Vec::new();
    for rule in alerts::rules() {
        exported.judge(rule["alert"].as_str().unwrap(), rule["expr"].as_str().unwrap(), &mut faults);
    }
    for panel in panels() {
        panel.judge(&prometheus, &exported, &mut faults);
    }
    assert!(faults.is_empty(), "{faults:#?}");

    let evaluated = prometheus.rules().unwrap();
    assert_eq!(evaluated.len(), alerts::rules().len());
    for rule in evaluated {
        assert_eq!(rule["health"], "ok", "{}: {}", rule["name"], rule["lastError"]);
    }
    // The garbage, the truncation, the foreign record and the broken key file are seen by the rules that are for them.
    for alert in ["FairleadGapsAnnounced", "FairleadIsolationViolation", "FairleadKeyFileRefused"] {
        let firing = prometheus.query(&format!("ALERTS{{alertname=\"{alert}\"}}")).unwrap();
        assert!(!firing.is_empty(), "{alert} does not see what it is for");
    }
}

#[test]
fn the_dashboard_hangs_together() {
    let dashboard = dashboard();
    let mut places = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let place = &panel["gridPos"];
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| place[side].as_u64().unwrap());
        assert!(x + w <= 24 && w > 0 && h > 0, "{}", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(places.insert(cell), "{} lies on another panel", panel["title"]);
        }
        if panel["type"] != "row" {
            assert!(panel["description"].as_str().is_some_and(|text| text.len() > 10), "{}", panel["title"]);
        }
    }
    let ids: BTreeSet<u64> =
        dashboard["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), dashboard["panels"].as_array().unwrap().len());
    // What the alerts' texts point to.
    let titles: Vec<String> = panels().into_iter().map(|panel| panel.title).collect();
    let named = Regex::new(r#"dashboard, "([^"]+)""#).unwrap();
    for rule in alerts::rules() {
        for found in named.captures_iter(rule["annotations"]["action"].as_str().unwrap()) {
            assert!(titles.contains(&found[1].to_owned()), "no panel {}", &found[1]);
        }
    }
}

/// A system with lines of all kinds: good ones and garbage, a file that was cut, a topic that takes nothing, foreign records, callers with bad tokens,
/// a key file that is broken.
fn in_trouble() -> Stage {
    let folder = scratch("metrics").unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    // Nobody listens there.
    let away =
        super::configuration::KUBECONFIG.replace("https://10.0.0.1", &format!("https://127.0.0.1:{}", free_port()));
    std::fs::write(&kubeconfig, away).unwrap();
    let wishes = Wishes {
        router_logs: vec!["rescan_interval: 1s".to_owned()],
        router_kubernetes: vec![format!("kubeconfig_file: \"{}\"", kubeconfig.display())],
        ..Wishes::default()
    };
    let mut broker = Broker::prepared(Kind::Tansu).unwrap();
    broker.start().unwrap();
    // Too little for any record.
    admin::create_topic(&broker.bootstrap(), "logs.tight", 1, &[("max.message.bytes", "200")]).unwrap();
    let mut stage = Stage::over(broker, &wishes).unwrap();
    stage.router.start().unwrap();
    stage.gateway.start().unwrap();
    stage.router.wait_ready().unwrap();
    stage.gateway.wait_ready().unwrap();

    let cut = ["payments", "shop", "tight"].map(|namespace| lines(&stage, namespace, 200)).into_iter().next().unwrap();
    let bootstrap = stage.broker.bootstrap();
    for namespace in ["payments", "shop"] {
        wait_for_lines(&bootstrap, &stage.topic(namespace), 200, WITHIN).unwrap();
    }
    std::fs::File::options().write(true).open(&cut).unwrap().set_len(0).unwrap();
    let mut garbage = std::fs::File::options().append(true).open(&cut).unwrap();
    garbage.write_all(b"not a line of the runtime's\n").unwrap();

    // A foreign record, one that comes twice, and one that is none.
    let records = [record("shop"), record("payments"), record("payments"), "no record".to_owned()];
    let records = records.map(|value| (0, "x".to_owned(), value));
    admin::produce(&bootstrap, &stage.topic("payments"), records).unwrap();
    std::fs::write(stage.folder().join("keys/jwks.json"), "no key set").unwrap();

    let team = stage.team("payments").unwrap();
    for path in ["/v1/namespaces/payments/logs?since=5m", "/v1/namespaces/shop/logs", "/v1/me", "/v1/namespaces", "/"] {
        team.get(path).unwrap();
    }
    stage.anyone().with_token("no.token.at-all").get("/v1/me").unwrap();
    for (program, metric) in [
        (&stage.router, "fairlead_router_gaps_announced_total"),
        (&stage.router, "fairlead_router_parse_errors_total"),
        (&stage.router, "fairlead_router_parked_namespaces"),
        (&stage.router, "fairlead_router_kubernetes_errors_total"),
        (&stage.gateway, "fairlead_gateway_isolation_violations_total"),
        (&stage.gateway, "fairlead_gateway_records_unreadable_total"),
        (&stage.gateway, "fairlead_gateway_repeats_withheld_total"),
    ] {
        wait_until(metric, WITHIN, || program.metric(metric) > 0.0).unwrap();
    }
    wait_until("the broken key file to be seen", WITHIN, || {
        let page = stage.gateway.admin().get("/metrics").map(|answer| answer.body).unwrap_or_default();
        page.contains("key_files_read_total{result=\"refused\"}")
    })
    .unwrap();
    stage
}

/// Writes lines of a container; gives its file.
fn lines(stage: &Stage, namespace: &str, count: usize) -> PathBuf {
    let identity = Identity::new(namespace, &format!("{namespace}-api-1"), "api");
    let mut writer = CriWriter::create(stage.pods(), &identity, 0).unwrap();
    for number in 0..count {
        writer.line(Timestamp::now(), Stream::Stdout, format!("line {number}").as_bytes()).unwrap();
    }
    writer.flush().unwrap();
    identity.log(stage.pods(), 0)
}

/// A record as a router would write it for another namespace.
fn record(namespace: &str) -> String {
    format!(
        "{{\"kubernetes\":{{\"namespace_name\":\"{namespace}\",\"pod_name\":\"p\",\"pod_id\":\"u\",\"container_name\":\"c\",\"host\":\"h\"}},\
         \"fairlead\":{{\"metadata\":\"path\",\"source\":\"u/c/0/abc/1\",\"seq\":0,\"again\":true}},\"time\":\"2026-11-20T10:00:00Z\",\"stream\":\"stdout\",\"log\":\"x\"}}"
    )
}

/// What was scraped: each metric with the labels of its series.
struct Exported(BTreeMap<String, BTreeSet<String>>);

impl Exported {
    fn new(prometheus: &Prometheus) -> Exported {
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for series in prometheus.query("{job=~\"fairlead-.*\"}").unwrap() {
            let labels = series["metric"].as_object().unwrap();
            let name = labels["__name__"].as_str().unwrap().to_owned();
            found.entry(name).or_default().extend(labels.keys().cloned());
        }
        for name in NOT_PROVOKED {
            assert!(!found.contains_key(name), "{name} is provoked: take it off the list");
            found.insert(name.to_owned(), documented_labels(name));
        }
        assert!(found.len() > 40, "{found:?}");
        Exported(found)
    }

    /// Holds every metric of an expression, and the labels that it is selected and grouped by, against what there is.
    fn judge(&self, what: &str, expression: &str, faults: &mut Vec<String>) {
        let selector = Regex::new(r"\b(fairlead_[a-z0-9_]+|up)\b(?:\{([^}]*)\})?").unwrap();
        let label = Regex::new(r#"([a-z_]+)\s*(?:=~|!~|!=|=)"#).unwrap();
        let grouped = Regex::new(r"\bby \(([^)]*)\)").unwrap();
        let mut all = BTreeSet::new();
        for found in selector.captures_iter(expression) {
            let Some(labels) = self.0.get(&found[1]) else {
                faults.push(format!("{what}: {} is not exported", &found[1]));
                continue;
            };
            all.extend(labels.iter().cloned());
            for name in
                found.get(2).map_or("", |inner| inner.as_str()).split(',').filter_map(|pair| label.captures(pair))
            {
                if !labels.contains(&name[1]) {
                    faults.push(format!("{what}: {} has no label {}; it has {labels:?}", &found[1], &name[1]));
                }
            }
        }
        if all.is_empty() {
            faults.push(format!("{what}: names no metric: {expression}"));
        }
        for found in grouped.captures_iter(expression) {
            for name in found[1].split(',').map(str::trim).filter(|name| !all.contains(*name)) {
                faults.push(format!("{what}: grouped by {name}, which none of its metrics has"));
            }
        }
    }
}

/// The labels column of docs/metrics.md.
fn documented_labels(metric: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let row =
        text.lines().find(|line| line.starts_with(&format!("| `{metric}` |"))).unwrap_or_else(|| panic!("{metric}"));
    let labels = row.split('|').nth(3).unwrap().trim().trim_matches('`').to_owned();
    let scraped = ["__name__", "instance", "job"].map(str::to_owned);
    labels.split(", ").map(str::to_owned).chain(scraped).collect()
}

/// One panel and its questions.
struct Panel {
    title: String,
    targets: Vec<(String, String)>,
}

fn dashboard() -> Value {
    serde_json::from_str(&std::fs::read_to_string(deploy("dashboards/fairlead.json")).unwrap()).unwrap()
}

fn panels() -> Vec<Panel> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let targets = |panel: &Value| {
        let targets = panel["targets"].as_array().unwrap().iter();
        targets.map(|target| (text(&target["expr"]), text(&target["legendFormat"]))).collect()
    };
    let panels: Vec<Panel> =
        panels.map(|panel| Panel { title: text(&panel["title"]), targets: targets(panel) }).collect();
    assert!(panels.len() > 20, "{}", panels.len());
    panels
}

impl Panel {
    /// Asks its questions as Grafana would.
    fn judge(&self, prometheus: &Prometheus, exported: &Exported, faults: &mut Vec<String>) {
        let legend = Regex::new(r"\{\{([a-z_]+)\}\}").unwrap();
        for (expression, format) in &self.targets {
            exported.judge(&self.title, expression, faults);
            let asked = [("$namespace", ".*"), ("$__rate_interval", "30s"), ("$__range", "1m")];
            let asked =
                asked.iter().fold(expression.clone(), |asked, (variable, value)| asked.replace(variable, value));
            assert!(!asked.contains('$'), "{asked}");
            let series = match prometheus.query(&asked) {
                Ok(series) => series,
                Err(error) => {
                    faults.push(format!("{}: {error:#}", self.title));
                    continue;
                }
            };
            if series.is_empty() && !NOT_PROVOKED.iter().any(|metric| asked.contains(metric)) {
                faults.push(format!("{}: no series for {asked}", self.title));
            }
            for name in legend.captures_iter(format) {
                if series.iter().any(|series| series["metric"].get(&name[1]).is_none()) {
                    faults.push(format!("{}: its legend names {}, which a series lacks", self.title, &name[1]));
                }
            }
        }
    }
}
