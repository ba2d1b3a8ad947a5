// SPDX-License-Identifier: GPL-2.0

//! Which pages of a window are in the message: up to 32 bitmaps of 32 KiB over a range of PFNs.
//!
//! A bitmap covers 1 GiB, all of them together 32 GiB. Pages that are further apart are reported
//! in several passes: [`PageBitmaps::mark`] says where the next one begins.
//!
//! All PFNs are in units of 4 KiB. Bitmaps are any memory for [`WORDS_PER_BITMAP`] words, so that
//! this file needs no allocator.

use core::ops::DerefMut;

/// The words of a bitmap, which has 32 KiB.
pub(crate) const WORDS_PER_BITMAP: usize = 4096;

/// The most bitmaps that are used at once.
pub(crate) const MAX_BITMAPS: usize = 32;

const PFNS_PER_WORD: u64 = 64;
const PFNS_PER_BITMAP: u64 = PFNS_PER_WORD * WORDS_PER_BITMAP as u64;

/// The lowest and the highest PFN of some pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PfnRange {
    /// The lowest PFN.
    pub(crate) min: u64,
    /// The highest PFN.
    pub(crate) max: u64,
}

impl PfnRange {
    /// The range of `pfns`, if there are any.
    pub(crate) fn of(pfns: impl Iterator<Item = u64>) -> Option<Self> {
        pfns.fold(None, |range: Option<Self>, pfn| {
            Some(match range {
                None => Self { min: pfn, max: pfn },
                Some(range) => Self {
                    min: range.min.min(pfn),
                    max: range.max.max(pfn),
                },
            })
        })
    }

    /// How many bitmaps cover the range at once, as far as bitmaps go.
    pub(crate) fn bitmaps(&self) -> usize {
        let span = self.max.saturating_sub(align_down(self.min));
        let bitmaps = (span / PFNS_PER_BITMAP).saturating_add(1);
        usize::try_from(bitmaps).map_or(MAX_BITMAPS, |bitmaps| bitmaps.min(MAX_BITMAPS))
    }
}

/// The bitmaps of a message.
///
/// # Invariants
///
/// - Bitmaps are present from the first on, without gaps, each [`WORDS_PER_BITMAP`] words.
/// - `start` is aligned to a word.
/// - No bit is set outside the words that `marked` names, counted over all bitmaps.
pub(crate) struct PageBitmaps<B> {
    bitmaps: [Option<B>; MAX_BITMAPS],
    start: u64,
    marked: Option<(usize, usize)>,
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
            marked: None,
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

    /// Marks the pages from `start` on as far as the bitmaps reach, and no others.
    ///
    /// Returns the lowest PFN beyond them, where the next pass begins.
    pub(crate) fn mark(&mut self, start: u64, pfns: impl Iterator<Item = u64>) -> Option<u64> {
        self.clear();
        // INVARIANT: No bit is set, so that the start may change.
        self.start = align_down(start);

        let mut beyond: Option<u64> = None;
        for pfn in pfns {
            let Some(offset) = pfn.checked_sub(self.start) else {
                continue;
            };
            let index = usize::try_from(offset / PFNS_PER_WORD).unwrap_or(usize::MAX);
            match self.word_mut(index) {
                Some(word) => {
                    *word |= 1 << (offset % PFNS_PER_WORD);
                    // INVARIANT: The words named grow to have this one among them.
                    self.marked = Some(match self.marked {
                        None => (index, index),
                        Some((first, last)) => (first.min(index), last.max(index)),
                    });
                }
                None => beyond = Some(beyond.map_or(pfn, |lowest| lowest.min(pfn))),
            }
        }
        beyond
    }

    /// The words with pages in them, each with the PFN of its first bit, in ascending order.
    pub(crate) fn words(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let (mut next, last) = self.marked.map_or((1, 0), |marked| marked);
        core::iter::from_fn(move || {
            while next <= last {
                let index = next;
                next = next.saturating_add(1);
                let word = self.word(index)?;
                if word != 0 {
                    let offset = (index as u64).saturating_mul(PFNS_PER_WORD);
                    return Some((self.start.saturating_add(offset), word));
                }
            }
            None
        })
    }

    fn word(&self, index: usize) -> Option<u64> {
        let bitmap = self.bitmaps.get(index / WORDS_PER_BITMAP)?.as_ref()?;
        bitmap.get(index % WORDS_PER_BITMAP).copied()
    }

    fn word_mut(&mut self, index: usize) -> Option<&mut u64> {
        let bitmap = self.bitmaps.get_mut(index / WORDS_PER_BITMAP)?.as_mut()?;
        bitmap.get_mut(index % WORDS_PER_BITMAP)
    }

    fn clear(&mut self) {
        let Some((first, last)) = self.marked.take() else {
            return;
        };
        for index in first..=last {
            if let Some(word) = self.word_mut(index) {
                *word = 0;
            }
        }
    }
}

fn align_down(pfn: u64) -> u64 {
    pfn & !(PFNS_PER_WORD - 1)
}
