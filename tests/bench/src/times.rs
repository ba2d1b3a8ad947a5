// SPDX-License-Identifier: GPL-2.0-only

//! How long it takes, what goes over the wire, and what the host's memory does meanwhile.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use guest_tests::environment::patience;
use guest_tests::host_memory::HostMemory;
use guest_tests::page_set::PageSet;
use guest_tests::qemu::Machine;
use guest_tests::{MIB, PAGE_SIZE};

use crate::peer::{start, Peer};
use crate::plan::{State, Subject, Zeroing};
use crate::record::{Leg, Traffic, Way};

/// Nothing takes this long under emulation; what is never done does.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Longest sleep between two looks at the device: less than that, a hundredth of the time gone by.
const LONGEST_SLEEP: Duration = Duration::from_millis(1);
const SHORTEST_SLEEP: Duration = Duration::from_micros(100);
/// How often the host's memory is looked at.
const SAMPLE: Duration = Duration::from_millis(1);
/// Pages of 2 MiB.
const STRETCH: u64 = 2 * MIB / PAGE_SIZE;

/// How much memory there is to do it with.
#[derive(Clone, Copy, Debug)]
pub struct Amounts {
    pub guest_mib: u64,
    pub moved_mib: u64,
}

impl Amounts {
    /// The machine, with words for the kernel's command line.
    pub fn machine(self, command_line: &str) -> Machine {
        Machine {
            memory_mib: self.guest_mib,
            command_line: command_line.into(),
            ..Machine::default()
        }
    }

    /// Pages that are moved where nothing else is said.
    pub fn moved(self) -> u64 {
        self.moved_mib * MIB / PAGE_SIZE
    }
}

/// What one guest is measured for.
pub struct Times<'a> {
    pub amounts: Amounts,
    pub zeroing: Zeroing,
    pub round: u32,
    pub subject: Subject,
    pub states: &'a [State],
    /// Hears what is going on.
    pub note: &'a dyn Fn(&str),
}

impl Times<'_> {
    /// Boots a guest and takes it through all its states. What was measured goes to `legs`, and the pages of
    /// each balloon to `balloons`.
    pub fn measure(
        &self,
        logs: &Path,
        legs: &mut Vec<Leg>,
        balloons: &mut Vec<(State, PageSet)>,
    ) -> Result<()> {
        (self.note)("boot");
        let machine = self.amounts.machine(self.zeroing.word());
        let mut peer = start(self.subject, machine, self.amounts.moved_mib, logs)?;
        // The kernel tests itself for a while after boot, and does everything for the first time.
        (self.note)("first time");
        move_pages(&mut *peer, self.amounts.moved())?;
        move_pages(&mut *peer, 0)?;
        for state in State::ALL {
            if !self.states.contains(&state) || !fits(self.subject, state) {
                continue;
            }
            (self.note)(&format!("make it {}", state.title()));
            let pages = prepare(&mut *peer, state, self.amounts)?;
            legs.push(self.leg(&mut *peer, state, Way::Inflate, pages, balloons)?);
            legs.push(self.leg(&mut *peer, state, Way::Deflate, pages, balloons)?);
            if state == State::Scattered {
                peer.guest().release()?;
            }
        }
        (self.note)("end");
        peer.finish()
    }

    fn leg(
        &self,
        peer: &mut dyn Peer,
        state: State,
        way: Way,
        pages: u64,
        balloons: &mut Vec<(State, PageSet)>,
    ) -> Result<Leg> {
        (self.note)(&format!("{}: {}", state.title(), way.name()));
        let before = peer.traffic(way)?;
        let memory = peer.qemu().host_memory()?;
        let host_before = memory.resident()?;
        let target = match way {
            Way::Inflate => pages,
            Way::Deflate => 0,
        };
        let (time, host_most) = watched(&memory, || go(peer, target))?;
        peer.expect_taken(target)?;
        let after = peer.traffic(way)?;
        let mut span_mib = None;
        if way == Way::Inflate {
            if let Some(set) = peer.pages()? {
                span_mib = Some(stretches(&set) * STRETCH * PAGE_SIZE / MIB);
                balloons.push((state, set));
            }
        }
        let since = |after: Option<Traffic>, before: Option<Traffic>| {
            after.zip(before).map(|(after, before)| after.since(before))
        };
        Ok(Leg {
            zeroing: self.zeroing,
            round: self.round,
            subject: self.subject,
            state,
            way,
            pages,
            seconds: time.as_secs_f64(),
            device: since(after.device, before.device),
            driver: since(after.driver, before.driver),
            host_before,
            host_most,
            host_after: memory.resident()?,
            span_mib,
        })
    }
}

