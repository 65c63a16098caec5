//! In which order new files stand, and whether the first of them is shown to follow the last one that is known.
//!
//! Names are no order: they are local time with a resolution of a second. What counts is that the watch saw every creation of the live name
//! and each file is held, or that the last known file is the newest rotated one and the live file is the only new one. Everything else breaks the run.

use crate::discover::{LogName, NameEvent, parse_log_name};

/// A file that is held and stands in no epoch yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// The last part of its link's name.
    pub link: u32,
    /// Its name in the container's folder now; `None` when the kubelet's name is gone.
    pub name: Option<String>,
    /// The stamp of its first line in seconds and nanoseconds, where it has one.
    pub first_time: Option<(i64, u32)>,
}

/// The outcome: links in reading order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// They follow the last known file without a hole.
    Follows(Vec<u32>),
    /// They cannot be shown to follow.
    Breaks(Vec<u32>),
}

/// Orders the new files of one instance.
///
/// `last` is the name that the last known file has now, if it still has one. `names` are all names of this instance in the folder, compressed ones
/// too. `events` are those since the folder was last looked at; `gapless` says that none is missing.
pub fn order(
    new: &[NewFile],
    last: Option<&str>,
    names: &[LogName],
    restart: u32,
    events: &[NameEvent],
    gapless: bool,
) -> Order {
    let seen = if gapless { by_events(new, restart, events) } else { Seen::Unknown };
    if let Seen::All(links) = seen {
        return Order::Follows(links);
    }
    if seen != Seen::More
        && let [only] = new
        && is_live(only)
        && last.is_some_and(|last| is_newest_rotated(last, names))
    {
        return Order::Follows(vec![only.link]);
    }
    Order::Breaks(by_first_time(new))
}

/// The links of files by the stamps of their first lines, the live file last.
pub fn by_first_time(files: &[NewFile]) -> Vec<u32> {
    let mut sorted: Vec<_> = files.iter().collect();
    sorted.sort_by_key(|file| (is_live(file), file.first_time.is_none(), file.first_time, file.link));
    sorted.iter().map(|file| file.link).collect()
}

/// Every creation of the live name is among the events, and each of those files is held: their order is the order of the rotations.
fn by_events(new: &[NewFile], restart: u32, events: &[NameEvent]) -> Seen {
    let live = format!("{restart}.log");
    let source = |cookie: u32| {
        events.iter().find_map(|event| match event {
            NameEvent::MovedFrom(name, from) if *from == cookie => Some(name.as_str()),
            _ => None,
        })
    };
    let is_log = |name: &str| parse_log_name(name).is_some();
    let mut created = 0;
    let mut rotated = Vec::new();
    for event in events {
        match event {
            NameEvent::Created(name) if *name == live => created += 1,
            // A rotation that was taken back gives the name to a file that is known already.
            NameEvent::MovedTo(name, cookie) if *name == live && !source(*cookie).is_some_and(is_log) => created += 1,
            NameEvent::MovedTo(name, cookie) if source(*cookie) == Some(&live) => rotated.push(name.as_str()),
            _ => {}
        }
    }
    if created != new.len() {
        return if created > new.len() { Seen::More } else { Seen::Unknown };
    }
    let placed = new
        .iter()
        .map(|file| match &file.name {
            Some(name) if *name == live => Some((usize::MAX, file.link)),
            Some(name) => rotated.iter().rposition(|rotated| rotated == name).map(|place| (place, file.link)),
            None => None,
        })
        .collect::<Option<Vec<_>>>();
    let Some(mut placed) = placed else { return Seen::Unknown };
    placed.sort_unstable();
    Seen::All(placed.into_iter().map(|(_, link)| link).collect())
}

/// What the events say of the new files.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// Every file that was created is held, in this order.
    All(Vec<u32>),
    /// More were created than are held: at least one came and went.
    More,
    /// They prove nothing.
    Unknown,
}

fn is_live(file: &NewFile) -> bool {
    file.name.as_deref().and_then(parse_log_name).is_some_and(|name| name.is_live())
}

