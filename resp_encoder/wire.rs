// SPDX-License-Identifier: GPL-2.0-only

//! The wire format of a response: a header, and entries that each begin with a head.

/// The length of a response header, and of every entry's head.
pub(crate) const HEAD_LEN: usize = 8;

/// The log2 of the bytes of the unit of all PFNs.
pub(super) const PAGE_SHIFT: u32 = 12;

/// The log2 of the pages of a word.
pub(super) const WORD_SHIFT: u32 = 6;

/// The most words behind one head.
pub(super) const MAX_WORDS: usize = 7;

/// A response header, for `data_len` bytes of entries. `cmd`, `flag` and `id` are 0.
pub(crate) fn response_header(data_len: u32) -> [u8; HEAD_LEN] {
    (u64::from(data_len) << 32).to_le_bytes()
}

/// An entry's head: `start_pfn` bits 0-51, `page_shift` bits 52-57, `bmap_len` bits 58-63.
pub(super) fn head(start_pfn: u64, page_shift: u32, words: usize) -> u64 {
    let bmap_len = (words as u64).saturating_mul(8);
    (start_pfn & ((1 << 52) - 1)) | (u64::from(page_shift) << 52) | (bmap_len << 58)
}

/// The PFN that comes after `words` words from `start` on.
pub(super) fn after(start: u64, words: u64) -> u64 {
    start.saturating_add(words << WORD_SHIFT)
}
