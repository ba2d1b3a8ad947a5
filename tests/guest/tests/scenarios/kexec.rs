// SPDX-License-Identifier: GPL-2.0-only

//! A new kernel takes over without a reset of the machine.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{ensure, Result};
use guest_tests::vm::{Setup, Vm};
use guest_tests::{environment, initramfs};

use super::transfer::interrupt;

/// The old kernel leaves the device such that it writes to no memory of the new one's, where the
/// balloon starts empty and fills again.
pub fn kexec(mut setup: Setup, directory: &Path) -> Result<()> {
    setup.machine.memory_mib = 1024;
    let (kernel, initramfs) = (
        fs::read(environment::kernel()?)?,
        fs::read(initramfs::path()?)?,
    );
    let disk = directory.join("kernel");
    let mut file = File::create(&disk)?;
    file.write_all(&kernel)?;
    file.write_all(&initramfs)?;
    setup.machine.add_disk(&disk)?;

    let mut vm = Vm::boot(&setup, directory)?;
    vm.guest.shell(&format!(
        "head -c {} /dev/nvme0n1 > /tmp/kernel && \
         tail -c +{} /dev/nvme0n1 | head -c {} > /tmp/initramfs",
        kernel.len(),
        kernel.len() + 1,
        initramfs.len()
    ))?;
    vm.guest.load_kernel("/tmp/kernel", "/tmp/initramfs")?;
    vm.guest.shell("rm /tmp/kernel /tmp/initramfs")?;
    vm.load()?;
    let target = vm.ram / 2;
    interrupt(&mut vm, 0, target)?;
    vm.guest.start_kernel()?;
    vm.await_reboot()?;
    ensure!(
        vm.guest.memory()?.nr_balloon_pages == 0,
        "the new kernel has a balloon without a driver"
    );
    vm.load()?;
    vm.await_actual(target)?;
    vm.expect_balloon(target)?;
    vm.expect_conserved()?;
    let available = vm.guest.memory()?.available;
    vm.guest.touch(available * guest_tests::PAGE_SIZE / 2)?;
    vm.reach(0)?;
    fs::remove_file(disk)?;
    vm.finish()
}
