// SPDX-License-Identifier: GPL-2.0-only

//! The acknowledgement comes to another processor than the one that waits for it.

use anyhow::{ensure, Context, Result};
use guest_tests::vm::Vm;

use super::reload::expect_all_back;

/// The driver starts on one of two processors, where its work stays, and the device's interrupts
/// go to the other; then they move in the middle of the work.
pub fn interrupts_elsewhere(vm: &mut Vm) -> Result<()> {
    let (none, most) = (0, vm.ram * 3 / 4);
    vm.load()?;
    vm.reach(most)?;
    let irq = balloon_irq(vm)?;
    let usual = vm.guest.shell(&format!("cat {}", affinity(irq)))?;
    vm.unload()?;
    for (worker, other) in [(0, 1), (1, 0)] {
        vm.set_target(most)?;
        let before = counts(vm, irq)?;
        route(vm, irq, &other.to_string())?;
        vm.guest.shell(&format!(
            "taskset {} sh -c '{}'",
            1 << worker,
            vm.driver().load_script()
        ))?;
        vm.expect_probe()?;
        vm.await_actual(most)?;
        let after = counts(vm, irq)?;
        ensure!(
            after[other] > before[other] && after[worker] == before[worker],
            "processor {other} shall be interrupted alone: {before:?}, {after:?}"
        );
        vm.expect_balloon(most)?;
        for pages in [none, most, none] {
            vm.set_target(pages)?;
            // The last route may wait for an interrupt that only the next round has: it is that round's.
            for step in 0..10 {
                route(vm, irq, &((other + step) % 2).to_string())?;
            }
            vm.await_actual(pages)?;
            vm.expect_balloon(pages)?;
        }
        vm.unload()?;
        expect_all_back(vm)?;
    }
    route(vm, irq, usual.trim())
}

/// The number of the device's one interrupt: it is on a wire, which outlives the driver.
fn balloon_irq(vm: &mut Vm) -> Result<u32> {
    let module = vm.driver().name();
    let device = vm.guest.shell(&format!(
        "cd /sys/bus/virtio/drivers/{module}; echo virtio*"
    ))?;
    let table = vm.guest.shell("cat /proc/interrupts")?;
    let line = table
        .lines()
        .find(|line| line.ends_with(device.trim()))
        .context("the device has no line")?;
    Ok(line.split(':').next().unwrap_or_default().trim().parse()?)
}

/// Has a processor, or one of a list, take the interrupt.
fn route(vm: &mut Vm, irq: u32, processors: &str) -> Result<()> {
    vm.guest
        .shell(&format!("echo {processors} > {}", affinity(irq)))
        .map(|_| ())
}

fn affinity(irq: u32) -> String {
    format!("/proc/irq/{irq}/smp_affinity_list")
}

/// How often each processor took the interrupt.
fn counts(vm: &mut Vm, irq: u32) -> Result<Vec<u64>> {
    let counts = vm
        .guest
        .shell(&format!("cat /sys/kernel/irq/{irq}/per_cpu_count"))?;
    counts
        .trim()
        .split(',')
        .map(|count| Ok(count.parse()?))
        .collect()
}
