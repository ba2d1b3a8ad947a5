// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The whole daemon against a frontend and a driver written for the purpose: real sockets, real
//! shared memory, real holes.

mod guest;
mod reporting;
mod running;
mod statistics;
mod unserved;

use std::io::Write;
use std::thread;
use std::time::Duration;

use guest::Buffer;
use guest::Guest;
use guest::FREE_PFN;
use guest::HIGH_PFN;
use guest::REGION_PAGES;
use running::Client;
use running::Running;
use serde_json::json;
use serde_json::Value;
use vhost_device_balloon::args::CtlArgs;
use vhost_device_balloon::args::CtlCommand;
use vhost_device_balloon::counters::Counters;
use vhost_device_balloon::ctl;
use vhost_device_balloon::ctl::CtlError;
use vhost_device_balloon::virtio_balloon::feature;
use vhost_device_balloon::virtio_balloon::BASE_FEATURES;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const RAM: u64 = 2 * REGION_PAGES * 4096;
/// VIRTIO_F_VERSION_1 and the vhost-user bit; event indices are left out, so all is notified.
const PFNS: u64 = feature(32) | feature(30);
const BITMAPS: u64 = PFNS | feature(63);

fn pfns(list: impl IntoIterator<Item = u64>) -> Vec<u8> {
    list.into_iter()
        .flat_map(|pfn| (pfn as u32).to_le_bytes())
        .collect()
}

fn run(start_pfn: u64, order: u64) -> Vec<u8> {
    (start_pfn | ((12 + order) << 52)).to_le_bytes().to_vec()
}

fn response(entries: &[u8]) -> Vec<u8> {
    let mut message = ((entries.len() as u64) << 32).to_le_bytes().to_vec();
    message.extend(entries);
    message
}

#[test]
fn pfn_arrays_punch_holes() {
    let daemon = Running::new();
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    guest.start(PFNS);
    let before = guest.host_pages();
    let pages: Vec<u64> = (100..200).chain(HIGH_PFN + 50..HIGH_PFN + 60).collect();
    assert_eq!(
        guest.send_bytes(INFLATE, &pfns(pages.iter().rev().copied())),
        0
    );
    assert_eq!(guest.host_pages(), before - 110);
    for pfn in [100, 199, HIGH_PFN + 50, HIGH_PFN + 59] {
        assert_eq!(guest.peek(pfn), 0);
    }
    for pfn in [99, 200, HIGH_PFN + 49, HIGH_PFN + 60] {
        assert_eq!(guest.peek(pfn), 0x5a);
    }
    let counters = client.counters();
    assert_eq!(counters.inflate.messages, 1);
    assert_eq!(counters.inflate.bytes, 440);
    assert_eq!(counters.inflate.pages, 110);
    assert_eq!(counters.pages_held, 110);
    assert_eq!(counters.discard.calls, 2, "one call a merged range");
    assert_eq!(counters.discard.bytes, 110 * 4096);
    assert_eq!(counters.interrupts, 1);
    assert_eq!(counters.ram, RAM);
    assert!(counters.started && !counters.page_bitmap);
    guest.send_bytes(DEFLATE, &pfns(150..160));
    let counters = client.counters();
    assert_eq!(counters.deflate.pages, 10);
    assert_eq!(counters.pages_held, 100);
}

