// SPDX-License-Identifier: GPL-2.0-only

//! The driver's parameters, which can be changed while it runs.

use anyhow::{ensure, Result};
use guest_tests::vm::{Driver, Vm};

const PARAMETERS: &str = "/sys/module/virtio_balloon_bmap/parameters";

/// They can be read and written, and nonsense is refused.
pub fn parameters(vm: &mut Vm) -> Result<()> {
    vm.load()?;
    for (name, default) in [("oom_pages", "256"), ("floor_mib", "0")] {
        let file = format!("{PARAMETERS}/{name}");
        let shown = vm.guest.shell(&format!("cat {file}"))?;
        ensure!(shown.trim() == default, "{name} is {shown} at first");
        for (value, good) in [
            ("4096", true),
            ("0", true),
            ("7", true),
            ("-1", false),
            ("4294967296", false),
            ("many", false),
        ] {
            let written = vm.guest.try_shell(&format!("echo {value} > {file}"))?;
            ensure!((written.status == 0) == good, "{name}={value}: {written:?}");
        }
        let shown = vm.guest.shell(&format!("cat {file}"))?;
        ensure!(shown.trim() == "7", "{name} is {shown} now");
    }
    let order = vm.guest.shell(&format!("cat {PARAMETERS}/block_order"))?;
    ensure!(order.trim() == "10", "block_order is {order} at first");

    vm.unload()?;
    for nonsense in ["block_order=11", "block_order=-1", "page_bitmap=maybe"] {
        let loaded = vm.guest.try_shell(&Driver::Ours(nonsense).load_script())?;
        ensure!(loaded.status != 0, "the driver takes {nonsense}");
    }
    vm.load()?;
    vm.reach(vm.ram / 2).map(|_| ())
}

/// Sets a parameter.
pub fn set_parameter(vm: &mut Vm, name: &str, value: u64) -> Result<()> {
    vm.guest
        .shell(&format!("echo {value} > {PARAMETERS}/{name}"))
        .map(|_| ())
}
