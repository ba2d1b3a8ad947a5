// SPDX-License-Identifier: GPL-2.0-only

//! What holds back the growth of the balloon holds back nothing else.

use std::time::Duration;

use anyhow::{ensure, Context, Result};
use guest_tests::process::wait_until;
use guest_tests::vm::Vm;
use guest_tests::{MIB, PAGE_SIZE};

use super::parameters::set_parameter;

const SLOW: Duration = Duration::from_secs(120);
/// A pause that is long enough to see something in it, on any machine.
const LONG_PAUSE_MS: u64 = 30_000;
/// What the balloon is to give back in the pause.
const STEP: u64 = 64 * MIB / PAGE_SIZE;

/// After the guest ran out of memory the balloon does not grow for a while, but shrinks when it is to.
pub fn shrinks_in_a_pause(vm: &mut Vm) -> Result<()> {
    vm.load()?;
    let available = vm.guest.memory()?.available * PAGE_SIZE;
    let wanted = available.checked_sub(96 * MIB).context("a small guest")?;
    vm.reach(vm.ram / 2)?;
    // It never has its size, so that each pause is twice as long as the one before.
    vm.set_target(vm.ram - 1)?;
    for _ in 0..8 {
        wait_until(SLOW, "the pause to end", || {
            Ok(vm.driver_counter("growth_pause_ms")? == 0)
        })?;
        let before = vm.actual()?;
        wait_until(SLOW, "the balloon to grow", || {
            Ok(vm.actual()? > before || before > vm.ram * 3 / 4)
        })?;
        ensure!(vm.guest.feed(wanted)?, "the process was killed");
        if vm.driver_counter("growth_pause_ms")? > LONG_PAUSE_MS {
            break;
        }
        vm.guest.starve()?;
    }
    ensure!(
        vm.driver_counter("growth_pause_ms")? > LONG_PAUSE_MS,
        "the pauses did not get longer"
    );
    let actual = vm.actual()?;
    let less = actual.checked_sub(STEP).context("a small balloon")?;
    vm.set_target(less)?;
    vm.await_actual(less)?;
    ensure!(
        vm.driver_counter("growth_pause_ms")? > 0,
        "the balloon shrank only after the pause"
    );
    vm.set_target(actual)?;
    vm.guest.shell("sleep 1")?;
    let grown = vm.actual()?;
    ensure!(
        grown == less || vm.driver_counter("growth_pause_ms")? == 0,
        "the balloon grew in the pause: {grown}"
    );
    vm.guest.starve()?;
    vm.reach(0).map(|_| ())
}

/// The balloon is looked at as soon as the floor is written to, and not only when it would be anyway.
pub fn floor_is_heeded_at_once(vm: &mut Vm) -> Result<()> {
    const WRITES: u64 = 20;
    vm.load()?;
    let much = vm.guest.memory()?.available * PAGE_SIZE / MIB * 2;
    set_parameter(vm, "floor_mib", much)?;
    vm.set_target(vm.ram / 2)?;
    wait_until(SLOW, "the floor", || {
        Ok(vm.driver_counter("floor_hits")? > 0)
    })?;

    // Whoever looks each second looks hardly oftener than seconds go by.
    let mut proved = false;
    for _ in 0..10 {
        let before = vm.driver_counter("floor_hits")?;
        let started = uptime(vm)?;
        for write in 0..WRITES {
            set_parameter(vm, "floor_mib", much + write % 2)?;
        }
        let looks = vm.driver_counter("floor_hits")? - before;
        let seconds = uptime(vm)? - started;
        println!("floor: {looks} looks at {WRITES} writes in {seconds:.1} s");
        proved |= looks as f64 > seconds + 5.0;
        if proved {
            break;
        }
    }
    ensure!(proved, "the floor was looked at no oftener than ever");
    set_parameter(vm, "floor_mib", 0)?;
    let half = vm.ram / 2;
    vm.await_actual(half)?;
    vm.expect_balloon(half)?;
    vm.reach(0).map(|_| ())
}

fn uptime(vm: &mut Vm) -> Result<f64> {
    let uptime = vm.guest.shell("cut -d ' ' -f 1 /proc/uptime")?;
    uptime.trim().parse().context("no uptime")
}
