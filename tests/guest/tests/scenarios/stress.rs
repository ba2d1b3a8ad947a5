// SPDX-License-Identifier: GPL-2.0-only

//! Targets that change all the time while the driver comes and goes and the guest is paused.

use std::env;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use guest_tests::environment::patience;
use guest_tests::vm::{Driver, Vm};
use serde_json::Value;

/// How long, in seconds, where `VBB_STRESS_SECONDS` does not say.
const SECONDS: u64 = 30;
/// What the guest may have less at the end, in pages, beside one a load for the kernel's own books.
const LEAK_LIMIT: u64 = 512;

/// Neither QEMU nor the daemon nor the guest falls, and then all is as ever.
pub fn stress(vm: &mut Vm) -> Result<()> {
    let seconds = match env::var("VBB_STRESS_SECONDS") {
        Ok(seconds) => seconds.parse().context("VBB_STRESS_SECONDS")?,
        Err(_) => SECONDS,
    };
    vm.load()?;
    vm.reach(vm.ram / 2)?;
    vm.reach(0)?;
    vm.unload()?;
    let before = unused(vm)?;

    vm.guest.shell(&reload_loop(vm.driver()))?;
    let mut random = fastrand::Rng::with_seed(1);
    let end = Instant::now() + patience(Duration::from_secs(seconds));
    let mut changes = 0;
    while Instant::now() < end {
        vm.set_target(random.u64(0..vm.ram / 2))?;
        changes += 1;
        // Bursts, and pauses long enough for the driver to get somewhere.
        let pause = if changes % 100 == 0 {
            200_000
        } else {
            random.u64(0..2000)
        };
        std::thread::sleep(Duration::from_micros(pause));
    }
    vm.qemu.qmp.execute("cont", Value::Null)?;
    let loads: usize = vm
        .guest
        .shell("touch /tmp/stop; while [ ! -e /tmp/loads ]; do usleep 10000; done; cat /tmp/loads")?
        .trim()
        .parse()?;
    ensure!(
        loads > 5 && changes > 100,
        "{loads} loads and {changes} changes are no stress"
    );
    vm.count_probes(loads);

    let after = vm.guest.memory()?;
    ensure!(
        after.nr_balloon_pages == 0,
        "pages are left in the balloon: {after:?}"
    );
    vm.expect_consistent(&after)?;
    let (after, limit) = (unused(vm)?, LEAK_LIMIT + loads as u64);
    ensure!(
        after + limit > before,
        "{before} pages were unused, and {after} are after {loads} loads"
    );

    vm.load()?;
    for pages in [vm.ram / 2, 0, vm.ram / 3] {
        vm.reach(pages)?;
    }
    println!("stress: {loads} loads, {changes} targets in {seconds} s");
    Ok(())
}

/// Pages that nobody has, or has only to save time. KASAN keeps what was freed until its cache is shrunk.
fn unused(vm: &mut Vm) -> Result<u64> {
    vm.guest.shell(
        "echo 3 > /proc/sys/vm/drop_caches; \
         for cache in /sys/kernel/slab/*/shrink; do echo 1 > $cache; done",
    )?;
    let memory = vm.guest.memory()?;
    Ok(memory.free + memory.per_cpu)
}

/// A script that loads and removes the driver in the background until told to stop.
fn reload_loop(driver: Driver) -> String {
    let (load, unload) = (driver.load_script(), driver.unload_script());
    format!(
        "( loads=0; while [ ! -e /tmp/stop ]; do \
             ({load}) || exit; loads=$((loads + 1)); usleep $((loads % 8 * 20000)); ({unload}) || exit; \
         done; echo $loads > /tmp/loads.new; mv /tmp/loads.new /tmp/loads ) >/tmp/loop 2>&1 &"
    )
}
