// SPDX-License-Identifier: GPL-2.0-only

//! Bytes that were worked out by hand from the format and the 2016 driver's algorithm.

use crate::{
    page_sets::{encode, pages},
    resp_encoder::{Encoded, Encoder, Full},
};

/// One message with the pages of `spans`, as (start, length).
fn message(spans: &[(u64, u64)]) -> Vec<u8> {
    let mut messages = encode(&pages(spans), 1, 32 * 1024);
    assert_eq!(messages.len(), 1);
    messages.remove(0)
}

/// `start_pfn`, `page_shift` 12, `bmap_len` of one word: 0x20c0... in the upper bits.
#[test]
fn one_page_is_a_word_behind_its_head() {
    // PFN 0x12345 is bit 5 of the word at 0x12340.
    assert_eq!(
        message(&[(0x12345, 1)]),
        [
            0, 0, 0, 0, 16, 0, 0, 0, // data_len 16
            0x40, 0x23, 0x01, 0, 0, 0, 0xc0, 0x20, // 0x12340, 12 << 52 | 8 << 58
            0x20, 0, 0, 0, 0, 0, 0, 0, // bit 5
        ]
    );
}

#[test]
fn aligned_64_pages_are_a_run_of_256_kib() {
    assert_eq!(
        message(&[(0x1000, 64)]),
        [
            0, 0, 0, 0, 8, 0, 0, 0, // data_len 8
            0, 0x10, 0, 0, 0, 0, 0x20, 0x01, // 0x1000, 18 << 52
        ]
    );
}

/// 192 pages are 128 and 64, the larger first, whatever their alignment.
#[test]
fn a_stretch_is_powers_of_two_the_largest_first() {
    assert_eq!(
        message(&[(0x40, 192)]),
        [
            0, 0, 0, 0, 16, 0, 0, 0, // data_len 16
            0x40, 0, 0, 0, 0, 0, 0x30, 0x01, // 0x40, 19 << 52
            0xc0, 0, 0, 0, 0, 0, 0x20, 0x01, // 0xc0, 18 << 52
        ]
    );
}

/// The 2016 driver sends the same entries, but the last word before the run.
#[test]
fn a_stretch_that_is_not_aligned_begins_and_ends_with_words() {
    assert_eq!(
        message(&[(0x3c, 4 + 128 + 2)]),
        [
            0, 0, 0, 0, 40, 0, 0, 0, // data_len 40
            0, 0, 0, 0, 0, 0, 0xc0, 0x20, // the word at 0
            0, 0, 0, 0, 0, 0, 0, 0xf0, // bits 60 to 63
            0x40, 0, 0, 0, 0, 0, 0x30, 0x01, // 0x40, 19 << 52: 128 pages
            0xc0, 0, 0, 0, 0, 0, 0xc0, 0x20, // the word at 0xc0
            0x03, 0, 0, 0, 0, 0, 0, 0, // bits 0 and 1
        ]
    );
}

/// Every other block of 2 MiB: of the 64 blocks that are a word, 32.
#[test]
fn runs_on_a_grid_are_a_word() {
    let blocks: Vec<(u64, u64)> = (0..32).map(|block| (0x400 * block + 0x200, 512)).collect();
    assert_eq!(
        message(&blocks),
        [
            0, 0, 0, 0, 16, 0, 0, 0, // data_len 16
            0x00, 0x02, 0, 0, 0, 0, 0x50, 0x21, // 0x200, 21 << 52 | 8 << 58
            0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55,
        ]
    );
}

/// Two of them are shorter as two heads, and so are runs far apart.
#[test]
fn few_runs_stay_runs() {
    assert_eq!(message(&[(0x200, 512), (0x600, 512)]).len(), 8 + 2 * 8);
    let far: Vec<(u64, u64)> = (0..4).map(|block| (0x8000 * block, 512)).collect();
    assert_eq!(message(&far).len(), 8 + 4 * 8);
}

/// 24 blocks of 4 MiB in two places, as an idle guest's allocator hands them out: 15 would be four
/// runs, and 9 two.
#[test]
fn two_stretches_of_blocks_are_a_few_words() {
    assert_eq!(
        message(&[(0x10_3800, 15 * 1024), (0x12_1800, 9 * 1024)]),
        [
            0, 0, 0, 0, 32, 0, 0, 0, // data_len 32
            0x00, 0x38, 0x10, 0, 0, 0, 0x60, 0x61, // 0x103800, 22 << 52 | 24 << 58
            0xff, 0x7f, 0, 0, 0, 0, 0, 0, // bits 0 to 14
            0, 0, 0, 0, 0, 0, 0, 0xff, // bits 120 to 127
            0x01, 0, 0, 0, 0, 0, 0, 0, // bit 128
        ]
    );
}

