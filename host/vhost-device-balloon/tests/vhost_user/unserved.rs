// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Queues that are left unserved for a test.

use std::thread;
use std::time::Duration;

use serde_json::json;
use vhost_device_balloon::virtio_balloon::feature;

use crate::guest::Buffer;
use crate::guest::Guest;
use crate::pfns;
use crate::running::Client;
use crate::running::Running;
use crate::DEFLATE;
use crate::INFLATE;
use crate::PFNS;
use crate::RAM;

const STATS: u64 = feature(1);
const REPORTING: u64 = feature(5);
const STATISTICS_QUEUE: usize = 2;
const REPORTING_QUEUE: usize = 3;

/// Notifies the device of the inflate queue, which it leaves as it is when its turn has come.
fn kick_in_vain(client: &mut Client, guest: &Guest) {
    let before = client.counters().inflate.notifications;
    guest.kick(INFLATE);
    while client.counters().inflate.notifications == before {
        thread::sleep(Duration::from_millis(1));
    }
    client.command("query-version", json!({}));
    assert!(guest.is_kept(INFLATE));
}

#[test]
fn messages_lie_in_the_ring_until_their_queue_is_served_again() {
    let daemon = Running::with_test_commands(0);
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    guest.start(PFNS);
    guest.send_bytes(INFLATE, &pfns([99]));
    client.leave_unserved(&["inflate"]);
    guest.post(INFLATE, &[Buffer::Readable(&pfns([100, 101]))]);
    for _ in 0..3 {
        kick_in_vain(&mut client, &guest);
    }
    // All else goes on.
    guest.send_bytes(DEFLATE, &pfns([99]));
    client.balloon(RAM - 10 * 4096);
    assert_eq!(guest.read_channel(), [2]);
    assert_eq!(guest.read_channel(), [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(guest.num_pages(), 10);
    guest.set_actual(7);
    assert_eq!(client.actual(), RAM - 7 * 4096);
    let counters = client.counters();
    assert_eq!((counters.inflate.messages, counters.pages_held), (1, 0));
    assert!(guest.is_kept(INFLATE));

    client.leave_unserved(&[]);
    guest.wait_used(INFLATE);
    let counters = client.counters();
    assert_eq!((counters.inflate.messages, counters.pages_held), (2, 2));
    assert_eq!(client.held(), json!([[100, 2]]));
}

#[test]
fn any_queue_can_be_left_unserved() {
    let daemon = Running::with_test_commands(STATS | REPORTING);
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    guest.start(PFNS | STATS | REPORTING);
    client.leave_unserved(&["deflate", "stats", "reporting"]);
    guest.offer(DEFLATE, &pfns([99]));
    guest.offer(STATISTICS_QUEUE, &[4, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    guest.post(REPORTING_QUEUE, &[Buffer::Lent(200 << 12, 4096)]);
    guest.kick(REPORTING_QUEUE);
    guest.send_bytes(INFLATE, &pfns([99]));
    let counters = client.counters();
    assert_eq!(
        (counters.inflate.messages, counters.deflate.messages),
        (1, 0)
    );
    assert_eq!(counters.reporting.messages, 0);
    assert_eq!(counters.statistics.updates, 0);

    client.leave_unserved(&["inflate"]);
    guest.wait_used(DEFLATE);
    guest.wait_used(REPORTING_QUEUE);
    client.wait_for_free(1);
    assert_eq!(client.counters().reporting.pages, 1);
}

#[test]
fn a_stopped_device_hands_the_unserved_messages_on() {
    let daemon = Running::with_test_commands(0);
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    guest.start(PFNS);
    guest.send_bytes(INFLATE, &pfns([99]));
    client.leave_unserved(&["inflate"]);
    guest.post(INFLATE, &[Buffer::Readable(&pfns([100]))]);
    kick_in_vain(&mut client, &guest);
    let bases = guest.stop();
    assert_eq!(bases[..2], [1, 0]);
    guest.resume(PFNS, bases);
    guest.kick(INFLATE);
    guest.send_bytes(DEFLATE, &pfns([99]));
    assert!(guest.is_kept(INFLATE));
    client.leave_unserved(&[]);
    guest.wait_used(INFLATE);
    assert_eq!(client.held(), json!([[100, 1]]));
}

#[test]
fn the_next_guest_is_served() {
    let daemon = Running::with_test_commands(0);
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    guest.start(PFNS);
    client.leave_unserved(&["inflate"]);
    drop(guest);
    let mut guest = daemon.guest();
    guest.start(PFNS);
    guest.send_bytes(INFLATE, &pfns([99]));
}

#[test]
fn without_the_option_there_is_no_such_command() {
    let daemon = Running::new();
    let mut client = daemon.client();
    let reply = client.execute("x-leave-unserved", json!({"queues": []}));
    assert_eq!(reply["error"]["class"], "CommandNotFound");
}
