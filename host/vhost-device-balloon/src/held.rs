// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The pages the balloon holds: a sparse bitmap over page frame numbers.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::bits::stretches;
use crate::message::PageRange;

const WORD_PAGES: u64 = 64;
const CHUNK_WORDS: usize = 4096;
/// Pages in a chunk: 1 GiB of guest memory in 32 KiB.
const CHUNK_PAGES: u64 = CHUNK_WORDS as u64 * WORD_PAGES;

type Chunk = Box<[u64; CHUNK_WORDS]>;

/// A set of page frame numbers.
///
/// It takes 32 KiB for each GiB of guest memory that has a held page, so it is bounded as long as
/// only ranges of guest memory are put in.
#[derive(Debug, Default)]
pub struct HeldSet {
    chunks: BTreeMap<u64, Chunk>,
    len: u64,
}

impl HeldSet {
    /// The number of pages in the set.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the set holds no page.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all pages.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds the pages of `range` and returns how many were not in the set before.
    pub fn insert(&mut self, range: PageRange) -> u64 {
        let mut added = 0;
        for (index, pages) in pieces(range) {
            let chunk = self
                .chunks
                .entry(index)
                .or_insert_with(|| Box::new([0; CHUNK_WORDS]));
            for (word, mask) in words(pages) {
                added += u64::from((mask & !chunk[word]).count_ones());
                chunk[word] |= mask;
            }
        }
        self.len += added;
        added
    }

    /// Takes the pages of `range` out and returns how many were in the set.
    pub fn remove(&mut self, range: PageRange) -> u64 {
        let mut removed = 0;
        for (index, pages) in pieces(range) {
            let Some(chunk) = self.chunks.get_mut(&index) else {
                continue;
            };
            for (word, mask) in words(pages) {
                removed += u64::from((mask & chunk[word]).count_ones());
                chunk[word] &= !mask;
            }
        }
        self.len -= removed;
        removed
    }

    /// The pages from `from` on, as merged ranges in ascending order.
    pub fn ranges(&self, from: u64) -> impl Iterator<Item = PageRange> + '_ {
        let first = from / CHUNK_PAGES;
        let words = self.chunks.range(first..).flat_map(|(index, chunk)| {
            let starts = (index * CHUNK_PAGES..).step_by(WORD_PAGES as usize);
            starts.zip(chunk.iter().copied())
        });
        let mut stretches = words
            .flat_map(move |(start, word)| {
                let below = from.saturating_sub(start).min(WORD_PAGES) as u32;
                let mask = u64::MAX.checked_shl(below).unwrap_or(0);
                stretches(word & mask).map(move |(bit, ones)| PageRange {
                    start_pfn: start + u64::from(bit),
                    pages: ones.into(),
                })
            })
            .peekable();
        std::iter::from_fn(move || {
            let mut range = stretches.next()?;
            while let Some(next) = stretches.next_if(|next| range.end_pfn() == Some(next.start_pfn))
            {
                range.pages += next.pages;
            }
            Some(range)
        })
    }

    /// Whether all pages of `range` are in the set.
    pub fn contains(&self, range: PageRange) -> bool {
        pieces(range).all(|(index, pages)| {
            self.chunks
                .get(&index)
                .is_some_and(|chunk| words(pages).all(|(word, mask)| chunk[word] & mask == mask))
        })
    }
}

/// Splits a range by chunk: the chunk's index and the pages within it.
fn pieces(range: PageRange) -> impl Iterator<Item = (u64, Range<u64>)> {
    let end = range.start_pfn.saturating_add(range.pages);
    let mut next = range.start_pfn;
    std::iter::from_fn(move || {
        if next >= end {
            return None;
        }
        let index = next / CHUNK_PAGES;
        let base = index * CHUNK_PAGES;
        let stop = end.min(base.saturating_add(CHUNK_PAGES));
        let piece = next - base..stop - base;
        next = stop;
        Some((index, piece))
    })
}

