// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::Duration;
use std::time::Instant;

use vm_memory::Bytes;
use vm_memory::GuestMemoryMmap;

use super::*;
use crate::memory::tests::file;
use crate::virtio_balloon::PAGE_SIZE;
use crate::virtio_balloon::VIRTIO_BALLOON_F_STATS_VQ;

const SIZE: u64 = 256 << 20;
const USER_ADDR: u64 = 0x7f00_0000_0000;
const QUEUE_SIZE: u16 = 4;
const MESSAGES: u64 = 1 << 20;
/// The first page that a test may inflate.
const FREE_PFN: u64 = 4096;
/// Pages of a message that takes many turns.
const MANY: u64 = 20_000;
const INFLATE: u32 = 0;
const DEFLATE: u32 = 1;
const STATISTICS: u32 = 2;
const QUEUES: usize = 3;

/// A driver of a device that it calls itself.
struct Driver {
    device: VhuBalloon,
    posted: [u16; QUEUES],
}

impl Driver {
    fn new() -> Self {
        let features = feature(VIRTIO_BALLOON_F_PAGE_BITMAP) | feature(VIRTIO_BALLOON_F_STATS_VQ);
        let mut device = VhuBalloon::new(features);
        device.set_features(features).unwrap();
        let region = VhostUserMemoryRegion {
            guest_phys_addr: 0,
            memory_size: SIZE,
            user_addr: USER_ADDR,
            mmap_offset: 0,
        };
        device
            .set_mem_table(&[region], vec![file(SIZE)], None)
            .unwrap();
        let mut driver = Self {
            device,
            posted: [0; QUEUES],
        };
        driver.start([0; QUEUES]);
        driver
    }

    fn start(&mut self, bases: [u32; QUEUES]) {
        for (index, base) in (0..).zip(bases) {
            let ring = USER_ADDR + ring(index);
            let (descriptors, available, used) = (ring, ring + 0x1000, ring + 0x2000);
            let flags = VhostUserVringAddrFlags::empty();
            let device = &mut self.device;
            device.set_vring_num(index, QUEUE_SIZE.into()).unwrap();
            device.set_vring_base(index, base).unwrap();
            device
                .set_vring_addr(index, flags, descriptors, used, available, 0)
                .unwrap();
            // Never readable, but the device is called and not notified.
            device.set_vring_kick(index as u8, Some(file(0))).unwrap();
        }
    }

    fn stop(&mut self) -> [u32; QUEUES] {
        [INFLATE, DEFLATE, STATISTICS].map(|index| self.device.get_vring_base(index).unwrap().num)
    }

    /// Makes a message available that speaks of `words` times 64 pages from `FREE_PFN` on.
    fn post(&mut self, index: u32, words: &[u64]) {
        let mut entries = Vec::new();
        for (start, words) in (FREE_PFN..).step_by(7 * 64).zip(words.chunks(7)) {
            let head = start | (12 << 52) | ((words.len() as u64 * 8) << 58);
            entries.extend(head.to_le_bytes());
            entries.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        }
        let mut message = ((entries.len() as u64) << 32).to_le_bytes().to_vec();
        message.extend(entries);
        self.post_bytes(index, &message);
    }

    /// Makes a message available.
    fn post_bytes(&mut self, index: u32, message: &[u8]) {
        let memory = self.memory();
        let posted = &mut self.posted[index as usize];
        let slot = *posted % QUEUE_SIZE;
        let own = MESSAGES + u64::from(index) * MESSAGES + (u64::from(slot) << 16);
        memory.write_slice(message, GuestAddress(own)).unwrap();
        let at = |offset: u64| GuestAddress(ring(index) + offset);
        let write = |value: u64, offset| memory.write_obj(value, at(offset)).unwrap();
        write(own, 16 * u64::from(slot));
        write(message.len() as u64, 16 * u64::from(slot) + 8);
        let entry = at(0x1004 + 2 * u64::from(slot));
        memory.write_obj(slot, entry).unwrap();
        *posted += 1;
        memory.write_obj(*posted, at(0x1002)).unwrap();
    }

    /// The messages of each queue that were given back.
    fn used(&self) -> [u16; 2] {
        [INFLATE, DEFLATE].map(|index| {
            let at = GuestAddress(ring(index) + 0x2002);
            self.memory().read_obj(at).unwrap()
        })
    }

    /// Guest memory, as the driver has it.
    fn memory(&self) -> GuestMemoryMmap {
        self.device.queues.balloon.ram().unwrap().memory().clone()
    }

