//! A plan in words and columns, for people.

use std::{fmt::Write as _, time::Duration};

use fairlead_service_kit::units::{show_bytes, show_duration};

use super::{NamespacePlan, Plan, TopicPlan};
use crate::columns::{Columns, counted};

/// The whole plan; the last line says whether it is well.
pub fn plan(plan: &Plan) -> String {
    let mut text = "rules, the first that matches decides:\n".to_owned();
    for rule in &plan.rules {
        let _ = writeln!(text, "  {rule}");
    }
    text.push('\n');
    text += &namespaces(&plan.namespaces);
    text.push('\n');
    text += &topics(&plan.topics);
    let (mut refused, mut warnings) = (0, 0);
    for topic in &plan.topics {
        for remark in &topic.remarks {
            let word = if remark.refused { "REFUSED" } else { "warning" };
            *if remark.refused { &mut refused } else { &mut warnings } += 1;
            let _ = writeln!(text, "{word} {}: {}", topic.topic, remark.text);
        }
    }
    let excluded = plan.namespaces.iter().filter(|namespace| namespace.topic.is_none()).count() as u64;
    let pods = plan.namespaces.iter().map(|namespace| namespace.pods.len() as u64).sum();
    let _ = writeln!(
        text,
        "\n{} with {}, {}: {}",
        counted(plan.namespaces.len() as u64, "namespace"),
        counted(pods, "pod"),
        counted(plan.topics.len() as u64, "topic"),
        if refused > 0 {
            format!("REFUSED: {}, and {}", counted(refused, "matter"), counted(warnings, "warning"))
        } else {
            format!("nothing would be refused, {}", counted(warnings, "warning"))
        }
    );
    if excluded > 0 {
        let _ = writeln!(text, "{} left out by a rule: their files are not opened", counted(excluded, "namespace"));
    }
    text
}

fn namespaces(namespaces: &[NamespacePlan]) -> String {
    let mut table = Columns::new(&["NAMESPACE", "POD", "CONTAINERS", "TOPIC"]);
    for namespace in namespaces {
        let topic = match &namespace.topic {
            None => "left out".to_owned(),
            Some(topic) if namespace.shared => format!("{topic} (shared)"),
            Some(topic) => topic.clone(),
        };
        if namespace.pods.is_empty() {
            table.row([namespace.namespace.clone(), "none here".to_owned(), "0".to_owned(), topic]);
            continue;
        }
        for pod in &namespace.pods {
            let containers = pod.containers.to_string();
            table.row([namespace.namespace.clone(), pod.pod.clone(), containers, topic.clone()]);
        }
    }
    table.text()
}

fn topics(topics: &[TopicPlan]) -> String {
    let mut table = Columns::new(&[
        "TOPIC",
        "STATE",
        "MAY WRITE",
        "PARTITIONS",
        "REPLICAS",
        "IN SYNC",
        "NEEDED",
        "MESSAGE",
        "KEPT FOR",
        "KEPT BYTES",
        "CLEANUP",
        "TIMESTAMPS",
    ]);
    let number = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
    let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "?".to_owned());
    for topic in topics {
        let kept_for = match topic.retention_ms.map(u64::try_from) {
            None => "?".to_owned(),
            Some(Err(_)) => "ever".to_owned(),
            Some(Ok(ms)) => show_duration(Duration::from_millis(ms)),
        };
        let kept_bytes = match topic.retention_bytes.map(u64::try_from) {
            None => "?".to_owned(),
            Some(Err(_)) => "any".to_owned(),
            Some(Ok(bytes)) => show_bytes(bytes),
        };
        let may_write = match topic.may_write {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not known",
        };
        table.row([
            topic.topic.clone(),
            topic.state.to_owned(),
            may_write.to_owned(),
            number(topic.partitions),
            number(topic.replicas),
            number(topic.in_sync),
            number(topic.min_in_sync),
            number(topic.message_bytes_max),
            kept_for,
            kept_bytes,
            word(&topic.cleanup_policy),
            word(&topic.timestamp_type),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{PodPlan, Remark};

    #[test]
    fn a_plan_reads_well() {
        let pod = |name: &str| PodPlan { pod: name.to_owned(), uid: "u".to_owned(), containers: 2 };
        let namespace = |name: &str, topic: Option<&str>, pods: Vec<PodPlan>| NamespacePlan {
            namespace: name.to_owned(),
            topic: topic.map(str::to_owned),
            shared: false,
            pods,
        };
        let topic = TopicPlan {
            topic: "logs.payments".to_owned(),
            state: "there",
            may_write: Some(true),
            partitions: Some(3),
            replicas: Some(3),
            in_sync: Some(2),
            min_in_sync: Some(2),
            message_bytes_max: Some(1_048_588),
            retention_ms: Some(604_800_000),
            retention_bytes: Some(-1),
            cleanup_policy: Some("delete".to_owned()),
            timestamp_type: None,
            remarks: vec![
                Remark { refused: true, text: "bad".to_owned() },
                Remark { refused: false, text: "less".to_owned() },
            ],
        };
        let text = plan(&Plan {
            rules: vec!["all -> logs.{namespace}".to_owned()],
            namespaces: vec![
                namespace("payments", Some("logs.payments"), vec![pod("api-1"), pod("api-2")]),
                namespace("scratch", None, Vec::new()),
            ],
            topics: vec![topic],
            refused: true,
        });
        let expected = "\
rules, the first that matches decides:
  all -> logs.{namespace}

NAMESPACE  POD        CONTAINERS  TOPIC
payments   api-1               2  logs.payments
payments   api-2               2  logs.payments
scratch    none here           0  left out

TOPIC          STATE  MAY WRITE  PARTITIONS  REPLICAS  IN SYNC  NEEDED  MESSAGE  KEPT FOR  KEPT BYTES  CLEANUP  TIMESTAMPS
logs.payments  there  yes                 3         3        2       2  1048588  7d        any         delete   ?
REFUSED logs.payments: bad
warning logs.payments: less

2 namespaces with 2 pods, 1 topic: REFUSED: 1 matter, and 1 warning
1 namespace left out by a rule: their files are not opened
";
        assert_eq!(text, expected);
    }
}
