// SPDX-License-Identifier: GPL-2.0-only

//! What a balloon is for: the host's memory falls by what it holds, and the guest's data is intact.

use anyhow::{ensure, Context, Result};

use crate::vm::Vm;
use crate::{MIB, PAGE_SIZE};

const FILE: &str = "/tmp/data";
const SEED: u64 = 0x5eed;
/// Bytes that the kernel needs to breathe, beside the balloon and the file.
pub const SPARE: u64 = 24 * MIB;
/// How far host memory may be from what the balloon holds.
const TOLERANCE_PERCENT: u64 = 3;

/// A guest that has used all of its memory and keeps a file of what a balloon will leave.
pub struct Reclaim {
    pages: u64,
    file_bytes: u64,
    /// Host memory before the inflation, in bytes.
    resident: u64,
}

impl Reclaim {
    /// Has the guest write to all of its memory, and then to a file as large as a balloon of
    /// `pages` pages will leave room for, less `spare` bytes: [`SPARE`] or more.
    pub fn prepare(vm: &mut Vm, pages: u64, spare: u64) -> Result<Self> {
        let balloon = pages * PAGE_SIZE;
        let available = vm.guest.memory()?.available * PAGE_SIZE;
        let file_bytes = available.checked_sub(balloon + spare).with_context(|| {
            format!(
                "{} MiB are available, too few for a balloon of {} MiB",
                available / MIB,
                balloon / MIB
            )
        })?;
        vm.guest.touch(available - SPARE / 2)?;
        vm.guest.make_file(FILE, file_bytes, SEED)?;
        let resident = vm.qemu.resident()?;
        let ram = vm.size * PAGE_SIZE;
        ensure!(
            resident > ram - ram / 10,
            "of {} MiB RAM the host has only {} MiB",
            ram / MIB,
            resident / MIB
        );
        Ok(Self {
            pages,
            file_bytes,
            resident,
        })
    }

    /// Size of the file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Checks that host memory fell by what the balloon holds.
    pub fn expect_host_fell(&self, vm: &mut Vm) -> Result<()> {
        expect_fell(self.resident, vm.qemu.resident()?, self.pages * PAGE_SIZE)
    }

    /// Checks every byte of the guest's file.
    pub fn expect_data(&self, vm: &mut Vm) -> Result<()> {
        vm.guest
            .verify_file(FILE, self.file_bytes, SEED)
            .context("the guest's data")
    }
}

fn expect_fell(before: u64, after: u64, balloon: u64) -> Result<()> {
    let fell = before.saturating_sub(after);
    ensure!(
        fell.abs_diff(balloon) <= balloon * TOLERANCE_PERCENT / 100,
        "host memory fell by {} MiB ({} to {}), but the balloon holds {} MiB",
        fell / MIB,
        before / MIB,
        after / MIB,
        balloon / MIB,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_percent_are_tolerated_and_no_more() {
        expect_fell(1000 * MIB, 500 * MIB, 500 * MIB).unwrap();
        expect_fell(1000 * MIB, 515 * MIB, 500 * MIB).unwrap();
        expect_fell(1000 * MIB, 485 * MIB, 500 * MIB).unwrap();
        assert!(expect_fell(1000 * MIB, 516 * MIB, 500 * MIB).is_err());
        assert!(expect_fell(1000 * MIB, 484 * MIB, 500 * MIB).is_err());
        assert!(expect_fell(1000 * MIB, 1001 * MIB, 500 * MIB).is_err());
    }
}
