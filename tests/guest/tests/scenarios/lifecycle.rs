// SPDX-License-Identifier: GPL-2.0-only

//! The guest goes, and comes again.

use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Result};
use guest_tests::balloon::Daemon;
use guest_tests::vm::{Setup, Vm};
use guest_tests::MIB;
use serde_json::Value;

use super::statistics::newest;
use super::transfer::interrupt;

/// How long falling asleep and waking up may take.
const SLEEP: Duration = Duration::from_secs(60);

/// After a reset by the host, and a reboot by the guest in the middle of an inflation, the balloon
/// of the new boot starts empty and fills again.
pub fn reset(vm: &mut Vm) -> Result<()> {
    vm.load()?;
    let pages = vm.ram / 2;
    vm.reach(pages)?;

    vm.reset()?;
    vm.await_reboot()?;
    vm.load()?;
    vm.await_actual(pages)?;
    vm.expect_balloon(pages)?;
    newest(vm)?;

    interrupt(vm, 0, pages)?;
    vm.qemu.allow_resets(true)?;
    vm.guest.send_shell("reboot -f")?;
    vm.await_reboot()?;
    vm.load()?;
    vm.await_actual(pages)?;
    vm.expect_balloon(pages)
}

/// Asleep, the guest has all of its memory; awake, the balloon fills again, and all else that the
/// device does goes on.
pub fn suspend(vm: &mut Vm) -> Result<()> {
    vm.load()?;
    let target = vm.ram / 2;
    vm.reach(target)?;
    newest(vm)?;
    vm.guest.make_file("/tmp/data", 64 * MIB, 1)?;

    fall_asleep(vm)?;
    ensure!(vm.actual()? == 0, "a guest that sleeps has a balloon");
    ensure!(
        vm.pages_held()?.unwrap_or(0) == 0,
        "and the device its pages"
    );

    wake_up(vm)?;
    vm.await_actual(target)?;
    vm.expect_balloon(target)?;
    vm.guest.verify_file("/tmp/data", 64 * MIB, 1)?;
    newest(vm)?;
    vm.reach(0).map(|_| ())
}

/// Has the guest suspend to RAM.
pub fn fall_asleep(vm: &mut Vm) -> Result<()> {
    vm.sleep(
        "echo deep > /sys/power/mem_sleep; echo mem > /sys/power/state; \
         cd /sys/bus/virtio/drivers/virtio_console; \
         console=$(basename virtio*); echo $console > unbind; echo $console > bind",
        SLEEP,
    )
}

/// Wakes the guest up.
pub fn wake_up(vm: &mut Vm) -> Result<()> {
    vm.qemu.qmp.execute("system_wakeup", Value::Null)?;
    // The agent's port is deaf after a sleep until its driver is bound anew, as the script above does.
    vm.guest.wait_hello(SLEEP).map(|_| ())
}

/// Powering off does not wait for an inflation, nor stumble over it.
pub fn poweroff_while_inflating(mut vm: Vm) -> Result<()> {
    vm.load()?;
    let to = vm.ram * 3 / 4;
    interrupt(&mut vm, 0, to)?;
    vm.power_off()?.map_or(Ok(()), Daemon::stop)
}

/// One daemon serves one guest after another, whether the one before powered off or was killed.
pub fn next_guest(setup: Setup, directory: &Path) -> Result<()> {
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    let pages = vm.ram / 2;
    vm.reach(pages)?;
    vm.expect_conserved()?;
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
