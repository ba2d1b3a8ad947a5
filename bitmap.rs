// SPDX-License-Identifier: GPL-2.0-only

//! Which pages of a window are in the message: up to 32 bitmaps of 32 KiB over a range of PFNs.
//!
//! A bitmap covers 1 GiB, all of them together 32 GiB. Pages that are no further apart come in any
//! order ([`PageBitmaps::mark`]). Others are sorted first, and stream through the bitmaps, each once
//! ([`PageBitmaps::fill`]).
//!
//! All PFNs are in units of 4 KiB. Bitmaps are any memory for [`WORDS_PER_BITMAP`] words, so that
//! this file needs no allocator.

use core::ops::{
    DerefMut,
    Range, //
};

/// The words of a bitmap, which has 32 KiB.
pub(crate) const WORDS_PER_BITMAP: usize = 4096;

/// The most bitmaps that are used at once.
pub(crate) const MAX_BITMAPS: usize = 32;

/// Words of which all are looked at when one has a page: 64 chunks are a bitmap.
const WORDS_PER_CHUNK: usize = WORDS_PER_BITMAP / 64;

const PFNS_PER_WORD: u64 = 64;
const PFNS_PER_BITMAP: u64 = PFNS_PER_WORD * WORDS_PER_BITMAP as u64;

/// Pages from the lowest to the highest PFN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PfnRange {
    /// The lowest PFN.
    pub(crate) min: u64,
    /// The highest PFN.
    pub(crate) max: u64,
}

impl PfnRange {
    /// The `len` pages from `pfn` on, of which there must be one at least.
    pub(crate) fn block(pfn: u64, len: u64) -> Self {
        Self {
            min: pfn,
            max: pfn.saturating_add(len.saturating_sub(1)),
        }
    }

    /// The range that has all of `ranges` in it, if there are any.
    pub(crate) fn of(ranges: impl Iterator<Item = Self>) -> Option<Self> {
        ranges.reduce(|all, range| Self {
            min: all.min.min(range.min),
            max: all.max.max(range.max),
        })
    }

    /// The PFNs of the range.
    pub(crate) fn pfns(self) -> impl Iterator<Item = u64> + Clone {
        let len = self.max.saturating_sub(self.min).saturating_add(1);
        self.min..self.min.saturating_add(len)
    }

    /// How many bitmaps cover the range at once, as far as bitmaps go.
    pub(crate) fn bitmaps(&self) -> usize {
        let span = self.max.saturating_sub(align_down(self.min));
        let bitmaps = (span / PFNS_PER_BITMAP).saturating_add(1);
        usize::try_from(bitmaps).map_or(MAX_BITMAPS, |bitmaps| bitmaps.min(MAX_BITMAPS))
    }
}

/// Ranges that are still to be marked.
pub(crate) struct Rest<I> {
    ranges: I,
    next: Option<PfnRange>,
}

impl<I: Iterator<Item = PfnRange>> Rest<I> {
    /// All of them.
    pub(crate) fn new(ranges: I) -> Self {
        Self { ranges, next: None }
    }

    fn next(&mut self) -> Option<PfnRange> {
        self.next.take().or_else(|| self.ranges.next())
    }

    fn put_back(&mut self, range: PfnRange) {
        self.next = Some(range);
    }
}

/// The bitmaps of a message.
///
/// # Invariants
///
/// - Bitmaps are present from the first on, without gaps, each [`WORDS_PER_BITMAP`] words.
/// - `start` is aligned to a word.
/// - No bit is set outside the chunks that `marked` names: a bit for each of a bitmap's.
pub(crate) struct PageBitmaps<B> {
    bitmaps: [Option<B>; MAX_BITMAPS],
    start: u64,
    marked: [u64; MAX_BITMAPS],
}

impl<B: DerefMut<Target = [u64]>> PageBitmaps<B> {
    /// No page is marked. `first` must be zeroed.
    pub(crate) fn new(first: B) -> Self {
        let mut bitmaps = [const { None }; MAX_BITMAPS];
        if let Some(slot) = bitmaps.first_mut() {
            *slot = Some(first);
        }
        // INVARIANT: The one bitmap is the first, and no bit is set.
        Self {
            bitmaps,
            start: 0,
            marked: [0; MAX_BITMAPS],
        }
    }

    /// How many bitmaps there are.
    pub(crate) fn len(&self) -> usize {
        let free = self.bitmaps.iter().position(Option::is_none);
        free.unwrap_or(MAX_BITMAPS)
    }

    /// Adds a zeroed bitmap. It comes back if there are enough.
    pub(crate) fn add(&mut self, bitmap: B) -> Result<(), B> {
        match self.bitmaps.iter_mut().find(|slot| slot.is_none()) {
            // INVARIANT: The first slot that is free follows the last that is not.
            Some(slot) => {
                *slot = Some(bitmap);
                Ok(())
            }
            None => Err(bitmap),
        }
    }

    /// Gives back all bitmaps but the first.
    pub(crate) fn shrink(&mut self) {
        self.clear();
        // INVARIANT: The first stays, and no bit is set.
        self.bitmaps
            .iter_mut()
            .skip(1)
            .for_each(|slot| *slot = None);
    }

    /// Whether the bitmaps cover a range at once.
    pub(crate) fn cover(&self, span: PfnRange) -> bool {
        // CAST: A small number, which fits.
        span.max.saturating_sub(align_down(span.min)) / PFNS_PER_BITMAP < self.len() as u64
    }

