//! May this caller read this namespace? Input: who a caller is, and the tenants of the configuration. Output: one pure decision.
//!
//! Denied unless allowed: a namespace is reached only through a tenant that the caller is a member of, that has the right, and one of whose
//! patterns matches the namespace.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{namespace::Namespace, topic::RuleMatch};

/// Who says who a caller is. Membership names the authority: the same subject from two issuers is two callers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Authority {
    /// A token that this installation minted.
    Local,
    /// An OpenID Connect issuer, exactly as its tokens write it.
    Issuer(String),
}

/// Who a caller is: an authority, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who vouches for the rest.
    pub authority: Authority,
    /// The subject, unique within the authority.
    pub subject: String,
    /// The groups that the authority names.
    pub groups: Vec<String>,
    /// The tenant that a local token was minted for; no other authority may name one.
    pub tenant: Option<String>,
}

/// What a tenant may do in its namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Read lines.
    Read,
    /// Write lines from outside.
    Write,
}

/// Who belongs to a tenant: anyone of these groups or subjects, as one issuer names them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Member {
    /// The issuer; it may be left out while there is exactly one.
    pub from: Option<String>,
    /// Groups, compared exactly.
    pub groups: Vec<String>,
    /// Subjects, compared exactly.
    pub subjects: Vec<String>,
}

/// What a tenant's account may use at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open streams.
    pub streams: Option<u32>,
    /// Bytes served in a second, written with its unit (`50MiB`).
    pub bytes_per_second: Option<String>,
}

/// A tenant as it is written in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Names or globs of namespaces.
    pub namespaces: Vec<String>,
    /// Who belongs to it, besides holders of tokens minted for it.
    #[serde(default)]
    pub members: Vec<Member>,
    /// What it may do; reading alone where nothing is said.
    #[serde(default = "read_only")]
    pub rights: Vec<Right>,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
}

fn read_only() -> Vec<Right> {
    vec![Right::Read]
}

/// What is wrong with a tenant, and at which key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct TenantFault {
    /// The key in the configuration, for example `tenants.payments.members[0].from`.
    pub key: String,
    /// What is wrong, as a clause.
    pub problem: String,
}

/// The outcome for one caller, right and namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Allowed, and by which tenant's pattern.
    Allowed {
        /// The tenant that allows it: the account that the request goes by.
        tenant: &'a str,
        /// The name or glob that matched.
        pattern: &'a str,
    },
    /// Not the caller's. It must look the same as a namespace that does not exist.
    Hidden,
}

/// The checked tenants of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Tenants(BTreeMap<String, Checked>);

#[derive(Clone, Debug)]
struct Checked {
    tenant: Tenant,
    members: Vec<(Authority, Member)>,
    patterns: Vec<(String, RuleMatch)>,
}

impl Tenants {
    /// Checks tenants against the issuers that are configured.
    ///
    /// # Errors
    /// All faults at once: bad globs, an issuer that is not configured, a `from` left out where there is not exactly one issuer, a member
    /// that names nobody, an empty right or namespace list.
    pub fn new(tenants: BTreeMap<String, Tenant>, issuers: &[String]) -> Result<Self, Vec<TenantFault>> {
        let mut faults = Vec::new();
        let mut checked = BTreeMap::new();
        for (name, tenant) in tenants {
            let mut fault =
                |at: String, problem: String| faults.push(TenantFault { key: format!("tenants.{name}.{at}"), problem });
            let mut patterns = Vec::new();
            for (place, text) in tenant.namespaces.iter().enumerate() {
                match RuleMatch::parse(text) {
                    Ok(one) => patterns.push((text.clone(), one)),
                    Err(problem) => fault(format!("namespaces[{place}]"), problem),
                }
            }
            let mut members = Vec::new();
            for (place, member) in tenant.members.iter().enumerate() {
                if member.groups.is_empty() && member.subjects.is_empty() {
                    fault(format!("members[{place}]"), "names no group and no subject".to_owned());
                }
                match authority_of(member, issuers) {
                    Ok(authority) => members.push((authority, member.clone())),
                    Err(problem) => fault(format!("members[{place}].from"), problem),
                }
            }
            for (list, empty) in [("namespaces", tenant.namespaces.is_empty()), ("rights", tenant.rights.is_empty())] {
                if empty {
                    fault(list.to_owned(), "is empty".to_owned());
                }
            }
            checked.insert(name, Checked { tenant, members, patterns });
        }
        if faults.is_empty() { Ok(Self(checked)) } else { Err(faults) }
    }

