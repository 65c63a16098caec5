//! What would happen to the lines of this node: which topic they go to, and what that topic does to them. Asks, and changes nothing.

mod hurts;

pub use hurts::{Harm, Needs, TopicConfig, Warning, hurts};
