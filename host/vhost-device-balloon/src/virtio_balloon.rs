// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The constants of a virtio-balloon device: feature bits, queues, configuration space.

use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;

/// The driver may use a deflated page only after the device has acknowledged it.
pub const VIRTIO_BALLOON_F_MUST_TELL_HOST: u32 = 0;
/// The driver reports statistics of its memory, on a queue for that.
pub const VIRTIO_BALLOON_F_STATS_VQ: u32 = 1;
/// The driver may take pages back by itself when the guest runs out of memory.
pub const VIRTIO_BALLOON_F_DEFLATE_ON_OOM: u32 = 2;
/// The driver tells which pages are free while the guest migrates, on a queue for that.
pub const VIRTIO_BALLOON_F_FREE_PAGE_HINT: u32 = 3;
/// The driver tells what its free pages are filled with.
pub const VIRTIO_BALLOON_F_PAGE_POISON: u32 = 4;
/// The driver lends free pages, on a queue for that.
pub const VIRTIO_BALLOON_F_REPORTING: u32 = 5;
/// Messages on the inflate and deflate queues are page bitmaps, not PFN arrays.
pub const VIRTIO_BALLOON_F_PAGE_BITMAP: u32 = 63;

/// Features this device offers whatever its options are.
pub const BASE_FEATURES: u64 = feature(VIRTIO_F_VERSION_1)
    | feature(VIRTIO_RING_F_EVENT_IDX)
    | feature(VIRTIO_RING_F_INDIRECT_DESC);

/// The mask of feature bit `bit`.
pub const fn feature(bit: u32) -> u64 {
    1 << bit
}

/// Base-2 logarithm of the unit of every PFN and of `num_pages` and `actual`.
pub const PFN_SHIFT: u32 = 12;
/// The unit of every PFN, in bytes.
pub const PAGE_SIZE: u64 = 1 << PFN_SHIFT;

/// Queues reported to the frontend: inflate, deflate, statistics, free page hinting, reporting.
pub const NUM_QUEUES: usize = 5;
/// Largest queue accepted, in descriptors.
pub const MAX_QUEUE_SIZE: u16 = 1024;

/// Size of the configuration space, in bytes: four little-endian u32 fields.
pub const CONFIG_SIZE: usize = 16;

/// The configuration space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Pages the device wants the balloon to hold.
    pub num_pages: u32,
    /// Pages the driver says it holds.
    pub actual: u32,
    /// Command of the current free page hinting run.
    pub free_page_hint_cmd_id: u32,
    /// The value the guest fills free pages with.
    pub poison_val: u32,
}

impl Config {
    /// The fields as the guest reads them.
    pub fn to_bytes(self) -> [u8; CONFIG_SIZE] {
        let mut bytes = [0; CONFIG_SIZE];
        let fields = [
            self.num_pages,
            self.actual,
            self.free_page_hint_cmd_id,
            self.poison_val,
        ];
        for (slot, field) in bytes.chunks_exact_mut(4).zip(fields) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// The fields as the guest wrote them.
    pub fn from_bytes(bytes: [u8; CONFIG_SIZE]) -> Self {
        let field = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self {
            num_pages: field(0),
            actual: field(4),
            free_page_hint_cmd_id: field(8),
            poison_val: field(12),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_is_little_endian_in_field_order() {
        let config = Config {
            num_pages: 0x0403_0201,
            actual: 0x0807_0605,
            free_page_hint_cmd_id: 0x0c0b_0a09,
            poison_val: 0x100f_0e0d,
        };
        let bytes = config.to_bytes();
        assert_eq!(
            bytes,
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
        );
        assert_eq!(Config::from_bytes(bytes), config);
    }
}
