// SPDX-License-Identifier: GPL-2.0-only

//! The bitmaps of a window.

use crate::{
    bitmap::{PageBitmaps, PfnRange, Rest, MAX_BITMAPS},
    page_sets::{zeroed, PFNS_PER_BITMAP},
};

/// Single pages.
fn pages<const N: usize>(pfns: [u64; N]) -> impl Iterator<Item = PfnRange> {
    pfns.into_iter().map(|pfn| PfnRange::block(pfn, 1))
}

fn words(map: &PageBitmaps<Vec<u64>>) -> Vec<(u64, u64)> {
    map.words().collect()
}

#[test]
fn the_range_of_pages_is_their_lowest_and_highest() {
    assert_eq!(PfnRange::of(pages([])), None);
    let range = PfnRange::of(pages([7, 3, 900]));
    assert_eq!(range, Some(PfnRange { min: 3, max: 900 }));
}

#[test]
fn a_range_wants_as_many_bitmaps_as_it_touches() {
    let bitmaps = |min, max| PfnRange { min, max }.bitmaps();
    assert_eq!(bitmaps(0, 0), 1);
    assert_eq!(bitmaps(5, PFNS_PER_BITMAP - 1), 1);
    assert_eq!(bitmaps(5, PFNS_PER_BITMAP), 2);
    // The first bitmap begins with the word of the lowest PFN.
    assert_eq!(bitmaps(64, PFNS_PER_BITMAP + 63), 1);
    assert_eq!(bitmaps(127, PFNS_PER_BITMAP + 64), 2);
    assert_eq!(bitmaps(0, u64::MAX), MAX_BITMAPS);
}

/// All of the pages.
fn mark<const N: usize>(map: &mut PageBitmaps<Vec<u64>>, pfns: [u64; N]) {
    let span = PfnRange::of(pages(pfns)).unwrap();
    assert!(map.cover(span));
    map.mark(span, pages(pfns));
}

#[test]
fn a_window_begins_at_the_word_of_its_start() {
    let mut map = PageBitmaps::new(zeroed());
    mark(&mut map, [130, 191, 192]);
    assert_eq!(words(&map), [(128, (1 << 2) | (1 << 63)), (192, 1)]);
}

#[test]
fn bitmaps_cover_a_range_from_the_word_of_its_start() {
    let mut map = PageBitmaps::new(zeroed());
    let range = |min, max| PfnRange { min, max };
    assert!(map.cover(range(127, PFNS_PER_BITMAP + 63)));
    assert!(!map.cover(range(127, PFNS_PER_BITMAP + 64)));
    assert!(!map.cover(range(0, u64::MAX)));
    assert!(map.add(zeroed()).is_ok());
    assert!(map.cover(range(127, PFNS_PER_BITMAP + 64)));
}

#[test]
fn pages_beyond_the_bitmaps_wait_for_the_next_window() {
    let mut map = PageBitmaps::new(zeroed());
    let mut rest = Rest::new(pages([1, PFNS_PER_BITMAP, 2 * PFNS_PER_BITMAP]));
    let mut windows = Vec::new();
    while map.fill(&mut rest) {
        windows.push(words(&map));
    }
    assert_eq!(
        windows,
        [[(0, 2)], [(PFNS_PER_BITMAP, 1)], [(2 * PFNS_PER_BITMAP, 1)]]
    );
}

#[test]
fn pages_that_descend_begin_a_new_window() {
    let mut map = PageBitmaps::new(zeroed());
    // Blocks of one order ascend, and then those of the next.
    let mut rest = Rest::new(pages([640, 700, 70, 1]));
    let mut windows = Vec::new();
    while map.fill(&mut rest) {
        windows.push(words(&map));
    }
    let first = vec![(640, (1 << 60) | 1)];
    assert_eq!(windows, [first, vec![(64, 1 << 6)], vec![(0, 2)]]);
}

#[test]
fn a_further_bitmap_widens_the_window() {
    let mut map = PageBitmaps::new(zeroed());
    assert!(map.add(zeroed()).is_ok());
    mark(&mut map, [0, PFNS_PER_BITMAP, 2 * PFNS_PER_BITMAP - 1]);
    assert_eq!(words(&map).len(), 3);
}

#[test]
fn a_new_window_forgets_the_last() {
    let mut map = PageBitmaps::new(zeroed());
    mark(&mut map, [0, 100, 5000]);
    mark(&mut map, [70]);
    assert_eq!(words(&map), [(64, 1 << 6)]);
    map.shrink();
    assert_eq!(words(&map), []);
}

#[test]
fn there_are_at_most_32_bitmaps_and_all_but_one_can_be_given_back() {
    let mut map = PageBitmaps::new(zeroed());
    for _ in 1..MAX_BITMAPS {
        assert!(map.add(zeroed()).is_ok());
    }
    assert_eq!(map.len(), 32);
    assert_eq!(map.add(zeroed()), Err(zeroed()));
    map.shrink();
    assert_eq!(map.len(), 1);
    assert!(!map.cover(PfnRange::block(0, PFNS_PER_BITMAP + 1)));
}

#[test]
fn blocks_fill_words_and_what_lies_beyond_waits() {
    let mut map = PageBitmaps::new(zeroed());
    let blocks = [
        PfnRange::block(60, 132),
        PfnRange::block(PFNS_PER_BITMAP - 64, 128),
    ];
    let mut rest = Rest::new(blocks.into_iter());
    assert!(map.fill(&mut rest));
    let last = PFNS_PER_BITMAP - 64;
    let full = u64::MAX;
    assert_eq!(
        words(&map),
        [(0, 0xf << 60), (64, full), (128, full), (last, full)]
    );
    // A block that did not fit goes on in the next window.
    assert!(map.fill(&mut rest));
    assert_eq!(words(&map), [(PFNS_PER_BITMAP, full)]);
    assert!(!map.fill(&mut rest));
}

#[test]
fn pages_come_out_in_ascending_order() {
    let mut map = PageBitmaps::new(zeroed());
    let blocks = [
        PfnRange::block(1000, 3),
        PfnRange::block(62, 4),
        PfnRange::block(7, 1),
    ];
    map.mark(PfnRange { min: 7, max: 1002 }, blocks.into_iter());
    assert!(map.pfns().eq([7, 62, 63, 64, 65, 1000, 1001, 1002]));
    assert!(PfnRange::block(62, 4).pfns().eq(62..66));
}
