//! What a topic must hold of a container of whose log every byte is known: the physical lines of its files, in order,
//! told apart by a small reading of the CRI grammar that shares nothing with the router's.

use std::borrow::Cow;

use jiff::Timestamp;

use super::Figures;
use crate::audit::audit;
use crate::consume::Line;
use crate::generator::Identity;

/// A physical line of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Physical {
    time: Timestamp,
    /// Does the line of text go on in the next one of its stream?
    open: bool,
    content: Vec<u8>,
}

/// A container's physical lines by stream.
#[derive(Clone, Debug)]
pub struct Witness {
    identity: Identity,
    /// Standard output, then standard error.
    streams: [Vec<Physical>; 2],
    /// Lines that are none by the grammar.
    bad: u64,
}

impl Witness {
    /// Reads the bytes of all files of one run of a container, oldest first. The container has ended, so bytes after the last
    /// newline of a file are a line that cannot be parsed.
    pub fn new(identity: &Identity, files: &[Vec<u8>]) -> Witness {
        let mut witness = Witness { identity: identity.clone(), streams: [Vec::new(), Vec::new()], bad: 0 };
        for file in files {
            let mut pieces: Vec<&[u8]> = file.split(|&byte| byte == b'\n').collect();
            let torn = pieces.pop().is_some_and(|last| !last.is_empty());
            for piece in pieces {
                match parse(piece) {
                    Some((stream, line)) => witness.streams[stream].push(line),
                    None => witness.bad += 1,
                }
            }
            witness.bad += u64::from(torn);
        }
        witness
    }

    /// Whose lines they are.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Physical lines in all, bad ones too.
    pub fn total(&self) -> u64 {
        self.streams.iter().map(|lines| lines.len() as u64).sum::<u64>() + self.bad
    }

    /// Compares with a topic. Written are physical lines; announced are those that notices announce, unparsable ones too.
    /// Unexplained is what is neither there nor announced, each record that is not what its numbers name, and each fault of
    /// the audit.
    pub fn figures(&self, topic: &[Line]) -> Figures {
        let own: Vec<Line> = topic.iter().filter(|line| self.wrote(line)).cloned().collect();
        let report = audit(&own);
        let wrong = own.iter().filter(|line| line.notice.is_none() && !self.agrees(line)).count() as u64;
        let announced = report.announced + report.unparsed;
        let unexplained = self.total().abs_diff(report.lines + announced)
            + self.bad.abs_diff(report.unparsed)
            + wrong
            + report.faults.len() as u64
            + report.unknown_gaps;
        Figures { written: self.total(), delivered: report.lines, announced, repeated: report.repeats, unexplained }
    }

    /// What is wrong, in words, for whoever looks for the cause.
    pub fn faults(&self, topic: &[Line]) -> Vec<String> {
        let own: Vec<Line> = topic.iter().filter(|line| self.wrote(line)).cloned().collect();
        let report = audit(&own);
        let wrong = own.iter().filter(|line| line.notice.is_none() && !self.agrees(line));
        let mut faults = report.faults.clone();
        faults.extend(wrong.take(3).map(|line| format!("not what its numbers name: {line:.300?}")));
        if self.figures(topic).unexplained > 0 {
            let here: Vec<usize> = self.streams.iter().map(Vec::len).collect();
            faults.push(format!("{:?}: {here:?} and {} bad lines were written; {report:?}", self.identity, self.bad));
        }
        faults
    }

    fn wrote(&self, line: &Line) -> bool {
        line.pod_uid == self.identity.uid && line.container == self.identity.container
    }

    /// Is the record the lines that its numbers name? A piece of a long line must lie in it where it says.
    fn agrees(&self, line: &Line) -> bool {
        let stream = match line.source.rsplit('/').next() {
            Some("1") => &self.streams[0],
            Some("2") => &self.streams[1],
            _ => return false,
        };
        let Ok(from) = usize::try_from(line.seq) else { return false };
        let Some(first) = stream.get(from) else { return false };
        if line.time.parse::<Timestamp>().ok() != Some(first.time) {
            return false;
        }
        let Some(chunk) = line.chunk else {
            let Ok(count) = usize::try_from(line.lines) else { return false };
            return stream.get(from..from + count).is_some_and(|lines| belong(lines) && line.log == text(lines));
        };
        // A piece tells only the last one's number of lines; it must be what stands at its offset of all that follow.
        let Ok(offset) = usize::try_from(chunk.offset) else { return false };
        let mut whole = Vec::new();
        for piece in &stream[from..] {
            whole.extend_from_slice(&piece.content);
            if whole.len() >= offset + line.log.len() {
                break;
            }
        }
        whole.get(offset..).is_some_and(|rest| rest.starts_with(line.log.as_bytes()))
    }
}

/// Counts a namespace's topic against all its containers.
pub fn judge(topic: &[Line], witnesses: &[Witness]) -> Figures {
    let mut figures = witnesses.iter().fold(Figures::default(), |sum, witness| sum.and(&witness.figures(topic)));
    let strange = |line: &&Line| !witnesses.iter().any(|witness| witness.wrote(line));
    figures.unexplained += topic.iter().filter(strange).count() as u64;
    figures
}