/// Whether the subject is for guests in that state. virtio-mem takes whole blocks: it would have to move
/// what is in use.
pub fn fits(subject: Subject, state: State) -> bool {
    subject != Subject::VirtioMem || state != State::Scattered
}

/// Brings the guest into a state; returns the pages that can then be taken.
pub fn prepare(peer: &mut dyn Peer, state: State, amounts: Amounts) -> Result<u64> {
    // So much is left alone, for the guest to live on.
    let rest = amounts.guest_mib * MIB / PAGE_SIZE / 16;
    let available = peer.guest().memory()?.available;
    let most = available
        .checked_sub(rest)
        .context("the guest has too little memory")?;
    match state {
        State::Idle => Ok(amounts.moved()),
        State::Touched => {
            peer.guest().touch(most * PAGE_SIZE)?;
            let resident = peer.qemu().resident()?;
            ensure!(
                resident >= most * PAGE_SIZE,
                "the host has {} MiB of the guest's RAM, after {} MiB were touched",
                resident / MIB,
                most * PAGE_SIZE / MIB
            );
            Ok(amounts.moved())
        }
        State::Scattered => {
            // Or the kernel would compact such memory, at a time of its choice.
            peer.guest()
                .shell("echo 0 > /proc/sys/vm/compaction_proactiveness")?;
            peer.guest().fragment(most * PAGE_SIZE)?;
            Ok(most / 2)
        }
    }
}

/// Takes memory or gives it back, and expects that it is done.
pub fn move_pages(peer: &mut dyn Peer, pages: u64) -> Result<Duration> {
    let time = go(peer, pages)?;
    peer.expect_taken(pages)?;
    Ok(time)
}

/// Takes memory or gives it back; returns how long it took until the device had been told of all.
pub fn go(peer: &mut dyn Peer, pages: u64) -> Result<Duration> {
    timed(pages, peer, |peer| peer.ask(pages), |peer| peer.taken())
}

/// Asks for something, and looks until `pages` pages are taken.
pub fn timed<T: ?Sized>(
    pages: u64,
    peer: &mut T,
    ask: impl FnOnce(&mut T) -> Result<()>,
    taken: impl Fn(&mut T) -> Result<u64>,
) -> Result<Duration> {
    let start = Instant::now();
    ask(peer)?;
    loop {
        let taken = taken(peer)?;
        let elapsed = start.elapsed();
        if taken == pages {
            return Ok(elapsed);
        }
        if elapsed > patience(TIMEOUT) {
            bail!("{pages} pages are to be taken, and after {elapsed:?} it is {taken}");
        }
        thread::sleep((elapsed / 100).clamp(SHORTEST_SLEEP, LONGEST_SLEEP));
    }
}

/// Does something, and says how much of the host's memory it took at most.
fn watched<T>(memory: &HostMemory, work: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| -> Result<u64> {
            let mut most = memory.resident()?;
            while !done.load(Ordering::Relaxed) {
                thread::sleep(SAMPLE);
                most = most.max(memory.resident()?);
            }
            Ok(most)
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        let most = watch.join().expect("it does not panic")?;
        Ok((result?, most))
    })
}

/// The aligned stretches of 2 MiB with a page of the set in them.
fn stretches(set: &PageSet) -> u64 {
    let mut count = 0;
    let mut next = 0;
    for (start, pages) in set.iter() {
        let first = (start / STRETCH).max(next);
        let end = (start + pages).div_ceil(STRETCH);
        count += end.saturating_sub(first);
        next = next.max(end);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_counts_once_however_many_pages_it_has() {
        assert_eq!(stretches(&PageSet::default()), 0);
        let set =
            PageSet::from_iter([(0, 1), (5, 1), (511, 2), (1000, 1), (2048, 1024), (5120, 1)]);
        // 0, 1, then 4 and 5, then 10.
        assert_eq!(stretches(&set), 5);
    }

    #[test]
    fn virtio_mem_is_not_for_scattered_guests() {
        assert!(fits(Subject::VirtioMem, State::Touched));
        assert!(!fits(Subject::VirtioMem, State::Scattered));
        assert!(fits(Subject::StockQemu, State::Scattered));
    }
}
