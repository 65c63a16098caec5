//! What is to be said of one source. Input: which of its numbers are accounted for, and what it said of its end. Output: a [`Judgement`]. Pure.

use serde::Serialize;

use super::ranges::{Hole, Mark, Ranges};

/// What is to be said of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Accounted for from 0 to its `end_of_stream`.
    Complete,
    /// Accounted for from 0 to its latest number; it has not ended, or not said so.
    Open,
    /// Accounted for, but the topic begins later than the source does.
    Head,
    /// Numbers are missing.
    Hole,
}

impl Verdict {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Complete, Self::Open, Self::Head, Self::Hole];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Open => "open",
            Self::Head => "head",
            Self::Hole => "hole",
        }
    }
}

/// What is known of one source.
#[derive(Debug)]
pub struct Evidence<'a, M> {
    /// Numbers that records cover or leave out, or that notices announce.
    pub accounted: &'a Ranges<M>,
    /// The highest total that an `end_of_stream` stated.
    pub end: Option<u64>,
    /// The highest number at which a notice of unknown size says that the run ends.
    pub broken_off: Option<u64>,
    /// Whether the topic begins later than offset 0 where the source lies, so that retention may have taken its beginning.
    pub begins_later: bool,
}

/// What is to be said of one source, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement<M> {
    /// The word.
    pub verdict: Verdict,
    /// What is missing at the beginning because the topic begins later.
    pub head: Option<Hole<M>>,
    /// What is missing otherwise.
    pub holes: Vec<Hole<M>>,
    /// Whether the end that the source stated holds: no later number came.
    pub ended: bool,
    /// Whether it ended in a notice of unknown size: how many lines are lost there is not known.
    pub broken_off: bool,
}

/// Judges one source. The order in which its records came, and how often, does not matter.
pub fn judge<M: Mark>(evidence: &Evidence<'_, M>) -> Judgement<M> {
    let reached = evidence.accounted.end();
    // A number beyond what was stated takes the statement back.
    let end = evidence.end.filter(|end| *end >= reached);
    let broken_off = evidence.broken_off.filter(|at| *at >= reached);
    let to = reached.max(end.unwrap_or(0)).max(broken_off.unwrap_or(0));
    let mut holes = evidence.accounted.holes(to);
    let at_head = evidence.begins_later && holes.first().is_some_and(|hole| hole.from == 0);
    let head = at_head.then(|| holes.remove(0));
    let ended = end == Some(to);
    let verdict = match (holes.is_empty(), &head) {
        (false, _) => Verdict::Hole,
        (true, Some(_)) => Verdict::Head,
        (true, None) if ended && broken_off.is_none() => Verdict::Complete,
        (true, None) => Verdict::Open,
    };
    Judgement { verdict, head, holes, ended, broken_off: broken_off.is_some() }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Case<'a> = (&'a [(u64, u64)], Option<u64>, Option<u64>, bool);

    fn judged((added, end, broken_off, begins_later): Case<'_>) -> Judgement<()> {
        let mut accounted = Ranges::default();
        for &(start, end) in added {
            accounted.add(start, end, ());
        }
        judge(&Evidence { accounted: &accounted, end, broken_off, begins_later })
    }

    #[test]
    fn each_source_has_its_verdict() {
        let check = |case: Case<'_>, verdict: Verdict, holes: &[(u64, u64)], head: Option<u64>| {
            let found = judged(case);
            assert_eq!(found.verdict, verdict, "{case:?}: {found:?}");
            assert_eq!(found.holes.iter().map(|hole| (hole.from, hole.to)).collect::<Vec<_>>(), holes, "{case:?}");
            assert_eq!(found.head.map(|hole| hole.to), head, "{case:?}");
        };
        // From 0 to the stated end, in any order, once or often.
        check((&[(0, 3)], Some(3), None, false), Verdict::Complete, &[], None);
        check((&[(2, 3), (0, 1), (1, 2), (0, 3)], Some(3), None, false), Verdict::Complete, &[], None);
        check((&[], Some(0), None, false), Verdict::Complete, &[], None);
        // R2 R1 R2: a later number first is no hole.
        check((&[(1, 2), (0, 1), (1, 2)], None, None, false), Verdict::Open, &[], None);
        check((&[(0, 3)], None, None, false), Verdict::Open, &[], None);
        check((&[], None, None, false), Verdict::Open, &[], None);
        // An end that a later record took back, and one stated anew.
        check((&[(0, 5)], Some(3), None, false), Verdict::Open, &[], None);
        check((&[(0, 5)], Some(5), None, false), Verdict::Complete, &[], None);
        // Holes: in the middle, before the stated end, at the beginning of a topic that begins with the first offset.
        check((&[(0, 1), (2, 3)], None, None, false), Verdict::Hole, &[(1, 2)], None);
        check((&[(0, 1), (2, 3)], Some(3), None, false), Verdict::Hole, &[(1, 2)], None);
        check((&[(0, 3)], Some(4), None, false), Verdict::Hole, &[(3, 4)], None);
        check((&[(2, 3)], Some(3), None, false), Verdict::Hole, &[(0, 2)], None);
        check((&[], Some(3), None, false), Verdict::Hole, &[(0, 3)], None);
        check((&[(1, 2), (4, 5)], Some(6), None, false), Verdict::Hole, &[(0, 1), (2, 4), (5, 6)], None);
        // The topic begins later: only what is missing at the beginning is explained by it.
        check((&[(2, 3)], None, None, true), Verdict::Head, &[], Some(2));
        check((&[(2, 3)], Some(3), None, true), Verdict::Head, &[], Some(2));
        check((&[], Some(3), None, true), Verdict::Head, &[], Some(3));
        check((&[(2, 3), (4, 5)], None, None, true), Verdict::Hole, &[(3, 4)], Some(2));
        check((&[(0, 1), (2, 3)], None, None, true), Verdict::Hole, &[(1, 2)], None);
        check((&[(2, 3)], Some(4), None, true), Verdict::Hole, &[(3, 4)], Some(2));
        // Lines are lost after number 3, nobody knows how many: accounted for, but not complete.
        check((&[(0, 3)], None, Some(3), false), Verdict::Open, &[], None);
        check((&[(0, 3)], Some(3), Some(3), false), Verdict::Open, &[], None);
        check((&[(0, 3)], None, Some(5), false), Verdict::Hole, &[(3, 5)], None);
        check((&[(0, 5)], Some(5), Some(3), false), Verdict::Complete, &[], None);
    }

    #[test]
    fn an_end_holds_until_a_later_number_comes() {
        assert!(judged((&[(0, 3)], Some(3), None, false)).ended);
        assert!(!judged((&[(0, 4)], Some(3), None, false)).ended);
        assert!(!judged((&[(0, 4)], None, None, false)).ended);
        assert!(judged((&[(0, 3)], None, Some(3), false)).broken_off);
        assert!(!judged((&[(0, 4)], None, Some(3), false)).broken_off);
    }
}
