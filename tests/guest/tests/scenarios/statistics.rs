// SPDX-License-Identifier: GPL-2.0-only

//! What the guest tells of its memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{ensure, Context, Result};
use guest_tests::balloon::DEVICE_ID;
use guest_tests::process::wait_until;
use guest_tests::vm::{Setup, Vm};
use guest_tests::{MIB, PAGE_SIZE};
use serde_json::{json, Value};

/// How far a figure that goes up and down may be from what the kernel says a little later.
const TOLERANCE: u64 = 8 * MIB;
/// What the guest does not tell.
const UNKNOWN: u64 = u64::MAX;
const SWAP: u64 = 256 * MIB;

/// Statistics that only grow: their names, and the counters of /proc/vmstat that make each of them up,
/// by how each begins.
const GROWING: &[(&str, &str, u64)] = &[
    ("stat-swap-in", "pswpin", PAGE_SIZE),
    ("stat-swap-out", "pswpout", PAGE_SIZE),
    ("stat-major-faults", "pgmajfault", 1),
    ("stat-minor-faults", "pgfault", 1),
    ("stat-oom-kills", "oom_kill", 1),
    ("stat-alloc-stalls", "allocstall_", 1),
    ("stat-async-scans", "pgscan_kswapd", PAGE_SIZE),
    ("stat-direct-scans", "pgscan_direct", PAGE_SIZE),
    ("stat-async-reclaims", "pgsteal_kswapd", PAGE_SIZE),
    ("stat-direct-reclaims", "pgsteal_direct", PAGE_SIZE),
    ("stat-htlb-pgalloc", "htlb_buddy_alloc_success", 1),
    ("stat-htlb-pgfail", "htlb_buddy_alloc_fail", 1),
];

/// Those that a guest has seen nothing of unless a process was killed.
const RARE: &[&str] = &["stat-oom-kills"];

/// The device collects all 16 statistics of a guest that swaps, and they are what the kernel says
/// itself.
pub fn statistics(mut setup: Setup, directory: &Path) -> Result<()> {
    setup.machine.memory_mib = 512;
    let disk = directory.join("swap");
    File::create(&disk)?.set_len(SWAP)?;
    setup.machine.add_disk(&disk)?;
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    // Without a reserve the kernel warns of failed allocations as it begins to swap.
    vm.guest.shell(
        "echo 16384 > /proc/sys/vm/min_free_kbytes && mkswap /dev/nvme0n1 && swapon /dev/nvme0n1",
    )?;
    // Anonymous memory out to the disk, and in again as it is looked at.
    let available = vm.guest.memory()?.available * PAGE_SIZE;
    ensure!(vm.guest.feed(available + SWAP / 4)?, "a process was killed");
    // Huge pages of its memory: all who reclaim have work.
    vm.guest
        .shell("cd /proc/sys/vm && echo 10 > nr_hugepages && echo 0 > nr_hugepages")?;
    vm.guest.starve()?;
    // While they take all there is, the shell must not have to come back from the disk.
    vm.guest.shell(
        "swapoff /dev/nvme0n1 && cd /proc/sys/vm && \
         echo 100000 > nr_hugepages && echo 0 > nr_hugepages",
    )?;
    // There must be some to tell of.
    vm.guest.shell("cat /bin/guest-agent > /tmp/file")?;

    let before = vmstat(&mut vm)?;
    let stats = newest(&mut vm)?;
    let after = vmstat(&mut vm)?;
    ensure!(stats.len() == 16, "16 statistics expected: {stats:?}");
    let value = |name: &str| {
        stats
            .get(name)
            .copied()
            .filter(|value| *value != UNKNOWN)
            .with_context(|| format!("no {name}: {stats:?}"))
    };
    for &(name, counter, unit) in GROWING {
        let (least, most) = (before.sum(counter) * unit, after.sum(counter) * unit);
        let value = value(name)?;
        ensure!(
            least <= value && value <= most,
            "{name} is {value}, {counter} {least} before and {most} after"
        );
        ensure!(
            value > 0 || RARE.contains(&name),
            "the guest has seen no {counter}"
        );
    }
    let total = vm.guest.memory()?.total * PAGE_SIZE;
    ensure!(
        value("stat-total-memory")? == total,
        "the total is {total}: {stats:?}"
    );
    wait_until(
        Duration::from_secs(60),
        "the right amounts of memory",
        || {
            let stats = newest(&mut vm)?;
            let memory = vm.guest.memory()?;
            let caches = vmstat(&mut vm)?.sum("nr_file_pages");
            Ok([
                ("stat-free-memory", memory.free),
                ("stat-available-memory", memory.available),
                ("stat-disk-caches", caches),
            ]
            .iter()
            .all(|(name, pages)| is_near(stats.get(*name).copied(), pages * PAGE_SIZE)))
        },
    )?;
    vm.finish()
}

/// What goes up and down may have changed meanwhile: free memory is not free while it is reported.
fn is_near(stat: Option<u64>, bytes: u64) -> bool {
    stat.is_some_and(|stat| stat > 0 && stat.abs_diff(bytes) < TOLERANCE)
}

/// Has the guest asked for statistics each second, and returns some that came from now on.
pub fn newest(vm: &mut Vm) -> Result<BTreeMap<String, u64>> {
    vm.poll_statistics(1)?;
    let path = format!("/machine/peripheral/{DEVICE_ID}");
    let statistics = json!({ "path": path, "property": "guest-stats" });

    // Those that came in the next second may have been on their way.
    let begun = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 1;
    let mut stats = Value::Null;
    wait_until(Duration::from_secs(60), "statistics", || {
        let mut answer = vm.balloon().execute("qom-get", statistics.clone())?;
        stats = answer["stats"].take();
        Ok(answer["last-update"].as_u64() > Some(begun))
    })?;
    Ok(serde_json::from_value(stats)?)
}

/// The counters of /proc/vmstat.
struct Vmstat(String);

fn vmstat(vm: &mut Vm) -> Result<Vmstat> {
    Ok(Vmstat(vm.guest.shell(
        "echo 1 > /proc/sys/vm/stat_refresh; cat /proc/vmstat",
    )?))
}

impl Vmstat {
    /// The counter of this name, or the sum of all whose names begin so where it ends with `_`.
    fn sum(&self, counter: &str) -> u64 {
        let of = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            let wanted = name == counter || (counter.ends_with('_') && name.starts_with(counter));
            wanted.then(|| value.parse::<u64>().ok())?
        };
        self.0.lines().filter_map(of).sum()
    }
}
