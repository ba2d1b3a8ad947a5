// SPDX-License-Identifier: GPL-2.0-only

//! Free page hinting: a migration leaves out what the guest does not use.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use guest_tests::migration::Ram;
use guest_tests::process::wait_until;
use guest_tests::vm::{Setup, Vm};
use guest_tests::{MIB, PAGE_SIZE};

use super::statistics::newest;

const FREE_PAGE_HINT: usize = 3;
/// What a guest at rest allocates in a second, in pages, at most.
const MAX_IN_VAIN: u64 = 8 * 1024;
const SLOW: Duration = Duration::from_secs(60);
const FILE: &str = "/tmp/data";
const BYTES: u64 = 64 * MIB;
/// What the guest does not write to when it fills its memory.
const SPARE: u64 = 32 * MIB;

/// Much less is migrated of a guest that gives hints than of one that does not, and the data are the
/// same on the other side, where the guest has all of its memory again.
pub fn hinting(setup: Setup, directory: &Path) -> Result<()> {
    let (free, plain) = migrate(setup.clone(), directory, false)?;
    let (_, hinted) = migrate(setup, directory, true)?;
    println!(
        "hinting: {} MiB free, {} MiB migrated without hints, {} MiB with them",
        free / MIB,
        plain.transferred / MIB,
        hinted.transferred / MIB
    );
    ensure!(
        hinted.normal_bytes + free * 3 / 4 < plain.normal_bytes
            && hinted.transferred + free * 3 / 4 < plain.transferred,
        "{free} bytes were free: {plain:?} without hints, {hinted:?} with them"
    );
    Ok(())
}

/// What the guest holds back for its hints comes back when the migration is given up, and goes to a
/// process that wants it before.
pub fn hinting_under_pressure(vm: &mut Vm) -> Result<()> {
    let state = vm.directory().join("state");
    vm.load()?;
    let before = vm.guest.memory()?;
    for pressure in [false, true] {
        vm.begin_migration(&state)?;
        await_hints(vm, before.free * PAGE_SIZE)?;
        let during = vm.guest.memory()?;
        ensure!(
            during.free < before.free / 4,
            "the guest holds nothing back: {before:?}, {during:?}"
        );
        if pressure {
            let wanted = before.available * PAGE_SIZE - 2 * SPARE;
            ensure!(vm.guest.feed(wanted)?, "a process was killed");
            vm.guest.starve()?;
        }
        vm.cancel_migration()?;
        await_memory(vm, before.free)?;
    }
    let third = vm.ram / 3;
    vm.reach(third)?;
    vm.reach(0)?;
    Ok(fs::remove_file(state)?)
}

/// A device that does not use what it is given is waited for no longer than the driver is wanted: a
/// module that finds the queue full for ever can be removed.
pub fn hinting_to_the_deaf(mut setup: Setup, directory: &Path) -> Result<()> {
    setup.machine.memory_mib = 1024;
    let state = directory.join("state");
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    let before = vm.guest.memory()?;
    vm.begin_migration(&state)?;
    // Whoever finds no room must not go on to allocate what there is no room for.
    wait_until(SLOW, "the driver to wait for room", || {
        let held = before.free.saturating_sub(vm.guest.memory()?.free);
        let allocated = allocations(&mut vm)?;
        vm.guest.shell("sleep 1")?;
        let in_vain = allocations(&mut vm)? - allocated;
        Ok(held > before.free / 8 && in_vain < MAX_IN_VAIN)
    })?;
    vm.unload()?;
    vm.cancel_migration()?;
    await_memory(&mut vm, before.free)?;
    vm.load()?;
    vm.reach(vm.ram / 3)?;
    vm.reach(0)?;
    fs::remove_file(state)?;
    vm.finish()
}

/// Pages that were allocated since the guest booted.
fn allocations(vm: &mut Vm) -> Result<u64> {
    let counts = vm
        .guest
        .shell("grep ^pgalloc_ /proc/vmstat | cut -d ' ' -f 2")?;
    counts
        .lines()
        .map(|count| count.parse::<u64>().context("no count"))
        .sum()
}

/// Migrates a guest whose free memory is full of what it had there. Returns how many bytes were free,
/// and what went out.
fn migrate(mut setup: Setup, directory: &Path, hints: bool) -> Result<(u64, Ram)> {
    setup.machine.memory_mib = 1024;
    // Otherwise the driver itself makes zeros of it, which migrate well.
    setup.machine.command_line = "init_on_alloc=0".into();
    setup.device.features().free_page_hint = hints;
    // Free pages that are reported become zeros too.
    setup.device.features().free_page_reporting = false;
    let state = directory.join("state");
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    let features = vm.features()?;
    ensure!(
        features.contains(&FREE_PAGE_HINT) == hints,
        "the features are {features:?}"
    );
    vm.guest.make_file(FILE, BYTES, 1)?;
    let available = vm.guest.memory()?.available * PAGE_SIZE;
    vm.guest.touch(available - SPARE)?;
    let free = vm.guest.memory()?.free;
    vm.begin_migration(&state)?;
    if hints {
        await_hints(&mut vm, free * PAGE_SIZE)?;
    }
    let ram = vm.end_migration(&state)?;
    vm.guest.verify_file(FILE, BYTES, 1)?;
    await_memory(&mut vm, free)?;
    vm.guest.touch(available - SPARE)?;
    let half = vm.ram / 2;
    vm.reach(half)?;
    vm.guest.verify_file(FILE, BYTES, 1)?;
    vm.reach(0)?;
    newest(&mut vm)?;
    fs::remove_file(state)?;
    vm.finish()?;
    Ok((free * PAGE_SIZE, ram))
}

/// Waits until most of the free memory is no longer to be migrated.
fn await_hints(vm: &mut Vm, free: u64) -> Result<()> {
    let ram = vm.ram * PAGE_SIZE;
    wait_until(SLOW, "hints", || {
        Ok(vm.migrating_ram()?.remaining + free * 4 / 5 < ram)
    })
}

/// Waits until the guest has free what it had before.
fn await_memory(vm: &mut Vm, before: u64) -> Result<()> {
    wait_until(SLOW, "the guest's memory to come back", || {
        Ok(vm.guest.memory()?.free > before * 9 / 10)
    })
}