/// Splits pages of a chunk by word: the word's index and the mask of the pages within it.
fn words(pages: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let mut next = pages.start;
    std::iter::from_fn(move || {
        if next >= pages.end {
            return None;
        }
        let bit = next % WORD_PAGES;
        let count = (WORD_PAGES - bit).min(pages.end - next);
        let mask = (u64::MAX >> (WORD_PAGES - count)) << bit;
        let word = (next / WORD_PAGES) as usize;
        next += count;
        Some((word, mask))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn range(start_pfn: u64, pages: u64) -> PageRange {
        PageRange { start_pfn, pages }
    }

    #[test]
    fn counts_only_what_changes() {
        let mut held = HeldSet::default();
        assert_eq!(held.insert(range(10, 100)), 100);
        assert_eq!(held.insert(range(50, 100)), 40);
        assert_eq!(held.len(), 140);
        assert_eq!(held.remove(range(0, 20)), 10);
        assert_eq!(held.remove(range(0, 20)), 0);
        assert_eq!(held.len(), 130);
        held.clear();
        assert!(held.is_empty());
    }

    #[test]
    fn ranges_may_cross_words_and_chunks() {
        let mut held = HeldSet::default();
        let wide = range(CHUNK_PAGES - 65, 2 * CHUNK_PAGES);
        assert_eq!(held.insert(wide), 2 * CHUNK_PAGES);
        assert!(held.contains(wide));
        assert!(!held.contains(range(CHUNK_PAGES - 66, 2)));
        assert!(!held.contains(range(3 * CHUNK_PAGES - 66, 2)));
        assert_eq!(held.remove(range(CHUNK_PAGES, 1)), 1);
        assert!(!held.contains(wide));
    }

    #[test]
    fn ranges_are_merged_and_begin_anywhere() {
        let mut held = HeldSet::default();
        assert_eq!(held.ranges(0).next(), None);
        let all = [
            range(3, 1),
            range(60, 10),
            range(CHUNK_PAGES - 65, 2 * CHUNK_PAGES),
            range(5 * CHUNK_PAGES + 63, 1),
        ];
        for range in all {
            held.insert(range);
        }
        assert_eq!(held.ranges(0).collect::<Vec<_>>(), all);
        assert_eq!(held.ranges(3).collect::<Vec<_>>(), all);
        assert_eq!(held.ranges(4).collect::<Vec<_>>(), all[1..]);
        assert_eq!(held.ranges(64).next(), Some(range(64, 6)));
        assert_eq!(held.ranges(70).collect::<Vec<_>>(), all[2..]);
        let end = 3 * CHUNK_PAGES - 65;
        assert_eq!(held.ranges(end - 1).next(), Some(range(end - 1, 1)));
        assert_eq!(held.ranges(end).next(), Some(all[3]));
        assert_eq!(held.ranges(all[3].start_pfn + 1).next(), None);
        assert_eq!(held.ranges(u64::MAX).next(), None);
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(
            steps in prop::collection::vec((any::<bool>(), 0u64..400, 0u64..200), 1..40),
        ) {
            // Around the first chunk's end, so that every kind of boundary is met.
            let base = CHUNK_PAGES - 250;
            let mut held = HeldSet::default();
            let mut model = BTreeSet::new();
            for (insert, start, pages) in steps {
                let before = model.len();
                let pfns = base + start..base + start + pages;
                if insert {
                    let added = held.insert(range(base + start, pages));
                    model.extend(pfns.clone());
                    prop_assert_eq!(added as usize, model.len() - before);
                } else {
                    let removed = held.remove(range(base + start, pages));
                    model.retain(|pfn| !pfns.contains(pfn));
                    prop_assert_eq!(removed as usize, before - model.len());
                }
                prop_assert_eq!(held.len() as usize, model.len());
                let told = held.ranges(0).flat_map(|r| r.start_pfn..r.start_pfn + r.pages);
                prop_assert!(told.eq(model.iter().copied()));
                let all = pfns.clone().all(|pfn| model.contains(&pfn));
                prop_assert_eq!(held.contains(range(base + start, pages)), all);
            }
        }
    }
}
