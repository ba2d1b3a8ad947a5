// SPDX-License-Identifier: GPL-2.0-only

//! The floor in the host: discarding the pages of a balloon with no guest, no device and no balloon.

use std::ffi::c_void;
use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr::NonNull;
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use guest_tests::page_set::PageSet;
use guest_tests::{MIB, PAGE_SIZE};
use nix::fcntl::{fallocate, FallocateFlags};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::sys::mman::{mmap, munmap, MapFlags, ProtFlags};

use crate::plan::State;
use crate::record::Discard;

/// Most bytes that the device discards at once.
const PIECE: u64 = 256 * MIB;
/// From so much RAM on q35 has only `LOW` of it below 4 GiB.
const SPLIT: u64 = 2816 * MIB;
const LOW: u64 = 2048 * MIB;
const HIGH_START: u64 = 4096 * MIB;

/// RAM as QEMU has it: a memfd, mapped, with every page written to.
struct Ram {
    file: File,
    start: NonNull<c_void>,
    length: NonZeroUsize,
}

impl Ram {
    fn new(bytes: u64) -> Result<Self> {
        let file = File::from(memfd_create("bench", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(bytes)?;
        let length = NonZeroUsize::new(bytes.try_into()?).context("no bytes")?;
        // SAFETY: A new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                &file,
                0,
            )
        }?;
        for offset in (0..length.get()).step_by(PAGE_SIZE as usize) {
            // SAFETY: Within the mapping, which is writable and which nothing else refers to.
            unsafe { start.cast::<u8>().add(offset).write_volatile(1) };
        }
        Ok(Self {
            file,
            start,
            length,
        })
    }

    fn punch(&self, range: &Range<u64>) -> Result<()> {
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let length = range.end - range.start;
        fallocate(
            &self.file,
            mode,
            range.start.try_into()?,
            length.try_into()?,
        )
        .context("fallocate")
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: The whole mapping, to which no reference is left.
        let _ = unsafe { munmap(self.start, self.length.get()) };
    }
}

/// Discards so much memory in one range, in the pieces that the device does it in.
pub fn in_one_range(guest_bytes: u64, bytes: u64, round: u32) -> Result<Discard> {
    let range = Range {
        start: 0,
        end: bytes,
    };
    measure(guest_bytes, vec![range], None, round)
}

/// Discards the pages of a balloon.
pub fn of_balloon(guest_bytes: u64, state: State, set: &PageSet, round: u32) -> Result<Discard> {
    measure(
        guest_bytes,
        file_ranges(guest_bytes, set)?,
        Some(state),
        round,
    )
}

fn measure(
    guest_bytes: u64,
    ranges: Vec<Range<u64>>,
    state: Option<State>,
    round: u32,
) -> Result<Discard> {
    let pieces: Vec<Range<u64>> = ranges.iter().flat_map(pieces).collect();
    let ram = Ram::new(guest_bytes)?;
    let start = Instant::now();
    for piece in &pieces {
        ram.punch(piece)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(Discard {
        round,
        state,
        ranges: ranges.len() as u64,
        bytes: ranges.iter().map(|range| range.end - range.start).sum(),
        seconds,
    })
}

fn pieces(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    (range.start..end)
        .step_by(PIECE as usize)
        .map(move |start| start..end.min(start + PIECE))
}

/// Where in the RAM's file the pages lie.
fn file_ranges(guest_bytes: u64, set: &PageSet) -> Result<Vec<Range<u64>>> {
    let hole = if guest_bytes >= SPLIT {
        HIGH_START - LOW
    } else {
        0
    };
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (first, pages) in set.iter() {
        let address = first * PAGE_SIZE;
        let start = if address >= HIGH_START {
            address - hole
        } else {
            address
        };
        let end = start + pages * PAGE_SIZE;
        ensure!(
            end <= guest_bytes,
            "page {first:#x} is beyond the guest's RAM"
        );
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1024 * MIB;

    #[test]
    fn memory_above_4_gib_follows_that_below() {
        let pages = |bytes| bytes / PAGE_SIZE;
        let found = file_ranges(
            8 * GIB,
            &PageSet::from_iter([(16, 1), (pages(2 * GIB) - 1, 1), (pages(4 * GIB), 2)]),
        );
        let middle = 2 * GIB - PAGE_SIZE..2 * GIB + 2 * PAGE_SIZE;
        assert_eq!(found.unwrap(), [16 * PAGE_SIZE..17 * PAGE_SIZE, middle]);
        assert!(file_ranges(GIB, &PageSet::from_iter([(pages(GIB), 1)])).is_err());
    }

    #[test]
    fn long_ranges_are_discarded_in_pieces() {
        let found: Vec<_> = pieces(&(MIB..PIECE * 2)).collect();
        assert_eq!(found, [MIB..PIECE + MIB, PIECE + MIB..2 * PIECE]);
    }

    #[test]
    fn what_is_discarded_is_gone() {
        let ram = Ram::new(4 * MIB).unwrap();
        let blocks = |ram: &Ram| {
            use std::os::unix::fs::MetadataExt;
            ram.file.metadata().unwrap().blocks() * 512
        };
        assert_eq!(blocks(&ram), 4 * MIB);
        ram.punch(&(MIB..2 * MIB)).unwrap();
        assert_eq!(blocks(&ram), 3 * MIB);
        drop(ram);
        let found = of_balloon(
            4 * MIB,
            State::Touched,
            &PageSet::from_iter([(0, 3), (5, 1)]),
            1,
        )
        .unwrap();
        assert_eq!((found.ranges, found.bytes), (2, 4 * PAGE_SIZE));
    }
}
