// SPDX-License-Identifier: GPL-2.0-only

//! The driver goes and comes again.

use anyhow::{ensure, Result};
use guest_tests::vm::Vm;

use super::statistics::newest;
use super::transfer::interrupt;

/// Unbinding gives every page back; binding fills the balloon again.
pub fn rebind(vm: &mut Vm) -> Result<()> {
    vm.load()?;
    let driver = format!("/sys/bus/virtio/drivers/{}", vm.driver().name());
    let device = vm.guest.shell(&format!("cd {driver}; echo virtio*"))?;
    let device = device.trim();
    for pages in [vm.ram / 2, vm.ram / 3] {
        vm.reach(pages)?;
        vm.guest
            .shell(&format!("echo {device} > {driver}/unbind"))?;
        expect_all_back(vm)?;
        vm.guest.shell(&format!("echo {device} > {driver}/bind"))?;
        vm.expect_probe()?;
        vm.await_actual(pages)?;
        vm.expect_balloon(pages)?;
    }
    Ok(())
}

/// Removing the module gives every page back; loading it fills the balloon again.
pub fn reload(vm: &mut Vm) -> Result<()> {
    vm.load()?;
    for pages in [vm.ram / 2, vm.ram / 3] {
        vm.reach(pages)?;
        vm.unload()?;
        expect_all_back(vm)?;
        vm.load()?;
        vm.await_actual(pages)?;
        vm.expect_balloon(pages)?;
    }
    newest(vm).map(|_| ())
}

/// Removing the module in the middle of an inflation gives back what was taken so far.
pub fn rmmod_while_inflating(vm: &mut Vm) -> Result<()> {
    vm.load()?;
    let target = vm.ram * 3 / 4;
    let mut proved = 0;
    for _ in 0..20 {
        let inflated = vm.guest.memory()?.balloon_inflate;
        interrupt(vm, 0, target)?;
        vm.unload()?;
        expect_all_back(vm)?;
        let inflated = vm.guest.memory()?.balloon_inflate - inflated;
        proved += usize::from(inflated > 0 && inflated < target);
        vm.set_target(0)?;
        vm.load()?;
        if proved == 3 {
            break;
        }
    }
    ensure!(
        proved == 3,
        "of 20 removals only {proved} were in the middle of an inflation"
    );
    vm.reach(target).map(|_| ())
}

/// A driver without memory for page bitmaps says so and does without.
pub fn dropped_feature(vm: &mut Vm) -> Result<()> {
    vm.load()?;
    ensure!(
        vm.qemu.guest_log()?.contains("no memory for page bitmaps"),
        "the driver does not say what it lacks"
    );
    ensure!(
        vm.counters()?["page_bitmap"] == false,
        "the device still thinks of page bitmaps"
    );
    vm.reach(vm.ram / 2)?;
    vm.unload()?;
    expect_all_back(vm)
}

/// Checks that no page is left in any balloon.
pub fn expect_all_back(vm: &mut Vm) -> Result<()> {
    let memory = vm.guest.memory()?;
    ensure!(
        memory.nr_balloon_pages == 0,
        "pages are left in the balloon: {memory:?}"
    );
    vm.expect_consistent(&memory)
}
