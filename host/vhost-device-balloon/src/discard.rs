// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How the host gets the pages of a message back, in pieces that are never long.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use log::warn;
use nix::fcntl::fallocate;
use nix::fcntl::FallocateFlags;
use serde::Deserialize;
use serde::Serialize;

use crate::budget::Budget;
use crate::held::HeldSet;
use crate::memory::GuestRam;
use crate::memory::Region;
use crate::message::PageRange;
use crate::virtio_balloon::PFN_SHIFT;

/// What was given back to the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discarded {
    /// Calls made.
    pub calls: u64,
    /// Bytes those calls discarded.
    pub bytes: u64,
    /// Calls that failed.
    pub errors: u64,
}

/// When a host page larger than 4 KiB may be discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// As soon as all its pages are held, whichever messages brought them.
    ///
    /// Sound only if no page is used again before its deflation is acknowledged, which
    /// MUST_TELL_HOST promises: otherwise the guest may already write to a page that is still
    /// counted as held, and that write would be discarded.
    Held,
    /// Only where one message covers it wholly.
    Message,
}

/// Most bytes discarded by one call, unless a host page is larger.
const PIECE: u64 = 256 << 20;

/// The discarding of one message's pages, which may take several turns.
#[derive(Debug)]
pub struct Discard {
    ram: Arc<GuestRam>,
    ranges: Vec<PageRange>,
    aggregate: Aggregate,
    /// The region and, in it, the range to look at next.
    region: usize,
    next: usize,
    /// What was found in the region and is still to be discarded, as a range of its file.
    pending: Range<u64>,
}

impl Discard {
    /// Discards `ranges`, which are sorted and merged, one call for each merged stretch of a file.
    pub fn new(ram: Arc<GuestRam>, ranges: Vec<PageRange>, aggregate: Aggregate) -> Self {
        Self {
            ram,
            ranges,
            aggregate,
            region: 0,
            next: 0,
            pending: 0..0,
        }
    }

    /// Goes on until all is done or `budget` is spent, and adds to `done` what it took; returns
    /// whether all is done.
    ///
    /// `held` is what the balloon holds now, with the pages of this message.
    pub fn go_on(&mut self, held: &HeldSet, budget: &mut Budget, done: &mut Discarded) -> bool {
        while !budget.is_spent() {
            let Some((region, piece)) = self.next_piece(held) else {
                return true;
            };
            budget.spend_on_discard(piece.end - piece.start);
            self.ram.regions()[region].punch(&piece, done);
        }
        false
    }

    fn next_piece(&mut self, held: &HeldSet) -> Option<(usize, Range<u64>)> {
        loop {
            let host_page = self.ram.regions().get(self.region)?.host_page;
            self.fill_pending(held);
            if !self.pending.is_empty() {
                let piece = first_piece(&self.pending, host_page);
                self.pending.start = piece.end;
                return Some((self.region, piece));
            }
            self.region += 1;
            self.next = 0;
        }
    }

    /// Looks for the next stretch to discard in the region, as long as it goes.
    fn fill_pending(&mut self, held: &HeldSet) {
        let region = &self.ram.regions()[self.region];
        while let Some(range) = self.ranges.get(self.next) {
            let found = region.discardable(*range, held, self.aggregate);
            if let Some(found) = found {
                if self.pending.is_empty() {
                    self.pending = found;
                } else if found.start <= self.pending.end {
                    // Two ranges may complete the same host page.
                    self.pending.end = self.pending.end.max(found.end);
                } else {
                    return;
                }
            }
            self.next += 1;
        }
    }
}

/// What one call discards of `range`, which is made of host pages of `host_page` bytes.
fn first_piece(range: &Range<u64>, host_page: u64) -> Range<u64> {
    let longest = PIECE.max(host_page);
    range.start..range.end.min(range.start + longest)
}

impl Region {
    /// The file range to discard, now that `range` is held: the whole host pages in it and, with
    /// [`Aggregate::Held`], those at its edges that are held altogether.
    fn discardable(
        &self,
        range: PageRange,
        held: &HeldSet,
        aggregate: Aggregate,
    ) -> Option<Range<u64>> {
        let pfns = self.pfns();
        let first = range.start_pfn.max(pfns.start);
        let last = range.end_pfn()?.min(pfns.end);
        if first >= last {
            return None;
        }
        // No overflow from here on: all lies within the region or one host page beyond it, and a
        // file offset has 63 bits.
        let page = self.host_page;
        let start = (first << PFN_SHIFT) - self.gpa + self.file_offset;
        let end = (last << PFN_SHIFT) - self.gpa + self.file_offset;
        let mut inner = start.next_multiple_of(page)..end - end % page;
        if aggregate == Aggregate::Held {
            let (head, tail) = (start - start % page, end - end % page);
            if head == tail {
                // Less than a host page, all of it within one.
                return self.block_held(head, held).then(|| head..head + page);
            }
            if head < inner.start && self.block_held(head, held) {
                inner.start = head;
            }
            if tail < end && self.block_held(tail, held) {
                inner.end = tail + page;
            }
        }
        (!inner.is_empty()).then_some(inner)
    }

    /// Whether the host page at file offset `block` lies in this region and is held altogether.
    fn block_held(&self, block: u64, held: &HeldSet) -> bool {
        let region = self.file_offset..self.file_offset + self.size;
        if block < region.start || block + self.host_page > region.end {
            return false;
        }
        held.contains(PageRange {
            start_pfn: (block - self.file_offset + self.gpa) >> PFN_SHIFT,
            pages: self.host_page >> PFN_SHIFT,
        })
    }

    /// Discards a range of the file.
    fn punch(&self, range: &Range<u64>, done: &mut Discarded) {
        let len = range.end - range.start;
        done.calls += 1;
        match self.punch_hole(range.start, len) {
            Ok(()) => done.bytes += len,
            Err(error) => {
                done.errors += 1;
                if done.errors == 1 {
                    warn!(
                        "cannot discard {len} bytes at file offset {:#x}: {error}",
                        range.start
                    );
                }
            }
        }
    }

    fn punch_hole(&self, start: u64, len: u64) -> io::Result<()> {
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let (start, len) = match (i64::try_from(start), i64::try_from(len)) {
            (Ok(start), Ok(len)) => (start, len),
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        loop {
            match fallocate(&*self.file, mode, start, len) {
                Err(nix::Error::EINTR) => continue,
                result => return result.map_err(io::Error::from),
            }
        }
    }
}

#[cfg(test)]
#[path = "discard_tests.rs"]
mod tests;
