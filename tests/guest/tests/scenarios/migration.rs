// SPDX-License-Identifier: GPL-2.0-only

//! A live migration of a guest with a balloon.

use std::fs;

use anyhow::Result;
use guest_tests::vm::Vm;
use guest_tests::MIB;

use super::statistics::newest;
use super::transfer::interrupt;

const FILE: &str = "/tmp/data";
const BYTES: u64 = 64 * MIB;

/// A balloon moves with its guest, at rest or on its way to a target, and the guest's data too.
pub fn migration(vm: &mut Vm) -> Result<()> {
    let state = vm.directory().join("state");
    vm.load()?;
    vm.guest.make_file(FILE, BYTES, 1)?;
    let half = vm.ram / 2;
    vm.reach(half)?;
    vm.begin_migration(&state)?;
    vm.end_migration(&state)?;
    vm.expect_balloon(half)?;
    vm.guest.verify_file(FILE, BYTES, 1)?;

    let most = vm.ram * 2 / 3;
    interrupt(vm, 0, most)?;
    vm.begin_migration(&state)?;
    vm.end_migration(&state)?;
    vm.await_actual(most)?;
    vm.expect_balloon(most)?;
    vm.guest.verify_file(FILE, BYTES, 1)?;
    vm.reach(0)?;
    newest(vm)?;
    Ok(fs::remove_file(state)?)
}
