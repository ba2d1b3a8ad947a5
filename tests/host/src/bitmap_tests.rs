// SPDX-License-Identifier: GPL-2.0

//! The bitmaps of a window.

use crate::{
    bitmap::{PageBitmaps, PfnRange, MAX_BITMAPS},
    page_sets::{zeroed, PFNS_PER_BITMAP},
};

fn words(map: &PageBitmaps<Vec<u64>>) -> Vec<(u64, u64)> {
    map.words().collect()
}

#[test]
fn the_range_of_pages_is_their_lowest_and_highest() {
    assert_eq!(PfnRange::of([].into_iter()), None);
    let range = PfnRange::of([7, 3, 900].into_iter());
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

#[test]
fn a_window_begins_at_the_word_of_its_start() {
    let mut map = PageBitmaps::new(zeroed());
    assert_eq!(map.mark(130, [130, 191, 192].into_iter()), None);
    assert_eq!(words(&map), [(128, (1 << 2) | (1 << 63)), (192, 1)]);
}

#[test]
fn pages_beyond_the_window_wait_for_the_next() {
    let mut map = PageBitmaps::new(zeroed());
    let pages = [2 * PFNS_PER_BITMAP, 1, PFNS_PER_BITMAP];
    assert_eq!(map.mark(1, pages.into_iter()), Some(PFNS_PER_BITMAP));
    assert_eq!(words(&map), [(0, 2)]);
    // Pages below the window were in the one before.
    let next = map.mark(PFNS_PER_BITMAP, pages.into_iter());
    assert_eq!(next, Some(2 * PFNS_PER_BITMAP));
    assert_eq!(words(&map), [(PFNS_PER_BITMAP, 1)]);
}

#[test]
fn a_further_bitmap_widens_the_window() {
    let mut map = PageBitmaps::new(zeroed());
    assert!(map.add(zeroed()).is_ok());
    let pages = [0, PFNS_PER_BITMAP, 2 * PFNS_PER_BITMAP - 1];
    assert_eq!(map.mark(0, pages.into_iter()), None);
    assert_eq!(words(&map).len(), 3);
}

#[test]
fn a_new_window_forgets_the_last() {
    let mut map = PageBitmaps::new(zeroed());
    map.mark(0, [0, 100, 5000].into_iter());
    map.mark(64, [70].into_iter());
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
    assert_eq!(
        map.mark(0, [PFNS_PER_BITMAP].into_iter()),
        Some(PFNS_PER_BITMAP)
    );
}
