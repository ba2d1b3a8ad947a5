// SPDX-License-Identifier: GPL-2.0-only

//! Sets of pages as balloons have them, and the way from a set to messages.

use std::cell::Cell;
use std::collections::BTreeSet;

use proptest::{collection, prelude::*};

use crate::{
    bitmap::{PageBitmaps, PfnRange, Rest, WORDS_PER_BITMAP},
    resp_encoder::{response_header, Encoder, Full, HEAD_LEN},
};

pub type Pages = BTreeSet<u64>;

/// Pages that a bitmap covers.
pub const PFNS_PER_BITMAP: u64 = 64 * WORDS_PER_BITMAP as u64;

/// The highest PFN that an entry's head can hold.
pub const MAX_PFN: u64 = (1 << 52) - 1;

pub fn zeroed() -> Vec<u64> {
    vec![0; WORDS_PER_BITMAP]
}

/// `len` pages from `start` on.
pub fn span(start: u64, len: u64) -> impl Iterator<Item = u64> {
    (start..start.saturating_add(len)).take_while(|pfn| *pfn <= MAX_PFN)
}

/// Sends `pages` as the driver does, with up to `bitmaps` bitmaps and messages of `capacity` bytes
/// in all. Returns the messages.
///
/// Memory behind each message's buffer is checked to be untouched.
pub fn encode(pages: &Pages, bitmaps: usize, capacity: usize) -> Vec<Vec<u8>> {
    const CANARY: u8 = 0xa5;
    let mut messages = Vec::new();
    let blocks = blocks(pages);
    let Some(range) = PfnRange::of(blocks.iter().copied()) else {
        return messages;
    };

    let mut map = PageBitmaps::new(zeroed());
    while map.len() < bitmaps.min(range.bitmaps()) {
        assert!(map.add(zeroed()).is_ok());
    }

    // In any order where the bitmaps cover them; else each is looked at once, in ascending order.
    let mut sorted = blocks.clone();
    sorted.sort_unstable_by_key(|range| range.min);
    let looks = Cell::new(0);
    let mut rest = Rest::new(
        sorted
            .iter()
            .copied()
            .inspect(|_| looks.set(looks.get() + 1)),
    );
    let covered = map.cover(range);
    if covered {
        map.mark(range, blocks.iter().copied());
    }
    let mut is_first = true;
    while (covered && is_first) || (!covered && map.fill(&mut rest)) {
        is_first = false;
        let mut words = map.words().peekable();
        while words.peek().is_some() {
            let mut buf = vec![CANARY; capacity + 256];
            let (space, behind) = buf.split_at_mut(capacity);
            let mut encoder = Encoder::new(&mut space[HEAD_LEN..]);
            while let Some(&(pfn, word)) = words.peek() {
                match encoder.push(pfn, word) {
                    Ok(()) => words.next(),
                    Err(Full) => break,
                };
            }
            let len = encoder.finish().len;
            assert!(len > 0, "a message must carry something");
            assert!(behind.iter().all(|byte| *byte == CANARY));

            buf[..HEAD_LEN].copy_from_slice(&response_header(len as u32));
            buf.truncate(HEAD_LEN + len);
            messages.push(buf);
        }
    }
    assert_eq!(
        looks.get(),
        if covered { 0 } else { sorted.len() },
        "one look at a range"
    );
    messages
}

/// Neighbours as one range, and the last ranges first, as the driver may have them.
fn blocks(pages: &Pages) -> Vec<PfnRange> {
    let mut blocks: Vec<PfnRange> = Vec::new();
    for &pfn in pages {
        match blocks.last_mut() {
            Some(last) if last.max + 1 == pfn => last.max = pfn,
            _ => blocks.push(PfnRange::block(pfn, 1)),
        }
    }
    blocks.reverse();
    blocks
}

/// Sets of all the kinds that a guest's memory comes in.
pub fn any_set() -> impl Strategy<Value = Pages> {
    prop_oneof![
        sparse(),
        dense(),
        fragmented(),
        boundaries(),
        scattered_runs(),
        blocks_of_one_allocator().prop_map(|blocks| pages(&blocks))
    ]
}

/// Single pages far apart, in up to 64 GiB.
fn sparse() -> impl Strategy<Value = Pages> {
    collection::btree_set(0..64 * PFNS_PER_BITMAP, 0..60)
}

/// One stretch, wherever it starts and ends.
fn dense() -> impl Strategy<Value = Pages> {
    (0..4 * PFNS_PER_BITMAP, 1u64..5000).prop_map(|(start, len)| span(start, len).collect())
}

/// Words with every kind of gap in them, some full and some empty.
fn fragmented() -> impl Strategy<Value = Pages> {
    let word = prop_oneof![
        3 => any::<u64>(),
        2 => Just(u64::MAX),
        1 => Just(0),
        1 => Just(0x5555_5555_5555_5555),
        1 => (0..64u32).prop_map(|bit| 1 << bit),
    ];
    (0..PFNS_PER_BITMAP, collection::vec(word, 1..300)).prop_map(|(start, words)| {
        words
            .iter()
            .zip((start..).step_by(64))
            .flat_map(|(word, base)| {
                (0..64)
                    .filter(move |bit| word & (1 << bit) != 0)
                    .map(move |bit| base + bit)
            })
            .collect()
    })
}

/// A few pages around the edges of words, of bitmaps, of all bitmaps together, and of all PFNs.
fn boundaries() -> impl Strategy<Value = Pages> {
    let edge = prop_oneof![
        Just(0),
        Just(64),
        Just(PFNS_PER_BITMAP),
        Just(31 * PFNS_PER_BITMAP),
        Just(32 * PFNS_PER_BITMAP),
        Just(33 * PFNS_PER_BITMAP),
        Just(MAX_PFN),
    ];
    collection::vec((edge, -70i64..70, 1u64..140), 1..6).prop_map(|places| {
        places
            .into_iter()
            .flat_map(|(edge, offset, len)| span(edge.saturating_add_signed(offset), len))
            .collect()
    })
}

/// Stretches of all sizes with holes between them.
fn scattered_runs() -> impl Strategy<Value = Pages> {
    collection::vec((0..2 * PFNS_PER_BITMAP, 1u64..1500), 1..20).prop_map(|runs| {
        runs.into_iter()
            .flat_map(|(start, len)| span(start, len))
            .collect()
    })
}

/// Stretches, as (start, length), of blocks whose sizes are powers of two of words, at multiples of
/// the smallest of them.
pub fn blocks_of_one_allocator() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let block = (0u32..2, 1u64..100, 1u64..16);
    (0u32..3, collection::vec(block, 1..30)).prop_map(|(smallest, blocks)| {
        let mut end = 64;
        blocks
            .into_iter()
            .map(|(order, gap, len)| {
                let start = end + (gap << (6 + smallest));
                let len = len << (6 + smallest + order);
                end = start + len;
                (start, len)
            })
            .collect()
    })
}

/// The pages of stretches.
pub fn pages(stretches: &[(u64, u64)]) -> Pages {
    stretches.iter().flat_map(|s| span(s.0, s.1)).collect()
}