    /// The names of all tenants.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// A tenant by name.
    pub fn tenant(&self, name: &str) -> Option<&Tenant> {
        self.0.get(name).map(|checked| &checked.tenant)
    }

    /// The tenants that a caller belongs to, by name.
    pub fn of<'a>(&'a self, identity: &'a Identity) -> impl Iterator<Item = &'a str> {
        self.belonging(identity).map(|(name, _)| name)
    }

    /// Decides whether a caller has a right in a namespace. The only place where that is decided.
    pub fn decide(&self, identity: &Identity, right: Right, namespace: &Namespace) -> Decision<'_> {
        let allowed = self.belonging(identity).filter(|(_, checked)| checked.tenant.rights.contains(&right)).find_map(
            |(name, checked)| {
                let pattern = checked.patterns.iter().find(|(_, pattern)| pattern.matches(namespace.as_str()))?;
                Some((name, pattern.0.as_str()))
            },
        );
        allowed.map_or(Decision::Hidden, |(tenant, pattern)| Decision::Allowed { tenant, pattern })
    }

    /// The namespaces that a caller's tenants name without a glob: they may be read before any line was written.
    pub fn literal_namespaces(&self, identity: &Identity) -> Vec<Namespace> {
        let entries = self.belonging(identity).flat_map(|(_, checked)| &checked.patterns);
        entries.filter_map(|(text, _)| Namespace::parse(text).ok()).collect()
    }

    fn belonging<'a>(&'a self, identity: &Identity) -> impl Iterator<Item = (&'a str, &'a Checked)> {
        self.0
            .iter()
            .filter(|(name, checked)| checked.has(identity, name))
            .map(|(name, checked)| (name.as_str(), checked))
    }
}

impl Checked {
    fn has(&self, identity: &Identity, name: &str) -> bool {
        match identity.authority {
            Authority::Local => identity.tenant.as_deref() == Some(name),
            Authority::Issuer(_) => self.members.iter().any(|(authority, member)| {
                *authority == identity.authority
                    && (member.subjects.contains(&identity.subject)
                        || member.groups.iter().any(|group| identity.groups.contains(group)))
            }),
        }
    }
}

