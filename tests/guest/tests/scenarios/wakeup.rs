// SPDX-License-Identifier: GPL-2.0-only

//! Events that keep the guest awake.

use anyhow::{ensure, Result};
use guest_tests::vm::Vm;

/// A new target is a wakeup event, as it is with the distribution's driver: one that comes while the
/// guest is about to sleep keeps it awake. When the balloon is at rest nothing does.
pub fn wakeup(vm: &mut Vm) -> Result<()> {
    vm.load()?;
    let power = format!(
        "/sys/bus/virtio/drivers/{}/virtio*/power",
        vm.driver().name()
    );
    vm.guest
        .shell(&format!("echo enabled > $(echo {power})/wakeup"))?;
    let read = |vm: &mut Vm, name: &str| -> Result<u64> {
        let value = vm.guest.shell(&format!("cat {power}/{name}"))?;
        Ok(value.trim().parse()?)
    };
    let before = read(vm, "wakeup_active_count")?;
    let target = vm.ram / 4;
    vm.reach(target)?;
    let after = read(vm, "wakeup_active_count")?;
    ensure!(after > before, "no wakeup event among {after}");
    ensure!(
        read(vm, "wakeup_active")? == 0,
        "the balloon keeps the guest awake"
    );

    // Whoever wants to sleep reads the number of events first, and writes it back.
    vm.guest.shell(
        "cat /sys/power/wakeup_count > /tmp/count; cat /tmp/count > /sys/power/wakeup_count",
    )?;
    vm.reach(target / 2)?;
    let slept = vm.guest.try_shell("echo mem > /sys/power/state")?;
    ensure!(
        slept.status != 0 && slept.text.contains("busy"),
        "the guest slept over an event: {slept:?}"
    );
    vm.reach(target)?;
    vm.guest
        .shell(&format!("echo disabled > $(echo {power})/wakeup"))
        .map(|_| ())
}
