//! How much memory a router may have, and how much it had.

use std::fs;

use regex::Regex;

/// What a router has apart from records in flight: its code and librdkafka's, what is known of a few hundred containers,
/// one read of 256 KiB, the line that is being joined.
const BASE_BYTES: u64 = 32 << 20;
/// A record in flight is there in librdkafka's queue, with its bookkeeping; its batch once more, compressed, until it is
/// acknowledged; and what the allocator does not give back.
const COPIES_IN_FLIGHT: u64 = 2;
const IN_FLIGHT_BYTES_DEFAULT: u64 = 32 << 20;

/// The most memory that a router with this configuration file may have: 32 MiB and twice
/// `kafka.in_flight_bytes_max`.
pub fn memory_bound(configuration: &str) -> u64 {
    let written = Regex::new(r"in_flight_bytes_max: (\d+)MiB").expect("a regular expression").captures(configuration);
    let in_flight = written.and_then(|found| found[1].parse::<u64>().ok()).map(|mebibytes| mebibytes << 20);
    BASE_BYTES + COPIES_IN_FLIGHT * in_flight.unwrap_or(IN_FLIGHT_BYTES_DEFAULT)
}

/// The most memory that a process had at any time so far (`VmHWM`), in bytes; 0 if it is gone.
pub fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_follows_the_configuration() {
        let check = |text: &str, mebibytes: u64| assert_eq!(memory_bound(text), mebibytes << 20, "{text}");
        check("kafka: {bootstrap_servers: a:1}", 96);
        check("kafka: {in_flight_bytes_max: 8MiB}", 48);
    }

    #[test]
    fn this_process_has_had_memory() {
        assert!(peak_memory(std::process::id()) > 1 << 20);
        assert_eq!(peak_memory(u32::MAX), 0);
    }
}