    fn calls(&self) -> u64 {
        self.device.queues.counters().discard.calls
    }
}

fn ring(index: u32) -> u64 {
    u64::from(index) * 0x3000
}

/// Every other page of many.
fn many() -> Vec<u64> {
    vec![0x5555_5555_5555_5555; MANY as usize / 32]
}

#[test]
fn others_get_their_turn_while_a_large_message_is_under_way() {
    let mut driver = Driver::new();
    driver.post(INFLATE, &many());
    assert!(driver.device.queues.serve());
    let first = driver.calls();
    assert!((1..MANY / 2).contains(&first), "{first}");
    assert_eq!(driver.used(), [0, 0]);
    // What comes meanwhile waits, even if it is short.
    driver.post(DEFLATE, &[1]);
    driver.post(INFLATE, &[2]);
    assert!(driver.device.queues.serve());
    assert_eq!(driver.used(), [0, 0]);
    let turn = driver.calls() - first;
    assert!(turn > first, "the first turn is for decoding too");
    let mut turns = 2;
    while driver.used()[0] == 0 {
        let before = driver.calls();
        driver.device.queues.serve();
        assert!(driver.calls() - before <= turn, "no turn is longer");
        turns += 1;
    }
    assert!(turns > 3, "{turns}");
    while driver.device.queues.serve() {}
    assert_eq!(driver.used(), [2, 1]);
    let counters = driver.device.queues.counters();
    assert_eq!(counters.discard.calls, MANY + 1);
    assert_eq!(counters.discard.bytes, (MANY + 1) * PAGE_SIZE);
    assert_eq!(counters.pages_held, MANY);
}

#[test]
fn a_message_under_way_when_the_device_stops_is_finished() {
    let mut driver = Driver::new();
    driver.post(INFLATE, &[2]);
    assert!(!driver.device.queues.serve());
    driver.post(INFLATE, &many());
    assert!(driver.device.queues.serve());
    assert_eq!(driver.used(), [1, 0]);
    // QEMU disables the rings of a device before it stops them.
    driver.device.set_vring_enable(INFLATE, false).unwrap();
    driver.post(INFLATE, &[8]);
    assert_eq!(driver.stop(), [2, 0, 0]);
    assert_eq!((driver.calls(), driver.used()), (MANY + 1, [2, 0]));
    assert!(!driver.device.queues.serve());
    assert_eq!(driver.used(), [2, 0], "a stopped device takes no message");

    driver.start([2, 0, 0]);
    driver.device.set_vring_enable(INFLATE, true).unwrap();
    while driver.device.queues.serve() {}
    assert_eq!((driver.calls(), driver.used()), (MANY + 2, [3, 0]));
    let counters = driver.device.queues.counters();
    assert_eq!(
        (counters.pages_held, counters.inflate.messages),
        (MANY + 2, 3)
    );
    assert_eq!(counters.inflate.duplicates, 0, "no message counts twice");
}

#[test]
fn a_new_driver_has_nothing_to_do_with_the_messages_of_the_one_before() {
    let mut driver = Driver::new();
    driver.post(INFLATE, &many());
    assert!(driver.device.queues.serve());
    driver.stop();
    let before = driver.calls();
    let memory = driver.memory();
    memory.write_slice(&[0; 0x9000], GuestAddress(0)).unwrap();
    driver.posted = [0; QUEUES];
    driver.start([0; QUEUES]);
    assert!(!driver.device.queues.serve());
    assert_eq!(driver.device.queues.counters().pages_held, 0);
    driver.post(INFLATE, &[2]);
    while driver.device.queues.serve() {}
    assert_eq!(driver.calls(), before + 1);
    assert_eq!(driver.device.queues.counters().pages_held, 1);
}

#[test]
fn a_new_memory_table_does_not_disturb_the_message_under_way() {
    let mut driver = Driver::new();
    driver.post(INFLATE, &many());
    assert!(driver.device.queues.serve());
    let region = VhostUserMemoryRegion {
        guest_phys_addr: 0,
        memory_size: SIZE / 16,
        user_addr: USER_ADDR,
        mmap_offset: 0,
    };
    driver
        .device
        .set_mem_table(&[region], vec![file(SIZE)], None)
        .unwrap();
    while driver.device.queues.serve() {}
    assert_eq!(driver.calls(), MANY);
    assert_eq!(driver.device.queues.counters().discard.errors, 0);
}

