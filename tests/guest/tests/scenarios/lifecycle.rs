//! The guest goes, and comes again.

use std::path::Path;

use anyhow::Result;
use guest_tests::vm::{Setup, Vm};
use serde_json::Value;

use super::transfer::interrupt;

/// After a reset by the host, and a reboot by the guest in the middle of an inflation, the balloon
/// of the new boot starts empty and fills again.
pub fn reset(mut setup: Setup, directory: &Path) -> Result<()> {
    setup.machine.resets = true;
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    let pages = vm.ram / 2;
    vm.reach(pages)?;

    vm.qemu.qmp.execute("system_reset", Value::Null)?;
    vm.await_reboot()?;
    vm.load()?;
    vm.await_actual(pages)?;
    vm.expect_balloon(pages)?;

    interrupt(&mut vm, 0, pages)?;
    vm.guest.send_shell("reboot -f")?;
    vm.await_reboot()?;
    vm.load()?;
    vm.await_actual(pages)?;
    vm.expect_balloon(pages)?;
    vm.finish()
}

/// Powering off does not wait for an inflation, nor stumble over it.
pub fn poweroff_while_inflating(mut setup: Setup, directory: &Path) -> Result<()> {
    setup.machine.memory_mib = 1024;
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    let to = vm.ram * 3 / 4;
    interrupt(&mut vm, 0, to)?;
    vm.finish()
}

/// One daemon serves one guest after another, whether the one before powered off or was killed.
pub fn next_guest(setup: Setup, directory: &Path) -> Result<()> {
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    let pages = vm.ram / 2;
    vm.reach(pages)?;
    let daemon = vm.power_off()?;

    let mut vm = Vm::boot_with(&setup, daemon, directory)?;
    vm.load()?;
    vm.reach(pages)?;
    interrupt(&mut vm, 0, pages)?;
    let daemon = vm.kill();

    let mut vm = Vm::boot_with(&setup, daemon, directory)?;
    vm.load()?;
    vm.reach(pages)?;
    vm.reach(0)?;
    vm.finish()
}
