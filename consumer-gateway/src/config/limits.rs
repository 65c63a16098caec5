//! The block `read`: bounds and pace of reading. Absent keys keep [`read::Settings`]' own defaults.

use std::ops::RangeInclusive;
use std::time::Duration;

use fairlead_service_kit::config_source::Reader;

use crate::read;

const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn read(reader: &mut Reader) -> read::Settings {
    let mut settings = read::Settings::default();
    number(reader, "read.limit", 1..=1_000_000_000, &mut settings.limit);
    number(reader, "read.limit_max", 1..=1_000_000_000, &mut settings.limit_max);
    duration(reader, "read.window", MINUTE..=MINUTE * 60 * 24 * 366, &mut settings.window);
    duration(reader, "read.heartbeat", Duration::from_millis(100)..=MINUTE, &mut settings.heartbeat);
    duration(reader, "read.late", Duration::ZERO..=MINUTE * 60 * 24, &mut settings.late);
    number(reader, "read.repeat_lookback_records", 0..=100_000_000, &mut settings.repeat_lookback_records);
    duration(
        reader,
        "read.fetch_wait",
        Duration::from_millis(1)..=Duration::from_millis(500),
        &mut settings.fetch_wait,
    );
    number(reader, "read.readers_max", 1..=10_000, &mut settings.readers_max);
    number(reader, "read.tail_max", 1..=100_000_000, &mut settings.tail_max);
    number(reader, "read.tail_scan_records_max", 1..=1_000_000_000, &mut settings.tail_scan_records_max);
    size(reader, "read.queue_bytes_max", 64 << 10..=1 << 30, &mut settings.queue_bytes_max);
    duration(reader, "read.stall", Duration::from_secs(1)..=MINUTE * 60, &mut settings.stall);
    duration(reader, "read.kafka_timeout", Duration::from_millis(100)..=MINUTE * 10, &mut settings.kafka_timeout);
    number(reader, "read.connections_max", 1..=1_000_000, &mut settings.connections_max);
    number(reader, "read.streams_default", 1..=1_000_000, &mut settings.streams_default);
    if !reader.has("read.limit") {
        settings.limit = settings.limit.min(settings.limit_max);
    } else if settings.limit > settings.limit_max {
        reader.fault("read.limit", "is more than read.limit_max");
    }
    settings
}

fn number<T: TryFrom<i64>>(reader: &mut Reader, key: &str, within: RangeInclusive<i64>, setting: &mut T) {
    if let Some(value) = reader.integer(key, within).and_then(|value| T::try_from(value).ok()) {
        *setting = value;
    }
}

fn duration(reader: &mut Reader, key: &str, within: RangeInclusive<Duration>, setting: &mut Duration) {
    if let Some(value) = reader.duration(key, within) {
        *setting = value;
    }
}

fn size(reader: &mut Reader, key: &str, within: RangeInclusive<u64>, setting: &mut usize) {
    if let Some(value) = reader.bytes(key, within).and_then(|value| usize::try_from(value).ok()) {
        *setting = value;
    }
}
