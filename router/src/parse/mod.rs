//! Bytes of a physical line into its parts. Input: one line without its newline. Output: borrowed parts; nothing is copied.

pub mod cri;
pub mod partial;
