// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the guest says of its memory: the statistics queue's messages.

use serde::Deserialize;
use serde::Serialize;
use serde_json::json;
use serde_json::Map;
use serde_json::Value;
use thiserror::Error;

/// What each tag is called, in the order of the tags. The names are QEMU's.
pub const NAMES: [&str; 16] = [
    "stat-swap-in",
    "stat-swap-out",
    "stat-major-faults",
    "stat-minor-faults",
    "stat-free-memory",
    "stat-total-memory",
    "stat-available-memory",
    "stat-disk-caches",
    "stat-htlb-pgalloc",
    "stat-htlb-pgfail",
    "stat-oom-kills",
    "stat-alloc-stalls",
    "stat-async-scans",
    "stat-direct-scans",
    "stat-async-reclaims",
    "stat-direct-reclaims",
];

/// The value of a statistic that the guest does not report.
const NOT_REPORTED: u64 = u64::MAX;

/// Size of one statistic: a tag of 16 bits and a value of 64 bits, packed, little-endian.
const STATISTIC_SIZE: usize = 10;

/// Why a message is not taken for statistics.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("statistics of {0} bytes are no multiple of {STATISTIC_SIZE}")]
pub struct StatisticsLength(pub usize);

/// What came through the statistics queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatisticsCounters {
    /// Buffers returned to the driver, each of which asks for newer statistics.
    pub requests: u64,
    /// Messages with statistics.
    pub updates: u64,
    /// Statistics skipped for their unknown tag.
    pub unknown_tags: u64,
    /// Messages rejected as malformed.
    pub rejected: u64,
}

/// The guest's last statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    values: [u64; NAMES.len()],
    /// When they came, in seconds since the epoch; 0 if they never did.
    last_update: u64,
}

impl Statistics {
    /// Reads a message that came at `now`, in seconds since the epoch; returns the statistics and
    /// how many were skipped for their unknown tag. Of two with the same tag the last one counts.
    ///
    /// # Errors
    ///
    /// [`StatisticsLength`] if the last statistic is cut off.
    pub fn decode(message: &[u8], now: u64) -> Result<(Self, u64), StatisticsLength> {
        if message.len() % STATISTIC_SIZE != 0 {
            return Err(StatisticsLength(message.len()));
        }
        let mut statistics = Self {
            last_update: now,
            ..Self::default()
        };
        let mut unknown = 0;
        for statistic in message.chunks_exact(STATISTIC_SIZE) {
            let &[t0, t1, v0, v1, v2, v3, v4, v5, v6, v7] = statistic else {
                continue;
            };
            let tag = u16::from_le_bytes([t0, t1]);
            match statistics.values.get_mut(usize::from(tag)) {
                Some(value) => *value = u64::from_le_bytes([v0, v1, v2, v3, v4, v5, v6, v7]),
                None => unknown += 1,
            }
        }
        Ok((statistics, unknown))
    }

    /// The statistics as QEMU's property `guest-stats` has them.
    pub fn to_json(&self) -> Value {
        let stats: Map<String, Value> = NAMES
            .into_iter()
            .zip(self.values)
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        json!({"stats": stats, "last-update": self.last_update})
    }
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            values: [NOT_REPORTED; NAMES.len()],
            last_update: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(list: &[(u16, u64)]) -> Vec<u8> {
        list.iter()
            .flat_map(|(tag, value)| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat())
            .collect()
    }

    #[test]
    fn every_tag_has_its_name() {
        let all: Vec<(u16, u64)> = (0..16).map(|tag| (tag, 1000 + u64::from(tag))).collect();
        let (statistics, unknown) = Statistics::decode(&message(&all), 7).unwrap();
        assert_eq!(unknown, 0);
        assert_eq!(
            statistics.to_json(),
            json!({
                "last-update": 7,
                "stats": {
                    "stat-swap-in": 1000, "stat-swap-out": 1001,
                    "stat-major-faults": 1002, "stat-minor-faults": 1003,
                    "stat-free-memory": 1004, "stat-total-memory": 1005,
                    "stat-available-memory": 1006, "stat-disk-caches": 1007,
                    "stat-htlb-pgalloc": 1008, "stat-htlb-pgfail": 1009,
                    "stat-oom-kills": 1010, "stat-alloc-stalls": 1011,
                    "stat-async-scans": 1012, "stat-direct-scans": 1013,
                    "stat-async-reclaims": 1014, "stat-direct-reclaims": 1015,
                },
            })
        );
    }

    #[test]
    fn what_is_not_reported_is_all_ones() {
        let json = Statistics::default().to_json();
        assert_eq!(json["last-update"], 0);
        let stats = json["stats"].as_object().unwrap();
        assert_eq!(stats.len(), 16);
        assert!(stats.values().all(|value| *value == json!(u64::MAX)));
        let (statistics, _) = Statistics::decode(&message(&[(4, 5)]), 1).unwrap();
        let json = statistics.to_json();
        assert_eq!(json["stats"]["stat-free-memory"], 5);
        assert_eq!(json["stats"]["stat-total-memory"], json!(u64::MAX));
    }

    #[test]
    fn unknown_tags_are_skipped_and_the_last_of_a_tag_counts() {
        let list = [(4, 1), (16, 2), (u16::MAX, 3), (4, 4)];
        let (statistics, unknown) = Statistics::decode(&message(&list), 1).unwrap();
        assert_eq!(unknown, 2);
        assert_eq!(statistics.to_json()["stats"]["stat-free-memory"], 4);
    }

    #[test]
    fn a_cut_off_statistic_spoils_the_message() {
        let whole = message(&[(4, 1), (5, 2)]);
        for len in (0..whole.len()).filter(|len| len % 10 != 0) {
            let refused = Err(StatisticsLength(len));
            assert_eq!(Statistics::decode(&whole[..len], 1), refused);
        }
        assert!(Statistics::decode(&[], 1).is_ok());
    }
}
