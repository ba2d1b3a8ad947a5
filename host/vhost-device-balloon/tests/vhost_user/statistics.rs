// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The statistics queue.

use std::thread;
use std::time::Duration;

use serde_json::json;
use vhost_device_balloon::virtio_balloon::feature;

use crate::guest::Buffer;
use crate::guest::Guest;
use crate::running::Running;
use crate::PFNS;

const STATS: u64 = feature(1);

/// Statistics that tell of `bytes` of free memory alone.
fn free(bytes: u64) -> Vec<u8> {
    [&4u16.to_le_bytes()[..], &bytes.to_le_bytes()].concat()
}

#[test]
fn the_guest_is_asked_for_statistics_at_the_interval() {
    let daemon = Running::offering(STATS);
    let mut client = daemon.client();
    client.poll_stats(1);
    let mut guest = daemon.guest();
    guest.start(PFNS | STATS);
    for bytes in [4096, 8192, 12288] {
        guest.offer(2, &free(bytes));
        client.wait_for_free(bytes);
        assert_ne!(client.stats()["last-update"], 0);
        assert_eq!(client.stats()["stats"]["stat-swap-in"], json!(u64::MAX));
        assert_eq!(guest.wait_used(2), 0);
    }
    client.poll_stats(0);
    guest.offer(2, &free(1));
    client.wait_for_free(1);
    assert!(guest.is_kept(2));
    let counters = client.counters().statistics;
    assert_eq!((counters.requests, counters.updates), (3, 4));
}

#[test]
fn statistics_outlive_a_pause_and_a_driver() {
    let daemon = Running::offering(STATS);
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    guest.start(PFNS | STATS);
    guest.offer(2, &free(4096));
    client.wait_for_free(4096);
    // The device is stopped with the driver's buffer in its hands, and hands out where it lies.
    let bases = guest.stop();
    assert_eq!(bases[2], 0);
    client.poll_stats(1000);
    guest.resume(PFNS | STATS, bases);
    // What was due while nobody could be asked waits for an interval; this one is another.
    client.poll_stats(1);
    assert_eq!(guest.wait_used(2), 0);
    guest.offer(2, &free(8192));
    client.wait_for_free(8192);
    guest.stop();
    guest.start(PFNS);
    client.wait_for_free(8192);
    guest.stop();
    guest.start(PFNS | STATS);
    guest.offer(2, &free(12288));
    client.wait_for_free(12288);
    assert_eq!(guest.wait_used(2), 0, "the interval is as it was");
}

#[test]
fn bad_statistics_leave_the_last_ones_and_the_polling_alone() {
    let daemon = Running::offering(STATS);
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    guest.start(PFNS | STATS);
    guest.offer(2, &[free(4096), vec![0xff; 20]].concat());
    client.wait_for_free(4096);
    client.poll_stats(1);
    let mut rejected = 0;
    let mut reject = |guest: &mut Guest, buffers: &[Buffer<'_>]| {
        assert_eq!(guest.wait_used(2), 0);
        guest.post(2, buffers);
        guest.kick(2);
        rejected += 1;
        while client.counters().statistics.rejected != rejected {
            thread::sleep(Duration::from_millis(1));
        }
        client.wait_for_free(4096);
    };
    reject(&mut guest, &[Buffer::Readable(&free(1)[..9])]);
    reject(&mut guest, &[Buffer::Writable(10)]);
    assert_eq!(client.counters().statistics.unknown_tags, 2);
}
