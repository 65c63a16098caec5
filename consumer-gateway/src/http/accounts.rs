//! What each account has open, and how fast it is served. Input: an account and its limits. Output: a place, or that there is none.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    authorize::AccountLimits,
    read::{Share, pace::Pace},
};

/// What kind of stream; each has its own places, so that follows do not keep anyone from reading a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It goes on until someone ends it.
    Follow,
    /// It ends by itself.
    Range,
    /// A list of namespaces.
    Listing,
}

/// What an account has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Use {
    /// Follows.
    pub follows: u32,
    /// Ranges.
    pub ranges: u32,
}

/// All accounts that have something open, or have had.
#[derive(Debug)]
pub struct Accounts {
    readers_each: usize,
    accounts: Mutex<HashMap<String, Arc<Account>>>,
}

#[derive(Debug)]
struct Account {
    follows: AtomicU32,
    ranges: AtomicU32,
    listings: AtomicU32,
    share: Share,
    pace: Option<Arc<Pace>>,
}

/// One open stream of an account; given back when dropped.
#[derive(Debug)]
pub struct Place {
    account: Arc<Account>,
    kind: Kind,
}

impl Kind {
    /// The label in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Follow => "follow",
            Self::Range => "range",
            Self::Listing => "listing",
        }
    }
}

impl Accounts {
    /// Begins without an account. Each may use so many of the history readers' places.
    pub fn new(readers_each: usize) -> Self {
        Self { readers_each, accounts: Mutex::default() }
    }

    /// Takes a place for one stream; `None` when the account has `limit` of this kind open.
    pub fn open(&self, account: &str, kind: Kind, limit: u32, limits: &AccountLimits) -> Option<Place> {
        let account = {
            let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Account::new(limits, self.readers_each));
            accounts.entry(account.to_owned()).or_insert_with(new).clone()
        };
        let take = |open: u32| (open < limit).then_some(open + 1);
        account.open(kind).fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Place { account, kind })
    }

    /// What an account has open.
    pub fn in_use(&self, account: &str) -> Use {
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let open = |kind| accounts.get(account).map_or(0, |account| account.open(kind).load(Ordering::Relaxed));
        Use { follows: open(Kind::Follow), ranges: open(Kind::Range) }
    }
}

impl Account {
    fn new(limits: &AccountLimits, readers: usize) -> Self {
        let pace = limits.bytes_per_second.map(|rate| Arc::new(Pace::new(rate)));
        Self {
            follows: AtomicU32::new(0),
            ranges: AtomicU32::new(0),
            listings: AtomicU32::new(0),
            share: Share::new(readers),
            pace,
        }
    }

    fn open(&self, kind: Kind) -> &AtomicU32 {
        match kind {
            Kind::Follow => &self.follows,
            Kind::Range => &self.ranges,
            Kind::Listing => &self.listings,
        }
    }
}

impl Place {
    /// The account's part of what all share.
    pub fn share(&self) -> Share {
        self.account.share.clone()
    }

    /// How fast the account is served, where it has a limit.
    pub fn pace(&self) -> Option<Arc<Pace>> {
        self.account.pace.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.account.open(self.kind).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_account_and_kind() {
        let accounts = Accounts::new(8);
        let limits = AccountLimits::default();
        let open = |account: &str, kind| accounts.open(account, kind, 2, &limits);
        let first = open("a", Kind::Follow);
        let second = open("a", Kind::Follow);
        assert!(first.is_some() && second.is_some());
        assert!(open("a", Kind::Follow).is_none());
        assert!(open("a", Kind::Range).is_some(), "given back at once");
        assert!(open("b", Kind::Follow).is_some());
        assert_eq!(accounts.in_use("a"), Use { follows: 2, ranges: 0 });
        drop(first);
        assert!(open("a", Kind::Follow).is_some());
        assert_eq!(accounts.in_use("nobody"), Use { follows: 0, ranges: 0 });
        assert!(accounts.open("c", Kind::Range, 0, &limits).is_none());
    }

    #[test]
    fn one_account_has_one_pace_and_one_share_of_the_readers() {
        let accounts = Accounts::new(0);
        let limits = AccountLimits { streams: None, bytes_per_second: Some(10) };
        let (a, b) = (
            accounts.open("a", Kind::Follow, 9, &limits).unwrap(),
            accounts.open("a", Kind::Range, 9, &limits).unwrap(),
        );
        assert!(Arc::ptr_eq(&a.pace().unwrap(), &b.pace().unwrap()));
        assert!(Arc::ptr_eq(&a.share().readers, &b.share().readers));
        assert_eq!(a.share().readers.available_permits(), 1, "no account is without a place");
    }
}
