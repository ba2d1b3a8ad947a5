// SPDX-License-Identifier: GPL-2.0-only

//! A guest whose free memory lies in single pages.

use std::time::Duration;

use anyhow::{ensure, Context, Result};
use guest_tests::memory::Memory;
use guest_tests::process::wait_until;
use guest_tests::vm::{Driver, Vm};
use guest_tests::{MIB, PAGE_SIZE};

const PROACTIVENESS: &str = "/proc/sys/vm/compaction_proactiveness";
/// Left to the guest beside the balloon.
const SPARE: u64 = 64 * MIB;
/// Of that, what still lies together when the balloon has reached its target,
const TOGETHER: u64 = 2 * MIB;
/// in blocks of this order or a higher one.
const TOGETHER_ORDER: usize = 4;
/// How often compaction is given another memory to move pages in, with the first.
const ARRANGEMENTS: usize = 3;

/// The target is reached to the page where most of what is free has no free neighbour, and the
/// host has each page of RAM but those of the balloon.
pub fn fragmented(vm: &mut Vm) -> Result<()> {
    vm.qemu.host_memory()?.populate()?;
    vm.load()?;
    // What lies together is to be what the driver left, not what the kernel made for no reason.
    let usual = vm.guest.shell(&format!("cat {PROACTIVENESS}"))?;
    vm.guest.shell(&format!("echo 0 > {PROACTIVENESS}"))?;
    let memory = fragment(vm)?;
    let migrated = memory.balloon_migrate;
    let single: u64 = vm
        .guest
        .free_blocks()?
        .iter()
        .map(|zone| zone.pages(..1))
        .sum();
    ensure!(
        single > memory.free / 2,
        "only {single} of {} free pages lie alone",
        memory.free
    );

    let target = memory.available - SPARE / PAGE_SIZE;
    ensure!(
        target > memory.free - single,
        "the target needs no single page: {memory:?}"
    );
    vm.reach(target)?;
    if vm.driver() != Driver::Stock {
        // As long as the kernel compacts memory, which it does in answer to blocks that are taken
        // from among movable pages, it has some of these itself.
        let mut together = 0;
        let kept = wait_until(Duration::from_secs(10), "pages that lie together", || {
            together = free_together(vm)?;
            Ok(together > TOGETHER / PAGE_SIZE)
        });
        kept.with_context(|| format!("only {together} of the guest's free pages lie together"))?;
    }
    let resident = vm.qemu.resident()? / PAGE_SIZE;
    // Compaction may have moved some, and where those were nobody has been since.
    let moved = vm.guest.memory()?.balloon_migrate - migrated;
    ensure!(
        (vm.size - target - moved..=vm.size - target).contains(&resident),
        "the host has {resident} of {} pages, {target} are the balloon's, of which {moved} were moved",
        vm.size
    );
    vm.reach(target / 3)?;
    vm.reach(target + 1)?;
    // What came back from the balloon in between is resident only where it was used.
    let resident = vm.qemu.resident()? / PAGE_SIZE;
    ensure!(
        resident < vm.size - target,
        "the host has {resident} of {} pages, {target} + 1 are the balloon's",
        vm.size
    );
    // The pages that were held had better be untouched.
    vm.guest.release()?;
    vm.reach(0)?;
    vm.guest
        .shell(&format!("echo {} > {PROACTIVENESS}", usual.trim()))
        .map(|_| ())
}

/// The free pages that lie together. Zone DMA is kept for whoever needs that one.
fn free_together(vm: &mut Vm) -> Result<u64> {
    let zones = vm.guest.free_blocks()?;
    let zone = zones.iter().find(|zone| zone.name == "DMA32");
    Ok(zone.context("no zone DMA32")?.pages(TOGETHER_ORDER..))
}

/// Compaction moves pages of the balloon: it stays as large as it was, and the device knows.
pub fn compaction(vm: &mut Vm) -> Result<()> {
    vm.load()?;
    let migrated = vm.guest.memory()?.balloon_migrate;
    // The kernel gives up early now and then, with any driver, and goes on doing so until its memory lies
    // differently.
    let mut left = ARRANGEMENTS;
    let target = loop {
        let target = arrange(vm)?;
        left -= 1;
        match compact(vm, migrated + 100) {
            Ok(()) => break target,
            Err(err) if left == 0 => return Err(err),
            Err(err) => println!("compaction: {err:#}, with memory as it lies: {left} times more"),
        }
        vm.reach(0)?;
    };
    vm.expect_balloon(target)?;
    vm.expect_conserved()?;
    if vm.driver() != Driver::Stock {
        // The kernel's own compaction may not be at its end yet.
        let (mut moved, mut counted) = (0, 0);
        let agreed = wait_until(Duration::from_secs(10), "the migrations' count", || {
            moved = vm.guest.memory()?.balloon_migrate - migrated;
            counted = vm.driver_counter("migrations")?;
            Ok(moved == counted)
        });
        agreed.with_context(|| format!("{moved} pages were moved, the driver counts {counted}"))?;
    }
    vm.reach(target / 2)?;
    vm.reach(0).map(|_| ())
}

/// Leaves the guest every other page of its memory, and says what it then has.
fn fragment(vm: &mut Vm) -> Result<Memory> {
    let available = vm.guest.memory()?.available * PAGE_SIZE;
    vm.guest.fragment(available - SPARE)?;
    vm.guest.memory()
}

/// A balloon of single pages, each beside a page that is free. Returns its size.
pub fn arrange(vm: &mut Vm) -> Result<u64> {
    let target = fragment(vm)?.available - SPARE / PAGE_SIZE;
    vm.reach(target)?;
    vm.guest.release()?;
    Ok(target)
}

/// Has the guest ask for huge pages, which cannot be had in such a memory without compaction, until that has
/// moved more than so many pages of balloons since the boot.
fn compact(vm: &mut Vm, migrated: u64) -> Result<()> {
    let mut sizes = (150..=350).step_by(50).cycle();
    wait_until(
        Duration::from_secs(30),
        "compaction to move pages of the balloon",
        || {
            let pages = sizes.next().unwrap_or(150);
            vm.guest.shell(&format!(
                "cd /proc/sys/vm; echo 1 > compact_memory; echo {pages} > nr_hugepages; echo 0 > nr_hugepages"
            ))?;
            Ok(vm.guest.memory()?.balloon_migrate > migrated)
        },
    )
}
