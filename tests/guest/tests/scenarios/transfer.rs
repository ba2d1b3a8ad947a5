// SPDX-License-Identifier: GPL-2.0-only

//! What happens in the middle of an inflation or deflation.

use std::time::Duration;

use anyhow::{bail, ensure, Result};
use guest_tests::vm::Vm;
use serde_json::Value;

/// Returns in the middle of the way from a balloon of `from` pages to one of `to` pages.
pub fn interrupt(vm: &mut Vm, from: u64, to: u64) -> Result<()> {
    for _ in 0..20 {
        vm.reach(from)?;
        vm.set_target(to)?;
        if vm.await_change(from)? != to {
            return Ok(());
        }
    }
    bail!("20 times from {from} to {to} pages, and never seen in between");
}

/// A newer target is taken up in the middle of the way to an older one.
pub fn retarget(vm: &mut Vm) -> Result<()> {
    vm.load()?;
    let part = |percent| vm.ram * percent / 100;
    let ways = [
        (0, part(75), part(25)),
        (0, part(40), part(70)),
        (part(70), 0, part(50)),
        (part(75), part(10), 0),
    ];
    for (from, to, instead) in ways {
        interrupt(vm, from, to)?;
        vm.reach(instead)?;
    }
    // Many at once: the last one counts.
    for step in 0..100 {
        vm.set_target(vm.ram * (step % 7) / 10)?;
    }
    vm.reach(vm.ram / 3).map(|_| ())
}

/// A guest may be paused at any time; a target set meanwhile is taken up afterwards.
pub fn stop_cont(vm: &mut Vm) -> Result<()> {
    vm.load()?;
    let high = vm.ram * 3 / 4;
    for (from, to, then) in [
        (0, high, high),
        (high, 0, vm.ram / 2),
        (0, high, vm.ram / 4),
    ] {
        interrupt(vm, from, to)?;
        vm.qemu.qmp.execute("stop", Value::Null)?;
        for step in 1..=10 {
            vm.set_target(then * step / 10)?;
            std::thread::sleep(Duration::from_millis(30));
        }
        let status = vm.qemu.qmp.execute("query-status", Value::Null)?;
        ensure!(
            status["status"] == "paused",
            "the guest is not paused: {status}"
        );
        vm.qemu.qmp.execute("cont", Value::Null)?;
        vm.await_actual(then)?;
        vm.expect_balloon(then)?;
    }
    Ok(())
}
