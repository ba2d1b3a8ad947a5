// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::os::unix::fs::FileExt;

use nix::sys::memfd::memfd_create;
use nix::sys::memfd::MFdFlags;

use super::*;

fn range(start_pfn: u64, pages: u64) -> PageRange {
    PageRange { start_pfn, pages }
}

pub(crate) fn info(file: &File, gpa: u64, size: u64, file_offset: u64) -> RegionInfo {
    RegionInfo {
        gpa,
        size,
        user_addr: 0x7000_0000_0000 + gpa,
        file_offset,
        file: file.try_clone().unwrap(),
    }
}

/// A sparse file whose pages are memory.
pub(crate) fn file(size: u64) -> File {
    let file = File::from(memfd_create("guest", MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_len(size).unwrap();
    file
}

#[test]
fn memory_is_what_the_regions_cover() {
    let file = file(8 << 20);
    let ram = GuestRam::new(vec![
        info(&file, 4 << 30, 4 << 20, 4 << 20),
        info(&file, 0, 0xa_0000, 0),
        info(&file, 0xc_0000, 0x4_0000, 0xc_0000),
        info(&file, 0x10_0000, 0x10_0000, 0x10_0000),
    ])
    .unwrap();
    for inside in [
        range(0, 0xa0),
        range(0xc0, 0x40),
        range(0xff, 2),
        range(0xc0, 0x140),
        range(1 << 20, 1024),
        range(5, 0),
    ] {
        assert!(ram.contains(inside), "{inside:?}");
    }
    for outside in [
        range(0, 0xa1),
        range(0xa0, 1),
        range(0, 0x100),
        range(0xbf, 2),
        range(0x200, 1),
        range((1 << 20) - 1, 2),
        range(1 << 20, 1025),
        range(u64::MAX, 1),
        range(u64::MAX - 1, u64::MAX),
    ] {
        assert!(!ram.contains(outside), "{outside:?}");
    }
    assert_eq!(ram.bytes(), 8 << 20, "one file counts once, holes and all");
    assert_eq!(ram.largest_host_page(), PAGE_SIZE);
    assert_eq!(
        ram.guest_address(0x7000_0000_0000 + (4 << 30) + 0x123),
        Some(GuestAddress((4 << 30) + 0x123))
    );
    assert_eq!(ram.guest_address(0x7000_000a_0000), None);
    assert_eq!(ram.guest_address(5), None);
}

#[test]
fn bad_tables_are_refused() {
    assert!(matches!(
        GuestRam::new(Vec::new()),
        Err(MemoryError::NoRegions)
    ));
    let file = file(1 << 20);
    for (gpa, size, offset) in [(1, 4096, 0), (0, 4097, 0), (0, 4096, 512)] {
        let table = vec![info(&file, gpa, size, offset)];
        assert!(matches!(
            GuestRam::new(table),
            Err(MemoryError::Unaligned { .. })
        ));
    }
    let table = vec![info(&file, 0, 4096, u64::MAX - 4095)];
    assert!(matches!(
        GuestRam::new(table),
        Err(MemoryError::OutOfRange { .. })
    ));
    let table = vec![info(&file, 0, 8192, 0), info(&file, 4096, 8192, 8192)];
    assert!(matches!(GuestRam::new(table), Err(MemoryError::Regions(_))));
    let table = vec![info(&file, 0, 1 << 20, 4096)];
    assert!(matches!(
        GuestRam::new(table),
        Err(MemoryError::BeyondFile { .. })
    ));
}

#[test]
fn memory_that_nobody_wrote_to_is_noticed() {
    let file = file(1 << 20);
    assert!(GuestRam::new(vec![info(&file, 0, 1 << 20, 0)])
        .unwrap()
        .is_unshared());
    file.write_all_at(&[1], 0).unwrap();
    assert!(!GuestRam::new(vec![info(&file, 0, 1 << 20, 0)])
        .unwrap()
        .is_unshared());
}
