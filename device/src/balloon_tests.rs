// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;

use super::*;
use crate::memory::tests::memory_file;
use crate::memory::RegionInfo;

const PAGES: u64 = 64;

/// A balloon over 64 touched pages, and their file.
fn balloon(page_bitmap: bool) -> (Balloon, File) {
    let file = memory_file();
    let bytes = vec![1; (PAGES * PAGE_SIZE) as usize];
    file.write_all_at(&bytes, 0).unwrap();
    let table = vec![RegionInfo {
        gpa: 0,
        size: PAGES * PAGE_SIZE,
        user_addr: 0,
        file_offset: 0,
        file: file.try_clone().unwrap(),
    }];
    let mut balloon = Balloon::default();
    balloon.set_ram(GuestRam::new(table).unwrap());
    balloon.set_negotiated(page_bitmap, false);
    (balloon, file)
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
    assert_eq!(balloon.counters(true).actual, 0x4321);
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
    balloon.handle(Direction::Inflate, Ok(&[0; 4]));
    assert_eq!(balloon.counters(true).inflate.rejected, 1);
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
        balloon.handle(Direction::Inflate, Ok(&bytes));
        let counters = balloon.counters(true);
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