#[test]
fn bitmaps_punch_holes_however_they_are_split() {
    let daemon = Running::new();
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    guest.start(BITMAPS);
    let before = guest.host_pages();
    let mut entries = run(HIGH_PFN + 128, 7);
    entries.extend((256u64 | (12 << 52) | (16 << 58)).to_le_bytes());
    entries.extend(0b101u64.to_le_bytes());
    entries.extend((1u64 << 63).to_le_bytes());
    let message = response(&entries);
    // A byte, an empty buffer, the middle of a word, the rest.
    let (first, rest) = message.split_at(1);
    let (middle, last) = rest.split_at(18);
    let buffers = [first, &[], middle, last].map(Buffer::Readable);
    assert_eq!(guest.send(INFLATE, &buffers), 0);
    assert_eq!(guest.host_pages(), before - 131);
    let pages = [256, 258, 256 + 127, HIGH_PFN + 128, HIGH_PFN + 255];
    assert_eq!(pages.map(|pfn| guest.peek(pfn)), [0; 5]);
    let others = [255, 257, 259, 256 + 126, HIGH_PFN + 127, HIGH_PFN + 256];
    assert_eq!(others.map(|pfn| guest.peek(pfn)), [0x5a; 6]);
    let counters = client.counters();
    let inflate = counters.inflate;
    assert_eq!((inflate.pages, inflate.runs, inflate.words), (131, 1, 2));
    assert_eq!(inflate.bytes, message.len() as u64);
    assert!(counters.page_bitmap);
    guest.send_bytes(DEFLATE, &message);
    assert_eq!(client.counters().pages_held, 0);
}

#[test]
fn the_pages_held_are_told_exactly() {
    let daemon = Running::new();
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    assert_eq!(client.held(), json!([]));
    guest.start(PFNS);
    let pages = [100, 101, 102, 105, HIGH_PFN + 7, HIGH_PFN];
    guest.send_bytes(INFLATE, &pfns(pages));
    guest.send_bytes(DEFLATE, &pfns([101]));
    let ranges = [
        [100, 1],
        [102, 1],
        [105, 1],
        [HIGH_PFN, 1],
        [HIGH_PFN + 7, 1],
    ];
    assert_eq!(client.held(), json!(ranges));
    let rest = client.command("x-query-held", json!({"start_pfn": 103}));
    assert_eq!(rest, json!({"ranges": ranges[2..]}));
}

#[test]
fn bad_messages_are_returned_counted_and_without_effect() {
    let daemon = Running::new();
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    guest.start(BITMAPS);
    let before = guest.host_pages();
    let good = response(&run(FREE_PFN, 0));
    let mut spoilt = run(FREE_PFN, 6);
    spoilt.extend(run(REGION_PAGES, 6));
    let mut rejected = 0;
    let mut reject = |guest: &mut Guest, buffers: &[Buffer<'_>]| {
        assert_eq!(guest.send(INFLATE, buffers), 0);
        rejected += 1;
        assert_eq!(client.counters().inflate.rejected, rejected);
    };
    reject(&mut guest, &[Buffer::Readable(&response(&spoilt))]);
    reject(&mut guest, &[Buffer::Readable(&good[..15])]);
    reject(&mut guest, &[Buffer::Readable(&[])]);
    reject(&mut guest, &[Buffer::Readable(&good), Buffer::Writable(0)]);
    reject(
        &mut guest,
        &[Buffer::Readable(&good), Buffer::At(REGION_PAGES << 12, 8)],
    );
    reject(&mut guest, &[Buffer::At(u64::MAX - 4, 8)]);
    reject(&mut guest, &[Buffer::At(0, u32::MAX)]);
    assert_eq!(guest.send_bytes(INFLATE, &[9, 0, 0, 0, 0, 0, 0, 0]), 0);
    let counters = client.counters();
    assert_eq!(counters.inflate.ignored, 1);
    assert_eq!(counters.inflate.messages, 8);
    assert_eq!(counters.inflate.pages, 0);
    assert_eq!(counters.pages_held, 0);
    assert_eq!(guest.host_pages(), before);
    // And the device is as good as before.
    guest.send_bytes(INFLATE, &good);
    assert_eq!(guest.host_pages(), before - 1);
}

#[test]
fn pages_given_twice_are_held_once() {
    let daemon = Running::new();
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    guest.start(PFNS);
    guest.send_bytes(INFLATE, &pfns(100..110));
    guest.send_bytes(INFLATE, &pfns(105..115));
    guest.send_bytes(DEFLATE, &pfns(110..120));
    let counters = client.counters();
    assert_eq!(counters.pages_held, 10);
    assert_eq!(counters.inflate.duplicates, 5);
    assert_eq!(counters.deflate.duplicates, 5);
}

