// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;

use super::*;
use crate::memory::tests::file;
use crate::memory::tests::info;
use crate::virtio_balloon::VIRTIO_BALLOON_F_REPORTING;

const PAGES: u64 = 64;

/// A balloon over 64 touched pages, and their file.
fn balloon(page_bitmap: bool) -> (Balloon, File) {
    let file = file(PAGES * PAGE_SIZE);
    let bytes = vec![1; (PAGES * PAGE_SIZE) as usize];
    file.write_all_at(&bytes, 0).unwrap();
    let mut balloon = Balloon::default();
    let table = vec![info(&file, 0, PAGES * PAGE_SIZE, 0)];
    balloon.set_ram(GuestRam::new(table).unwrap());
    if page_bitmap {
        balloon.set_features(feature(VIRTIO_BALLOON_F_PAGE_BITMAP));
    }
    (balloon, file)
}

fn counters(balloon: &Balloon) -> Counters {
    balloon.counters(true, StatisticsCounters::default())
}

/// Inflates with a message to the end.
fn inflate(balloon: &mut Balloon, message: &[u8]) {
    if let Some(mut discard) = balloon.receive(Direction::Inflate, Ok(message)) {
        assert!(balloon.discard_inflated(&mut discard, &mut Budget::new()));
    }
}

/// Reports buffers to the end.
fn report(balloon: &mut Balloon, buffers: &[(u64, u32)]) {
    let buffers = buffers
        .iter()
        .map(|&(address, len)| Buffer { address, len })
        .collect();
    if let Some(mut discard) = balloon.receive_report(Ok(buffers)) {
        assert!(balloon.discard_reported(&mut discard, &mut Budget::new()));
    }
}

fn host_pages(file: &File) -> u64 {
    file.metadata().unwrap().blocks() * 512 / PAGE_SIZE
}

#[test]
fn config_fields_can_be_read_one_by_one() {
    let (mut balloon, _file) = balloon(false);
    balloon.set_guest_bytes((PAGES - 0x21) * PAGE_SIZE);
    balloon
        .write_config(4, &0x0807_0605_u32.to_le_bytes())
        .unwrap();
    assert_eq!(balloon.read_config(0, 4), Ok(vec![0x21, 0, 0, 0]));
    assert_eq!(balloon.read_config(5, 2), Ok(vec![6, 7]));
    assert_eq!(balloon.read_config(16, 0), Ok(vec![]));
}

#[test]
fn actual_may_be_written_byte_by_byte() {
    let (mut balloon, _file) = balloon(false);
    for (offset, byte) in (4..8).zip([0x21, 0x43, 0, 0]) {
        balloon.write_config(offset, &[byte]).unwrap();
    }
    assert_eq!(counters(&balloon).actual, 0x4321);
}

#[test]
fn config_accesses_outside_are_refused() {
    let (mut balloon, _file) = balloon(false);
    let before = balloon.read_config(0, 16).unwrap();
    for (offset, size) in [(0, 17), (16, 1), (13, 4), (u32::MAX, 1), (4, u32::MAX)] {
        assert!(
            balloon.read_config(offset, size).is_err(),
            "{offset} {size}"
        );
    }
    for (offset, size) in [(0, 17), (16, 1), (13, 4), (u32::MAX, 1)] {
        let data = vec![0xff; size];
        let outside = ConfigError { offset, size };
        assert_eq!(balloon.write_config(offset, &data), Err(outside));
    }
    assert_eq!(balloon.read_config(0, 16), Ok(before));
}

#[test]
fn only_a_new_target_is_a_change() {
    let (mut balloon, _file) = balloon(false);
    assert_eq!(balloon.set_guest_bytes(10 * PAGE_SIZE), Some(true));
    assert_eq!(balloon.set_guest_bytes(10 * PAGE_SIZE), Some(false));
    assert_eq!(balloon.target() as u64, PAGES - 10);
    assert_eq!(balloon.set_guest_bytes(u64::MAX), Some(true));
    assert_eq!(balloon.target(), 0);
    assert_eq!(Balloon::default().set_guest_bytes(4096), None);
}

