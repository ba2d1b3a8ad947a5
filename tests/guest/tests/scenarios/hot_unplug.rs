// SPDX-License-Identifier: GPL-2.0-only

//! Memory that goes offline while a balloon has blocks in it.

use std::path::Path;

use anyhow::{ensure, Result};
use guest_tests::page_set::PageSet;
use guest_tests::qemu::FarMemory;
use guest_tests::vm::{Setup, Vm};
use guest_tests::PAGE_SIZE;

const FAR: FarMemory = FarMemory {
    mib: 512,
    at_gib: 40,
};

/// The pages of a pageblock.
const PAGEBLOCK: u64 = 512;

/// Blocks leave memory that is to go offline, and the balloon keeps its size with others.
pub fn hot_unplug(mut setup: Setup, directory: &Path) -> Result<()> {
    setup.machine.far_memory = Some(FAR);
    setup.machine.command_line = "memhp_default_state=online".into();
    let mut vm = Vm::boot(&setup, directory)?;
    // What the kernel has in there itself does not move: only the rest can be asked for later.
    let mut candidates = Vec::new();
    for place in places(&mut vm)? {
        if set_state(&mut vm, &place, "offline")? {
            ensure!(
                set_state(&mut vm, &place, "online_kernel")?,
                "{} does not come back",
                place.name
            );
            candidates.push(place);
        }
    }
    ensure!(!candidates.is_empty(), "no memory can go offline at all");

    vm.load()?;
    let target = vm.ram * 3 / 5;
    vm.reach(target)?;
    let (mut vacated, mut looks) = (0, 0);
    for place in candidates {
        let held = place.pages_in(&vm.guest.balloon_pages()?);
        if held < place.pages / 2 || !set_state(&mut vm, &place, "offline")? {
            looks = vm.driver_counter("eviction_looks")?;
            continue;
        }
        vacated += 1;
        // However many blocks there are elsewhere: none is smaller than a pageblock.
        let looked = vm.driver_counter("eviction_looks")? - looks;
        looks += looked;
        ensure!(
            (1..=place.pages / PAGEBLOCK).contains(&looked),
            "{looked} places were looked at for the blocks in {} pages",
            place.pages
        );
        // Others take their place, and the device knows.
        vm.await_actual(target)?;
        vm.expect_conserved()?;
        ensure!(
            place.pages_in(&vm.guest.balloon_pages()?) == 0,
            "{} is offline, and the balloon has pages in it",
            place.name
        );
        ensure!(
            set_state(&mut vm, &place, "online_kernel")?,
            "{} does not come back",
            place.name
        );
    }
    ensure!(vacated > 0, "no memory with blocks in it went offline");
    vm.expect_balloon(target)?;
    vm.reach(0)?;
    vm.finish()
}

/// A stretch of memory that goes offline and online as a whole.
struct Place {
    name: String,
    pfn: u64,
    pages: u64,
}

impl Place {
    /// How many of these pages are in there.
    fn pages_in(&self, pages: &PageSet) -> u64 {
        let all = PageSet::from_iter([(self.pfn, self.pages)]);
        self.pages - all.without(pages).pages()
    }
}

/// All there is of the far memory.
fn places(vm: &mut Vm) -> Result<Vec<Place>> {
    let size = u64::from_str_radix(
        vm.guest
            .shell("cat /sys/devices/system/memory/block_size_bytes")?
            .trim(),
        16,
    )?;
    let first = (FAR.at_gib << 30) / size;
    let count = (FAR.mib << 20) / size;
    Ok((first..first + count)
        .map(|number| Place {
            name: format!("memory{number}"),
            pfn: number * size / PAGE_SIZE,
            pages: size / PAGE_SIZE,
        })
        .collect())
}

/// Returns whether the kernel has done it.
fn set_state(vm: &mut Vm, place: &Place, state: &str) -> Result<bool> {
    let name = &place.name;
    let done = vm.guest.try_shell(&format!(
        "echo {state} > /sys/devices/system/memory/{name}/state"
    ))?;
    Ok(done.status == 0)
}
