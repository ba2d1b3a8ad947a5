// SPDX-License-Identifier: GPL-2.0-only

//! The guest is saved to a disk, and goes on from there in another machine.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use guest_tests::vm::{Setup, Vm};
use guest_tests::MIB;

use super::statistics::newest;

const FILE: &str = "/tmp/data";
const BYTES: u64 = 64 * MIB;
const LONG: Duration = Duration::from_secs(120);

/// What the balloon has is not saved, and goes back into it when the target says so; what the guest
/// has is saved.
pub fn hibernation(mut setup: Setup, directory: &Path) -> Result<()> {
    setup.machine.command_line = "resume=/dev/nvme0n1".into();
    // The kernel makes room for the image while the balloon is still full.
    setup.machine.memory_mib = 1024;
    let disk = directory.join("swap");
    File::create(&disk)?.set_len(1024 * MIB)?;
    setup.machine.add_disk(&disk)?;
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    vm.guest
        .shell("mkswap /dev/nvme0n1 && swapon /dev/nvme0n1")?;
    vm.guest.make_file(FILE, BYTES, 1)?;
    let target = vm.ram / 2;
    vm.reach(target)?;
    newest(&mut vm)?;

    // The agent's port is deaf after that until its driver is bound anew.
    vm.guest.send_shell(
        "echo shutdown > /sys/power/disk; echo disk > /sys/power/state; \
         cd /sys/bus/virtio/drivers/virtio_console; \
         console=$(basename virtio*); echo $console > unbind; echo $console > bind",
    )?;
    vm.qemu.wait_end(LONG)?;
    vm.go_on(None)?;
    vm.guest.wait_hello(LONG)?;
    // The new machine has no target yet.
    vm.await_actual(0)?;
    vm.expect_balloon(0)?;
    vm.guest.verify_file(FILE, BYTES, 1)?;
    vm.reach(target)?;
    newest(&mut vm)?;
    vm.guest.verify_file(FILE, BYTES, 1)?;
    vm.reach(0)?;
    fs::remove_file(disk)?;
    vm.finish()
}
