// SPDX-License-Identifier: GPL-2.0-only

//! Pages -> the entries of a page bitmap message.
//!
//! "Response" is the word of the 2016 protocol, in which the guest's message answers a request of
//! the host: the change of `num_pages`. A response is a header of 8 bytes and the entries that
//! this encoder writes; docs/PROTOCOL.md has the format.
//!
//! Pages come as words of 64, each with the PFN of its first bit, in ascending order. Stretches of
//! full words become runs of a power of two, the largest first, as in the 2016 driver, or bits of
//! a [`Grid`] where that is shorter. Words with gaps are sent as they are, up to seven neighbours
//! behind one head; a single full word between them stays with them, which is shorter than a run
//! and a second head.

#[path = "resp_encoder/grid.rs"]
mod grid;
#[path = "resp_encoder/wire.rs"]
mod wire;

use self::{
    grid::Grid,
    wire::{
        after,
        head,
        MAX_WORDS,
        PAGE_SHIFT,
        WORD_SHIFT, //
    },
};

pub(crate) use self::wire::{
    response_header,
    HEAD_LEN, //
};

/// The least space with which a further word is taken: what the pending entries come to (a grid
/// eight words, a stretch of up to `u32::MAX` words 32 runs), and then the word's own. A buffer must
/// be larger.
const RESERVE: usize = 64 * HEAD_LEN;

/// The buffer is full: finish it, send it, and go on with an empty one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The entry that the next word may still join.
enum Pending {
    None,
    /// Full words, one after the other.
    Run {
        start: u64,
        words: u32,
    },
    /// Words with gaps. A full one may be among them, but not two together.
    Words {
        start: u64,
        words: [u64; MAX_WORDS],
        len: usize,
    },
}

/// Writes entries into a caller's buffer.
pub(crate) struct Encoder<'a> {
    free: &'a mut [u8],
    capacity: usize,
    pending: Pending,
    /// Stretches that come before what is pending.
    grid: Option<Grid>,
    runs: u64,
    words: u64,
}

/// What an encoder has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Encoded {
    /// The bytes of all entries.
    pub(crate) len: usize,
    /// The entries that are runs.
    pub(crate) runs: u64,
    /// The words in all other entries.
    pub(crate) words: u64,
}

impl<'a> Encoder<'a> {
    /// An encoder that writes to the start of `buf`.
    pub(crate) fn new(buf: &'a mut [u8]) -> Self {
        Self {
            capacity: buf.len(),
            free: buf,
            pending: Pending::None,
            grid: None,
            runs: 0,
            words: 0,
        }
    }

    /// Adds the 64 pages from `pfn` on whose bits are set in `word`.
    ///
    /// `pfn` must be a multiple of 64, above that of the word before.
    ///
    /// # Errors
    ///
    /// [`Full`] if the buffer might not take the word. Nothing was added then.
    pub(crate) fn push(&mut self, pfn: u64, word: u64) -> Result<(), Full> {
        if word == 0 {
            return Ok(());
        }
        if self.free.len() < RESERVE {
            return Err(Full);
        }
        let full = word == u64::MAX;
        match &mut self.pending {
            Pending::Run { start, words } if full && pfn == after(*start, u64::from(*words)) => {
                if let Some(more) = words.checked_add(1) {
                    *words = more;
                    return Ok(());
                }
            }
            Pending::Words { start, words, len } if pfn == after(*start, *len as u64) => {
                let last = len.checked_sub(1).and_then(|last| words.get_mut(last));
                match (last, full) {
                    // Two full words are a run: the first of them leaves the words.
                    (Some(last), true) if *last == u64::MAX => {
                        *last = 0;
                        *len = len.saturating_sub(1);
                        let start = after(*start, *len as u64);
                        self.flush();
                        self.pending = Pending::Run { start, words: 2 };
                        return Ok(());
                    }
                    _ => {
                        if let Some(slot) = words.get_mut(*len) {
                            *slot = word;
                            *len = len.saturating_add(1);
                            return Ok(());
                        }
                    }
                }
            }
            _ => {}
        }
        self.flush();
        self.pending = if full {
            Pending::Run {
                start: pfn,
                words: 1,
            }
        } else {
            let mut words = [0; MAX_WORDS];
            if let Some(first) = words.first_mut() {
                *first = word;
            }
            Pending::Words {
                start: pfn,
                words,
                len: 1,
            }
        };
        Ok(())
    }

    /// Writes what is pending, and says what has been written.
    pub(crate) fn finish(mut self) -> Encoded {
        self.flush();
        self.flush_grid();
        Encoded {
            len: self.capacity.saturating_sub(self.free.len()),
            runs: self.runs,
            words: self.words,
        }
    }

    fn flush(&mut self) {
        match core::mem::replace(&mut self.pending, Pending::None) {
            Pending::None => {}
            Pending::Run { start, words } => {
                if self
                    .grid
                    .as_mut()
                    .is_some_and(|grid| grid.join(start, words))
                {
                    return;
                }
                self.flush_grid();
                self.grid = Grid::new(start, words);
                if self.grid.is_none() {
                    self.put_runs(start, u64::from(words));
                }
            }
            Pending::Words { start, words, len } => {
                self.flush_grid();
                self.put_words(start, PAGE_SHIFT, words.get(..len).unwrap_or(&words));
            }
        }
    }

    fn flush_grid(&mut self) {
        let Some(grid) = self.grid.take() else {
            return;
        };
        match grid.words() {
            Some(words) => {
                let page_shift = PAGE_SHIFT.saturating_add(grid.shift());
                self.put_words(grid.start(), page_shift, words);
            }
            None => grid
                .stretches()
                .for_each(|(start, words)| self.put_runs(start, words)),
        }
    }

    fn put_runs(&mut self, mut start: u64, mut words: u64) {
        while let Some(order) = words.checked_ilog2() {
            let page_shift = PAGE_SHIFT.saturating_add(WORD_SHIFT).saturating_add(order);
            self.put(head(start, page_shift, 0));
            self.runs = self.runs.saturating_add(1);
            let pow2 = 1u64 << order;
            start = after(start, pow2);
            words &= !pow2;
        }
    }

    fn put_words(&mut self, start: u64, page_shift: u32, words: &[u64]) {
        self.put(head(start, page_shift, words.len()));
        words.iter().for_each(|word| self.put(*word));
        self.words = self.words.saturating_add(words.len() as u64);
    }

    fn put(&mut self, value: u64) {
        // `RESERVE` sees to it that there always is space.
        if let Some((slot, free)) = core::mem::take(&mut self.free).split_first_chunk_mut() {
            *slot = value.to_le_bytes();
            self.free = free;
        }
    }
}
