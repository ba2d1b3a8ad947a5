// SPDX-License-Identifier: GPL-2.0-only

//! What the project's driver shows in debugfs.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::vm::Vm;

/// The numbers of one device.
#[derive(Clone, Debug)]
pub struct DriverCounters(BTreeMap<String, u64>);

impl DriverCounters {
    fn parse(text: &str) -> Result<Self> {
        let number = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        text.lines()
            .map(|line| number(line).with_context(|| format!("not a counter: {line}")))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The number of this name.
    pub fn get(&self, name: &str) -> Result<u64> {
        self.0
            .get(name)
            .copied()
            .with_context(|| format!("debugfs shows no {name}: {self:?}"))
    }
}

impl Vm {
    /// The numbers of each device that the driver serves, in the order of their names.
    pub fn driver_counters(&mut self) -> Result<Vec<DriverCounters>> {
        let all = self.guest.shell(
            "for stats in /sys/kernel/debug/virtio_balloon_bmap-*/stats; do \
                 [ ! -e $stats ] || { echo; cat $stats; } || exit; \
             done",
        )?;
        all.split("\n\n")
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(DriverCounters::parse)
            .collect()
    }

    /// A number of the one device that there is.
    pub fn driver_counter(&mut self, name: &str) -> Result<u64> {
        self.driver_counters()?
            .first()
            .context("the driver serves no device")?
            .get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_names_and_numbers() {
        let counters = DriverCounters::parse("target 5\ninflate_pages 12\n").unwrap();
        assert_eq!(counters.get("inflate_pages").unwrap(), 12);
        let error = counters.get("floor").unwrap_err().to_string();
        assert!(error.contains("no floor"), "{error}");
        assert!(DriverCounters::parse("target\n").is_err());
    }
}