fn authority_of(member: &Member, issuers: &[String]) -> Result<Authority, String> {
    match (&member.from, issuers) {
        (Some(from), _) if issuers.contains(from) => Ok(Authority::Issuer(from.clone())),
        (Some(from), _) => Err(format!("`{from}` is not the `issuer` of any of auth.issuers")),
        (None, [only]) => Ok(Authority::Issuer(only.clone())),
        (None, []) => Err("needs an issuer, and auth.issuers has none".to_owned()),
        (None, _) => Err("must name one of auth.issuers, as there are several".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://issuer.example";
    const OTHER: &str = "https://other.example";

    fn tenant(namespaces: &[&str], members: Vec<Member>, rights: Vec<Right>) -> Tenant {
        let namespaces = namespaces.iter().map(|&n| n.to_owned()).collect();
        Tenant { namespaces, members, rights, limits: Limits::default() }
    }

    fn member(from: Option<&str>, groups: &[&str], subjects: &[&str]) -> Member {
        let own = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
        Member { from: from.map(str::to_owned), groups: own(groups), subjects: own(subjects) }
    }

    fn tenants() -> Tenants {
        let payments = tenant(
            &["payments", "payments-*"],
            vec![member(Some(ISSUER), &["team-payments"], &["alice"])],
            read_only(),
        );
        let shop = tenant(&["shop"], vec![member(Some(OTHER), &[], &["alice"])], vec![Right::Read, Right::Write]);
        Tenants::new(
            [("payments".to_owned(), payments), ("shop".to_owned(), shop)].into(),
            &[ISSUER.to_owned(), OTHER.to_owned()],
        )
        .unwrap()
    }

    fn by(issuer: &str, subject: &str, groups: &[&str]) -> Identity {
        let groups = groups.iter().map(|&g| g.to_owned()).collect();
        Identity { authority: Authority::Issuer(issuer.to_owned()), subject: subject.to_owned(), groups, tenant: None }
    }

    #[test]
    fn denied_unless_allowed() {
        let tenants = tenants();
        let local = |tenant: &str| Identity {
            authority: Authority::Local,
            subject: "alice".to_owned(),
            groups: vec!["team-payments".to_owned()],
            tenant: Some(tenant.to_owned()),
        };
        let claims_a_tenant = Identity { tenant: Some("shop".to_owned()), ..by(ISSUER, "mallory", &[]) };
        let check = |identity: &Identity, right, namespace: &str, expected: Option<&str>| {
            let decision = tenants.decide(identity, right, &Namespace::parse(namespace).unwrap());
            let tenant = if let Decision::Allowed { tenant, .. } = decision { Some(tenant) } else { None };
            assert_eq!(tenant, expected, "{identity:?} {right:?} {namespace}");
        };
        check(&by(ISSUER, "alice", &[]), Right::Read, "payments", Some("payments"));
        check(&by(ISSUER, "bob", &["x", "team-payments"]), Right::Read, "payments-eu", Some("payments"));
        check(&by(ISSUER, "alice", &[]), Right::Write, "payments", None);
        check(&by(ISSUER, "alice", &[]), Right::Read, "paymentsx", None);
        check(&by(ISSUER, "alice", &[]), Right::Read, "shop", None);
        check(&by(OTHER, "alice", &["team-payments"]), Right::Read, "payments", None);
        check(&by(OTHER, "alice", &[]), Right::Write, "shop", Some("shop"));
        check(&by("https://issuer.example/", "alice", &[]), Right::Read, "payments", None);
        check(&by(ISSUER, "", &[]), Right::Read, "payments", None);
        check(&by(ISSUER, "team-payments", &["alice"]), Right::Read, "payments", None);
        check(&local("payments"), Right::Read, "payments", Some("payments"));
        check(&local("payments"), Right::Read, "shop", None);
        check(&local("nobody"), Right::Read, "payments", None);
        check(&claims_a_tenant, Right::Read, "shop", None);
    }

    #[test]
    fn faults_name_their_key() {
        let issuers = [ISSUER.to_owned(), OTHER.to_owned()];
        let bad = tenant(
            &["Bad_Name", "x["],
            vec![
                member(None, &["g"], &[]),
                member(Some("https://no.example"), &["g"], &[]),
                member(Some(ISSUER), &[], &[]),
            ],
            vec![],
        );
        let faults = Tenants::new([("t".to_owned(), bad)].into(), &issuers).map(|_| ()).unwrap_err();
        let keys: Vec<_> = faults.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "tenants.t.namespaces[0]",
                "tenants.t.namespaces[1]",
                "tenants.t.members[0].from",
                "tenants.t.members[1].from",
                "tenants.t.members[2]",
                "tenants.t.rights"
            ]
        );
        let one = tenant(&["a"], vec![member(None, &["g"], &[])], read_only());
        assert!(Tenants::new([("t".to_owned(), one)].into(), &issuers[..1]).is_ok());
    }

    #[test]
    fn literal_names_are_known_before_any_line() {
        let names: Vec<_> =
            tenants().literal_namespaces(&by(ISSUER, "alice", &[])).iter().map(|n| n.to_string()).collect();
        assert_eq!(names, ["payments"]);
    }
}
