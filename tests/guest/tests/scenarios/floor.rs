//! The memory that the balloon leaves to the guest.

use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Result};
use guest_tests::process::wait_until;
use guest_tests::vm::{Setup, Vm};
use guest_tests::{MIB, PAGE_SIZE};

use super::parameters::set_parameter;

/// Inflation stops above the floor, and goes on when that is gone.
pub fn floor(mut setup: Setup, directory: &Path) -> Result<()> {
    const FLOOR: u64 = 300 * MIB;
    setup.machine.memory_mib = 1024;
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    set_parameter(&mut vm, "floor_mib", FLOOR / MIB)?;
    let target = vm.ram * 3 / 4;
    vm.set_target(target)?;
    wait_until(Duration::from_secs(60), "the floor", || {
        Ok(vm.driver_counter("floor_hits")? > 3)
    })?;
    let (actual, memory) = (vm.actual()?, vm.guest.memory()?);
    ensure!(actual > 0 && actual < target, "{actual} of {target}");
    ensure!(
        (memory.available * PAGE_SIZE).abs_diff(FLOOR) < 32 * MIB,
        "the floor is {} MiB, but {memory:?}",
        FLOOR / MIB
    );
    ensure!(
        vm.driver_counter("floor")? == FLOOR / PAGE_SIZE,
        "debugfs shows another floor"
    );
    set_parameter(&mut vm, "floor_mib", 0)?;
    vm.await_actual(target)?;
    vm.expect_balloon(target)?;
    vm.finish()
}
