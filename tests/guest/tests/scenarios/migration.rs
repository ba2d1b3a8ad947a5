// SPDX-License-Identifier: GPL-2.0-only

//! A live migration of a guest with a balloon.

use std::fs;
use std::path::Path;

use anyhow::Result;
use guest_tests::vm::{Setup, Vm};
use guest_tests::MIB;

use super::statistics::newest;
use super::transfer::interrupt;

const FILE: &str = "/tmp/data";
const BYTES: u64 = 64 * MIB;

/// A balloon moves with its guest, at rest or on its way to a target, and the guest's data too.
pub fn migration(mut setup: Setup, directory: &Path) -> Result<()> {
    setup.machine.memory_mib = 1024;
    let state = directory.join("state");
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    vm.guest.make_file(FILE, BYTES, 1)?;
    let half = vm.ram / 2;
    vm.reach(half)?;
    vm.begin_migration(&state)?;
    vm.end_migration(&state)?;
    vm.expect_balloon(half)?;
    vm.guest.verify_file(FILE, BYTES, 1)?;

    let most = vm.ram * 2 / 3;
    interrupt(&mut vm, 0, most)?;
    vm.begin_migration(&state)?;
    vm.end_migration(&state)?;
    vm.await_actual(most)?;
    vm.expect_balloon(most)?;
    vm.guest.verify_file(FILE, BYTES, 1)?;
    vm.reach(0)?;
    newest(&mut vm)?;
    fs::remove_file(state)?;
    vm.finish()
}
