// SPDX-License-Identifier: GPL-2.0-only

//! The memory that the balloon leaves to the guest.

use std::time::Duration;

use anyhow::{ensure, Result};
use guest_tests::memory::Memory;
use guest_tests::process::wait_until;
use guest_tests::vm::Vm;
use guest_tests::{MIB, PAGE_SIZE};

use super::parameters::set_parameter;

const FLOOR: u64 = 300 * MIB;
/// What a process has until the balloon has come to the floor.
const USED: u64 = 128 * MIB;
const SLOW: Duration = Duration::from_secs(60);

/// Inflation stops above the floor, and goes on when the guest has more than that again, or when the
/// floor is gone.
pub fn floor(vm: &mut Vm) -> Result<()> {
    vm.load()?;
    set_parameter(vm, "floor_mib", FLOOR / MIB)?;
    ensure!(vm.guest.feed(USED)?, "a process was killed");
    let target = vm.ram * 3 / 4;
    vm.set_target(target)?;
    wait_until(SLOW, "the floor", || {
        Ok(vm.driver_counter("floor_hits")? > 3)
    })?;
    let stopped = expect_at_floor(vm, target)?;
    ensure!(
        vm.driver_counter("floor")? == FLOOR / PAGE_SIZE,
        "debugfs shows another floor"
    );

    vm.guest.starve()?;
    wait_until(SLOW, "the balloon to take what was freed", || {
        Ok(taken(vm.actual()?, &vm.guest.memory()?) > stopped + USED * 7 / 8 / PAGE_SIZE)
    })?;
    expect_at_floor(vm, target)?;

    set_parameter(vm, "floor_mib", 0)?;
    vm.await_actual(target)?;
    vm.expect_balloon(target)
}

/// Checks that the balloon is on its way to its target, and leaves what it has to. Returns what is
/// taken.
fn expect_at_floor(vm: &mut Vm, target: u64) -> Result<u64> {
    let (actual, memory) = (vm.actual()?, vm.guest.memory()?);
    ensure!(actual > 0 && actual < target, "{actual} of {target}");
    ensure!(
        (memory.available * PAGE_SIZE).abs_diff(FLOOR) < 32 * MIB,
        "the floor is {} MiB, but {memory:?}",
        FLOOR / MIB
    );
    Ok(taken(actual, &memory))
}

/// What the balloon has of the guest's free memory, and what its processors keep for themselves: the
/// kernel does not count that as available.
fn taken(actual: u64, memory: &Memory) -> u64 {
    actual + memory.per_cpu
}
