// SPDX-License-Identifier: GPL-2.0-only

//! What the demonstration measured, as a table.

use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::{presets, CellAlignment, Table};
use guest_tests::vm::Vm;
use serde_json::Value;

/// One way of the balloon, up or down.
pub struct Leg {
    pub wire: &'static str,
    /// The queue it went through: `inflate` or `deflate`.
    pub queue: &'static str,
    /// From the new target until `actual` has reached it.
    pub time: Duration,
    pub traffic: Traffic,
    /// Host memory that the guest's RAM takes, before and after.
    pub host_mib: (u64, u64),
    /// The guest's MemTotal, before and after.
    pub mem_total_mib: (u64, u64),
}

/// What went through a queue.
#[derive(Debug, PartialEq, Eq)]
pub struct Traffic {
    pub messages: u64,
    pub bytes: u64,
    pub notifications: u64,
}

impl Traffic {
    /// What has gone through a queue by now, as the daemon counts or, with another device, the driver.
    pub fn of(vm: &mut Vm, queue: &str) -> Result<Self> {
        if vm.daemon.is_some() {
            return Self::by_device(&vm.counters()?, queue);
        }
        let mut count = |name: &str| vm.driver_counter(&format!("{queue}_{name}"));
        Ok(Self {
            messages: count("messages")?,
            bytes: count("bytes")?,
            notifications: count("notifications")?,
        })
    }

    fn by_device(counters: &Value, queue: &str) -> Result<Self> {
        let count = |name: &str| {
            counters[queue][name]
                .as_u64()
                .with_context(|| format!("no {queue}.{name} in {counters}"))
        };
        Ok(Self {
            messages: count("messages")?,
            bytes: count("bytes")?,
            notifications: count("notifications")?,
        })
    }

    /// What was added since an earlier count.
    pub fn since(&self, earlier: &Self) -> Result<Self> {
        let difference = |now: u64, then: u64| now.checked_sub(then).context("a counter went back");
        Ok(Self {
            messages: difference(self.messages, earlier.messages)?,
            bytes: difference(self.bytes, earlier.bytes)?,
            notifications: difference(self.notifications, earlier.notifications)?,
        })
    }
}

/// The table, ready to print.
pub fn render(legs: &[Leg]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header([
        "Messages are",
        "Balloon",
        "Seconds",
        "Messages",
        "Bytes on the wire",
        "Notifications",
        "Host memory, MiB",
        "Guest MemTotal, MiB",
    ]);
    for leg in legs {
        table.add_row([
            leg.wire.to_owned(),
            leg.queue.to_owned(),
            format!("{:.2}", leg.time.as_secs_f64()),
            leg.traffic.messages.to_string(),
            leg.traffic.bytes.to_string(),
            leg.traffic.notifications.to_string(),
            format!("{} → {}", leg.host_mib.0, leg.host_mib.1),
            format!("{} → {}", leg.mem_total_mib.0, leg.mem_total_mib.1),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn counters(messages: u64) -> Value {
        json!({ "inflate": { "messages": messages, "bytes": messages * 100, "notifications": messages / 2, "more": 1 } })
    }

    #[test]
    fn traffic_is_the_difference_of_counters() {
        let before = Traffic::by_device(&counters(10), "inflate").unwrap();
        let after = Traffic::by_device(&counters(30), "inflate").unwrap();
        assert_eq!(
            after.since(&before).unwrap(),
            Traffic {
                messages: 20,
                bytes: 2000,
                notifications: 10
            }
        );
        assert!(before.since(&after).is_err());
        assert!(Traffic::by_device(&counters(1), "deflate").is_err());
    }

    #[test]
    fn each_leg_is_a_row() {
        let leg = Leg {
            wire: "page bitmaps",
            queue: "inflate",
            time: Duration::from_millis(1234),
            traffic: Traffic {
                messages: 7,
                bytes: 4321,
                notifications: 5,
            },
            host_mib: (2000, 500),
            mem_total_mib: (1900, 400),
        };
        let table = render(&[leg]).to_string();
        for text in [
            "page bitmaps",
            "inflate",
            "1.23",
            "4321",
            "2000 → 500",
            "1900 → 400",
        ] {
            assert!(table.contains(text), "{table}");
        }
    }
}
