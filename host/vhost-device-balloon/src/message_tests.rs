// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Guest memory with a hole, as below and above VGA memory: PFNs 0..0xa0 and 0xc0..0x10_0000.
struct Ram;

impl GuestPages for Ram {
    fn contains(&self, range: PageRange) -> bool {
        let within = |start, end| {
            range.start_pfn >= start && range.end_pfn().is_some_and(|range_end| range_end <= end)
        };
        within(0, 0xa0) || within(0xc0, 0x10_0000)
    }
}

/// An entry head by the numbers of the format.
fn head(start_pfn: u64, page_shift: u64, bmap_len: u64) -> [u8; 8] {
    (start_pfn | (page_shift << 52) | (bmap_len << 58)).to_le_bytes()
}

fn entry(start_pfn: u64, page_shift: u64, words: &[u64]) -> Vec<u8> {
    let mut bytes = head(start_pfn, page_shift, 8 * words.len() as u64).to_vec();
    for word in words {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}

fn ranges(list: &[(u64, u64)]) -> Vec<PageRange> {
    list.iter()
        .map(|&(start_pfn, pages)| PageRange { start_pfn, pages })
        .collect()
}

fn decoded(entries: &[u8]) -> Vec<PageRange> {
    decode_bitmap(entries, &Ram).unwrap().ranges
}

/// The messages that all devices have to read alike, QEMU's too.
#[test]
fn golden_messages() {
    /// PFNs 0x100 to 0x7fff.
    struct Golden;
    impl GuestPages for Golden {
        fn contains(&self, range: PageRange) -> bool {
            range.start_pfn >= 0x100 && range.end_pfn().is_some_and(|end| end <= 0x8000)
        }
    }
    let hex = |digits| u64::from_str_radix(digits, 16).unwrap();

    let mut messages = 0;
    let lines = include_str!("../../../tests/golden/page-bitmaps.txt").lines();
    for line in lines.filter(|line| !line.starts_with('#')) {
        let (message, pages) = line.split_once(" = ").unwrap();
        let (name, digits) = message.split_once(' ').unwrap();
        let bytes: Vec<u8> = (0..digits.len() / 2)
            .map(|byte| u8::from_str_radix(&digits[2 * byte..2 * byte + 2], 16).unwrap())
            .collect();
        let expected = match pages {
            "refused" => None,
            "-" => Some(Vec::new()),
            list => Some(
                list.split(' ')
                    .map(|range| range.split_once('+').unwrap())
                    .map(|(start_pfn, pages)| (hex(start_pfn), hex(pages)))
                    .map(|(start_pfn, pages)| PageRange { start_pfn, pages })
                    .collect(),
            ),
        };
        let ranges = decode_response(&bytes, &Golden).ok();
        assert_eq!(ranges.map(|message| message.ranges), expected, "{name}");
        messages += 1;
    }
    assert!(messages > 20, "{messages} messages");
}

#[test]
fn golden_bytes_of_a_whole_message() {
    #[rustfmt::skip]
    let bytes = [
        // cmd 0, flag 0, id 0, data_len 24
        0, 0, 0, 0, 24, 0, 0, 0,
        // start_pfn 0x1000, page_shift 12, bmap_len 8: 0x20c0_0000_0000_1000
        0x00, 0x10, 0, 0, 0, 0, 0xc0, 0x20,
        // pages 0, 1 and 63
        0x03, 0, 0, 0, 0, 0, 0, 0x80,
        // start_pfn 0x1040, page_shift 20 (256 pages), bmap_len 0: 0x0140_0000_0000_1040
        0x40, 0x10, 0, 0, 0, 0, 0x40, 0x01,
    ];
    let message = decode_response(&bytes, &Ram).unwrap();
    assert_eq!(message.ranges, ranges(&[(0x1000, 2), (0x103f, 257)]));
    assert_eq!((message.pages(), message.runs, message.words), (259, 1, 1));
}

#[test]
fn an_empty_message_has_no_pages() {
    assert_eq!(decode_response(&[0; 8], &Ram), Ok(Message::default()));
    assert_eq!(decode_pfns(&[], &Ram), Ok(Message::default()));
}

#[test]
fn flag_and_id_do_not_matter() {
    assert_eq!(
        decode_response(&[0, 1, 2, 3, 0, 0, 0, 0], &Ram),
        Ok(Message::default())
    );
}

#[test]
fn a_head_may_carry_seven_words() {
    let words = [1, 0, u64::MAX, 1 << 63, 0, 0, 2];
    let message = decode_bitmap(&entry(0x200, 12, &words), &Ram).unwrap();
    let expected = [(0x200, 1), (0x280, 64), (0x2ff, 1), (0x381, 1)];
    assert_eq!(message.ranges, ranges(&expected));
    assert_eq!((message.runs, message.words), (0, 7));
}

#[test]
fn a_bit_may_stand_for_a_larger_unit() {
    // 2 MiB units: bits 0, 1 and 3.
    let found = decoded(&entry(0x200, 21, &[0b1011]));
    assert_eq!(found, ranges(&[(0x200, 0x400), (0x800, 0x200)]));
}

#[test]
fn a_run_need_not_be_aligned_to_its_size() {
    assert_eq!(decoded(&head(0x140, 21, 0)), ranges(&[(0x140, 0x200)]));
}

#[test]
fn neighbours_merge_and_order_does_not_matter() {
    let mut entries = entry(0x400, 12, &[u64::MAX]);
    entries.extend(head(0x300, 20, 0));
    entries.extend(entry(0x440, 12, &[1]));
    entries.extend(entry(0x3f0, 12, &[0xffff_ffff]));
    assert_eq!(decoded(&entries), ranges(&[(0x300, 0x141)]));
}

#[test]
fn a_range_within_another_does_not_cut_it_short() {
    let mut entries = head(0x400, 21, 0).to_vec();
    entries.extend(head(0x440, 12, 0));
    assert_eq!(decoded(&entries), ranges(&[(0x400, 0x200)]));
}

#[test]
fn pfns_are_sorted_and_merged() {
    let bytes: Vec<u8> = [5u32, 4, 9, 6, 4]
        .iter()
        .flat_map(|pfn| pfn.to_le_bytes())
        .collect();
    let message = decode_pfns(&bytes, &Ram).unwrap();
    assert_eq!(message.ranges, ranges(&[(4, 3), (9, 1)]));
    assert_eq!(message.pages(), 4);
}

#[test]
fn a_short_header_is_rejected() {
    assert_eq!(
        decode_response(&[0; 7], &Ram),
        Err(DecodeError::ShortHeader(7))
    );
    assert_eq!(decode_response(&[], &Ram), Err(DecodeError::ShortHeader(0)));
}

#[test]
fn an_unknown_command_has_its_own_error() {
    // Whatever else is wrong with the message.
    let bytes = [1, 0, 0, 0, 9, 0, 0, 0];
    assert_eq!(
        decode_response(&bytes, &Ram),
        Err(DecodeError::UnknownCommand(1))
    );
}

#[test]
fn data_len_must_agree_with_the_chain() {
    for data_len in [0u8, 7, 9, 16] {
        let mut bytes = vec![0, 0, 0, 0, data_len, 0, 0, 0];
        bytes.extend(head(0x100, 12, 0));
        let data_len = data_len.into();
        let carried = 8;
        let error = DecodeError::DataLength { data_len, carried };
        assert_eq!(decode_response(&bytes, &Ram), Err(error));
    }
}

#[test]
fn a_message_has_a_longest_length() {
    let longest = MAX_MESSAGE_SIZE - HEADER_SIZE;
    let mut entries = head(0x100, 12, 0).repeat(longest / 8);
    assert_eq!(decoded(&entries), ranges(&[(0x100, 1)]));
    entries.extend(head(0x100, 12, 0));
    assert_eq!(
        decode_bitmap(&entries, &Ram),
        Err(DecodeError::TooLong(longest + 8))
    );
    let pfns = vec![0; MAX_MESSAGE_SIZE + 4];
    assert_eq!(
        decode_pfns(&pfns, &Ram),
        Err(DecodeError::TooLong(pfns.len()))
    );
}

#[test]
fn truncated_entries_are_rejected() {
    let mut entries = head(0x100, 12, 0).to_vec();
    entries.extend([0; 7]);
    assert_eq!(
        decode_bitmap(&entries, &Ram),
        Err(DecodeError::Truncated(8))
    );
    let whole = entry(0x100, 12, &[1, 2]);
    for len in 1..whole.len() {
        let error = Err(DecodeError::Truncated(0));
        assert_eq!(decode_bitmap(&whole[..len], &Ram), error, "{len}");
    }
}

#[test]
fn a_bitmap_is_made_of_words() {
    for bmap_len in (1..64).filter(|len| len % 8 != 0) {
        let mut entries = head(0x100, 12, bmap_len.into()).to_vec();
        entries.extend([0; 64]);
        let offset = 0;
        let error = DecodeError::BitmapLength { offset, bmap_len };
        assert_eq!(decode_bitmap(&entries, &Ram), Err(error));
    }
}

#[test]
fn page_shift_has_bounds() {
    for page_shift in [0, 11, 52, 63] {
        let error = DecodeError::PageShift {
            offset: 0,
            page_shift,
        };
        let run = head(0x100, page_shift.into(), 0);
        assert_eq!(decode_bitmap(&run, &Ram), Err(error));
        let bitmap = entry(0x100, page_shift.into(), &[1]);
        assert_eq!(decode_bitmap(&bitmap, &Ram), Err(error));
    }
}

#[test]
fn a_pfn_array_is_made_of_words() {
    assert_eq!(
        decode_pfns(&[0; 6], &Ram),
        Err(DecodeError::PfnArrayLength(6))
    );
}

#[test]
fn pages_outside_memory_are_rejected() {
    let outside = |start_pfn, pages| Err(DecodeError::OutsideMemory { start_pfn, pages });
    // A run over the hole, one beyond the end, and the largest that can be said.
    assert_eq!(decode_bitmap(&head(0x80, 18, 0), &Ram), outside(0x80, 64));
    assert_eq!(
        decode_bitmap(&head(0xf_ffff, 13, 0), &Ram),
        outside(0xf_ffff, 2)
    );
    let top = (1 << 52) - 1;
    assert_eq!(
        decode_bitmap(&head(top, 51, 0), &Ram),
        outside(top, 1 << 39)
    );
    // One bit in the hole, and the farthest bit that can be said.
    assert_eq!(
        decode_bitmap(&entry(0x80, 12, &[1 | (1 << 40)]), &Ram),
        outside(0xa8, 1)
    );
    let farthest = entry(top, 51, &[0, 0, 0, 0, 0, 0, 1 << 63]);
    assert_eq!(
        decode_bitmap(&farthest, &Ram),
        outside(top + (447 << 39), 1 << 39)
    );
    assert_eq!(decode_pfns(&0xb0u32.to_le_bytes(), &Ram), outside(0xb0, 1));
    assert_eq!(
        decode_pfns(&u32::MAX.to_le_bytes(), &Ram),
        outside(u32::MAX.into(), 1)
    );
}

#[test]
fn clear_bits_may_lie_outside_memory() {
    let found = decoded(&entry(0xf_ffff, 12, &[1]));
    assert_eq!(found, ranges(&[(0xf_ffff, 1)]));
}

#[test]
fn one_bad_entry_spoils_the_message() {
    let mut entries = entry(0x100, 12, &[u64::MAX]);
    entries.extend(head(0xb0, 12, 0));
    assert!(decode_bitmap(&entries, &Ram).is_err());
}

/// What the ranges must always be.
fn check(message: &Message) {
    for range in &message.ranges {
        assert!(range.pages > 0 && Ram.contains(*range), "{range:?}");
    }
    for pair in message.ranges.windows(2) {
        assert!(pair[0].end_pfn().unwrap() < pair[1].start_pfn, "{pair:?}");
    }
}

fn any_entry() -> impl Strategy<Value = (u64, u64, Vec<u64>)> {
    let words = prop::collection::vec(prop_oneof![any::<u64>(), Just(0), Just(u64::MAX)], 0..=7);
    (0xc0u64..0x1_0000, 12u64..=14, words)
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let results = [
            decode_response(&bytes, &Ram),
            decode_bitmap(&bytes, &Ram),
            decode_pfns(&bytes, &Ram),
        ];
        for message in results.iter().flatten() {
            check(message);
        }
    }

    #[test]
    fn plausible_heads_never_panic(
        heads in prop::collection::vec((0u64..0x20_0000, 10u64..53, 0u64..4), 0..64),
        tail in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes: Vec<u8> = heads
            .iter()
            .flat_map(|&(start, shift, words)| head(start, shift, 8 * words))
            .collect();
        bytes.extend(tail);
        if let Ok(message) = decode_bitmap(&bytes, &Ram) {
            check(&message);
        }
    }

    #[test]
    fn decoding_finds_exactly_the_pages(entries in prop::collection::vec(any_entry(), 0..24)) {
        let mut bytes = Vec::new();
        let mut pages = BTreeSet::new();
        for (start, shift, words) in &entries {
            bytes.extend(entry(*start, *shift, words));
            let unit = 1 << (shift - 12);
            if words.is_empty() {
                pages.extend(*start..start + unit);
            }
            for bit in 0..64 * words.len() as u64 {
                if words[bit as usize / 64] & (1 << (bit % 64)) != 0 {
                    pages.extend(start + bit * unit..start + (bit + 1) * unit);
                }
            }
        }
        let message = decode_bitmap(&bytes, &Ram).unwrap();
        check(&message);
        let found: BTreeSet<u64> = message
            .ranges
            .iter()
            .flat_map(|range| range.start_pfn..range.start_pfn + range.pages)
            .collect();
        prop_assert_eq!(found, pages);
    }
}
