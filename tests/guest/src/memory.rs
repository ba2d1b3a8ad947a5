// SPDX-License-Identifier: GPL-2.0-only

//! The guest's account of its memory, from /proc/meminfo, /proc/vmstat and /proc/zoneinfo.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// All in pages of 4 KiB, but for the counters of events.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// `MemTotal`: what the allocator manages.
    pub total: u64,
    /// `MemFree`.
    pub free: u64,
    /// Free pages that a processor keeps for itself, which are not in `MemFree`.
    pub per_cpu: u64,
    /// `MemAvailable`.
    pub available: u64,
    /// `Balloon`: what /proc/meminfo says the balloon holds.
    pub balloon: u64,
    /// `nr_balloon_pages` of /proc/vmstat. Linux 6.12 shows neither: there both are what went in and
    /// did not come out.
    pub nr_balloon_pages: u64,
    /// Pages that ever went into the balloon.
    pub balloon_inflate: u64,
    /// Pages that ever came out.
    pub balloon_deflate: u64,
    /// Pages of the balloon that compaction moved.
    pub balloon_migrate: u64,
    /// Processes that were killed for want of memory.
    pub oom_kill: u64,
}

impl Memory {
    /// Reads the three files' contents.
    pub fn parse(meminfo: &str, vmstat: &str, zoneinfo: &str) -> Result<Self> {
        let pages = |name| field(meminfo, name).map(|kib| kib / 4);
        let per_cpu = zoneinfo
            .lines()
            .filter(|line| line.trim_start().starts_with("count:"));
        let balloon_inflate = field(vmstat, "balloon_inflate")?;
        let balloon_deflate = field(vmstat, "balloon_deflate")?;
        let (balloon, nr_balloon_pages) =
            match (pages("Balloon:"), field(vmstat, "nr_balloon_pages")) {
                (Err(_), Err(_)) => {
                    let held = balloon_inflate
                        .checked_sub(balloon_deflate)
                        .context("more pages came out of the balloon than went in")?;
                    (held, held)
                }
                (balloon, nr_balloon_pages) => (balloon?, nr_balloon_pages?),
            };
        Ok(Self {
            total: pages("MemTotal:")?,
            free: pages("MemFree:")?,
            per_cpu: per_cpu
                .map(|line| field(line, "count:"))
                .sum::<Result<u64>>()?,
            available: pages("MemAvailable:")?,
            balloon,
            nr_balloon_pages,
            balloon_inflate,
            balloon_deflate,
            balloon_migrate: field(vmstat, "balloon_migrate")?,
            oom_kill: field(vmstat, "oom_kill")?,
        })
    }
}

fn field(text: &str, name: &str) -> Result<u64> {
    text.lines()
        .find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some(name))
                .then(|| words.next()?.parse().ok())
                .flatten()
        })
        .with_context(|| format!("the kernel shows no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:         400 kB\nMemFree:          200 kB\nMemAvailable:     240 kB\nBalloon:           80 kB\n";
    const VMSTAT: &str =
        "nr_balloon_pages 20\nballoon_inflate 30\nballoon_deflate 10\nballoon_migrate 3\noom_kill 1\n";

    const ZONEINFO: &str = "Node 0, zone DMA\n  pages free 1\n    cpu: 0\n              count:    7\n              high:     9\n    cpu: 1\n              count:    5\n";

    #[test]
    fn kibibytes_become_pages() {
        let memory = Memory::parse(MEMINFO, VMSTAT, ZONEINFO).unwrap();
        assert_eq!((memory.total, memory.free, memory.available), (100, 50, 60));
        assert_eq!(memory.per_cpu, 12);
        assert_eq!((memory.balloon, memory.nr_balloon_pages), (20, 20));
        assert_eq!((memory.balloon_inflate, memory.balloon_deflate), (30, 10));
    }

    #[test]
    fn an_old_kernel_only_counts_what_comes_and_goes() {
        let meminfo = MEMINFO.replace("Balloon", "Others");
        let vmstat = VMSTAT.replace("nr_balloon_pages", "nr_others");
        let memory = Memory::parse(&meminfo, &vmstat, ZONEINFO).unwrap();
        assert_eq!((memory.balloon, memory.nr_balloon_pages), (20, 20));
        for (meminfo, vmstat) in [(MEMINFO, vmstat.as_str()), (meminfo.as_str(), VMSTAT)] {
            assert!(Memory::parse(meminfo, vmstat, ZONEINFO).is_err());
        }
    }

    #[test]
    fn a_missing_field_is_named() {
        let error = Memory::parse(&MEMINFO.replace("MemFree", "Others"), VMSTAT, ZONEINFO)
            .unwrap_err()
            .to_string();
        assert!(error.contains("MemFree:"), "{error}");
    }
}
