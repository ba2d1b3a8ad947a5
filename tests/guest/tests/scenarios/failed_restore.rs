// SPDX-License-Identifier: GPL-2.0-only

//! The driver cannot set the device up when the system resumes.

use std::path::Path;

use anyhow::{ensure, Result};
use guest_tests::vm::{Setup, Vm};

use super::lifecycle::{fall_asleep, wake_up};

/// A restore that fails leaves the guest with all of its memory. The next one works, and the balloon
/// fills again.
pub fn failed_restore(setup: Setup, directory: &Path) -> Result<()> {
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    let target = vm.ram / 2;
    vm.reach(target)?;
    for is_good in [false, true] {
        fall_asleep(&mut vm)?;
        wake_up(&mut vm)?;
        if is_good {
            vm.await_actual(target)?;
            vm.expect_balloon(target)?;
        } else {
            let memory = vm.guest.memory()?;
            ensure!(
                memory.nr_balloon_pages == 0,
                "the balloon has pages without a device: {memory:?}"
            );
            vm.expect_consistent(&memory)?;
        }
    }
    vm.reach(target / 2)?;
    vm.reach(0)?;
    vm.finish()
}
