// SPDX-License-Identifier: GPL-2.0-only

//! The driver's tracepoints.

use anyhow::{Context, Result};
use guest_tests::vm::Vm;

const TRACING: &str = "/sys/kernel/tracing";
/// How the name of each of the driver's tracepoints begins.
const PREFIX: &str = ": balloon_bmap_";

/// A line of the trace: a window of pages.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it was, by the guest's clock.
    pub seconds: f64,
    /// Which tracepoint: `inflate`, `deflate` or `oom`.
    pub name: String,
    /// Pages that were to move.
    pub wanted: u64,
    /// Pages that did.
    pub moved: u64,
    /// Pages in the balloon afterwards.
    pub held: u64,
}

/// Turns all tracepoints of the driver on, which must be loaded.
pub fn start(vm: &mut Vm) -> Result<()> {
    vm.guest
        .shell(&format!(
            "[ -e {TRACING}/events ] || mount -t tracefs tracefs {TRACING}; \
             echo > {TRACING}/trace; echo 1 > {TRACING}/events/virtio_balloon_bmap/enable"
        ))
        .map(|_| ())
}

/// What was traced since.
pub fn events(vm: &mut Vm) -> Result<Vec<Event>> {
    let trace = vm.guest.shell(&format!("cat {TRACING}/trace"))?;
    trace
        .lines()
        .filter(|line| line.contains(PREFIX))
        .map(|line| parse(line).with_context(|| format!("not an event: {line}")))
        .collect()
}

fn parse(line: &str) -> Option<Event> {
    let (head, tail) = line.split_once(PREFIX)?;
    let (name, fields) = tail.split_once(": ")?;
    let field = |wanted: &str| {
        fields
            .split_whitespace()
            .find_map(|field| field.strip_prefix(wanted)?.strip_prefix('='))
            .and_then(|value| value.parse().ok())
    };
    Some(Event {
        seconds: head.split_whitespace().last()?.parse().ok()?,
        name: name.to_owned(),
        wanted: field("wanted")?,
        moved: field("moved")?,
        held: field("held")?,
    })
}