#[test]
fn without_memory_messages_are_rejected() {
    let mut balloon = Balloon::default();
    inflate(&mut balloon, &[0; 4]);
    report(&mut balloon, &[(0, 4096)]);
    assert_eq!(counters(&balloon).inflate.rejected, 1);
    assert_eq!(counters(&balloon).reporting.rejected, 1);
}

#[test]
fn reported_pages_are_discarded_and_not_held() {
    let (mut balloon, file) = balloon(false);
    inflate(&mut balloon, &8u32.to_le_bytes());
    report(&mut balloon, &[(0x9000, 0x2000), (0x4000, 0x1000)]);
    assert_eq!(host_pages(&file), PAGES - 4);
    let counters = counters(&balloon);
    assert_eq!(counters.pages_held, 1);
    assert_eq!(counters.discard.bytes, PAGE_SIZE);
    let expected = ReportingCounters {
        messages: 1,
        pages: 3,
        discard: Discarded {
            calls: 2,
            bytes: 3 * PAGE_SIZE,
            errors: 0,
        },
        ..ReportingCounters::default()
    };
    assert_eq!(counters.reporting, expected);
}

#[test]
fn a_bad_report_touches_nothing() {
    let (mut balloon, file) = balloon(false);
    for bad in [(PAGES << 12, 4096), (4096, 100), (100, 4096), (4096, 0)] {
        report(&mut balloon, &[(0, 4096), bad]);
    }
    balloon.receive_report(Err(ChainError::Readable));
    assert_eq!(host_pages(&file), PAGES);
    let expected = ReportingCounters {
        messages: 5,
        rejected: 5,
        ..ReportingCounters::default()
    };
    assert_eq!(counters(&balloon).reporting, expected);
}

#[test]
fn poisoned_pages_are_kept() {
    let (mut balloon, file) = balloon(false);
    let reporting = feature(VIRTIO_BALLOON_F_REPORTING);
    let poison = feature(VIRTIO_BALLOON_F_PAGE_POISON);
    let report = |balloon: &mut Balloon| report(balloon, &[(0, 4096)]);
    balloon.set_features(reporting | poison);
    balloon.write_config(12, &[0xaa; 4]).unwrap();
    // The ring base that tells of a new driver comes after what that driver has written.
    balloon.driver_reset();
    report(&mut balloon);
    assert_eq!(counters(&balloon).reporting.poisoned, 1);
    assert_eq!(counters(&balloon).poison_val, 0xaaaa_aaaa);
    assert_eq!(host_pages(&file), PAGES);
    // Inflated pages are not found again as they were left.
    inflate(&mut balloon, &8u32.to_le_bytes());
    assert_eq!(host_pages(&file), PAGES - 1);
    balloon.set_features(reporting);
    report(&mut balloon);
    assert_eq!(host_pages(&file), PAGES - 2, "the value is not negotiated");
    balloon.set_features(reporting | poison);
    balloon.write_config(12, &[0; 4]).unwrap();
    balloon
        .receive_report(Ok(vec![Buffer {
            address: 4096,
            len: 4096,
        }]))
        .unwrap();
    assert_eq!(
        counters(&balloon).reporting.poisoned,
        1,
        "zeros are what is found"
    );
}

proptest! {
    #[test]
    fn what_is_rejected_touches_nothing(
        page_bitmap: bool,
        mut bytes in prop::collection::vec(prop_oneof![Just(0u8), 0u8..80, any::<u8>()], 0..96),
        fix_length: bool,
    ) {
        if fix_length && bytes.len() >= 8 {
            let data_len = (bytes.len() - 8) as u32;
            bytes[0] = 0;
            bytes[4..8].copy_from_slice(&data_len.to_le_bytes());
        }
        let (mut balloon, file) = balloon(page_bitmap);
        inflate(&mut balloon, &bytes);
        let counters = counters(&balloon);
        let inflate = counters.inflate;
        prop_assert_eq!(inflate.messages, 1);
        if inflate.rejected + inflate.ignored > 0 {
            prop_assert_eq!(inflate.pages + inflate.runs + inflate.words, 0);
            prop_assert_eq!(counters.discard, Discarded::default());
        }
        prop_assert_eq!(counters.pages_held, inflate.pages);
        prop_assert_eq!(host_pages(&file), PAGES - counters.pages_held);
    }
}
