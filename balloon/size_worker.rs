// SPDX-License-Identifier: GPL-2.0-only

//! Takes the balloon towards its target, one bounded window of pages at a time.
//!
//! Inflate: allocate -> send -> (the host has read it) -> held.
//! Deflate: held -> send -> (the host has read it, if it has to) -> free.
//!
//! While the host works on a window to inflate, the next one is allocated.
//!
//! The worker runs at once when the target changes, whatever it waits for. What it waits for holds back
//! the growth of the balloon alone.

use crate::{
    abstractions::{
        memory_info, param,
        work::{
            Next,
            Run, //
        },
    },
    balloon::{
        account::Account,
        allocation::{
            allocate,
            WINDOW, //
        },
        config,
        growth::Growth,
        reserve::Reserve,
        wakeup::{
            Event,
            WakeupEvents, //
        },
    },
    messages::{
        host::Direction,
        pfns::UNITS_PER_PAGE, //
    },
};
use core::cmp::Ordering;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    time::Msecs, //
};

/// How long to wait for the guest to have memory again, or for compaction to let go of pages.
const RETRY_MS: Msecs = 200;

/// How long to wait for the guest to have memory above its floor.
const FLOOR_MS: Msecs = 1000;

/// What is left to do after a window.
enum Step {
    /// The balloon has its size.
    Done,
    /// There is more to do.
    Continue,
    /// What is left cannot be done for so long.
    Later(Msecs),
}

/// Takes a balloon to its target.
#[pin_data]
pub(crate) struct SizeWorker {
    account: Arc<Account>,
    wakeup: Arc<WakeupEvents>,
    /// Of a run of the worker, of which there is one at a time.
    #[pin]
    growth: Mutex<Growth>,
}

impl SizeWorker {
    /// A worker that has not run yet.
    pub(crate) fn new(account: Arc<Account>, wakeup: Arc<WakeupEvents>) -> impl PinInit<Self> {
        pin_init!(Self {
            account,
            wakeup,
            growth <- new_mutex!(Growth::new()),
        })
    }

    /// Moves the balloon's size by at most one window.
    #[inline(never)]
    fn step(&self, growth: &mut Growth) -> Result<Step> {
        let target = target_pages(config::num_pages(&self.account.transport)?);
        let expected = self.account.lock().expected();
        match target.cmp(&expected) {
            Ordering::Greater => self.grow(target.saturating_sub(expected), growth),
            Ordering::Less => self.shrink(expected.saturating_sub(target)),
            Ordering::Equal => Ok(Step::Done),
        }
    }

    fn grow(&self, missing: usize, growth: &mut Growth) -> Result<Step> {
        let account = &*self.account;
        if let Some(ms) = account.oom.pause_left_ms() {
            return Ok(Step::Later(ms));
        }
        let wanted = missing.min(WINDOW);
        let allowed = above_floor();
        if allowed < wanted {
            account.counters.floor_hits.inc();
        }
        if allowed == 0 {
            return Ok(Step::Later(FLOOR_MS));
        }
        if !growth.is_worth_a_try() {
            return Ok(Step::Later(RETRY_MS));
        }
        let moved = self.inflate(wanted.min(allowed), growth)?;
        Ok(if moved < wanted {
            Step::Later(RETRY_MS)
        } else {
            Step::Continue
        })
    }

    /// Gives up to `wanted` pages to the host, and returns how many.
    ///
    /// # Errors
    ///
    /// Those of the host, which may or may not have read of them.
    #[inline(never)]
    fn inflate(&self, wanted: usize, growth: &mut Growth) -> Result<usize> {
        let account = &*self.account;
        let max_pfn = account.lock().sender().format().max_pfn();
        let _guard = account.oom.hold();
        let pages = {
            let _reserve = Reserve::take_if_below(2 * WINDOW);
            allocate(wanted, max_pfn, || !account.oom.is_pending())
        };
        let got = pages.len();
        if !account.oom.is_pending() {
            self.note_allocation(wanted, got, growth);
            account.settle()?;
        }
        if account.oom.is_pending() {
            // Whoever ran out of memory needs them more.
            drop(pages);
            account.oom.add_freed(got);
            account.counters.oom_retreats.inc();
            return Ok(0);
        }
        if got == 0 {
            return Ok(0);
        }
        let sent = account.lock().inflate(pages, wanted);
        match sent {
            Ok(sent) => sent.map(|()| got),
            Err(untold) => {
                drop(untold);
                account.oom.add_freed(got);
                Err(ENODEV)
            }
        }
    }

    fn note_allocation(&self, wanted: usize, got: usize, growth: &mut Growth) {
        let account = &*self.account;
        if got < wanted {
            account.counters.out_of_puff.inc();
            if growth.fell_short() {
                let short = wanted.saturating_sub(got);
                dev_info!(
                    account.transport.device(),
                    "Out of puff! Can't get {short} pages\n"
                );
            }
        } else {
            growth.had_enough();
        }
    }

    /// Takes up to a window of pages back from the host.
    ///
    /// # Errors
    ///
    /// Those of the host. The pages stay in the balloon then.
    #[inline(never)]
    fn shrink(&self, surplus: usize) -> Result<Step> {
        let account = &*self.account;
        let in_transit = account.lock().in_transit(Direction::Inflate);
        if in_transit {
            account.settle()?;
        }
        let wanted = surplus.min(WINDOW);
        let moved = account.deflate(wanted)?;
        Ok(if moved < wanted {
            Step::Later(RETRY_MS)
        } else {
            Step::Continue
        })
    }

    fn run_step(&self) -> Next {
        let account = &*self.account;
        let mut growth = self.growth.lock();
        if account.oom.take_pending() {
            let is_paused = account.oom.pause_left_ms().is_some();
            account.oom.pause(growth.pause_ms(is_paused));
        }
        let step = self.step(&mut growth);
        account.publish();
        if let Ok(Step::Continue) = step {
            return Next::Again;
        }
        let step = account.settle().and(step);
        account.publish();
        account.lock().sender().shrink();
        match step {
            Ok(Step::Later(ms)) => Next::After(ms),
            Ok(Step::Done | Step::Continue) => {
                growth.reset();
                Next::Idle
            }
            Err(err) => {
                dev_err!(
                    account.transport.device(),
                    "the device does not answer: {err:?}\n"
                );
                Next::Idle
            }
        }
    }
}

impl Run for SizeWorker {
    fn run(&self) -> Next {
        self.wakeup.begin(Event::Adjust);
        let next = self.run_step();
        if !matches!(next, Next::Again) {
            self.wakeup.end();
        }
        next
    }
}

/// A target in pages of the guest, whole ones, so that the balloon does not go back and forth.
fn target_pages(units: u32) -> usize {
    usize::try_from(units.div_ceil(UNITS_PER_PAGE)).unwrap_or(usize::MAX)
}

/// The pages that may be taken without going below the floor, if there is one.
fn above_floor() -> usize {
    match param::floor_pages() {
        0 => usize::MAX,
        floor => memory_info::available_pages().saturating_sub(floor),
    }
}