/// The bits of a grid come to stand for fewer pages when a smaller stretch joins them.
#[test]
fn stretches_of_several_sizes_share_a_grid() {
    assert_eq!(
        message(&[(0x1000, 512), (0x1400, 128), (0x1800, 256), (0x1c00, 128)]),
        [
            0, 0, 0, 0, 16, 0, 0, 0, // data_len 16
            0x00, 0x10, 0, 0, 0, 0, 0x30, 0x21, // 0x1000, 19 << 52 | 8 << 58
            0x0f, 0x01, 0x03, 0x01, 0, 0, 0, 0,
        ]
    );
}

/// A run that lies beside the grid, or that would make too many words of it, is none of its bits.
#[test]
fn what_does_not_fit_the_grid_ends_it() {
    let blocks = [(0, 512), (0x400, 512), (0x800, 512), (0xc00, 512)];
    assert_eq!(message(&blocks).len(), 8 + 2 * 8);
    let far = [&blocks[..], &[(0x3_c000, 512)]].concat();
    assert_eq!(message(&far).len(), 8 + 2 * 8 + 8);
    let beside = [&blocks[..], &[(0x1_0040, 512)]].concat();
    assert_eq!(message(&beside).len(), 8 + 2 * 8 + 8);
}

/// A stretch with too many bits for a grid.
#[test]
fn a_long_stretch_of_an_odd_length_is_runs() {
    assert_eq!(message(&[(0x40, 64 * 1023)]).len(), 8 + 10 * 8);
}

#[test]
fn neighbouring_words_share_a_head() {
    // Three words: a page, all pages, a page. `bmap_len` 24 is 0x60 << 56.
    assert_eq!(
        message(&[(63, 1), (64, 64), (128, 1)]),
        [
            0, 0, 0, 0, 32, 0, 0, 0, // data_len 32
            0, 0, 0, 0, 0, 0, 0xc0, 0x60, // 12 << 52 | 24 << 58
            0, 0, 0, 0, 0, 0, 0, 0x80, // bit 63
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // all
            0x01, 0, 0, 0, 0, 0, 0, 0, // bit 0
        ]
    );
}

#[test]
fn an_eighth_word_gets_a_head_of_its_own() {
    let pages: Vec<(u64, u64)> = (0..8).map(|word| (word * 64, 1)).collect();
    let message = message(&pages);
    assert_eq!(message.len(), 8 + 8 * (1 + 7) + 8 * (1 + 1));
    assert_eq!(message[15], 56 << 2, "seven words behind the first head");
    assert_eq!(message[72..80], [0xc0, 0x01, 0, 0, 0, 0, 0xc0, 0x20]);
}

#[test]
fn the_encoder_counts_what_it_writes() {
    let mut buf = [0; 1024];
    let mut encoder = Encoder::new(&mut buf);
    for (pfn, word) in [(0, 1), (64, 0), (128, u64::MAX), (192, u64::MAX), (256, 3)] {
        assert_eq!(encoder.push(pfn, word), Ok(()));
    }
    assert_eq!(
        encoder.finish(),
        Encoded {
            len: 16 + 8 + 16,
            runs: 1,
            words: 2
        }
    );
}

#[test]
fn a_buffer_without_space_takes_nothing() {
    let mut buf = [0; 504];
    let mut encoder = Encoder::new(&mut buf);
    assert_eq!(encoder.push(0, 1), Err(Full));
    assert_eq!(encoder.finish(), Encoded::default());
}

/// The bytes of the worked example in docs/PROTOCOL.md: the first column of its last block.
#[test]
fn the_example_of_the_protocol_document() {
    let document = include_str!("../../../docs/PROTOCOL.md");
    let block = document
        .rsplit("```")
        .nth(1)
        .expect("the document has a block");
    let bytes: Vec<u8> = block
        .lines()
        .flat_map(|line| {
            line.split("  ")
                .next()
                .unwrap_or_default()
                .split_whitespace()
        })
        .map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits"))
        .collect();
    assert_eq!(bytes.len(), 72);
    assert_eq!(message(&[(0x3c, 134), (0x12345, 1), (0x20000, 512)]), bytes);
}
