// SPDX-License-Identifier: GPL-2.0-only

//! The byte order of messages.

use crate::messages::byte_order::ByteOrder;

#[test]
fn numbers_are_written_in_the_order_of_the_device() {
    assert_eq!(ByteOrder::Little.u16(0x0102), [2, 1]);
    assert_eq!(ByteOrder::Big.u16(0x0102), [1, 2]);
    assert_eq!(ByteOrder::Little.u32(0x01020304), [4, 3, 2, 1]);
    assert_eq!(ByteOrder::Big.u32(0x01020304), [1, 2, 3, 4]);
    assert_eq!(ByteOrder::Little.u64(1), [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(ByteOrder::Big.u64(1), [0, 0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn a_device_of_virtio_1_is_little_endian_and_a_legacy_one_as_the_guest() {
    assert_eq!(ByteOrder::of_version_1(true), ByteOrder::Little);
    let guest = ByteOrder::of_version_1(false);
    assert_eq!(guest.u32(0x01020304), 0x01020304_u32.to_ne_bytes());
}