#[test]
fn deflation_comes_before_inflation() {
    let daemon = Running::new();
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    guest.start(PFNS);
    let message = pfns(100..110);
    guest.send_bytes(INFLATE, &message);
    for queue in [INFLATE, DEFLATE] {
        guest.post(queue, &[Buffer::Readable(&message)]);
    }
    guest.kick(INFLATE);
    guest.wait_used(INFLATE);
    let counters = client.counters();
    assert_eq!(counters.pages_held, 10, "taken back, then given again");
    assert_eq!(counters.inflate.duplicates, 0);
}

#[test]
fn a_client_waits_for_the_guest() {
    let daemon = Running::new();
    let mut guest = daemon.guest();
    guest.start(PFNS);
    let set = |size| {
        ctl::run(&CtlArgs {
            control_path: daemon.dir.path().join("control"),
            command: CtlCommand::Set { size, wait: true },
        })
    };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| set(RAM - 40960));
        assert_eq!(guest.read_channel(), [2]);
        assert_eq!(guest.read_channel(), [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        let target = guest.num_pages();
        guest.set_actual(target);
        waiting.join().unwrap().unwrap();
        let waiting = scope.spawn(|| set(RAM - 81920));
        assert_eq!(guest.read_channel(), [2]);
        drop(guest);
        assert!(matches!(waiting.join().unwrap(), Err(CtlError::GuestGone)));
    });
}

#[test]
fn a_new_driver_begins_with_nothing_and_a_resumed_one_does_not() {
    let daemon = Running::new();
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    guest.start(PFNS);
    guest.send_bytes(INFLATE, &pfns(100..110));
    guest.set_actual(10);
    let bases = guest.stop();
    assert_eq!(bases[..2], [1, 0]);
    assert!(!client.counters().started);
    guest.resume(PFNS, bases);
    let counters = client.counters();
    assert_eq!((counters.pages_held, counters.actual), (10, 10));
    assert!(counters.started);
    guest.send_bytes(INFLATE, &pfns(110..120));
    assert_eq!(client.counters().pages_held, 20);
    guest.stop();
    guest.start(BITMAPS);
    let counters = client.counters();
    assert_eq!((counters.pages_held, counters.actual), (0, 0));
    assert_eq!(counters.pages_forgotten, 20);
    assert_eq!(client.actual(), RAM);
    guest.send_bytes(INFLATE, &response(&run(FREE_PFN, 3)));
    assert_eq!(client.counters().pages_held, 8);
}

/// A target that the guest hears of as in `hear`, and once.
fn announce(daemon: &Running, hear: impl FnOnce(&mut Guest)) {
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    guest.start(PFNS);
    client.balloon(RAM - 40960);
    hear(&mut guest);
    assert_eq!(guest.num_pages(), 10);
    // The same target is no news.
    client.balloon(RAM - 40960);
    assert!(guest.is_channel_silent());
}

