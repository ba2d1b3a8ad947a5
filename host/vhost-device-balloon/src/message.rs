// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The two message formats of the inflate and deflate queues, decoded into page ranges.
//!
//! A message is all or nothing: the whole of it is validated before a range is returned. What is
//! returned is sorted by address, without overlap, and neighbours are merged. Every number in a
//! message comes from the guest; memory use is bounded by [`MAX_MESSAGE_SIZE`], since a message
//! expands to ranges and never to pages.
//!
//! Nothing here knows of queues or sockets, so the decoder can be fuzzed alone.

use thiserror::Error;

use crate::bits::stretches;
use crate::virtio_balloon::PFN_SHIFT;

/// Size of the response header of a bitmap message, in bytes.
pub const HEADER_SIZE: usize = 8;
/// Largest message accepted, header included, in bytes.
///
/// One message of this size can speak of 4 GiB page by page. At worst (every other bit set) it
/// expands to 16 MiB of ranges.
pub const MAX_MESSAGE_SIZE: usize = HEADER_SIZE + 256 * 1024;

/// `cmd` of a message that lists pages.
const CMD_PAGES: u8 = 0;
/// Largest `page_shift`, so that a block's size in bytes and every sum below fit in 64 bits.
const MAX_PAGE_SHIFT: u32 = 51;

/// Consecutive pages of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageRange {
    /// The first page's frame number.
    pub start_pfn: u64,
    /// How many pages.
    pub pages: u64,
}

impl PageRange {
    /// The frame number after the last page, or None where the range leaves the 64-bit space.
    pub fn end_pfn(self) -> Option<u64> {
        self.start_pfn.checked_add(self.pages)
    }
}

/// Tells which page frames are the guest's memory.
pub trait GuestPages {
    /// Whether every page of `range` is guest memory.
    fn contains(&self, range: PageRange) -> bool;
}

/// What a message said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The pages, sorted, merged and without overlap.
    pub ranges: Vec<PageRange>,
    /// Entries that were runs (bitmap messages only).
    pub runs: u64,
    /// Bitmap words (bitmap messages only).
    pub words: u64,
}

impl Message {
    /// The number of pages in the message.
    pub fn pages(&self) -> u64 {
        self.ranges
            .iter()
            .fold(0, |sum, range| sum.saturating_add(range.pages))
    }
}

/// Why a message is not acted on.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error("message of {0} bytes is shorter than its header")]
    ShortHeader(usize),
    #[error("command {0} is unknown")]
    UnknownCommand(u8),
    #[error("header says {data_len} bytes of entries, the chain carries {carried}")]
    DataLength { data_len: u32, carried: usize },
    #[error("message of {0} bytes is longer than {MAX_MESSAGE_SIZE}")]
    TooLong(usize),
    #[error("entry at byte {0} is truncated")]
    Truncated(usize),
    #[error("entry at byte {offset} has a bitmap of {bmap_len} bytes")]
    BitmapLength { offset: usize, bmap_len: u8 },
    #[error("entry at byte {offset} has page_shift {page_shift}")]
    PageShift { offset: usize, page_shift: u32 },
    #[error("PFN array of {0} bytes is no multiple of 4")]
    PfnArrayLength(usize),
    #[error("buffer of {len} bytes at {address:#x} is not whole pages")]
    NotPages { address: u64, len: u32 },
    #[error("pages {start_pfn:#x}+{pages:#x} are not all guest memory")]
    OutsideMemory { start_pfn: u64, pages: u64 },
}

/// Decodes a legacy message: an array of little-endian u32 PFNs.
///
/// # Errors
///
/// Any [`DecodeError`] but those that speak of headers, entries and buffers.
pub fn decode_pfns(bytes: &[u8], ram: &impl GuestPages) -> Result<Message, DecodeError> {
    if bytes.len() > MAX_MESSAGE_SIZE {
        return Err(DecodeError::TooLong(bytes.len()));
    }
    if bytes.len() % 4 != 0 {
        return Err(DecodeError::PfnArrayLength(bytes.len()));
    }
    let mut ranges = Ranges::default();
    for pfn in bytes.chunks_exact(4) {
        let pfn = u32::from_le_bytes([pfn[0], pfn[1], pfn[2], pfn[3]]);
        ranges.push(u64::from(pfn), 1);
    }
    Ok(Message {
        ranges: ranges.into_checked(ram)?,
        ..Message::default()
    })
}

/// Decodes a bitmap message: the response header and the entries it announces.
///
/// # Errors
///
/// [`DecodeError::UnknownCommand`] for a message to be ignored, any other for one to be rejected.
pub fn decode_response(bytes: &[u8], ram: &impl GuestPages) -> Result<Message, DecodeError> {
    let (header, entries) = bytes
        .split_first_chunk::<HEADER_SIZE>()
        .ok_or(DecodeError::ShortHeader(bytes.len()))?;
    let [cmd, _flag, _id_low, _id_high, data_len @ ..] = *header;
    if cmd != CMD_PAGES {
        return Err(DecodeError::UnknownCommand(cmd));
    }
    let data_len = u32::from_le_bytes(data_len);
    if usize::try_from(data_len) != Ok(entries.len()) {
        return Err(DecodeError::DataLength {
            data_len,
            carried: entries.len(),
        });
    }
    decode_bitmap(entries, ram)
}

