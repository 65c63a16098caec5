//! `fairlead.source`: which run of physical lines a number counts.

use std::{fmt, str::FromStr};

/// `pod uid/container/restart count/epoch/fd`: one numbered run of physical lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The pod's UID as the kubelet's path has it.
    pub pod_uid: String,
    /// The container's name.
    pub container: String,
    /// How often the container was restarted.
    pub restart: u32,
    /// A short random text; another one wherever the run is broken.
    pub epoch: String,
    /// 1 for stdout, 2 for stderr, 0 for lines that cannot be parsed.
    pub fd: u8,
}

/// A text that is not a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a source is pod uid/container/restart count/epoch/fd")]
pub struct SourceError;

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}/{}", self.pod_uid, self.container, self.restart, self.epoch, self.fd)
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let parts: Vec<_> = text.split('/').collect();
        let [pod_uid, container, restart, epoch, fd] = parts.as_slice() else { return Err(SourceError) };
        if pod_uid.is_empty() || container.is_empty() || epoch.is_empty() {
            return Err(SourceError);
        }
        let fd = fd.parse().ok().filter(|fd| *fd <= 2).ok_or(SourceError)?;
        let restart = restart.parse().map_err(|_| SourceError)?;
        Ok(Self { pod_uid: (*pod_uid).into(), container: (*container).into(), restart, epoch: (*epoch).into(), fd })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let text = "0b1/api/0/k3v9/1";
        assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        for bad in ["", "a/b/c", "0b1/api/0/k3v9/3", "0b1/api/x/k3v9/1", "/api/0/k/1", "0b1/api/0/k/1/2"] {
            assert_eq!(bad.parse::<Source>(), Err(SourceError), "{bad}");
        }
    }
}
