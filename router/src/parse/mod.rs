//! Bytes of a physical line into its parts. Input: one line without its newline. Output: borrowed parts; content is copied only where Docker's
//! escapes must be undone.

pub mod cri;
pub mod docker;
pub mod partial;

use fairlead_contract::record::{Stream, Timestamp};

/// What decides which lines parse, and what they say. It is chosen by how a file is reached, never by what stands in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grammar {
    /// Ordinary files in the pods folder: the CRI format.
    #[default]
    Cri,
    /// What a link in the pods folder leads to: Docker's `json-file`.
    Docker,
}

/// The parts of a physical line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// The runtime's stamp.
    pub time: Timestamp<'a>,
    /// Where the application wrote it.
    pub stream: Stream,
    /// Whether more of the same line follows.
    pub partial: bool,
    /// The application's bytes.
    pub content: &'a [u8],
}

impl Grammar {
    /// The number that is stored with every epoch. Whatever changes which lines parse takes a number that no grammar had before: another one begins
    /// a new epoch.
    pub fn version(self) -> u32 {
        match self {
            Self::Cri => 1,
            Self::Docker => 2,
        }
    }

    /// The grammar of a stored number; `None`: another program's.
    pub fn of_version(version: u32) -> Option<Self> {
        [Self::Cri, Self::Docker].into_iter().find(|grammar| grammar.version() == version)
    }

    /// The name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cri => "CRI",
            Self::Docker => "Docker's json-file",
        }
    }

    /// How many bytes at the beginning of a line tell whether it parses, and its stream.
    pub fn telling_bytes(self) -> usize {
        match self {
            Self::Cri => cri::HEAD_BYTES_MAX,
            // One more tells that a line is too long.
            Self::Docker => docker::LINE_BYTES_MAX + 1,
        }
    }

    /// Parses one physical line without its newline, or what of its beginning tells; `None` for a bad line. `scratch` is used where content cannot
    /// be borrowed.
    pub fn parse<'a>(self, line: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<LogLine<'a>> {
        match self {
            Self::Cri => cri::parse(line),
            Self::Docker => docker::parse(line, scratch),
        }
    }
}
