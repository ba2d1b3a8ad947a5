// SPDX-License-Identifier: GPL-2.0-only

//! RAM that is not one piece from 0 up.

use std::path::Path;

use anyhow::{ensure, Result};
use guest_tests::qemu::FarMemory;
use guest_tests::reclaim::{self, Reclaim};
use guest_tests::vm::{Setup, Vm};
use guest_tests::{MIB, PAGE_SIZE};

/// RAM in two regions, below and above 4 GiB.
pub fn high_memory(mut setup: Setup, directory: &Path) -> Result<()> {
    setup.machine.memory_mib = 3072;
    setup.machine.preallocated = true;
    let mut vm = Vm::boot(&setup, directory)?;
    ensure!(
        vm.guest.shell("cat /proc/iomem")?.contains("\n100000000-"),
        "no RAM above 4 GiB"
    );
    vm.load()?;
    let pages = vm.ram * 4 / 5;
    let reclaim = Reclaim::prepare(&mut vm, pages, reclaim::SPARE)?;
    vm.reach(pages)?;
    reclaim.expect_host_fell(&mut vm)?;
    vm.reach(0)?;
    reclaim.expect_data(&mut vm)?;
    vm.finish()
}

/// Pages further apart than 32 bitmaps of 32 KiB reach, which is 32 GiB: they take several passes.
pub fn wide_span(mut setup: Setup, directory: &Path) -> Result<()> {
    setup.machine.far_memory = Some(FarMemory {
        mib: 512,
        at_gib: 40,
    });
    setup.machine.command_line = "memhp_default_state=online".into();
    let mut vm = Vm::boot(&setup, directory)?;
    ensure!(
        vm.guest.shell("cat /proc/iomem")?.contains("a00000000-"),
        "no RAM at 40 GiB"
    );
    vm.load()?;
    // More than either piece holds.
    for pages in [vm.ram * 2 / 3, vm.ram / 4, vm.ram * 3 / 4, 0] {
        vm.reach(pages)?;
    }
    vm.finish()
}

/// Where most of the memory is for programs only, the balloon has that, and the kernel keeps its own.
pub fn movable_memory(mut setup: Setup, directory: &Path) -> Result<()> {
    setup.machine.far_memory = Some(FarMemory {
        mib: 1024,
        at_gib: 4,
    });
    setup.machine.command_line = "memhp_default_state=online_movable".into();
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    let movable = free_pages(&mut vm, |zone| zone == "Movable")?;
    ensure!(
        movable > 512 * MIB / PAGE_SIZE,
        "only {movable} pages are free in zone Movable"
    );
    let before = kernel_memory(&mut vm)?;
    let target = 768 * MIB / PAGE_SIZE;
    vm.reach(target)?;
    let left = kernel_memory(&mut vm)?;
    // A quarter is where blocks give way to single pages.
    ensure!(
        left > before / 5,
        "of {before} free pages that the kernel can have {left} are left"
    );
    vm.reach(0)?;
    vm.finish()
}

/// The free pages in all zones but the movable one.
fn kernel_memory(vm: &mut Vm) -> Result<u64> {
    free_pages(vm, |zone| zone != "Movable")
}

/// The free pages in the zones of these names.
fn free_pages(vm: &mut Vm, of: impl Fn(&str) -> bool) -> Result<u64> {
    let zones = vm.guest.free_blocks()?;
    let zones = zones.iter().filter(|zone| of(&zone.name));
    Ok(zones.map(|zone| zone.pages(..)).sum())
}
