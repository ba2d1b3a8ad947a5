// SPDX-License-Identifier: GPL-2.0-only

//! What the driver encodes is what the device decodes, to the page.

use proptest::prelude::*;
use vhost_device_balloon::message::{decode_response, GuestPages, PageRange};

use crate::page_sets::{
    any_set, blocks_of_one_allocator, encode, pages, span, Pages, MAX_PFN, PFNS_PER_BITMAP,
};

/// A guest with memory at every PFN.
struct Everywhere;

impl GuestPages for Everywhere {
    fn contains(&self, range: PageRange) -> bool {
        range.end_pfn().is_some_and(|end| end <= MAX_PFN + 1)
    }
}

/// The least buffer that an encoder gets on with, header included.
const LEAST: usize = 8 + 64 * 8;

/// The response buffer of the driver.
const RESPONSE: usize = 32 * 1024;

/// Decodes messages. A page that is in two of them is reported twice: an error.
fn decode(messages: &[Vec<u8>]) -> Pages {
    let mut pages = Pages::new();
    for message in messages {
        let decoded = decode_response(message, &Everywhere).expect("the device must accept it");
        for pfn in decoded
            .ranges
            .iter()
            .flat_map(|r| span(r.start_pfn, r.pages))
        {
            assert!(pages.insert(pfn), "PFN {pfn:#x} was reported twice");
        }
    }
    pages
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn decoding_gives_exactly_the_set(
        pages in any_set(),
        bitmaps in 1usize..=32,
        capacity in prop_oneof![Just(RESPONSE), Just(LEAST), LEAST..2 * LEAST],
    ) {
        let messages = encode(&pages, bitmaps, capacity);
        prop_assert!(messages.iter().all(|message| message.len() <= capacity));
        prop_assert_eq!(decode(&messages), pages);
    }

    #[test]
    fn stretches_are_never_longer_together_than_as_runs(stretches in blocks_of_one_allocator()) {
        let messages = encode(&pages(&stretches), 32, RESPONSE);
        prop_assert_eq!(messages.len(), 1);
        let runs: u64 = stretches.iter().map(|(_, len)| u64::from((len / 64).count_ones())).sum();
        prop_assert!(messages[0].len() as u64 <= 8 + 8 * runs);
    }
}

#[test]
fn no_pages_are_no_message() {
    assert!(encode(&Pages::new(), 32, RESPONSE).is_empty());
}

#[test]
fn first_and_last_pfn() {
    let pages = Pages::from([0, MAX_PFN]);
    assert_eq!(decode(&encode(&pages, 32, RESPONSE)), pages);
}

#[test]
fn bitmaps_that_are_too_few_take_several_passes() {
    let pages: Pages = (0..40).map(|gib| gib * PFNS_PER_BITMAP + 5).collect();
    assert_eq!(encode(&pages, 1, RESPONSE).len(), 40);
    assert_eq!(encode(&pages, 32, RESPONSE).len(), 2);
    assert_eq!(decode(&encode(&pages, 1, RESPONSE)), pages);
}

#[test]
fn passes_skip_what_is_empty() {
    // A pass for each page, although there are 2^30 windows between them.
    let pages = Pages::from([3, MAX_PFN - 3]);
    assert_eq!(encode(&pages, 1, RESPONSE).len(), 2);
}

#[test]
fn a_gigabyte_in_one_piece_is_one_run() {
    let pages: Pages = span(PFNS_PER_BITMAP, PFNS_PER_BITMAP).collect();
    let messages = encode(&pages, 1, RESPONSE);
    assert_eq!(messages.iter().map(Vec::len).collect::<Vec<_>>(), [16]);
    assert_eq!(decode(&messages), pages);
}

#[test]
fn runs_cross_the_edges_of_bitmaps() {
    let pages: Pages = span(PFNS_PER_BITMAP - 128, 256).collect();
    let messages = encode(&pages, 2, RESPONSE);
    assert_eq!(messages.iter().map(Vec::len).collect::<Vec<_>>(), [16]);
    assert_eq!(decode(&messages), pages);
}

#[test]
fn every_other_page_fits_in_the_promised_bytes() {
    // 1 GiB with every other page: 4096 words, seven to a head.
    let pages: Pages = (0..PFNS_PER_BITMAP).step_by(2).collect();
    let messages = encode(&pages, 1, RESPONSE);
    let bytes: usize = messages.iter().map(Vec::len).sum();
    assert!(bytes <= 40 * 1024, "{bytes} bytes");
    assert_eq!(decode(&messages), pages);
}
