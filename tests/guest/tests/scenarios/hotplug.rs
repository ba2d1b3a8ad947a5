// SPDX-License-Identifier: GPL-2.0-only

//! The device comes and goes while the guest runs.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use guest_tests::process::wait_until;
use guest_tests::vm::{Setup, Vm};

use super::reload::expect_all_back;
use super::transfer::interrupt;

/// A device plugged into a running guest is used; unplugging it, at rest or in the middle of an
/// inflation, gives every page back.
pub fn hotplug(mut setup: Setup, directory: &Path) -> Result<()> {
    setup.plugged = false;
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    for unplug_at_rest in [true, false] {
        vm.plug()?;
        vm.expect_probe()?;
        vm.reach(vm.ram / 3)?;
        if !unplug_at_rest {
            let to = vm.ram * 2 / 3;
            interrupt(&mut vm, 0, to)?;
        }
        vm.unplug()?;
        wait_until(Duration::from_secs(20), "the balloon to be gone", || {
            Ok(vm.guest.memory()?.nr_balloon_pages == 0)
        })?;
        expect_all_back(&mut vm)?;
    }
    vm.plug()?;
    vm.expect_probe()?;
    vm.reach(vm.ram / 2)?;
    vm.unload()?;
    expect_all_back(&mut vm)?;
    vm.finish()
}