/// The rotation renames the live file and compresses those before it: the last file, rotated and not compressed, has exactly one successor.
fn is_newest_rotated(last: &str, names: &[LogName]) -> bool {
    let Some(last) = parse_log_name(last) else { return false };
    !last.is_live()
        && names.contains(&last)
        && names.iter().all(|name| name.suffix().is_none_or(|suffix| Some(suffix) <= last.suffix()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(link: u32, name: &str, second: i64) -> NewFile {
        NewFile { link, name: (!name.is_empty()).then(|| name.to_owned()), first_time: Some((second, 0)) }
    }

    fn created(name: &str) -> NameEvent {
        NameEvent::Created(name.to_owned())
    }

    fn moved(from: &str, to: &str, cookie: u32) -> [NameEvent; 2] {
        [NameEvent::MovedFrom(from.to_owned(), cookie), NameEvent::MovedTo(to.to_owned(), cookie)]
    }

    #[test]
    fn what_is_shown_and_what_is_not() {
        let check = |case: &str,
                     new: &[NewFile],
                     last: Option<&str>,
                     others: &[&str],
                     events: &[NameEvent],
                     gapless,
                     expected: Order| {
            let names: Vec<_> = others.iter().filter_map(|name| parse_log_name(name)).collect();
            assert_eq!(order(new, last, &names, 0, events, gapless), expected, "{case}");
        };
        let follows = |links: &[u32]| Order::Follows(links.to_vec());
        let breaks = |links: &[u32]| Order::Breaks(links.to_vec());
        let once = [moved("0.log", "0.log.T1", 1).to_vec(), vec![created("0.log")]].concat();
        let conmon = [moved("0.log", "0.log.T1", 1).to_vec(), moved("0.log.tmp", "0.log", 2).to_vec()].concat();
        let twice = [once.clone(), moved("0.log", "0.log.T2", 3).to_vec(), vec![created("0.log")]].concat();
        let taken_back = [
            moved("0.log", "0.log.T1", 1).to_vec(),
            moved("0.log.T1", "0.log", 2).to_vec(),
            moved("0.log", "0.log.T2", 3).to_vec(),
            vec![created("0.log")],
        ]
        .concat();
        let dir = ["0.log", "0.log.T1"];

        check("one rotation seen", &[file(2, "0.log", 9)], Some("0.log.T1"), &dir, &once, true, follows(&[2]));
        check("conmon's reopening", &[file(2, "0.log", 9)], Some("0.log.T1"), &dir, &conmon, true, follows(&[2]));
        check(
            "replaced in place",
            &[file(2, "0.log", 9)],
            None,
            &["0.log"],
            &moved("0.log.tmp", "0.log", 2),
            true,
            follows(&[2]),
        );
        check(
            "two at once",
            &[file(3, "0.log", 9), file(2, "0.log.T2", 8)],
            Some("0.log.T1"),
            &["0.log", "0.log.T2"],
            &twice,
            true,
            follows(&[2, 3]),
        );
        check(
            "two, one gone",
            &[file(3, "0.log", 9)],
            None,
            &["0.log", "0.log.T1.gz", "0.log.T2.gz"],
            &twice,
            true,
            breaks(&[3]),
        );
        check(
            "taken back",
            &[file(2, "0.log", 9)],
            Some("0.log.T2"),
            &["0.log", "0.log.T2"],
            &taken_back,
            true,
            follows(&[2]),
        );
        check(
            "more created than held",
            &[file(2, "0.log", 9)],
            Some("0.log.T1"),
            &dir,
            &[vec![created("0.log")], once.clone()].concat(),
            true,
            breaks(&[2]),
        );
        check("after a restart", &[file(2, "0.log", 9)], Some("0.log.T1"), &dir, &[], false, follows(&[2]));
        check(
            "after a restart, one between",
            &[file(2, "0.log", 9)],
            Some("0.log.T1"),
            &["0.log", "0.log.T1", "0.log.T2.gz"],
            &[],
            false,
            breaks(&[2]),
        );
        check(
            "after a restart, two rotations",
            &[file(3, "0.log", 9), file(2, "0.log.T2", 8)],
            None,
            &["0.log", "0.log.T2", "0.log.T1.gz"],
            &[],
            false,
            breaks(&[2, 3]),
        );
        check("its name is gone", &[file(2, "0.log", 9)], None, &["0.log", "0.log.T1.gz"], &[], false, breaks(&[2]));
        check(
            "an overflow makes events worthless",
            &[file(2, "0.log", 9)],
            None,
            &["0.log"],
            &once,
            false,
            breaks(&[2]),
        );
        check("rotated, then no name", &[file(2, "", 9)], Some("0.log.T1"), &dir, &once, true, breaks(&[2]));
        check(
            "first times order a break",
            &[file(1, "0.log", 3), file(2, "0.log.B", 2), file(3, "0.log.A", 1)],
            None,
            &[],
            &[],
            false,
            breaks(&[3, 2, 1]),
        );
    }
}
