// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::memory::tests::file;
use crate::memory::tests::info;
use crate::memory::RegionInfo;
use crate::virtio_balloon::PAGE_SIZE;

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

fn ram(table: Vec<RegionInfo>) -> Arc<GuestRam> {
    Arc::new(GuestRam::new(table).unwrap())
}

/// Brings `discard` to its end; returns what was done and how many turns it took.
fn run(mut discard: Discard, held: &HeldSet) -> (Discarded, u64) {
    let mut done = Discarded::default();
    for turns in 1.. {
        let mut budget = Budget::new();
        if discard.go_on(held, &mut budget, &mut done) {
            return (done, turns);
        }
        assert!(budget.is_spent());
    }
    unreachable!();
}

/// 16 MiB at 4 GiB, 8 MiB into its file, in host pages of 2 MiB.
fn huge_region() -> Region {
    Region::new(info(&file(12 * HUGE), 4 << 30, 8 * HUGE, 4 * HUGE), HUGE)
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
fn discarding_makes_holes_where_the_pages_are() {
    let file = file(4 << 20);
    file.write_all_at(&vec![1; 4 << 20], 0).unwrap();
    let ram = ram(vec![
        info(&file, 0, 2 << 20, 0),
        info(&file, 4 << 30, 2 << 20, 2 << 20),
    ]);
    let before = file.metadata().unwrap().blocks();
    let ranges = [range(10, 5), range(20, 5), range((1 << 20) + 1, 1)];
    let discard = Discard::new(ram, ranges.to_vec(), Aggregate::Message);
    let (done, turns) = run(discard, &held(&ranges));
    assert_eq!(turns, 1);
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
fn many_discards_take_many_turns() {
    let pages = 20_000;
    let file = file(2 * pages * PAGE_SIZE);
    let ram = ram(vec![info(&file, 0, 2 * pages * PAGE_SIZE, 0)]);
    let ranges: Vec<_> = (0..pages).map(|i| range(2 * i, 1)).collect();
    let (done, turns) = run(Discard::new(ram, ranges, Aggregate::Message), &held(&[]));
    assert_eq!((done.calls, done.bytes), (pages, pages * PAGE_SIZE));
    assert!((4..20).contains(&turns), "{turns}");
}

#[test]
fn a_long_discard_takes_many_turns() {
    let size = 4 << 30;
    let file = file(size);
    file.write_all_at(&[1], 0).unwrap();
    file.write_all_at(&[1], size - 1).unwrap();
    let ram = ram(vec![info(&file, 0, size, 0)]);
    let all = vec![range(0, size / PAGE_SIZE)];
    let (done, turns) = run(Discard::new(ram, all, Aggregate::Message), &held(&[]));
    assert_eq!((done.calls, done.bytes), (size / PIECE, size));
    assert!((4..20).contains(&turns), "{turns}");
    assert_eq!(file.metadata().unwrap().blocks(), 0);
}

#[test]
fn pieces_are_whole_host_pages() {
    let end = 5 * PIECE;
    assert_eq!(first_piece(&(PIECE..end), HUGE), PIECE..2 * PIECE);
    assert_eq!(first_piece(&(end - HUGE..end), HUGE), end - HUGE..end);
    assert_eq!(first_piece(&(0..8 * PIECE), 4 * PIECE), 0..4 * PIECE);
}
