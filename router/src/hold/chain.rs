//! Files that came while nobody looked: are they all there, and in which order?
//!
//! The kubelet rotates a file at most once in a second, names it by local time, compresses all rotated files but the newest, and removes the files whose
//! names sort first. So while the last known file is still there, under its own name or compressed, nothing that came after it was removed, as long
//! as names and the stamps of first lines tell the same order.

use super::NewFile;
use crate::discover::{LogName, parse_log_name};

/// The last known file, as it is found in the folder now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastFile {
    /// What the rotation put behind its name.
    pub suffix: String,
    /// The stamp of its first line.
    pub first_time: (i64, u32),
}

/// The order of new files that are shown to follow the last one without a hole; `None`: it cannot be shown.
///
/// `names` are all names of the instance in the folder; of a compressed file whose raw file is there too, only the raw one counts.
pub fn chain(last: &LastFile, new: &[NewFile], names: &[LogName]) -> Option<Vec<u32>> {
    let mut files = Vec::new();
    for file in new {
        let name = parse_log_name(file.name.as_deref()?)?;
        files.push((name.is_live(), file.first_time, name.suffix().map(ToOwned::to_owned), file.link));
    }
    // The live file comes last, whether it has a line already or not.
    files.sort();
    let all = names.iter().filter_map(LogName::suffix).filter(|suffix| *suffix > last.suffix.as_str());
    let mut all: Vec<_> = all.collect();
    all.sort_unstable();
    all.dedup();
    let found: Vec<_> = files.iter().filter_map(|(_, _, suffix, _)| suffix.as_deref()).collect();
    if found != all || files.iter().filter(|(is_live, ..)| *is_live).count() > 1 {
        return None;
    }
    let mut before = last.first_time;
    for (is_live, first_time, suffix, _) in &files {
        match (first_time, suffix) {
            (Some(time), Some(suffix)) if *time > before && !may_have_replaced(suffix, time.0) => before = *time,
            (Some(time), None) if *time > before => {}
            (None, None) if *is_live => {}
            _ => return None,
        }
    }
    Some(files.into_iter().map(|(.., link)| link).collect())
}

/// Time zones differ from UTC by multiples of so many seconds; no zone's time is needed to compare what lies within.
const ZONE_SECONDS: i64 = 15 * 60;

/// Whether a rotated file may have taken the name of another one: that one was renamed in the same second, so this one was not yet there before it.
fn may_have_replaced(suffix: &str, first_seconds: i64) -> bool {
    let Some(renamed) = seconds_in_zone(suffix) else { return true };
    let first = first_seconds.rem_euclid(ZONE_SECONDS);
    // A stamp is taken just before the line is written, so it can be of the second before the file was made.
    first == renamed || first == (renamed - 1).rem_euclid(ZONE_SECONDS)
}

/// The seconds of `YYYYMMDD-HHMMSS` within what all time zones share; `None` for a name that the kubelet does not give.
fn seconds_in_zone(suffix: &str) -> Option<i64> {
    let (date, time) = suffix.split_once('-')?;
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(date, 8) || !digits(time, 6) {
        return None;
    }
    let number = |range| time.get(range).and_then(|text: &str| text.parse::<i64>().ok());
    Some((number(2..4)? * 60 + number(4..6)?) % ZONE_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21T10:00:00Z.
    const TEN: i64 = 1_795_255_200;

    fn file(link: u32, name: &str, seconds: Option<i64>) -> NewFile {
        NewFile { link, name: Some(name.to_owned()), first_time: seconds.map(|seconds| (TEN + seconds, 5)) }
    }

    #[test]
    fn what_is_shown_to_be_all_and_what_is_not() {
        let last = LastFile { suffix: "20261121-100010".to_owned(), first_time: (TEN, 5) };
        let check = |case: &str, new: &[NewFile], others: &[&str], expected: Option<&[u32]>| {
            let there = new.iter().filter_map(|file| file.name.as_deref()).chain(others.iter().copied());
            let names: Vec<_> = there.filter_map(parse_log_name).collect();
            assert_eq!(chain(&last, new, &names).as_deref(), expected, "{case}");
        };
        let (second, third) = ("0.log.20261121-100020.gz", "0.log.20261121-100030");
        let own = "0.log.20261121-100010.gz";

        check(
            "one compressed, one rotated, the live one",
            &[file(7, "0.log", Some(31)), file(8, second, Some(11)), file(6, third, Some(21))],
            &[own, "0.log.20261121-095900.gz"],
            Some(&[8, 6, 7]),
        );
        check("the live one is empty", &[file(7, "0.log", None), file(8, second, Some(11))], &[own], Some(&[8, 7]));
        check("between two names", &[file(8, second, Some(11))], &[own], Some(&[8]));
        check("one cannot be read", &[file(7, "0.log", Some(31))], &[own, "0.log.20261121-100020.gz"], None);
        check(
            "compressed right now",
            &[file(8, "0.log.20261121-100020", Some(11)), file(7, "0.log", Some(31))],
            &["0.log.20261121-100020.gz"],
            Some(&[8, 7]),
        );
        check("no stamp", &[file(8, second, None), file(7, "0.log", Some(31))], &[own], None);
        check("older than the last", &[file(8, second, Some(-5)), file(7, "0.log", Some(31))], &[own], None);
        check(
            "names and stamps disagree",
            &[file(8, third, Some(11)), file(6, second, Some(21)), file(7, "0.log", Some(31))],
            &[own],
            None,
        );
        check("the live one is older", &[file(8, second, Some(11)), file(7, "0.log", Some(5))], &[own], None);
        check("not the kubelet's name", &[file(8, "0.log.copy.gz", Some(11))], &[own], None);
        check(
            "made in the second in which it was renamed: another may have had its name",
            &[file(8, second, Some(20)), file(7, "0.log", Some(21))],
            &[own],
            None,
        );
        check(
            "the same in another time zone",
            &[file(8, "0.log.20261121-154520.gz", Some(20)), file(7, "0.log", Some(21))],
            &[own],
            None,
        );
        check(
            "a new file without a name",
            &[NewFile { name: None, ..file(8, "", Some(11)) }, file(7, "0.log", Some(31))],
            &[own],
            None,
        );
    }
}
