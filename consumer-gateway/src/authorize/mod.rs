//! What a caller may do: [`Caller`] + right + namespace -> the contract's decision.
//!
//! The decision itself is `fairlead_contract::tenant`; this module adds only what a request needs around it: which namespaces to list, by
//! which account it goes, and that account's limits.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_contract::namespace::Namespace;
use fairlead_contract::tenant::{Decision, Right, Tenants};

use crate::authenticate::Caller;

/// What one account may use at once, on each replica. `None`: the gateway's own default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccountLimits {
    /// Open streams.
    pub streams: Option<u32>,
    /// Bytes of response bodies each second.
    pub bytes_per_second: Option<u64>,
}

/// Answers every question about rights. One for the process, shared by all requests.
#[derive(Debug, Clone)]
pub struct Authorizer {
    tenants: Tenants,
    limits: BTreeMap<String, AccountLimits>,
}

impl Authorizer {
    /// Joins the checked tenants with their limits, by tenant name.
    pub fn new(tenants: Tenants, limits: BTreeMap<String, AccountLimits>) -> Authorizer {
        Authorizer { tenants, limits }
    }

    /// Decides on one namespace. `Allowed` carries the tenant, which is the account of that request.
    pub fn decide(&self, caller: &Caller, right: Right, namespace: &Namespace) -> Decision<'_> {
        self.tenants.decide(&caller.identity, right, namespace)
    }

    /// The namespaces that the caller may read: those of `existing`, and those its tenants name in full, whether they exist yet or not.
    /// Sorted, each once.
    pub fn namespaces(&self, caller: &Caller, existing: &[Namespace]) -> Vec<Namespace> {
        let named = self.tenants.literal_namespaces(&caller.identity);
        let candidates: BTreeSet<&Namespace> = existing.iter().chain(&named).collect();
        let readable = |namespace: &&Namespace| self.decide(caller, Right::Read, namespace) != Decision::Hidden;
        candidates.into_iter().filter(readable).cloned().collect()
    }

    /// The tenants that the caller belongs to, by name.
    pub fn tenants<'a>(&'a self, caller: &'a Caller) -> Vec<&'a str> {
        self.tenants.of(&caller.identity).collect()
    }

    /// The account of a request that names no namespace: the caller's first tenant by name, or an empty text for a caller without one.
    pub fn account(&self, caller: &Caller) -> String {
        self.tenants.of(&caller.identity).next().unwrap_or_default().to_owned()
    }

    /// The limits of [`Self::account`].
    pub fn limits(&self, caller: &Caller) -> AccountLimits {
        self.limits_of(&self.account(caller))
    }

    /// The limits of a tenant.
    pub fn limits_of(&self, tenant: &str) -> AccountLimits {
        self.limits.get(tenant).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use fairlead_contract::tenant::{Authority, Identity, Member, Tenant};

    use super::*;

    const ISSUER: &str = "https://issuer.example";

    fn authorizer() -> Authorizer {
        let tenant = |namespaces: &[&str], group: &str, rights: &[Right]| Tenant {
            namespaces: namespaces.iter().map(|&name| name.to_owned()).collect(),
            members: vec![Member { from: None, groups: vec![group.to_owned()], subjects: vec![] }],
            rights: rights.to_vec(),
            limits: Default::default(),
        };
        let tenants = BTreeMap::from([
            ("payments".to_owned(), tenant(&["payments", "payments-*"], "pay", &[Right::Read])),
            ("shop".to_owned(), tenant(&["shop"], "sell", &[Right::Read])),
            ("feeder".to_owned(), tenant(&["feed"], "pay", &[Right::Write])),
        ]);
        let tenants = Tenants::new(tenants, &[ISSUER.to_owned()]).unwrap();
        let limits =
            BTreeMap::from([("shop".to_owned(), AccountLimits { streams: Some(3), bytes_per_second: Some(9) })]);
        Authorizer::new(tenants, limits)
    }

    fn caller(groups: &[&str]) -> Caller {
        Caller {
            identity: Identity {
                authority: Authority::Issuer(ISSUER.to_owned()),
                subject: "someone".to_owned(),
                groups: groups.iter().map(|&group| group.to_owned()).collect(),
                tenant: None,
            },
            expires: None,
            token_id: None,
        }
    }

    fn names(all: &[&str]) -> Vec<Namespace> {
        all.iter().map(|name| Namespace::parse(name).unwrap()).collect()
    }

    #[test]
    fn lists_what_may_be_read_and_nothing_else() {
        let existing = names(&["shop", "payments-eu", "kube-system", "payments-eu", "paymentsx", "feed"]);
        let check = |groups: &[&str], expected: &[&str]| {
            assert_eq!(authorizer().namespaces(&caller(groups), &existing), names(expected), "{groups:?}");
        };
        check(&["pay"], &["payments", "payments-eu"]);
        check(&["sell"], &["shop"]);
        check(&["sell", "pay"], &["payments", "payments-eu", "shop"]);
        check(&["other"], &[]);
        check(&[], &[]);
    }

    #[test]
    fn accounts_and_limits_go_by_tenant() {
        let check = |groups: &[&str], account: &str, streams: Option<u32>| {
            let caller = caller(groups);
            assert_eq!(authorizer().account(&caller), account, "{groups:?}");
            assert_eq!(authorizer().limits(&caller).streams, streams, "{groups:?}");
        };
        check(&["sell"], "shop", Some(3));
        check(&["pay"], "feeder", None);
        check(&["sell", "pay"], "feeder", None);
        check(&[], "", None);
        assert_eq!(authorizer().tenants(&caller(&["pay", "sell"])), ["feeder", "payments", "shop"]);
    }
}
