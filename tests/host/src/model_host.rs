// SPDX-License-Identifier: GPL-2.0-only

//! A host that reads what it is sent at its own time.

use std::collections::{BTreeSet, VecDeque};

use shuttle::rand::{thread_rng, Rng};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

use crate::ledger_model::ModelList;
use crate::messages::host::{Direction, Host, Idle};
use crate::messages::pages::Released;

#[derive(Default)]
struct Queues {
    /// What was sent and not read.
    posted: VecDeque<(Direction, Vec<u32>)>,
    /// Messages of each direction that were read and not taken back.
    used: [usize; 2],
    /// What the host may discard.
    given: BTreeSet<u32>,
    /// What it is to give back, whether it has read that or not.
    asked_back: BTreeSet<u32>,
    broken: bool,
    reset: bool,
}

/// The device.
pub struct Device {
    must_tell_host: bool,
    queues: Mutex<Queues>,
}

impl Device {
    pub fn new(must_tell_host: bool) -> Self {
        Self {
            must_tell_host,
            queues: Mutex::default(),
        }
    }

    /// Whether the guest may use a page.
    pub fn may_be_used(&self, page: u32) -> bool {
        let queues = self.queues.lock().unwrap();
        queues.reset
            || !queues.given.contains(&page)
            || (!self.must_tell_host && queues.asked_back.contains(&page))
    }

    /// Reads messages, in the order of each queue but not of both, until it is reset.
    pub fn serve(&self, breaks: bool) {
        loop {
            {
                let mut queues = self.queues.lock().unwrap();
                if queues.reset {
                    return;
                }
                if breaks && thread_rng().gen_ratio(1, 40) {
                    queues.broken = true;
                }
                let direction = if thread_rng().gen() {
                    Direction::Inflate
                } else {
                    Direction::Deflate
                };
                let next = queues.posted.iter().position(|(way, _)| *way == direction);
                if let Some((_, pages)) = next.and_then(|next| queues.posted.remove(next)) {
                    for page in pages {
                        match direction {
                            Direction::Inflate => assert!(queues.given.insert(page)),
                            Direction::Deflate => {
                                queues.given.remove(&page);
                                queues.asked_back.remove(&page);
                            }
                        }
                    }
                    queues.used[direction as usize] += 1;
                }
            }
            thread::yield_now();
        }
    }
}

/// The driver's side of it.
pub struct ModelHost {
    device: Arc<Device>,
    posted: [usize; 2],
    failed: bool,
}

impl ModelHost {
    pub fn new(device: Arc<Device>) -> Self {
        Self {
            device,
            posted: [0; 2],
            failed: false,
        }
    }

    fn post(&mut self, direction: Direction, pages: &[u32]) -> Result<(), ()> {
        let mut queues = self.device.queues.lock().unwrap();
        if queues.broken {
            self.failed = true;
            return Err(());
        }
        if direction == Direction::Deflate {
            queues.asked_back.extend(pages);
        }
        queues.posted.push_back((direction, pages.to_vec()));
        self.posted[direction as usize] += 1;
        Ok(())
    }

    /// Moves a page, as `compaction.rs` does where the host answers.
    pub fn migrate(&mut self, new: u32, old: u32) -> bool {
        let is_idle = |idle: Idle| idle.inflate && idle.deflate;
        if !self.poll().is_ok_and(is_idle) || self.post(Direction::Inflate, &[new]).is_err() {
            return false;
        }
        while self.poll().is_ok_and(|idle| !idle.inflate) {
            thread::yield_now();
        }
        if self.post(Direction::Deflate, &[old]).is_ok() {
            while self.poll().is_ok_and(|idle| !idle.deflate) {
                thread::yield_now();
            }
        }
        if self.failed {
            // The driver keeps the old page until the reset; here it is as if there had been one.
            self.device.queues.lock().unwrap().given.remove(&old);
        }
        true
    }

    pub fn reset(&mut self) -> Released {
        self.failed = true;
        self.device.queues.lock().unwrap().reset = true;
        Released::new()
    }
}

impl Host for ModelHost {
    type List = ModelList;
    type Patience = ();
    type Error = ();

    fn is_live(&self) -> bool {
        !self.failed
    }

    fn is_ready(&self, direction: Direction) -> bool {
        self.is_live() && (direction == Direction::Deflate || self.posted[1] == 0)
    }

    fn fail(&mut self) {
        self.failed = true;
    }

    fn released(&self) -> Option<Released> {
        (!self.device.must_tell_host || self.posted[1] == 0).then(Released::new)
    }

    fn send(&mut self, direction: Direction, pages: &mut ModelList, (): ()) -> Result<(), ()> {
        if !self.is_ready(direction) {
            return Err(());
        }
        // More than one message, of which some may be posted and others not.
        pages
            .0
            .chunks(2)
            .try_for_each(|pages| self.post(direction, pages))
    }

    fn poll(&mut self) -> Result<Idle, ()> {
        let mut queues = self.device.queues.lock().unwrap();
        if self.failed || queues.broken {
            self.failed = true;
            return Err(());
        }
        for (posted, used) in self.posted.iter_mut().zip(&mut queues.used) {
            *posted -= std::mem::take(used);
        }
        let [inflate, deflate] = self.posted.map(|posted| posted == 0);
        Ok(Idle { inflate, deflate })
    }
}
