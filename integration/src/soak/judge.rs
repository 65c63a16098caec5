//! From a topic and what containers wrote to the figures of a row.

use super::Figures;
use crate::audit::{Report, audit, texts};
use crate::consume::Line;
use crate::generator::Identity;
use crate::generator::cri::Stream;
use crate::workload::Script;

/// Counts, over a topic with the lines of these containers, what a row shows. Besides lines that are missing without being
/// announced, each line too many and each fault of the audit counts as unexplained.
///
/// Lines that are announced count as many as the notices say. Where a notice gives no number, the container's missing lines
/// are announced.
pub fn figures(lines: &[Line], written: &[(&Identity, &Script)]) -> Figures {
    let whole = audit(lines);
    let mut figures = Figures { repeated: whole.repeats, unexplained: whole.faults.len() as u64, ..Figures::default() };
    for (identity, script) in written {
        let own: Vec<Line> = lines.iter().filter(|line| is_of(line, identity)).cloned().collect();
        figures = figures.and(&of_container(&own, &audit(&own), identity, script));
    }
    let strange = |line: &&Line| !written.iter().any(|(identity, _)| is_of(line, identity));
    figures.unexplained += lines.iter().filter(strange).count() as u64;
    figures
}

fn is_of(line: &Line, identity: &Identity) -> bool {
    line.pod_uid == identity.uid && line.container == identity.container && line.namespace == identity.namespace
}

fn of_container(lines: &[Line], report: &Report, identity: &Identity, script: &Script) -> Figures {
    let (mut delivered, mut surplus) = (0, 0);
    for stream in [Stream::Stdout, Stream::Stderr] {
        let found = texts(lines, identity, stream);
        let expected = (0..script.count(stream)).map(|number| script.log(stream, number));
        let same = in_order(&found, expected);
        delivered += same;
        surplus += found.len() as u64 - same;
    }
    let missing = script.total() - delivered;
    let announced = if report.unknown_gaps > 0 { missing } else { report.announced };
    let unexplained = missing.abs_diff(announced) + surplus;
    Figures { written: script.total(), delivered, announced, repeated: 0, unexplained }
}

/// How many of the expected texts were found, in their order.
fn in_order(found: &[String], expected: impl Iterator<Item = String>) -> u64 {
    let mut rest = found.iter().peekable();
    let mut same = 0;
    for text in expected {
        if rest.next_if(|next| **next == text).is_some() {
            same += 1;
        }
    }
    same
}

#[cfg(test)]
mod tests {
    use fairlead_contract::record::{Notice, NoticeKind};

    use super::*;

    fn topic(identity: &Identity, script: &Script, leave_out: &[u64]) -> Vec<Line> {
        let mut lines = Vec::new();
        for (stream, fd) in [(Stream::Stdout, 1), (Stream::Stderr, 2)] {
            for number in (0..script.count(stream)).filter(|number| fd == 2 || !leave_out.contains(number)) {
                lines.push(Line {
                    partition: 0,
                    offset: 0,
                    key: String::new(),
                    namespace: identity.namespace.clone(),
                    pod_uid: identity.uid.clone(),
                    container: identity.container.clone(),
                    source: format!("{}/{}/0/e/{fd}", identity.uid, identity.container),
                    seq: number,
                    lines: 1,
                    left_out: 0,
                    again: false,
                    chunk: None,
                    notice: None,
                    time: String::new(),
                    stream: stream.as_str().to_owned(),
                    log: script.log(stream, number),
                });
            }
        }
        lines
    }

    fn gap(of: &Line, seq: u64, lines: Option<u64>) -> Line {
        let notice = Notice { lines, ..Notice::new(NoticeKind::Gap, of.source.clone(), seq) };
        Line { notice: Some(notice), stream: "fairlead".to_owned(), seq, lines: 0, ..of.clone() }
    }

    #[test]
    fn counts_what_is_missing_and_what_is_announced() {
        let identity = Identity::new("payments", "api-1", "api");
        let script = Script::new("a", 30);
        let check = |lines: &[Line], expected: (u64, u64, bool)| {
            let figures = figures(lines, &[(&identity, &script)]);
            assert_eq!(figures.written, 40);
            assert_eq!((figures.delivered, figures.announced, figures.unexplained == 0), expected, "{figures:?}");
        };
        let whole = topic(&identity, &script, &[]);
        check(&whole, (40, 0, true));
        check(&topic(&identity, &script, &[4, 5]), (38, 0, false));
        let mut lines = topic(&identity, &script, &[4, 5]);
        lines.push(gap(&lines[0], 4, Some(2)));
        check(&lines, (38, 2, true));
        lines.push(gap(&lines[0], 30, Some(1)));
        check(&lines, (38, 3, false));
        let mut lines = topic(&identity, &script, &[28, 29]);
        lines.push(gap(&lines[0], 28, None));
        check(&lines, (38, 2, true));
        let stranger = Line { pod_uid: "else".to_owned(), source: "else/api/0/e/1".to_owned(), ..whole[0].clone() };
        check(&[whole, vec![stranger]].concat(), (40, 0, false));
    }
}
