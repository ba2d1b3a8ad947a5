// SPDX-License-Identifier: GPL-2.0-only

//! The balloon reaches each target to the page, and MemTotal follows.

use std::time::Duration;

use anyhow::{Context, Error, Result};
use guest_tests::environment::{self, Kernel};
use guest_tests::process::wait_until;
use guest_tests::vm::{Driver, Vm};
use guest_tests::PAGE_SIZE;

/// Half, two thirds, three quarters and all of RAM, odd numbers of pages, and a target above RAM.
pub fn targets(vm: &mut Vm) -> Result<()> {
    vm.load()?;
    vm.expect_balloon(0)?;
    for pages in [vm.ram / 2, vm.ram * 2 / 3, vm.ram * 3 / 4, vm.ram / 2] {
        vm.reach(pages)?;
    }
    // The distribution's driver may starve the guest there, and a debugging kernel may starve itself: it
    // takes more and more memory for its books, and for what was freed of late.
    if vm.driver() != Driver::Stock && environment::kernel_kind()? != Kernel::Debug {
        all_of_ram(vm)?;
    }
    for pages in [vm.ram / 2, 12_345, 12_346, 1] {
        vm.reach(pages)?;
    }
    // More than the guest has: nothing is left to the balloon.
    vm.set_guest_size((vm.size + 1000) * PAGE_SIZE)?;
    vm.await_actual(0)?;
    vm.expect_balloon(0)
}

/// No guest can give all of its RAM: it gives what it can, says so, and lives.
fn all_of_ram(vm: &mut Vm) -> Result<()> {
    let complaints = |vm: &Vm| Ok::<_, Error>(vm.qemu.guest_log()?.matches("Out of puff").count());
    let before = complaints(vm)?;
    vm.set_target(vm.size - 1)?;
    wait_until(
        Duration::from_secs(60),
        "the guest to be out of puff",
        || Ok(complaints(vm)? > before),
    )?;
    // Some tries later it still lives, has given more than before, and the device knows of each page.
    std::thread::sleep(Duration::from_secs(1));
    let mut memory = vm.guest.memory()?;
    wait_until(
        Duration::from_secs(60),
        "a full balloon to come to rest",
        || {
            // It may grow while it is looked at: the figures fit each other once it does not.
            let actual = vm.actual()?;
            memory = vm.guest.memory()?;
            Ok(memory.nr_balloon_pages > vm.ram * 3 / 4
                && actual == memory.nr_balloon_pages
                && vm.expect_consistent(&memory).is_ok())
        },
    )
    .with_context(|| format!("{memory:?}"))
}
