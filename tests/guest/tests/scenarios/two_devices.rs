// SPDX-License-Identifier: GPL-2.0-only

//! Two balloons in one guest: the daemon's and QEMU's.

use std::time::Duration;

use anyhow::{ensure, Result};
use guest_tests::process::wait_until;
use guest_tests::vm::Vm;
use guest_tests::PAGE_SIZE;
use serde_json::{json, Value};

use super::reload::expect_all_back;

const SECOND: &str = "balloon1";
const SOON: Duration = Duration::from_secs(60);

/// Each has its own target and its own counters, and when one goes the other keeps its pages.
pub fn two_devices(vm: &mut Vm) -> Result<()> {
    vm.load()?;
    let (first, second) = (vm.ram / 4, vm.ram / 8 + 1);
    for again in [true, false] {
        vm.qemu
            .plug(json!({ "driver": "virtio-balloon-pci", "id": SECOND }))?;
        vm.count_probes(1);
        wait_until(SOON, "the second probe", || {
            Ok(vm.driver_counters()?.len() == 2)
        })?;
        vm.set_target(first)?;
        let rest = (vm.size - second) * PAGE_SIZE;
        vm.qemu.qmp.execute("balloon", json!({ "value": rest }))?;
        vm.await_actual(first)?;
        wait_until(SOON, "the second balloon", || {
            let answer = vm.qemu.qmp.execute("query-balloon", Value::Null)?;
            Ok(answer["actual"] == rest)
        })?;
        let memory = vm.guest.memory()?;
        vm.expect_consistent(&memory)?;
        ensure!(
            memory.nr_balloon_pages == first + second,
            "balloons of {first} and {second} pages: {memory:?}"
        );
        let counters = vm.driver_counters()?;
        let mut sizes = counters
            .iter()
            .map(|counters| counters.get("actual"))
            .collect::<Result<Vec<_>>>()?;
        sizes.sort_unstable();
        ensure!(sizes == [second, first], "debugfs shows {counters:?}");

        if again {
            vm.qemu.unplug(SECOND)?;
            wait_until(SOON, "the second balloon's pages", || {
                Ok(vm.guest.memory()?.nr_balloon_pages == first)
            })?;
            vm.expect_conserved()?;
            ensure!(
                vm.driver_counters()?.len() == 1,
                "debugfs shows a device that went"
            );
        }
    }
    vm.unload()?;
    expect_all_back(vm)?;
    ensure!(
        vm.driver_counters()?.is_empty(),
        "debugfs has a directory left"
    );
    vm.qemu.unplug(SECOND)
}