#[test]
fn a_new_target_is_announced_in_two_writes() {
    announce(&Running::new(), |guest| {
        assert_eq!(guest.read_channel(), [2]);
        assert_eq!(guest.read_channel(), [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    });
}

#[test]
fn a_new_target_is_one_message_where_it_has_to_be() {
    announce(&Running::with_whole_messages(), |guest| {
        let message = [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(guest.receive_channel(), message);
    });
}

#[test]
fn a_device_that_stops_in_between_gets_no_change() {
    let daemon = Running::new();
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    guest.start(PFNS);
    // Nobody reads the channel, so the first byte stays in flight.
    client.balloon(RAM - 4096);
    client.balloon(RAM - 8192);
    let bases = guest.stop();
    assert_eq!(guest.read_channel(), [2]);
    assert_eq!(guest.read_channel(), [1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    client.balloon(RAM - 12288);
    assert!(
        guest.is_channel_silent(),
        "nothing is sent to a stopped device"
    );
    // The newest target is made known once the device goes on, and only that.
    guest.resume(PFNS, bases);
    assert_eq!(guest.read_channel(), [2]);
    assert_eq!(guest.read_channel(), [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(guest.num_pages(), 3);
    assert!(guest.is_channel_silent());
}

#[test]
fn targets_are_clamped_to_the_memory() {
    let daemon = Running::new();
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    guest.start(PFNS);
    client.balloon(RAM / 4);
    assert_eq!(guest.num_pages(), (RAM * 3 / 4 / 4096) as u32);
    client.balloon(1);
    assert_eq!(guest.num_pages(), (RAM / 4096 - 1) as u32);
    client.balloon(4 * RAM);
    assert_eq!(guest.num_pages(), 0);
    let reply = client.execute("balloon", json!({"value": 0}));
    assert_eq!(reply["error"]["class"], "GenericError");
}

#[test]
fn only_actual_is_taken_from_the_configuration() {
    let daemon = Running::new();
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    guest.start(PFNS);
    client.balloon(RAM - 5 * 4096);
    guest.set_actual(3);
    assert_eq!(guest.num_pages(), 5);
    assert_eq!(client.actual(), RAM - 3 * 4096);
    assert!(guest.set_config_outside());
    assert_eq!(client.actual(), RAM - 3 * 4096);
}

#[test]
fn every_client_hears_of_the_last_change() {
    let daemon = Running::new();
    let mut guest = daemon.guest();
    guest.start(PFNS);
    let mut clients = [daemon.client(), daemon.client()];
    for client in &mut clients {
        // By then the daemon knows what the guest began with.
        client.counters();
    }
    for actual in 1..=5 {
        guest.set_actual(actual);
    }
    for client in &mut clients {
        let last = json!({"actual": RAM - 5 * 4096});
        let heard: Vec<Value> = std::iter::repeat_with(|| client.event())
            .inspect(|event| assert_eq!(event["event"], "BALLOON_CHANGE"))
            .map(|event| event["data"].clone())
            .take(2)
            .collect();
        assert_eq!(heard[1], last, "{heard:?}");
    }
}

#[test]
fn without_a_guest_the_device_is_not_active() {
    let daemon = Running::new();
    let mut client = daemon.client();
    let not_active = |client: &mut Client| {
        for (name, arguments) in [
            ("query-balloon", json!({})),
            ("balloon", json!({"value": 1})),
        ] {
            let reply = client.execute(name, arguments);
            assert_eq!(reply["error"]["class"], "DeviceNotActive");
        }
    };
    not_active(&mut client);
    let mut guest = daemon.guest();
    not_active(&mut client);
    guest.start(PFNS);
    assert_eq!(client.actual(), RAM);
    drop(guest);
    while client.execute("query-balloon", json!({}))["error"].is_null() {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(client.counters(), Counters::default());
}

#[test]
fn one_guest_after_another_is_served() {
    let daemon = Running::new();
    let mut client = daemon.client();
    for _ in 0..3 {
        let mut guest = daemon.guest();
        guest.start(BITMAPS);
        guest.send_bytes(INFLATE, &response(&run(FREE_PFN, 4)));
        client.balloon(RAM / 2);
        let counters = client.counters();
        assert_eq!((counters.pages_held, counters.inflate.messages), (16, 1));
    }
}

#[test]
fn refused_requests_do_not_end_the_connection() {
    let daemon = Running::new();
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    assert_eq!(guest.features(), BASE_FEATURES | feature(30) | feature(63));
    assert!(guest.set_features_unasked(PFNS | feature(33)));
    guest.start(PFNS);
    guest.send_bytes(INFLATE, &pfns(100..110));
    assert_eq!(client.counters().pages_held, 10);
}

#[test]
fn a_client_that_breaks_off_disturbs_nobody() {
    let daemon = Running::new();
    let mut client = daemon.client();
    let mut rude = daemon.client();
    rude.stream.write_all(b"{\"execute\": ").unwrap();
    drop(rude);
    client.command("query-version", json!({}));
}
