// SPDX-License-Identifier: GPL-2.0-only

//! What the driver lets one see of what it does.

use anyhow::{ensure, Context, Result};
use guest_tests::vm::{Vm, Wire};

use super::tracing;

/// The counters of debugfs and the tracepoints fit the balloon, and each other, and what the device
/// has counted.
pub fn observation(vm: &mut Vm) -> Result<()> {
    let migrated = vm.guest.memory()?.balloon_migrate;
    let counted = device_counters(vm)?;
    vm.load()?;
    tracing::start(vm)?;
    let (most, rest) = (vm.ram * 3 / 4 + 1, 101);
    vm.reach(most)?;
    vm.reach(rest)?;

    let shown = vm.driver_counters()?;
    let shown = shown.first().context("no counters")?;
    for (name, expected) in [
        ("target", rest),
        ("actual", rest),
        ("floor", 0),
        ("inflate_pages", most),
        ("deflate_pages", most - rest),
        ("out_of_puff", 0),
        ("floor_hits", 0),
        ("oom_calls", 0),
        ("oom_pages", 0),
        ("migrations", vm.guest.memory()?.balloon_migrate - migrated),
    ] {
        let value = shown.get(name)?;
        ensure!(value == expected, "{name} is {value}, not {expected}");
    }
    for (queue, pages) in [("inflate", most), ("deflate", most - rest)] {
        let of = |name: &str| shown.get(&format!("{queue}_{name}"));
        let in_blocks =
            |order: u32| Ok::<_, anyhow::Error>(of(&format!("blocks_{order}"))? << order);
        let (large, all) = (
            in_blocks(9)? + in_blocks(10)?,
            (0..=10).map(in_blocks).sum::<Result<u64>>()?,
        );
        ensure!(
            all == pages && large > pages * 9 / 10,
            "{queue}: {large} pages in large blocks, {all} in all: {shown:?}"
        );
        let (messages, bytes) = (of("messages")?, of("bytes")?);
        let (words, runs) = (of("words")?, of("runs")?);
        match vm.setup().wire {
            Wire::PfnArray => ensure!(
                bytes == 4 * pages && messages == pages.div_ceil(256) && words + runs == 0,
                "{queue}: not arrays of up to 256 PFNs: {shown:?}"
            ),
            Wire::PageBitmaps => {
                // All is 8 bytes long: a message's header, a run, a word, and a head of up to 7 words.
                let heads = (bytes / 8).checked_sub(messages + runs + words);
                let heads = heads.context("fewer bytes than there must be")?;
                ensure!(
                    runs + words > 0
                        && (words.div_ceil(7)..=words).contains(&heads)
                        && bytes < pages,
                    "{queue}: not short messages: {shown:?}"
                );
            }
        }
        ensure!(
            of("waits")? == messages,
            "{queue}: each message is waited for once: {shown:?}"
        );
        let most_notifications = match vm.setup().wire {
            Wire::PfnArray => messages / 8,
            Wire::PageBitmaps => messages,
        };
        ensure!(
            (1..=most_notifications).contains(&of("notifications")?),
            "{queue}: not many arrays under one notification: {shown:?}"
        );
        let events = tracing::events(vm)?;
        let events = events.iter().filter(|event| event.name == queue);
        ensure!(
            events.clone().map(|event| event.moved).sum::<u64>() == pages
                && events.clone().all(|event| event.moved == event.wanted)
                && events
                    .clone()
                    .any(|event| event.held == rest || event.held == most),
            "{queue}: the trace does not fit {pages} pages: {:?}",
            events.collect::<Vec<_>>()
        );
    }
    for ((name, before), (_, after)) in counted.iter().zip(device_counters(vm)?) {
        let (shown, seen) = (shown.get(name)?, after - before);
        ensure!(
            seen == shown,
            "{name}: the driver shows {shown}, the device {seen}"
        );
    }
    Ok(())
}

/// What the daemon has counted of the messages so far, where it is the device, by the driver's names.
fn device_counters(vm: &mut Vm) -> Result<Vec<(String, u64)>> {
    if vm.daemon.is_none() {
        return Ok(Vec::new());
    }
    let device = vm.counters()?;
    let mut counters = Vec::new();
    for queue in ["inflate", "deflate"] {
        for name in ["pages", "messages", "bytes", "runs", "words"] {
            let count = device[queue][name].as_u64();
            let count = count.with_context(|| format!("no {name} of {queue} in {device}"))?;
            counters.push((format!("{queue}_{name}"), count));
        }
    }
    Ok(counters)
}