/// Decodes the entries of a bitmap message, without its header.
///
/// # Errors
///
/// Any [`DecodeError`] but those that speak of the header or of PFN arrays.
pub fn decode_bitmap(entries: &[u8], ram: &impl GuestPages) -> Result<Message, DecodeError> {
    if entries.len() > MAX_MESSAGE_SIZE - HEADER_SIZE {
        return Err(DecodeError::TooLong(entries.len()));
    }
    let mut ranges = Ranges::default();
    let mut message = Message::default();
    let mut rest = entries;
    while !rest.is_empty() {
        let offset = entries.len() - rest.len();
        let truncated = DecodeError::Truncated(offset);
        let (head, body) = rest.split_first_chunk::<8>().ok_or(truncated)?;
        let head = EntryHead::parse(u64::from_le_bytes(*head), offset)?;
        let (bitmap, next) = body
            .split_at_checked(usize::from(head.bmap_len))
            .ok_or(truncated)?;
        if bitmap.is_empty() {
            message.runs += 1;
            ranges.push(head.start_pfn, 1 << head.unit_shift);
        }
        for (index, word) in (0u64..).zip(bitmap.chunks_exact(8)) {
            message.words += 1;
            head.push_word(index, word, &mut ranges);
        }
        rest = next;
    }
    message.ranges = ranges.into_checked(ram)?;
    Ok(message)
}

/// The first word of an entry, validated.
///
/// `start_pfn` < 2^52, `unit_shift` <= 39 and a bit index < 448, so no sum or shift made of them
/// leaves 64 bits.
struct EntryHead {
    start_pfn: u64,
    /// Base-2 logarithm of the pages that a run has, or that one bit stands for.
    unit_shift: u32,
    bmap_len: u8,
}

impl EntryHead {
    fn parse(head: u64, offset: usize) -> Result<Self, DecodeError> {
        let page_shift = (head >> 52) as u32 & 0x3f;
        let bmap_len = (head >> 58) as u8;
        if bmap_len % 8 != 0 {
            return Err(DecodeError::BitmapLength { offset, bmap_len });
        }
        if !(PFN_SHIFT..=MAX_PAGE_SHIFT).contains(&page_shift) {
            return Err(DecodeError::PageShift { offset, page_shift });
        }
        Ok(Self {
            start_pfn: head & ((1 << 52) - 1),
            unit_shift: page_shift - PFN_SHIFT,
            bmap_len,
        })
    }

    /// Adds the set bits of the entry's `index`th word, a stretch of ones at a time.
    fn push_word(&self, index: u64, word: &[u8], ranges: &mut Ranges) {
        let bits = word
            .iter()
            .rev()
            .fold(0u64, |bits, byte| (bits << 8) | u64::from(*byte));
        for (first, ones) in stretches(bits) {
            let bit = index * 64 + u64::from(first);
            ranges.push(
                self.start_pfn + (bit << self.unit_shift),
                u64::from(ones) << self.unit_shift,
            );
        }
    }
}

/// Ranges in the making. Neighbours merge at once, so an ascending message needs no sorting.
#[derive(Default)]
pub(crate) struct Ranges {
    list: Vec<PageRange>,
    unsorted: bool,
}

impl Ranges {
    /// Adds pages, at least one, that end within the 64-bit space.
    pub(crate) fn push(&mut self, start_pfn: u64, pages: u64) {
        if let Some(last) = self.list.last_mut() {
            if last.end_pfn() == Some(start_pfn) {
                last.pages += pages;
                return;
            }
            self.unsorted |= start_pfn < last.start_pfn.saturating_add(last.pages);
        }
        self.list.push(PageRange { start_pfn, pages });
    }

    /// The ranges, sorted and merged.
    ///
    /// # Errors
    ///
    /// [`DecodeError::OutsideMemory`]
    pub(crate) fn into_checked(
        mut self,
        ram: &impl GuestPages,
    ) -> Result<Vec<PageRange>, DecodeError> {
        // Checked before merging: a merged range is no longer bounded by what one entry can say.
        for &range in &self.list {
            if !ram.contains(range) {
                return Err(DecodeError::OutsideMemory {
                    start_pfn: range.start_pfn,
                    pages: range.pages,
                });
            }
        }
        if self.unsorted {
            self.list.sort_unstable();
            self.list.dedup_by(|next, kept| {
                // Both lie within guest memory, so the ends exist.
                let kept_end = kept.start_pfn.saturating_add(kept.pages);
                if next.start_pfn > kept_end {
                    return false;
                }
                let end = kept_end.max(next.start_pfn.saturating_add(next.pages));
                kept.pages = end - kept.start_pfn;
                true
            });
        }
        Ok(self.list)
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
