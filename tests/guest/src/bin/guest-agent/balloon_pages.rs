// SPDX-License-Identifier: GPL-2.0-only

//! The pages of all balloons, as the kernel marks them: `KPF_OFFLINE` in /proc/kpageflags.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use guest_tests::page_set::PageSet;
use guest_tests::protocol::BalloonPages;

const FLAGS: &str = "/proc/kpageflags";
/// Flags of a page, which are a word of eight bytes.
const WORD: usize = 8;
const OFFLINE: u64 = 1 << 23;
/// How much is read at once.
const CHUNK: usize = 64 << 10;
/// Most ranges in an answer: the guest may have little memory.
const MOST_RANGES: usize = 2048;

/// The pages from page number `from` on, as far as they go into an answer.
pub fn find(from: u64) -> Result<BalloonPages> {
    let file = File::open(FLAGS).context(FLAGS)?;
    let mut chunk = vec![0; CHUNK];
    let mut found = BalloonPages {
        pages: PageSet::default(),
        next: Some(from),
    };
    while let Some(start) = found.next {
        let length = match file.read_at(&mut chunk, start * WORD as u64) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            length => length.context(FLAGS)?,
        };
        let flags = chunk[..length].chunks_exact(WORD);
        found.next = (length > 0).then_some(start + flags.len() as u64);
        for (page, flags) in (start..).zip(flags) {
            if found.pages.ranges() == MOST_RANGES {
                found.next = Some(page);
                return Ok(found);
            }
            if u64::from_ne_bytes(flags.try_into()?) & OFFLINE != 0 {
                found.pages.push(page, 1);
            }
        }
    }
    Ok(found)
}