/// Are they pieces of one line of text?
fn belong(lines: &[Physical]) -> bool {
    lines.split_last().is_some_and(|(_, before)| before.iter().all(|line| line.open))
}

fn text(lines: &[Physical]) -> String {
    let joined: Vec<u8> = lines.iter().flat_map(|line| line.content.iter().copied()).collect();
    match String::from_utf8_lossy(&joined) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

/// `timestamp stream tags content`, each parted from the next by one space.
fn parse(line: &[u8]) -> Option<(usize, Physical)> {
    let mut fields = line.splitn(4, |&byte| byte == b' ');
    let time: Timestamp = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let stream = match fields.next()? {
        b"stdout" => 0,
        b"stderr" => 1,
        _ => return None,
    };
    let tags = fields.next()?;
    let open = tags == b"P" || tags.starts_with(b"P:");
    Some((stream, Physical { time, open, content: fields.next()?.to_vec() }))
}

#[cfg(test)]
mod tests {
    use fairlead_contract::record::{Chunk, Notice, NoticeKind};

    use super::*;

    const FILE: &[u8] = b"2026-11-20T10:00:00.5Z stdout P one \n2026-11-20T10:00:01Z stderr F err\n\
        2026-11-20T10:00:02+00:00 stdout F two\n2026-11-20T10:2026-11-20T10:00:03Z stdout F torn\nhalf";

    fn line(identity: &Identity, fd: u8, seq: u64, lines: u64, log: &str) -> Line {
        let times = [["2026-11-20T10:00:00.5Z", "2026-11-20T10:00:02Z"], ["2026-11-20T10:00:01Z", ""]];
        Line {
            partition: 0,
            offset: 0,
            key: String::new(),
            namespace: identity.namespace.clone(),
            pod_uid: identity.uid.clone(),
            container: identity.container.clone(),
            source: format!("{}/{}/0/e/{fd}", identity.uid, identity.container),
            seq,
            lines,
            left_out: 0,
            again: false,
            chunk: None,
            notice: None,
            time: times.get(usize::from(fd) - 1).map_or("", |of| of[usize::try_from(seq).unwrap()]).to_owned(),
            stream: "stdout".to_owned(),
            log: log.to_owned(),
        }
    }

    fn bad(identity: &Identity, lines: u64) -> Line {
        let source = format!("{}/{}/0/e/0", identity.uid, identity.container);
        let notice = Notice { lines: Some(lines), ..Notice::new(NoticeKind::ParseErrors, source.clone(), 0) };
        Line { source, notice: Some(notice), stream: "fairlead".to_owned(), ..line(identity, 1, 0, 0, "") }
    }

    #[test]
    fn compares_a_topic_with_the_files_bytes() {
        let it = Identity::new("a", "p", "c");
        let witness = Witness::new(&it, &[FILE.to_vec()]);
        assert_eq!(witness.total(), 5);
        let check = |topic: &[Line], expected: (u64, u64, bool)| {
            let figures = witness.figures(topic);
            assert_eq!((figures.delivered, figures.announced, figures.unexplained == 0), expected, "{figures:?}");
            assert_eq!(witness.faults(topic).is_empty(), expected.2);
        };
        let (joined, other) = (line(&it, 1, 0, 2, "one two"), line(&it, 2, 0, 1, "err"));
        check(&[joined.clone(), other.clone(), bad(&it, 2)], (3, 2, true));
        check(&[line(&it, 1, 0, 1, "one "), line(&it, 1, 1, 1, "two"), other.clone(), bad(&it, 2)], (3, 2, true));
        check(&[joined.clone(), other.clone()], (3, 0, false));
        // Fragments belong together, whole lines do not.
        let whole = Witness::new(&it, &[String::from_utf8_lossy(FILE).replace("P one", "F one").into_bytes()]);
        assert!(whole.figures(&[joined.clone(), other.clone(), bad(&it, 2)]).unexplained > 0);
        check(&[joined.clone(), other.clone(), bad(&it, 3)], (3, 3, false));
        check(&[joined.clone(), bad(&it, 2)], (2, 2, false));
        check(&[line(&it, 1, 0, 2, "one tow"), other.clone(), bad(&it, 2)], (3, 2, false));
        let late = Line { time: "2026-11-20T10:00:09Z".to_owned(), ..joined };
        check(&[late, other.clone(), bad(&it, 2)], (3, 2, false));
        let piece = |offset, lines, log| Line {
            chunk: Some(Chunk { index: 0, offset, last: lines > 0 }),
            ..line(&it, 1, 0, lines, log)
        };
        check(&[piece(0, 0, "one t"), piece(5, 2, "wo"), other.clone(), bad(&it, 2)], (3, 2, true));
        check(&[piece(0, 0, "one t"), piece(6, 2, "wo"), other, bad(&it, 2)], (3, 2, false));
    }

    #[test]
    fn a_line_of_nobody_is_unexplained() {
        let (it, stranger) = (Identity::new("a", "p", "c"), Identity::new("a", "p", "c"));
        let witness = Witness::new(&it, &[]);
        assert_eq!(judge(&[line(&stranger, 1, 0, 1, "?")], &[witness]).unexplained, 1);
    }
}
