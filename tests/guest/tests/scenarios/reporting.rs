// SPDX-License-Identifier: GPL-2.0-only

//! Free page reporting, and the poison that it has to leave in free pages.

use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Result};
use guest_tests::process::wait_until;
use guest_tests::vm::{Setup, Vm};
use guest_tests::PAGE_SIZE;

const SLOW: Duration = Duration::from_secs(60);
const PAGE_POISON: usize = 4;
const REPORTING: usize = 5;
/// What a kernel with page poisoning writes to each byte of a free page.
const POISON: u32 = 0xaaaa_aaaa;

/// Memory that the guest has freed goes back to the host by itself.
pub fn reporting(mut setup: Setup, directory: &Path) -> Result<()> {
    setup.machine.memory_mib = 1024;
    // A host that gives pages back as zeroes keeps those of a guest that expects something else.
    setup.machine.command_line = "page_poison=0".into();
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    // Beside a balloon, and after it was there.
    let pages = vm.ram / 4;
    for balloon in [pages, 0] {
        vm.reach(balloon)?;
        expect_reports(&mut vm)?;
    }
    vm.finish()
}

/// A guest whose free pages have known contents says what they are. If the device cannot be told, no
/// free page is reported: it would come back with other contents.
pub fn poison(mut setup: Setup, directory: &Path) -> Result<()> {
    // The latter has no meaning to a kernel without page poisoning, and precedence in one with it.
    setup.machine.command_line = "init_on_free=1 page_poisoning=1".into();
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    let features = vm.features()?;
    ensure!(
        features.contains(&PAGE_POISON) && features.contains(&REPORTING),
        "the features are {features:?}"
    );
    let poisons = vm
        .guest
        .try_shell("grep -q __kernel_poison_pages /proc/kallsyms")?;
    let value = if poisons.status == 0 { POISON } else { 0 };
    if vm.daemon.is_some() {
        let counters = vm.counters()?;
        ensure!(
            counters["poison_val"] == value,
            "the poison is {value:#x}: {counters}"
        );
    }
    if value == 0 {
        expect_reports(&mut vm)?;
    }
    // All that comes back must be as the guest left it, which its kernel looks at.
    let available = vm.guest.memory()?.available * PAGE_SIZE;
    vm.guest.touch(available / 2)?;
    vm.finish()?;

    setup.device.features().page_poison = false;
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    let features = vm.features()?;
    ensure!(
        !features.contains(&PAGE_POISON) && !features.contains(&REPORTING),
        "the features are {features:?}"
    );
    vm.finish()
}

/// Has the guest use memory and free it, and expects that the host has it soon.
fn expect_reports(vm: &mut Vm) -> Result<()> {
    let used = vm.guest.memory()?.available * PAGE_SIZE / 2;
    ensure!(vm.guest.feed(used)?, "a process was killed");
    let full = vm.qemu.resident()?;
    ensure!(full > used, "the guest has not used {used} bytes: {full}");
    vm.guest.starve()?;
    wait_until(SLOW, "free pages to be reported", || {
        Ok(vm.qemu.resident()? < full - used * 3 / 4)
    })
}
