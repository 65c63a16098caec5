//! In which order Docker's files stand. Each rotation gives the live file the number 1 and every rotated one the next higher number, so a file's number
//! says how many files came after it: where the last known file has a number, its successors are counted.

use std::collections::BTreeMap;

use super::{NewFile, Order};
use crate::discover::{NameEvent, parse_log_name};

/// Orders the new files of one of Docker's containers. The names must be those of one instant.
///
/// `last` is the number of the last known file, if it still has a name. `events` are those since the folder was last looked at, `gapless` says that
/// none is missing.
pub fn shifted(new: &[NewFile], last: Option<u32>, restart: u32, events: &[NameEvent], gapless: bool) -> Order {
    let by_number = by_number(new);
    let numbers: Option<Vec<_>> = by_number.iter().map(|file| rotations(file.name.as_deref()?)).collect();
    let all_that_came = numbers.zip(last).is_some_and(|(found, last)| {
        // The live file may be missing for a moment.
        let newest = u32::from(found.last() != Some(&0));
        found.into_iter().rev().eq(newest..last)
    });
    if all_that_came {
        return Order::Follows(links(&by_number));
    }
    match gapless.then(|| by_events(new, restart, events)).flatten() {
        Some(links) => Order::Follows(links),
        None => Order::Breaks(links(&by_number)),
    }
}

/// How many files came after the one with this name; 0: the live one.
pub fn rotations(name: &str) -> Option<u32> {
    let name = parse_log_name(name)?;
    name.suffix().map_or(Some(0), |suffix| suffix.parse().ok())
}

/// The oldest first; those without a name are the oldest.
fn by_number(files: &[NewFile]) -> Vec<&NewFile> {
    let mut sorted: Vec<_> = files.iter().collect();
    let number = |file: &NewFile| file.name.as_deref().and_then(rotations).unwrap_or(u32::MAX);
    sorted.sort_by_key(|file| (std::cmp::Reverse(number(file)), file.first_time, file.link));
    sorted
}

fn links(files: &[&NewFile]) -> Vec<u32> {
    files.iter().map(|file| file.link).collect()
}

/// Every creation of the live name is among the events, and each of those files is held: their order is that of their creation.
fn by_events(new: &[NewFile], restart: u32, events: &[NameEvent]) -> Option<Vec<u32>> {
    let live = format!("{restart}.log");
    let mut created = 0_usize;
    // Which of the created files has which name, and which is on its way to another one.
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    let mut moving = BTreeMap::new();
    for event in events {
        match event {
            NameEvent::MovedFrom(name, cookie) => {
                moving.insert(*cookie, named.remove(name.as_str()));
            }
            NameEvent::MovedTo(name, cookie) if moving.contains_key(cookie) => {
                named.remove(name.as_str());
                if let Some(which) = moving.remove(cookie).flatten() {
                    named.insert(name, which);
                }
            }
            NameEvent::Created(name) | NameEvent::MovedTo(name, _) if *name == live => {
                named.insert(name, created);
                created += 1;
            }
            NameEvent::Created(name) | NameEvent::MovedTo(name, _) | NameEvent::Deleted(name) => {
                named.remove(name.as_str());
            }
        }
    }
    if created != new.len() {
        return None;
    }
    let placed = new.iter().map(|file| Some((*named.get(file.name.as_deref()?)?, file.link)));
    let mut placed = placed.collect::<Option<Vec<_>>>()?;
    placed.sort_unstable();
    Some(placed.into_iter().map(|(_, link)| link).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(link: u32, number: Option<&str>) -> NewFile {
        NewFile { link, name: number.map(|number| format!("0.log{number}")), first_time: None }
    }

    fn moved(from: &str, to: &str, cookie: u32) -> Vec<NameEvent> {
        let name = |number: &str| format!("0.log{number}");
        vec![NameEvent::MovedFrom(name(from), cookie), NameEvent::MovedTo(name(to), cookie)]
    }

    fn created() -> Vec<NameEvent> {
        vec![NameEvent::Created("0.log".to_owned())]
    }

    fn deleted(number: &str) -> Vec<NameEvent> {
        vec![NameEvent::Deleted(format!("0.log{number}"))]
    }

    #[test]
    fn what_is_shown_and_what_is_not() {
        let check = |case: &str, new: &[NewFile], last: Option<u32>, events: &[Vec<NameEvent>], expected: Order| {
            assert_eq!(shifted(new, last, 0, &events.concat(), true), expected, "{case}");
            if last.is_some() {
                let order = shifted(new, last, 0, &events.concat(), false);
                assert_eq!(order, expected, "{case}: what is counted needs no events");
            }
        };
        let follows = |links: &[u32]| Order::Follows(links.to_vec());
        let breaks = |links: &[u32]| Order::Breaks(links.to_vec());
        let live = || file(9, Some(""));

        check("one rotation", &[live()], Some(1), &[], follows(&[9]));
        check("three", &[live(), file(4, Some(".2")), file(5, Some(".1"))], Some(3), &[], follows(&[4, 5, 9]));
        check("the live file is not there yet", &[file(4, Some(".1"))], Some(2), &[], follows(&[4]));
        check("one came as its compressed file", &[live(), file(4, Some(".1.gz"))], Some(2), &[], follows(&[4, 9]));
        check("one between is missing", &[live(), file(4, Some(".1"))], Some(3), &[], breaks(&[4, 9]));
        check("the newest rotated one is missing", &[live(), file(4, Some(".2"))], Some(3), &[], breaks(&[4, 9]));
        check("one is older", &[live(), file(4, Some(".2"))], Some(1), &[], breaks(&[4, 9]));
        check("one has no name", &[live(), file(4, None)], Some(2), &[], breaks(&[4, 9]));
        check("two have one number", &[file(3, Some(".1.gz")), file(4, Some(".1"))], Some(2), &[], breaks(&[3, 4]));
        check("the last is the live one still", &[file(4, Some(".1"))], Some(0), &[], breaks(&[4]));

        let once = [moved(".1", ".2", 1), moved("", ".1", 2), created()].concat();
        let again = [moved(".1", ".2", 3), moved("", ".1", 4), created()].concat();
        check("the last is gone, one rotation seen", &[live()], None, &[once.clone()], follows(&[9]));
        check("two seen", &[live(), file(4, Some(".1"))], None, &[once.clone(), again.clone()], follows(&[4, 9]));
        check("two seen, one held", &[live()], None, &[once.clone(), again.clone()], breaks(&[9]));
        check("unlinked and made anew", &[live()], None, &[deleted(""), created()], follows(&[9]));
        check("twice", &[live()], None, &[deleted(""), created(), deleted(""), created()], breaks(&[9]));
        check("nothing seen", &[live()], None, &[], breaks(&[9]));
        let compressed = [vec![NameEvent::Created("0.log.1.gz".to_owned())], deleted(".1")].concat();
        check("the last was compressed", &[live()], None, &[once.clone(), compressed.clone()], follows(&[9]));
        check(
            "a new one was compressed: its raw file has no name",
            &[live(), file(4, None)],
            None,
            &[once.clone(), again, compressed],
            breaks(&[4, 9]),
        );
        check("another file has its name", &[live()], None, &[once, moved(".x", "", 8)], breaks(&[9]));
        assert_eq!(shifted(&[live()], None, 0, &[deleted(""), created()].concat(), false), breaks(&[9]));
    }
}
