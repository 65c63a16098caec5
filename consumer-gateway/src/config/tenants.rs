//! The block `tenants`: who may read what, and how much at once.

use std::collections::BTreeMap;

use fairlead_contract::tenant::{Limits, Member, Right, Tenant, Tenants};
use fairlead_service_kit::config_source::Reader;

use crate::authorize::AccountLimits;

/// Longest name of a tenant, in bytes: it becomes a metric's label and a part of names in Kafka.
const NAME_BYTES_MAX: usize = 63;

pub(super) fn read(reader: &mut Reader, issuers: &[String]) -> (Option<Tenants>, BTreeMap<String, AccountLimits>) {
    let names = reader.names("tenants");
    if names.is_empty() && !reader.has("tenants_file") {
        reader.fault("tenants", "names no tenant, so nobody could ever read: set tenants or tenants_file");
    }
    let mut tenants = BTreeMap::new();
    let mut limits = BTreeMap::new();
    for name in names {
        let key = format!("tenants.{name}");
        if !is_name(&name) {
            reader.fault(
                &key,
                "a tenant's name has 1 to 63 letters, digits, `-`, `_` or `.`, and a letter or digit first",
            );
        }
        limits.insert(name.clone(), account_limits(reader, &key));
        tenants.insert(name, tenant(reader, &key));
    }
    match Tenants::new(tenants, issuers) {
        Ok(tenants) => (Some(tenants), limits),
        Err(faults) => {
            for fault in faults {
                reader.fault(&fault.key, fault.problem);
            }
            (None, limits)
        }
    }
}

fn tenant(reader: &mut Reader, key: &str) -> Tenant {
    let namespaces = reader.texts(&format!("{key}.namespaces")).unwrap_or_default();
    let members = (0..reader.len(&format!("{key}.members")))
        .map(|index| member(reader, &format!("{key}.members[{index}]")))
        .collect();
    Tenant { namespaces, members, rights: rights(reader, &format!("{key}.rights")), limits: Limits::default() }
}

fn member(reader: &mut Reader, key: &str) -> Member {
    Member {
        from: reader.text(&format!("{key}.from")),
        groups: reader.texts(&format!("{key}.groups")).unwrap_or_default(),
        subjects: reader.texts(&format!("{key}.subjects")).unwrap_or_default(),
    }
}

/// Absent: reading alone. A faulty entry is a fault and nothing more.
fn rights(reader: &mut Reader, key: &str) -> Vec<Right> {
    if !reader.has(key) {
        return vec![Right::Read];
    }
    let words = [("read", Right::Read), ("write", Right::Write)];
    (0..reader.len(key)).map(|index| reader.choice(&format!("{key}[{index}]"), &words).unwrap_or(Right::Read)).collect()
}

fn account_limits(reader: &mut Reader, key: &str) -> AccountLimits {
    AccountLimits {
        streams: reader.integer(&format!("{key}.limits.streams"), 1..=1_000_000).and_then(|n| u32::try_from(n).ok()),
        bytes_per_second: reader.bytes(&format!("{key}.limits.bytes_per_second"), 1024..=1 << 40),
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= NAME_BYTES_MAX
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
