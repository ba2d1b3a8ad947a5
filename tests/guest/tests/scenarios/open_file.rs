// SPDX-License-Identifier: GPL-2.0-only

//! Somebody has the driver's file in debugfs open.

use anyhow::{ensure, Result};
use guest_tests::vm::Vm;

/// The module stays as long as the file is open, whether it was read or not. When the device is
/// unbound meanwhile, there is nothing to be read any more, and the file can be closed.
pub fn open_file(vm: &mut Vm) -> Result<()> {
    vm.load()?;
    let half = vm.ram / 2;
    vm.reach(half)?;
    let stats = vm
        .guest
        .shell("echo /sys/kernel/debug/virtio_balloon_bmap-*/stats")?;
    let stats = stats.trim();
    for read in ["true", "head -n 1 <&5 | grep -q target"] {
        let removed = vm.guest.try_shell(&format!(
            "exec 5<{stats}; {read} || exit 9; rmmod virtio_balloon_bmap; echo $?; exec 5<&-"
        ))?;
        ensure!(
            removed.status == 0 && !removed.text.trim_end().ends_with('0'),
            "the module went while its file was open: {removed:?}"
        );
    }
    vm.expect_balloon(half)?;

    let driver = "/sys/bus/virtio/drivers/virtio_balloon_bmap";
    for read in ["true", "head -n 1 <&5 | grep -q target"] {
        let output = vm.guest.try_shell(&format!(
            "device=$(cd {driver} && echo virtio*); exec 5<{stats}; {read} || exit 9; \
             echo $device > {driver}/unbind; cat <&5 && exit 8; exec 5<&-; \
             echo $device > {driver}/bind"
        ))?;
        ensure!(output.status == 0, "{output:?}");
        vm.expect_probe()?;
        vm.await_actual(half)?;
        vm.expect_balloon(half)?;
    }
    vm.unload()?;
    vm.load()?;
    vm.reach(0).map(|_| ())
}
