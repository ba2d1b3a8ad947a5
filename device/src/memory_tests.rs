// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;

use nix::sys::memfd::memfd_create;
use nix::sys::memfd::MFdFlags;

use super::*;

const HUGE: u64 = 2 << 20;
const HUGE_PAGES: u64 = HUGE / PAGE_SIZE;

fn range(start_pfn: u64, pages: u64) -> PageRange {
    PageRange { start_pfn, pages }
}

fn held(ranges: &[PageRange]) -> HeldSet {
    let mut held = HeldSet::default();
    for range in ranges {
        held.insert(*range);
    }
    held
}

fn info(file: &File, gpa: u64, size: u64, file_offset: u64) -> RegionInfo {
    RegionInfo {
        gpa,
        size,
        user_addr: 0x7000_0000_0000 + gpa,
        file_offset,
        file: file.try_clone().unwrap(),
    }
}

/// An empty file whose pages are memory.
pub(crate) fn memory_file() -> File {
    File::from(memfd_create("guest", MFdFlags::MFD_CLOEXEC).unwrap())
}

fn file(size: u64) -> File {
    let file = memory_file();
    file.set_len(size).unwrap();
    file
}

/// 16 MiB at 4 GiB, 8 MiB into its file, in host pages of 2 MiB.
fn huge_region() -> Region {
    Region {
        gpa: 4 << 30,
        size: 8 * HUGE,
        user_addr: 0,
        file_offset: 4 * HUGE,
        file: Arc::new(file(12 * HUGE)),
        host_page: HUGE,
    }
}

/// PFN of the region's `block`th host page.
fn block(block: u64) -> u64 {
    (1 << 20) + block * HUGE_PAGES
}

#[test]
fn small_host_pages_are_discarded_as_they_come() {
    let mut region = huge_region();
    region.host_page = PAGE_SIZE;
    let found = region.discardable(range(block(0) + 3, 5), &held(&[]), Aggregate::Message);
    let start = region.file_offset + 3 * PAGE_SIZE;
    assert_eq!(found, Some(start..start + 5 * PAGE_SIZE));
}

#[test]
fn ranges_are_clamped_to_the_region() {
    let region = huge_region();
    let wide = range(block(0) - 10, 9 * HUGE_PAGES);
    let found = region.discardable(wide, &held(&[]), Aggregate::Message);
    assert_eq!(found, Some(4 * HUGE..12 * HUGE));
    for outside in [range(block(0) - 10, 10), range(block(8), 10)] {
        assert_eq!(
            region.discardable(outside, &held(&[]), Aggregate::Message),
            None
        );
    }
}

#[test]
fn part_of_a_huge_page_is_kept() {
    let region = huge_region();
    for aggregate in [Aggregate::Message, Aggregate::Held] {
        for part in [
            range(block(1), HUGE_PAGES - 1),
            range(block(1) + 1, HUGE_PAGES - 1),
            range(block(1) + 7, 1),
            range(block(1) + 1, 2 * HUGE_PAGES - 2),
        ] {
            let found = region.discardable(part, &held(&[part]), aggregate);
            assert_eq!(found, None, "{part:?}");
        }
    }
}

#[test]
fn whole_huge_pages_within_a_range_are_discarded() {
    let region = huge_region();
    let wide = range(block(1) - 5, 2 * HUGE_PAGES + 10);
    for aggregate in [Aggregate::Message, Aggregate::Held] {
        let found = region.discardable(wide, &held(&[wide]), aggregate);
        assert_eq!(found, Some(5 * HUGE..7 * HUGE));
    }
}

#[test]
fn a_huge_page_goes_when_its_last_page_is_held() {
    let region = huge_region();
    let last = range(block(2) + 9, 1);
    let others = held(&[
        range(block(2), 9),
        last,
        range(block(2) + 10, HUGE_PAGES - 10),
    ]);
    let found = region.discardable(last, &others, Aggregate::Held);
    assert_eq!(found, Some(6 * HUGE..7 * HUGE));
    assert_eq!(region.discardable(last, &others, Aggregate::Message), None);
}

#[test]
fn huge_pages_at_both_edges_of_a_range_may_be_completed() {
    let region = huge_region();
    let middle = range(block(2) - 1, HUGE_PAGES + 2);
    let all = held(&[range(block(1), 3 * HUGE_PAGES)]);
    let found = region.discardable(middle, &all, Aggregate::Held);
    assert_eq!(found, Some(5 * HUGE..8 * HUGE));
    let left = held(&[range(block(1), HUGE_PAGES), middle]);
    let found = region.discardable(middle, &left, Aggregate::Held);
    assert_eq!(found, Some(5 * HUGE..7 * HUGE));
    let seam = range(block(2) - 1, 2);
    let found = region.discardable(seam, &all, Aggregate::Held);
    assert_eq!(found, Some(5 * HUGE..7 * HUGE));
}

#[test]
fn a_huge_page_that_leaves_the_region_is_kept() {
    let mut region = huge_region();
    region.size = HUGE + 160 * PAGE_SIZE;
    let all = range(block(0), HUGE_PAGES + 160);
    let found = region.discardable(all, &held(&[all]), Aggregate::Held);
    assert_eq!(found, Some(4 * HUGE..5 * HUGE));
    // Seen from the file, this region begins in the middle of a huge page.
    region.file_offset += PAGE_SIZE;
    region.size = 2 * HUGE;
    let all = range(block(0), 2 * HUGE_PAGES);
    let found = region.discardable(all, &held(&[all]), Aggregate::Held);
    assert_eq!(found, Some(5 * HUGE..6 * HUGE));
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
fn discarding_makes_holes_where_the_pages_are() {
    let file = file(4 << 20);
    file.write_all_at(&vec![1; 4 << 20], 0).unwrap();
    let ram = GuestRam::new(vec![
        info(&file, 0, 2 << 20, 0),
        info(&file, 4 << 30, 2 << 20, 2 << 20),
    ])
    .unwrap();
    let before = file.metadata().unwrap().blocks();
    let ranges = [range(10, 5), range(20, 5), range((1 << 20) + 1, 1)];
    let mut done = Discarded::default();
    ram.discard(&ranges, &held(&ranges), Aggregate::Message, &mut done);
    let expected = Discarded {
        calls: 3,
        bytes: 11 * PAGE_SIZE,
        errors: 0,
    };
    assert_eq!(done, expected);
    assert_eq!(file.metadata().unwrap().blocks(), before - 11 * 8);
    let byte = |page: u64| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, page * PAGE_SIZE).unwrap();
        byte[0]
    };
    assert_eq!([10, 14, 20, 24, 513].map(byte), [0; 5]);
    assert_eq!([9, 15, 19, 25, 512, 514].map(byte), [1; 6]);
}

#[test]
fn a_refused_discard_is_counted() {
    let mut region = huge_region();
    let path = format!("/proc/self/fd/{}", region.file.as_raw_fd());
    region.file = Arc::new(File::open(path).unwrap());
    let mut done = Discarded::default();
    region.punch(&(0..PAGE_SIZE), &mut done);
    assert_eq!((done.calls, done.bytes, done.errors), (1, 0, 1));
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
