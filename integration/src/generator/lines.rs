//! Lines such as real services print: JSON logs, access logs, stack traces, plain text.

use jiff::Timestamp;

use super::cri::Stream;
use super::dice::Dice;

/// How a service writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One JSON object a line.
    Json,
    /// An HTTP server's access log, errors apart.
    Access,
    /// A Java service: plain text, with stack traces over many lines.
    Java,
    /// A Kubernetes component (klog).
    Klog,
    /// A job that counts what it does.
    Job,
}

/// One event of a service: its lines, all of one stream.
pub fn event(style: Style, at: Timestamp, dice: &mut Dice) -> (Stream, Vec<String>) {
    match style {
        Style::Json => (Stream::Stdout, vec![json(at, dice)]),
        Style::Access => access(at, dice),
        Style::Java => java(at, dice),
        Style::Klog => (Stream::Stderr, vec![klog(at, dice)]),
        Style::Job => {
            (Stream::Stdout, vec![format!("processed batch {} of 40: {} rows", dice.below(40), dice.below(5000))])
        }
    }
}

/// A JSON log of about `bytes`, for measurements.
pub fn json_of(bytes: usize, at: Timestamp, dice: &mut Dice) -> String {
    let mut line = json(at, dice);
    let missing = bytes.saturating_sub(line.len() + 12);
    line.truncate(line.len() - 1);
    let text: String = std::iter::repeat_with(|| dice.suffix(7) + " ").take(missing / 8 + 1).collect();
    format!("{line},\"detail\":\"{}\"}}", text.get(..missing).unwrap_or_default())
}

fn json(at: Timestamp, dice: &mut Dice) -> String {
    let (level, message) = *dice.one_of(&[
        ("info", "payment authorised"),
        ("info", "payment captured"),
        ("info", "refund requested"),
        ("info", "webhook delivered"),
        ("info", "Zahlung bestätigt ✓"),
        ("warn", "card declined by issuer"),
        ("warn", "retrying call to the ledger"),
        ("error", "ledger did not answer in time"),
    ]);
    format!(
        r#"{{"ts":"{at}","level":"{level}","msg":"{message}","trace_id":"{:016x}{:016x}","order":"{}","amount_cents":{},"duration_ms":{}}}"#,
        dice.roll(),
        dice.roll(),
        dice.suffix(8),
        dice.below(100_000),
        dice.below(900),
    )
}

fn access(at: Timestamp, dice: &mut Dice) -> (Stream, Vec<String>) {
    let path = *dice.one_of(&["/", "/cart", "/api/v2/products?page=3", "/checkout", "/static/app.js", "/healthz"]);
    if dice.once_in(40) {
        let stamp = at.strftime("%Y/%m/%d %H:%M:%S");
        let line = format!(
            "{stamp} [error] 31#31: *{} upstream timed out (110: Connection timed out), request: \"GET {path} HTTP/1.1\"",
            dice.below(100_000)
        );
        return (Stream::Stderr, vec![line]);
    }
    let line = format!(
        "10.8.{}.{} - - [{}] \"{} {path} HTTP/1.1\" {} {} \"-\" \"Mozilla/5.0 (X11; Linux x86_64)\" rt=0.{:03}",
        dice.below(256),
        dice.below(256),
        at.strftime("%d/%b/%Y:%H:%M:%S %z"),
        *dice.one_of(&["GET", "GET", "GET", "POST"]),
        *dice.one_of(&[200, 200, 200, 200, 201, 304, 404, 502]),
        dice.below(60_000),
        dice.below(1000),
    );
    (Stream::Stdout, vec![line])
}

fn java(at: Timestamp, dice: &mut Dice) -> (Stream, Vec<String>) {
    let stamp = at.strftime("%Y-%m-%d %H:%M:%S,%f");
    let thread = format!("[worker-{}]", dice.below(16));
    if !dice.once_in(25) {
        let item = dice.suffix(6);
        return (
            Stream::Stdout,
            vec![format!(
                "{stamp} INFO  {thread} c.example.stock.Inventory - reserved {} of {item}",
                dice.below(9) + 1
            )],
        );
    }
    let mut lines = vec![
        format!("{stamp} ERROR {thread} c.example.stock.Inventory - could not reserve {}", dice.suffix(6)),
        "java.lang.IllegalStateException: reservation is closed".to_owned(),
    ];
    let depth = 4 + dice.below(12);
    lines.extend((0..depth).map(|frame| {
        format!("\tat com.example.stock.Inventory.reserve{frame}(Inventory.java:{})", 40 + dice.below(400))
    }));
    lines.push("Caused by: java.sql.SQLTransientConnectionException: pool - Connection is not available".to_owned());
    lines.push(format!("\t... {depth} more"));
    (Stream::Stderr, lines)
}

fn klog(at: Timestamp, dice: &mut Dice) -> String {
    let level = *dice.one_of(&["I", "I", "I", "W", "E"]);
    format!(
        "{level}{} {:>7} proxier.go:{}] \"Syncing iptables rules\" elapsed=\"{}ms\" services={}",
        at.strftime("%m%d %H:%M:%S.%6f"),
        1,
        700 + dice.below(200),
        dice.below(90),
        dice.below(40),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_lines_are_json_of_the_size_asked_for() {
        let (at, mut dice) = (Timestamp::now(), Dice::new(7));
        for _ in 0..100 {
            let line = json_of(400, at, &mut dice);
            serde_json::from_str::<serde_json::Value>(&line).unwrap();
            assert!((390..420).contains(&line.len()), "{}", line.len());
        }
    }

    #[test]
    fn every_style_prints_without_newlines() {
        let (at, mut dice) = (Timestamp::now(), Dice::new(1));
        for style in [Style::Json, Style::Access, Style::Java, Style::Klog, Style::Job] {
            for _ in 0..200 {
                let (_, lines) = event(style, at, &mut dice);
                assert!(!lines.is_empty() && lines.iter().all(|line| !line.contains('\n')));
            }
        }
    }
}
