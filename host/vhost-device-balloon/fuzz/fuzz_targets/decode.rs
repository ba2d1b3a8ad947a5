// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Arbitrary messages through the decoder. Run it with `cargo +nightly fuzz run decode`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vhost_device_balloon::message::decode_bitmap;
use vhost_device_balloon::message::decode_pfns;
use vhost_device_balloon::message::decode_response;
use vhost_device_balloon::message::GuestPages;
use vhost_device_balloon::message::PageRange;

/// 16 GiB, with the hole of a PC below 4 GiB.
struct Ram;

impl GuestPages for Ram {
    fn contains(&self, range: PageRange) -> bool {
        range.end_pfn().is_some_and(|end| {
            end <= 0xc_0000 || (0x10_0000 <= range.start_pfn && end <= 0x44_0000)
        })
    }
}

fuzz_target!(|bytes: &[u8]| {
    let results = [
        decode_response(bytes, &Ram),
        decode_bitmap(bytes, &Ram),
        decode_pfns(bytes, &Ram),
    ];
    for message in results.iter().flatten() {
        for range in &message.ranges {
            assert!(range.pages > 0 && Ram.contains(*range));
        }
        for pair in message.ranges.windows(2) {
            let [first, second] = pair else { continue };
            assert!(first.end_pfn().is_some_and(|end| end < second.start_pfn));
        }
    }
});