    /// Marks all pages of `ranges`, which lie in `span`, and no others. The bitmaps must cover it.
    pub(crate) fn mark(&mut self, span: PfnRange, ranges: impl Iterator<Item = PfnRange>) {
        self.clear();
        // INVARIANT: No bit is set, so that the start may change.
        self.start = align_down(span.min);
        ranges.for_each(|range| {
            let _ = self.mark_range(range);
        });
    }

    /// Marks pages of `rest`, and no others: from where it is now on, as long as they ascend and are
    /// within the bitmaps' reach. Returns whether there were any.
    pub(crate) fn fill<I: Iterator<Item = PfnRange>>(&mut self, rest: &mut Rest<I>) -> bool {
        self.clear();
        let Some(first) = rest.next() else {
            return false;
        };
        // INVARIANT: No bit is set, so that the start may change.
        self.start = align_down(first.min);
        let mut next = Some(first);
        while let Some(range) = next {
            let beyond = if range.min < self.start {
                Some(range.min)
            } else {
                self.mark_range(range)
            };
            if let Some(min) = beyond {
                rest.put_back(PfnRange { min, ..range });
                break;
            }
            next = rest.next();
        }
        true
    }

    /// Marks what the bitmaps have of a range, which must not begin before them, and returns the first
    /// PFN beyond them.
    fn mark_range(&mut self, range: PfnRange) -> Option<u64> {
        let mut first = range.min.saturating_sub(self.start);
        let last = range.max.saturating_sub(self.start);
        while first <= last {
            let index = usize::try_from(first / PFNS_PER_WORD).unwrap_or(usize::MAX);
            let end = (first | (PFNS_PER_WORD - 1)).min(last);
            let (bitmap, offset) = (index / WORDS_PER_BITMAP, index % WORDS_PER_BITMAP);
            let (Some(word), Some(marked)) = (
                self.bitmaps
                    .get_mut(bitmap)
                    .and_then(Option::as_mut)
                    .and_then(|bitmap| bitmap.get_mut(offset)),
                self.marked.get_mut(bitmap),
            ) else {
                return Some(self.start.saturating_add(first));
            };
            // INVARIANT: The chunk of the word is one of those named.
            *marked |= 1 << (offset / WORDS_PER_CHUNK);
            *word |= bits(first % PFNS_PER_WORD, end % PFNS_PER_WORD);
            first = end.saturating_add(1);
        }
        None
    }

    /// The words with pages in them, each with the PFN of its first bit, in ascending order.
    pub(crate) fn words(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut next = 0;
        core::iter::from_fn(move || loop {
            let index = self.skip_chunks(next)?;
            next = index.saturating_add(1);
            let word = self.word(index)?;
            if word != 0 {
                let offset = (index as u64).saturating_mul(PFNS_PER_WORD);
                return Some((self.start.saturating_add(offset), word));
            }
        })
    }

    /// The first word from `index` on that a chunk named in `marked` has.
    fn skip_chunks(&self, index: usize) -> Option<usize> {
        let mut index = index;
        // Within a chunk, this is one of those.
        while index % WORDS_PER_CHUNK == 0 {
            let chunks = self.marked.get(index / WORDS_PER_BITMAP)?;
            let chunks = chunks >> (index % WORDS_PER_BITMAP / WORDS_PER_CHUNK);
            if chunks != 0 {
                // CAST: This is at most 63.
                let skipped = (chunks.trailing_zeros() as usize).saturating_mul(WORDS_PER_CHUNK);
                return Some(index.saturating_add(skipped));
            }
            index = (index | (WORDS_PER_BITMAP - 1)).saturating_add(1);
        }
        Some(index)
    }

    fn word(&self, index: usize) -> Option<u64> {
        let bitmap = self.bitmaps.get(index / WORDS_PER_BITMAP)?.as_ref()?;
        bitmap.get(index % WORDS_PER_BITMAP).copied()
    }

    /// The PFNs of all pages, in ascending order.
    pub(crate) fn pfns(&self) -> impl Iterator<Item = u64> + '_ {
        self.words()
            .flat_map(|(pfn, word)| ones(word).map(move |bit| pfn.saturating_add(bit)))
    }

    fn clear(&mut self) {
        let bitmaps = self.bitmaps.iter_mut().flatten();
        for (bitmap, marked) in bitmaps.zip(&mut self.marked) {
            for chunk in ones(core::mem::take(marked)) {
                if let Some(words) = bitmap.get_mut(words_of(chunk)) {
                    words.fill(0);
                }
            }
        }
    }
}

/// Where a chunk of a bitmap is.
fn words_of(chunk: u64) -> Range<usize> {
    let first = usize::try_from(chunk)
        .unwrap_or(usize::MAX)
        .saturating_mul(WORDS_PER_CHUNK);
    first..first.saturating_add(WORDS_PER_CHUNK)
}

/// The bits that are set, in ascending order.
fn ones(word: u64) -> impl Iterator<Item = u64> {
    let mut left = word;
    core::iter::from_fn(move || {
        let bit = (left != 0).then(|| left.trailing_zeros())?;
        left &= left.wrapping_sub(1);
        Some(u64::from(bit))
    })
}

/// A word with the bits from `first` to `last` set.
fn bits(first: u64, last: u64) -> u64 {
    let high = u64::MAX.wrapping_shr(63_u32.wrapping_sub(low_bits(last)));
    high & u64::MAX.wrapping_shl(low_bits(first))
}

/// A number of a bit.
fn low_bits(bit: u64) -> u32 {
    // CAST: What is left has 6 bits.
    (bit % PFNS_PER_WORD) as u32
}

fn align_down(pfn: u64) -> u64 {
    pfn & !(PFNS_PER_WORD - 1)
}
