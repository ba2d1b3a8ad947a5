// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Free page reporting, and page poison.

use serde_json::json;
use vhost_device_balloon::virtio_balloon::feature;

use crate::guest::Buffer;
use crate::guest::Guest;
use crate::guest::HIGH_PFN;
use crate::guest::REGION_PAGES;
use crate::pfns;
use crate::running::Running;
use crate::INFLATE;
use crate::PFNS;

const STATS: u64 = feature(1);
const POISON: u64 = feature(4);
const REPORTING: u64 = feature(5);

#[test]
fn reported_pages_are_discarded_whichever_queue_it_is() {
    for (others, queue) in [(0, 2), (STATS, 3)] {
        let daemon = Running::offering(STATS | REPORTING);
        let mut client = daemon.client();
        let mut guest = daemon.guest();
        guest.start(PFNS | REPORTING | others);
        let before = guest.host_pages();
        guest.send_bytes(INFLATE, &pfns([100]));
        let lent = [
            Buffer::Lent(HIGH_PFN << 12, 32 << 12),
            Buffer::Lent(101 << 12, 2 << 12),
        ];
        assert_eq!(guest.send(queue, &lent), 0);
        assert_eq!(guest.host_pages(), before - 35);
        assert_eq!(client.held(), json!([[100, 1]]));
        let bad = [
            Buffer::Lent(200 << 12, 4096),
            Buffer::Lent(REGION_PAGES << 12, 4096),
        ];
        assert_eq!(guest.send(queue, &bad), 0);
        assert_eq!(guest.send_bytes(queue, &[0; 8]), 0);
        assert_eq!(guest.host_pages(), before - 35);
        let counters = client.counters();
        let reporting = counters.reporting;
        assert_eq!((reporting.messages, reporting.rejected), (3, 2));
        assert_eq!((reporting.pages, reporting.discard.bytes), (34, 34 << 12));
        assert_eq!(counters.discard.bytes, 4096);
        assert_eq!(counters.statistics.rejected, 0);
    }
}

#[test]
fn what_the_guest_poisons_is_kept() {
    let daemon = Running::offering(REPORTING | POISON);
    let mut client = daemon.client();
    let mut guest = daemon.guest();
    let report = |guest: &mut Guest| guest.send(2, &[Buffer::Lent(100 << 12, 4096)]);
    // A driver writes the value before it is ready, hence before its features are known.
    guest.set_poison(0xaaaa_aaaa);
    guest.start(PFNS | REPORTING | POISON);
    let before = guest.host_pages();
    report(&mut guest);
    assert_eq!(guest.host_pages(), before);
    assert_eq!(guest.peek(100), 0x5a);
    let bases = guest.stop();
    guest.resume(PFNS | REPORTING | POISON, bases);
    report(&mut guest);
    assert_eq!(guest.host_pages(), before);
    assert_eq!(client.counters().reporting.poisoned, 2);
    guest.stop();
    guest.set_poison(0);
    guest.start(PFNS | REPORTING | POISON);
    report(&mut guest);
    assert_eq!(guest.host_pages(), before - 1);
    assert_eq!(client.counters().reporting.poisoned, 2);
}
