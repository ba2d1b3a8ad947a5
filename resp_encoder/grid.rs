// SPDX-License-Identifier: GPL-2.0-only

//! Stretches of full words -> the words of one entry, of which each bit stands for many pages.
//!
//! A stretch alone is a run for each power of two in its length. Stretches whose lengths and
//! distances have a factor in common, as the blocks of the kernel's page allocator have, are bits
//! on a grid of that factor: a head and a word or two, however many they are.

use super::wire::{
    MAX_WORDS,
    WORD_SHIFT, //
};

/// Stretches that are sent as bits or as runs, whichever is shorter.
pub(crate) struct Grid {
    start: u64,
    /// The log2 of the words of 64 pages that a bit stands for.
    order: u32,
    bits: [u64; MAX_WORDS],
    /// One more than the last bit that is set.
    end: u64,
    /// How many runs the stretches are.
    runs: u64,
}

impl Grid {
    /// The grid of one stretch of `words` words. There is none where it has too many bits.
    pub(crate) fn new(start: u64, words: u32) -> Option<Self> {
        let mut grid = Self {
            start,
            order: words.trailing_zeros(),
            bits: [0; MAX_WORDS],
            end: 0,
            runs: u64::from(words.count_ones()),
        };
        let end = u64::from(words.checked_shr(grid.order)?);
        fits(end).then(|| {
            grid.set(0, end);
            grid
        })
    }

    /// Takes a stretch that comes after those that are there, if it is not longer on its own.
    pub(crate) fn join(&mut self, start: u64, words: u32) -> bool {
        let offset = start.saturating_sub(self.start) >> WORD_SHIFT;
        let order = self
            .order
            .min(offset.trailing_zeros())
            .min(words.trailing_zeros());
        let first = offset.wrapping_shr(order);
        let end = offset.saturating_add(u64::from(words)).wrapping_shr(order);
        let runs = u64::from(words.count_ones());
        let apart = self.runs.min(with_head(self.end)).saturating_add(runs);
        if !fits(end) || with_head(end) > apart {
            return false;
        }
        self.refine(order);
        self.set(first, end);
        self.runs = self.runs.saturating_add(runs);
        true
    }

    /// The first PFN.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// The log2 of the pages of a bit.
    pub(crate) fn shift(&self) -> u32 {
        WORD_SHIFT.saturating_add(self.order)
    }

    /// The words, where they and their head are shorter than the runs.
    pub(crate) fn words(&self) -> Option<&[u64]> {
        let words = self.bits.get(..usize::try_from(words_of(self.end)).ok()?)?;
        (with_head(self.end) < self.runs).then_some(words)
    }

    /// Each stretch by its first PFN and its words.
    pub(crate) fn stretches(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ones().map(|(first, end)| {
            let len = end.saturating_sub(first);
            (
                self.start.saturating_add(first.wrapping_shl(self.shift())),
                len.wrapping_shl(self.order),
            )
        })
    }

    /// Has a bit stand for fewer words.
    fn refine(&mut self, order: u32) {
        let factor = self.order.saturating_sub(order);
        if factor == 0 {
            return;
        }
        let mut finer = Self {
            order,
            bits: [0; MAX_WORDS],
            ..*self
        };
        for (first, end) in self.ones() {
            finer.set(first.wrapping_shl(factor), end.wrapping_shl(factor));
        }
        *self = finer;
    }

    /// Where bits are set, each time from the first of them to the first that is not.
    fn ones(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut at = 0;
        core::iter::from_fn(move || {
            let first = (at..self.end).find(|bit| self.is_set(*bit))?;
            let end = (first..self.end).find(|bit| !self.is_set(*bit));
            at = end.unwrap_or(self.end);
            Some((first, at))
        })
    }

    fn is_set(&self, bit: u64) -> bool {
        let word = usize::try_from(bit / 64).ok();
        word.and_then(|word| self.bits.get(word))
            .is_some_and(|word| word & (1 << (bit % 64)) != 0)
    }

    fn set(&mut self, first: u64, end: u64) {
        for bit in first..end {
            let word = usize::try_from(bit / 64).ok();
            if let Some(word) = word.and_then(|word| self.bits.get_mut(word)) {
                *word |= 1 << (bit % 64);
            }
        }
        self.end = end;
    }
}

/// Whether an entry has so many bits.
fn fits(bits: u64) -> bool {
    usize::try_from(words_of(bits)).is_ok_and(|words| words <= MAX_WORDS)
}

/// How many words so many bits are.
fn words_of(bits: u64) -> u64 {
    bits.div_ceil(64)
}

/// How many words they are with the head of their entry.
fn with_head(bits: u64) -> u64 {
    words_of(bits).saturating_add(1)
}
