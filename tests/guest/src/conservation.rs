// SPDX-License-Identifier: GPL-2.0-only

//! Conservation: no page of a balloon is lost, or counted twice, by anybody.

use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};

use crate::page_set::PageSet;
use crate::process::wait_until;
use crate::vm::{Driver, Vm};

/// How long a driver takes to finish with a window, and compaction with a page, at most.
const REST: Duration = Duration::from_secs(20);
/// Most ranges that an error names.
const SHOWN: usize = 8;

impl Vm {
    /// Checks that the device holds exactly the pages that the guest's kernel has marked as a
    /// balloon's, once it is at rest, and that all that was ever inflated has been deflated or is
    /// held. Of QEMU's own device only the number is known.
    ///
    /// There must be one balloon in the guest, or none.
    pub fn expect_conserved(&mut self) -> Result<()> {
        let mut difference = String::new();
        wait_until(REST, "guest and device to agree on the pages", || {
            difference = self.difference()?;
            Ok(difference.is_empty())
        })
        .context(difference)?;
        self.expect_balance()
    }

    /// What tells the pages of the guest from those of the device; nothing if they are the same.
    fn difference(&mut self) -> Result<String> {
        let guest = self.guest.balloon_pages()?;
        let memory = self.guest.memory()?;
        if guest.pages() != memory.nr_balloon_pages {
            return Ok(format!(
                "{} pages are marked as a balloon's: {memory:?}",
                guest.pages()
            ));
        }
        let Some(device) = self.device_pages()? else {
            return Ok(String::new());
        };
        if guest == device {
            return Ok(String::new());
        }
        Ok(format!(
            "the guest's balloon has {} pages, the device {}; only the guest: {}; only the device: {}",
            guest.pages(),
            device.pages(),
            guest.without(&device).beginning(SHOWN),
            device.without(&guest).beginning(SHOWN),
        ))
    }

    /// The pages that the daemon holds, where it is the device.
    pub fn device_pages(&mut self) -> Result<Option<PageSet>> {
        let Some(daemon) = &mut self.daemon else {
            return Ok(None);
        };
        let mut pages = PageSet::default();
        let mut next = json!(0);
        while !next.is_null() {
            let from = json!({ "start_pfn": next });
            let mut held = daemon.qmp.execute("x-query-held", from)?;
            let ranges: Vec<(u64, u64)> = serde_json::from_value(held["ranges"].take())?;
            pages.extend(ranges);
            next = held["next_pfn"].take();
        }
        Ok(Some(pages))
    }

    /// Checks that the accounts of device and driver balance.
    fn expect_balance(&mut self) -> Result<()> {
        if self.daemon.is_some() {
            let counters = self.counters()?;
            let number = |path: &str| {
                counters
                    .pointer(path)
                    .and_then(Value::as_u64)
                    .with_context(|| format!("no {path} in {counters}"))
            };
            let moved = |queue: &str| -> Result<u64> {
                Ok(number(&format!("/{queue}/pages"))? - number(&format!("/{queue}/duplicates"))?)
            };
            let rest = number("/pages_held")? + number("/pages_forgotten")?;
            ensure!(
                moved("inflate")? == moved("deflate")? + rest,
                "the device's account does not balance: {counters}"
            );
        }
        if self.driver() == Driver::Stock {
            return Ok(());
        }
        for counters in self.driver_counters()? {
            ensure!(
                counters.get("inflate_pages")?
                    == counters.get("deflate_pages")? + counters.get("actual")?,
                "the driver's account does not balance: {counters:?}"
            );
        }
        Ok(())
    }
}
