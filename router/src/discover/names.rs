//! What the kubelet's names say.

use fairlead_contract::namespace::Namespace;

/// A container's log folder: `<pods folder>/<pod folder>/<container>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerDir {
    /// `<namespace>_<pod>_<uid>`.
    pub pod_folder: String,
    /// The container's name.
    pub container: String,
}

/// What the name of a log file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogName {
    /// How often the container had been restarted.
    pub restart: u32,
    /// Whether the runtime writes it, it was rotated, or it was compressed after that.
    pub kind: LogKind,
}

/// The three lives of a log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// `N.log`.
    Live,
    /// `N.log.<suffix>`.
    Rotated {
        /// What the rotation put behind the name.
        suffix: String,
    },
    /// `N.log.<suffix>.gz`.
    Compressed {
        /// What the rotation put behind the name, without `.gz`.
        suffix: String,
    },
}

const NAME_BYTES_MAX: usize = 253;

/// Parses `<namespace>_<pod>_<uid>`; `None` where it is none of the kubelet's.
pub fn parse_pod_folder(folder: &str) -> Option<(Namespace, &str, &str)> {
    let (namespace, rest) = folder.split_once('_')?;
    let (pod, uid) = rest.rsplit_once('_')?;
    let plain = |text: &str| !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(is_name_byte);
    (plain(pod) && plain(uid)).then_some(())?;
    Some((Namespace::parse(namespace).ok()?, pod, uid))
}

/// Whether a folder below a pod's may be a container's.
pub fn is_container_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_name_byte) && !name.starts_with('.')
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.'
}

/// Parses `N.log` and `N.log.<suffix>`; `None` for everything else, `.tmp` files included.
pub fn parse_log_name(name: &str) -> Option<LogName> {
    let (number, rest) = name.split_once(".log")?;
    if number.is_empty()
        || !number.bytes().all(|byte| byte.is_ascii_digit())
        || (number.len() > 1 && number.starts_with('0'))
    {
        return None;
    }
    let restart = number.parse().ok()?;
    let kind = match rest.strip_prefix('.') {
        None if rest.is_empty() => LogKind::Live,
        None | Some("") => return None,
        Some(suffix) if suffix == "tmp" || suffix.ends_with(".tmp") => return None,
        Some("gz") => LogKind::Compressed { suffix: String::new() },
        Some(suffix) => match suffix.strip_suffix(".gz") {
            Some(suffix) => LogKind::Compressed { suffix: suffix.to_owned() },
            None => LogKind::Rotated { suffix: suffix.to_owned() },
        },
    };
    Some(LogName { restart, kind })
}

impl LogName {
    /// Whether the runtime writes this file.
    pub fn is_live(&self) -> bool {
        self.kind == LogKind::Live
    }

    /// Whether the file's content is compressed.
    pub fn is_compressed(&self) -> bool {
        matches!(self.kind, LogKind::Compressed { .. })
    }

    /// What the rotation put behind the name; `None` for the live file.
    pub fn suffix(&self) -> Option<&str> {
        match &self.kind {
            LogKind::Live => None,
            LogKind::Rotated { suffix } | LogKind::Compressed { suffix } => Some(suffix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_folders() {
        let check = |folder: &str, expected: Option<(&str, &str, &str)>| {
            let parsed = parse_pod_folder(folder);
            let parsed = parsed.as_ref().map(|(namespace, pod, uid)| (namespace.as_str(), *pod, *uid));
            assert_eq!(parsed, expected, "{folder}");
        };
        check("payments_api-7d9f4-x2x_0b1f6c9e-54f4", Some(("payments", "api-7d9f4-x2x", "0b1f6c9e-54f4")));
        check(
            "kube-system_etcd.node-1_0123456789abcdef0123456789abcdef",
            Some(("kube-system", "etcd.node-1", "0123456789abcdef0123456789abcdef")),
        );
        for bad in [
            "payments",
            "payments_api",
            "Payments_api_uid",
            "_api_uid",
            "payments__uid",
            "payments_api_",
            "a_b_c_d",
            "a_b/../c_d",
            "a_b c_d",
            "a_\"_d",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn log_names() {
        let live = |restart| Some(LogName { restart, kind: LogKind::Live });
        let rotated = |suffix: &str| Some(LogName { restart: 0, kind: LogKind::Rotated { suffix: suffix.to_owned() } });
        let compressed =
            |suffix: &str| Some(LogName { restart: 0, kind: LogKind::Compressed { suffix: suffix.to_owned() } });
        let check = |name: &str, expected: Option<LogName>| assert_eq!(parse_log_name(name), expected, "{name}");
        check("0.log", live(0));
        check("17.log", live(17));
        check("0.log.20261120-100000", rotated("20261120-100000"));
        check("0.log.1", rotated("1"));
        check("0.log.20261120-100000.gz", compressed("20261120-100000"));
        check("0.log.gz", compressed(""));
        for bad in [
            "0.log.tmp",
            "0.log.20261120-100000.tmp",
            "0.log.",
            "0.logx",
            "x.log",
            ".log",
            "00.log",
            "-1.log",
            "0.txt",
            "99999999999.log",
            "0",
        ] {
            check(bad, None);
        }
    }
}
