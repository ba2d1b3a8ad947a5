//! The host gets the balloon's memory, and nothing else of the guest's.

use std::path::Path;

use anyhow::Result;
use guest_tests::reclaim::Reclaim;
use guest_tests::vm::{Setup, Vm};

/// A guest that has used all of its memory inflates two thirds of it around a file that fills
/// the rest: the host's memory falls by the balloon, within 3 %, and the file stays what it is.
pub fn reclaim(mut setup: Setup, directory: &Path) -> Result<()> {
    setup.machine.memory_mib = 1024;
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    let pages = vm.ram * 2 / 3;
    let reclaim = Reclaim::prepare(&mut vm, pages)?;
    vm.reach(pages)?;
    reclaim.expect_host_fell(&mut vm)?;
    reclaim.expect_data(&mut vm)?;
    vm.reach(0)?;
    reclaim.expect_data(&mut vm)?;
    // What came back is memory again.
    vm.guest.touch(pages * guest_tests::PAGE_SIZE / 2)?;
    reclaim.expect_data(&mut vm)?;
    vm.finish()
}
