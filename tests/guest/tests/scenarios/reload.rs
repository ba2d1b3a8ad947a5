// SPDX-License-Identifier: GPL-2.0-only

//! The driver goes and comes again.

use std::path::Path;

use anyhow::{ensure, Result};
use guest_tests::vm::{Setup, Vm};

use super::statistics::newest;
use super::transfer::interrupt;

/// Unbinding gives every page back; binding fills the balloon again.
pub fn rebind(setup: Setup, directory: &Path) -> Result<()> {
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    let driver = format!("/sys/bus/virtio/drivers/{}", setup.driver.name());
    let device = vm.guest.shell(&format!("cd {driver}; echo virtio*"))?;
    let device = device.trim();
    for pages in [vm.ram / 2, vm.ram / 3] {
        vm.reach(pages)?;
        vm.guest
            .shell(&format!("echo {device} > {driver}/unbind"))?;
        expect_all_back(&mut vm)?;
        vm.guest.shell(&format!("echo {device} > {driver}/bind"))?;
        vm.expect_probe()?;
        vm.await_actual(pages)?;
        vm.expect_balloon(pages)?;
    }
    vm.finish()
}

/// Removing the module gives every page back; loading it fills the balloon again.
pub fn reload(setup: Setup, directory: &Path) -> Result<()> {
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    for pages in [vm.ram / 2, vm.ram / 3] {
        vm.reach(pages)?;
        vm.unload()?;
        expect_all_back(&mut vm)?;
        vm.load()?;
        vm.await_actual(pages)?;
        vm.expect_balloon(pages)?;
    }
    newest(&mut vm)?;
    vm.finish()
}

/// Removing the module in the middle of an inflation gives back what was taken so far.
pub fn rmmod_while_inflating(mut setup: Setup, directory: &Path) -> Result<()> {
    setup.machine.memory_mib = 1024;
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    let target = vm.ram * 3 / 4;
    let mut proved = 0;
    for _ in 0..20 {
        let inflated = vm.guest.memory()?.balloon_inflate;
        interrupt(&mut vm, 0, target)?;
        vm.unload()?;
        expect_all_back(&mut vm)?;
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
    vm.reach(target)?;
    vm.finish()
}

/// A driver without memory for page bitmaps says so and does without.
pub fn dropped_feature(setup: Setup, directory: &Path) -> Result<()> {
    let mut vm = Vm::boot(&setup, directory)?;
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
    expect_all_back(&mut vm)?;
    vm.finish()
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
