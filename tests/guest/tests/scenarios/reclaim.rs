// SPDX-License-Identifier: GPL-2.0-only

//! The host gets the balloon's memory, and nothing else of the guest's.

use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Result};
use guest_tests::environment::{self, Kernel};
use guest_tests::process::wait_until;
use guest_tests::reclaim::{self, Reclaim};
use guest_tests::vm::{Setup, Vm};
use guest_tests::MIB;

/// By how much the host's memory may rise while a balloon grows: docs/DRIVER.md.
const BOUND: u64 = 256 * MIB;
/// The same in a kernel that does not write to the pages: patches/linux.
const UNTOUCHED_BOUND: u64 = 32 * MIB;

/// A guest that has used all of its memory inflates two thirds of it around a file that fills
/// the rest: the host's memory falls by the balloon, within 3 %, and the file stays what it is.
pub fn reclaim(vm: &mut Vm) -> Result<()> {
    // Or a page that nobody has used yet would not be missed when the balloon has it.
    vm.qemu.host_memory()?.populate()?;
    vm.load()?;
    let pages = vm.ram * 2 / 3;
    let reclaim = Reclaim::prepare(vm, pages, reclaim::SPARE)?;
    vm.reach(pages)?;
    reclaim.expect_host_fell(vm)?;
    reclaim.expect_data(vm)?;
    vm.reach(0)?;
    reclaim.expect_data(vm)?;
    // What came back is memory again.
    vm.guest.touch(pages * guest_tests::PAGE_SIZE / 2)?;
    reclaim.expect_data(vm)
}

/// A guest that has used next to none of its memory gives three quarters of it, and the host never
/// has much more of it than before, though the guest's kernel writes to each page that it allocates, or
/// hardly more, where the kernel leaves out what the balloon takes.
pub fn bound(mut setup: Setup, directory: &Path) -> Result<()> {
    setup.machine.memory_mib = 2048;
    setup.machine.command_line.push_str(" init_on_alloc=1");
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    let pages = vm.ram * 3 / 4;
    let before = vm.qemu.resident()?;
    let mut peak = before;
    vm.set_target(pages)?;
    wait_until(Duration::from_secs(120), "the balloon's target", || {
        peak = peak.max(vm.qemu.resident()?);
        Ok(vm.actual()? == pages)
    })?;
    let bound = match environment::kernel_kind()? {
        Kernel::BuiltIn => UNTOUCHED_BOUND,
        Kernel::Distribution | Kernel::Debug => BOUND,
    };
    ensure!(
        peak <= before + bound,
        "the host's memory rose from {} MiB to {} MiB",
        before / MIB,
        peak / MIB
    );
    vm.expect_balloon(pages)?;
    vm.finish()
}
