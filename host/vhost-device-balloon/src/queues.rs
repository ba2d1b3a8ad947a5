// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The queues and how they are served: a turn at a time, page messages one after the other.

use std::fs::File;
use std::time::Instant;

use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::GuestMemoryMmap;

use crate::balloon::Balloon;
use crate::balloon::Direction;
use crate::budget::Budget;
use crate::chain::lent_buffers;
use crate::chain::read_message;
use crate::collector::Collector;
use crate::counters::Counters;
use crate::discard::Discard;
use crate::memory::GuestRam;
use crate::queue::Vring;
use crate::role::Role;
use crate::virtio_balloon::feature;
use crate::virtio_balloon::NUM_QUEUES;

/// A message of which not all is discarded yet. No other that carries pages is taken meanwhile, so
/// they are given back in the order in which they were taken.
#[derive(Debug)]
struct UnderWay {
    role: Role,
    queue: usize,
    discard: Discard,
}

/// All queues of a device, and what is behind them.
#[derive(Default)]
pub struct Queues {
    /// The balloon.
    pub balloon: Balloon,
    /// The guest's statistics.
    pub collector: Collector,
    /// What the driver negotiated.
    features: u64,
    memory: GuestMemoryMmap,
    rings: [Vring; NUM_QUEUES],
    under_way: Option<UnderWay>,
    /// What is left unserved, so that a test can see what the driver does about it.
    unserved: Vec<Role>,
    /// The bytes of the last message, kept for its memory.
    message: Vec<u8>,
}

impl Queues {
    /// What the driver negotiated.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Takes over what the driver negotiated.
    pub fn set_features(&mut self, features: u64) {
        self.features = features;
        self.balloon.set_features(features);
        for ring in &mut self.rings {
            ring.set_event_idx(features & feature(VIRTIO_RING_F_EVENT_IDX) != 0);
        }
    }

    /// Takes over a new memory table.
    pub fn set_ram(&mut self, ram: GuestRam) {
        self.memory = ram.memory().clone();
        self.balloon.set_ram(ram);
    }

    /// Queue `index`.
    pub fn ring_mut(&mut self, index: usize) -> Option<&mut Vring> {
        self.rings.get_mut(index)
    }

    /// Whether the frontend has the device started: a ring is running.
    ///
    /// True only from a driver's DRIVER_OK to the first sign of a stop.
    pub fn is_started(&self) -> bool {
        self.rings.iter().any(Vring::is_running)
    }

    /// The queues that can be notified now, each with its notification descriptor.
    pub fn kicks(&self) -> impl Iterator<Item = (usize, &File)> {
        Role::offered()
            .filter_map(|role| role.queue(self.features))
            .filter_map(|queue| Some((queue, self.rings[queue].kick()?)))
    }

    /// Takes no more messages of these roles, and of all others. One that is under way is finished.
    pub fn leave_unserved(&mut self, roles: Vec<Role>) {
        self.unserved = roles;
    }

    /// The queue for `role`, if it is there and served.
    fn served(&self, role: Role) -> Option<usize> {
        if self.unserved.contains(&role) {
            return None;
        }
        role.queue(self.features)
    }

    /// Takes the notifications of queue `index`.
    pub fn take_kicks(&mut self, index: usize) {
        let Some(ring) = self.rings.get(index) else {
            return;
        };
        let count = ring.take_kicks();
        match Role::of(index, self.features) {
            Some(Role::Inflate) => self.balloon.count_notifications(Direction::Inflate, count),
            Some(Role::Deflate) => self.balloon.count_notifications(Direction::Deflate, count),
            _ => {}
        }
    }

    /// Serves the queues for one turn; returns whether there may be more to do.
    pub fn serve(&mut self) -> bool {
        let mut budget = Budget::new();
        while !budget.is_spent() {
            if !(self.take_statistics(&mut budget) || self.serve_pages(&mut budget)) {
                return self.under_way.is_none() && self.enable_notifications();
            }
        }
        true
    }

    /// Goes on with one message that carries pages; returns whether there was one.
    fn serve_pages(&mut self, budget: &mut Budget) -> bool {
        if self.under_way.is_none() {
            // Deflation first: what the guest has taken back must not count as held.
            return [Role::Deflate, Role::Inflate, Role::Reporting]
                .into_iter()
                .any(|role| self.take_pages(role, budget));
        }
        self.go_on(budget)
    }