#[test]
fn a_message_under_way_waits_for_its_queue() {
    let mut driver = Driver::new();
    driver.post(INFLATE, &many());
    assert!(driver.device.queues.serve());
    let before = driver.calls();
    driver.device.set_vring_enable(INFLATE, false).unwrap();
    driver.post(DEFLATE, &[1]);
    assert!(!driver.device.queues.serve(), "there is nothing to do");
    assert_eq!((driver.calls(), driver.used()), (before, [0, 0]));
    driver.device.set_vring_enable(INFLATE, true).unwrap();
    while driver.device.queues.serve() {}
    assert_eq!((driver.calls(), driver.used()), (MANY, [1, 1]));
}

#[test]
fn a_queue_that_is_left_unserved_keeps_its_messages_and_nobody_busy() {
    let mut driver = Driver::new();
    for (role, used) in [(Role::Inflate, [0, 1]), (Role::Deflate, [2, 1])] {
        driver.device.queues.leave_unserved(vec![role]);
        driver.post(INFLATE, &[2]);
        driver.post(DEFLATE, &[1]);
        assert!(!driver.device.queues.serve(), "there is nothing to do");
        assert_eq!(driver.used(), used, "{role:?}");
    }
    driver.device.queues.leave_unserved(Vec::new());
    assert!(!driver.device.queues.serve());
    assert_eq!(driver.used(), [2, 2]);
}

#[test]
fn a_message_under_way_is_finished_though_its_queue_is_left_unserved() {
    let mut driver = Driver::new();
    driver.post(INFLATE, &many());
    assert!(driver.device.queues.serve());
    driver.device.queues.leave_unserved(vec![Role::Inflate]);
    driver.post(INFLATE, &[2]);
    driver.post(DEFLATE, &[1]);
    while driver.device.queues.serve() {}
    assert_eq!((driver.calls(), driver.used()), (MANY, [1, 1]));
}

#[test]
fn statistics_that_are_left_unserved_are_neither_taken_nor_asked_for() {
    let mut driver = Driver::new();
    let now = Instant::now();
    let counted = |driver: &Driver| {
        let statistics = driver.device.queues.counters().statistics;
        (statistics.updates, statistics.requests)
    };
    driver.post_bytes(STATISTICS, &[0; 10]);
    driver.device.queues.leave_unserved(vec![Role::Statistics]);
    assert!(!driver.device.queues.serve());
    assert_eq!(counted(&driver), (0, 0));
    driver.device.queues.leave_unserved(Vec::new());
    assert!(!driver.device.queues.serve());
    assert_eq!(counted(&driver), (1, 0));
    // Now the device has the buffer, and keeps it.
    driver.device.queues.leave_unserved(vec![Role::Statistics]);
    let polling = &mut driver.device.queues.collector.polling;
    polling.set_interval(5, now);
    driver.device.queues.poll_statistics(now);
    assert_eq!(counted(&driver), (1, 0));
    driver.device.queues.leave_unserved(Vec::new());
    let later = now + Duration::from_secs(5);
    driver.device.queues.poll_statistics(later);
    assert_eq!(counted(&driver), (1, 1));
}

#[test]
fn a_second_buffer_for_statistics_keeps_nobody_busy() {
    let mut driver = Driver::new();
    for _ in 0..2 {
        driver.post_bytes(STATISTICS, &[0; 10]);
    }
    assert!(!driver.device.queues.serve());
    assert_eq!(driver.device.queues.counters().statistics.updates, 1);
    let now = Instant::now();
    driver.device.queues.collector.polling.set_interval(1, now);
    driver.device.queues.poll_statistics(now);
    assert!(!driver.device.queues.serve());
    assert_eq!(driver.device.queues.counters().statistics.updates, 2);
}

#[test]
fn a_guest_that_cannot_be_asked_is_asked_an_interval_later() {
    let mut driver = Driver::new();
    driver.post_bytes(STATISTICS, &[0; 10]);
    driver.device.queues.serve();
    driver.device.set_vring_enable(STATISTICS, false).unwrap();
    let now = Instant::now();
    let queues = &mut driver.device.queues;
    queues.collector.polling.set_interval(5, now);
    queues.poll_statistics(now);
    assert_eq!(queues.counters().statistics.requests, 0);
    let later = Duration::from_secs(5);
    assert_eq!(queues.collector.polling.next_due(now), Some(later));
    driver.device.set_vring_enable(STATISTICS, true).unwrap();
    driver.device.queues.poll_statistics(now + later);
    assert_eq!(driver.device.queues.counters().statistics.requests, 1);
}