    /// Takes one message of the queue for `role`; returns whether there was one.
    fn take_pages(&mut self, role: Role, budget: &mut Budget) -> bool {
        let Some(queue) = self.served(role) else {
            return false;
        };
        let ring = &mut self.rings[queue];
        let discard = if role == Role::Reporting {
            let Some(report) = ring.take(&self.memory, lent_buffers) else {
                return false;
            };
            budget.spend_on_message(0);
            self.balloon.receive_report(report)
        } else {
            let bytes = &mut self.message;
            let Some(read) = ring.take(&self.memory, |chain| read_message(chain, bytes)) else {
                return false;
            };
            budget.spend_on_message(self.message.len());
            let direction = match role {
                Role::Inflate => Direction::Inflate,
                _ => Direction::Deflate,
            };
            let message = read.map(|()| self.message.as_slice());
            self.balloon.receive(direction, message)
        };
        match discard {
            Some(discard) => {
                self.under_way = Some(UnderWay {
                    role,
                    queue,
                    discard,
                });
                self.go_on(budget)
            }
            None => {
                self.give_back(queue);
                true
            }
        }
    }

    /// Goes on with the message that is under way; returns whether that was possible.
    fn go_on(&mut self, budget: &mut Budget) -> bool {
        let usable = self
            .under_way
            .as_ref()
            .is_some_and(|under_way| self.rings[under_way.queue].is_usable());
        if usable {
            self.discard(budget);
        }
        usable
    }

    /// Discards more of the message that is under way, and gives it back when all is discarded.
    fn discard(&mut self, budget: &mut Budget) {
        let Some(UnderWay {
            role,
            queue,
            discard,
        }) = &mut self.under_way
        else {
            return;
        };
        let done = match role {
            Role::Reporting => self.balloon.discard_reported(discard, budget),
            _ => self.balloon.discard_inflated(discard, budget),
        };
        if done {
            let queue = *queue;
            self.under_way = None;
            self.give_back(queue);
        }
    }

    /// Finishes the message of queue `index` that is under way, however long that takes.
    pub fn finish(&mut self, index: usize) {
        while self
            .under_way
            .as_ref()
            .is_some_and(|under_way| under_way.queue == index)
        {
            self.discard(&mut Budget::new());
        }
    }

    /// Takes the guest's statistics, if there are any. The buffer is given back to ask for newer
    /// ones; returns whether there was one.
    fn take_statistics(&mut self, budget: &mut Budget) -> bool {
        let Some(queue) = self.served(Role::Statistics) else {
            return false;
        };
        let bytes = &mut self.message;
        let take = |chain| read_message(chain, bytes);
        let Some(read) = self.rings[queue].take(&self.memory, take) else {
            return false;
        };
        budget.spend_on_message(self.message.len());
        self.collector
            .receive(read.map(|()| self.message.as_slice()));
        true
    }

    /// Asks the guest for newer statistics, if it is time.
    pub fn poll_statistics(&mut self, now: Instant) {
        if !self.collector.polling.take_due(now) {
            return;
        }
        match self.served(Role::Statistics) {
            Some(queue) if self.rings[queue].is_usable() && self.rings[queue].has_taken() => {
                self.collector.count_request();
                self.give_back(queue);
            }
            _ => self.collector.polling.wait(now),
        }
    }

    fn give_back(&mut self, queue: usize) {
        if self.rings[queue].give_back(&self.memory) {
            self.balloon.count_interrupt();
        }
    }

    /// Asks the driver to notify; returns whether there is a message already.
    fn enable_notifications(&mut self) -> bool {
        let mut more = false;
        for role in Role::offered() {
            let Some(queue) = self.served(role) else {
                continue;
            };
            let ring = &mut self.rings[queue];
            more |= !ring.has_taken() && ring.enable_notification(&self.memory);
        }
        more
    }

    /// The counters as they stand.
    pub fn counters(&self) -> Counters {
        self.balloon
            .counters(self.is_started(), self.collector.counters())
    }
}
