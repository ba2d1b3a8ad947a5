// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One virtqueue as vhost-user sets it up, and how buffers are taken from it and given back.

use std::fs::File;
use std::io::Read;
use std::io::Write;

use log::warn;
use nix::fcntl::fcntl;
use nix::fcntl::FcntlArg;
use nix::fcntl::OFlag;
use thiserror::Error;
use virtio_queue::DescriptorChain;
use virtio_queue::Queue;
use virtio_queue::QueueOwnedT;
use virtio_queue::QueueT;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;

use crate::virtio_balloon::MAX_QUEUE_SIZE;

/// Why a ring cannot be set up or used.
#[derive(Debug, Error)]
pub enum RingError {
    #[error("ring size {0} is not a power of two up to {MAX_QUEUE_SIZE}")]
    Size(u32),
    #[error("ring index {0} does not fit in 16 bits")]
    Base(u32),
    #[error("ring addresses are not aligned as they must be: {0}")]
    Address(virtio_queue::Error),
    #[error("the notification descriptor is unusable: {0}")]
    Kick(#[from] nix::Error),
}

/// A virtqueue and its two event descriptors.
pub struct Vring {
    queue: Queue,
    kick: Option<File>,
    call: Option<File>,
    enabled: bool,
    /// The ring was found inconsistent; it stays unused until it is set up again.
    broken: bool,
    /// The head of the chain that was taken and not given back yet.
    taken: Option<u16>,
}

impl Vring {
    /// A ring that is not set up.
    pub fn new() -> Self {
        Self {
            queue: Queue::new(MAX_QUEUE_SIZE).expect("MAX_QUEUE_SIZE is a power of two"),
            kick: None,
            call: None,
            enabled: false,
            broken: false,
            taken: None,
        }
    }

    /// Sets the number of descriptors.
    pub fn set_size(&mut self, size: u32) -> Result<(), RingError> {
        let fits = u16::try_from(size).map_err(|_| RingError::Size(size))?;
        self.queue
            .try_set_size(fits)
            .map_err(|_| RingError::Size(size))
    }

    /// Sets where the three parts of the ring lie.
    pub fn set_addresses(
        &mut self,
        descriptors: GuestAddress,
        available: GuestAddress,
        used: GuestAddress,
    ) -> Result<(), RingError> {
        self.queue
            .try_set_desc_table_address(descriptors)
            .and_then(|()| self.queue.try_set_avail_ring_address(available))
            .and_then(|()| self.queue.try_set_used_ring_address(used))
            .map_err(RingError::Address)
    }

    /// Sets the index of the next chain to take.
    pub fn set_base(&mut self, base: u32) -> Result<(), RingError> {
        let base = u16::try_from(base).map_err(|_| RingError::Base(base))?;
        self.queue.set_next_avail(base);
        // Whatever was taken before was given back, or is taken again.
        self.queue.set_next_used(base);
        self.taken = None;
        Ok(())
    }

    /// Uses the driver's event indices, or notifies always.
    pub fn set_event_idx(&mut self, enabled: bool) {
        self.queue.set_event_idx(enabled);
    }

    /// Starts the ring: from now on the driver notifies through `kick`.
    pub fn start(&mut self, kick: File) -> Result<(), RingError> {
        let flags = OFlag::from_bits_retain(fcntl(&kick, FcntlArg::F_GETFL)?);
        fcntl(&kick, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        self.kick = Some(kick);
        // Whoever made the descriptor may have set it off, so that no message is overlooked.
        self.take_kicks();
        self.broken = false;
        self.queue.set_ready(true);
        Ok(())
    }

    /// Stops the ring and returns the index of the next chain to take. One that is kept, as that for
    /// statistics, is to be taken again.
    pub fn stop(&mut self) -> u16 {
        if self.taken.take().is_some() {
            self.queue
                .set_next_avail(self.queue.next_avail().wrapping_sub(1));
        }
        self.kick = None;
        self.call = None;
        self.queue.set_ready(false);
        self.queue.next_avail()
    }

    /// Sets the descriptor by which the driver is interrupted.
    pub fn set_call(&mut self, call: Option<File>) {
        self.call = call;
    }

    /// Lets the ring be used, or not.
    pub fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    /// Whether the ring is set up, started and enabled.
    pub fn is_running(&self) -> bool {
        self.enabled && self.kick.is_some()
    }

    /// The descriptor that becomes readable when the driver notifies.
    pub fn kick(&self) -> Option<&File> {
        self.kick.as_ref().filter(|_| self.enabled && !self.broken)
    }

    /// Whether chains can be taken and given back now.
    pub fn is_usable(&self) -> bool {
        self.kick().is_some()
    }

    /// Takes the notifications that have come, and returns how many.
    pub fn take_kicks(&self) -> u64 {
        let mut count = [0; 8];
        match self
            .kick
            .as_ref()
            .map(|mut kick| kick.read_exact(&mut count))
        {
            Some(Ok(())) => u64::from_ne_bytes(count),
            _ => 0,
        }
    }

    /// Whether a chain was taken and not given back yet.
    pub fn has_taken(&self) -> bool {
        self.taken.is_some()
    }

    /// Takes the next chain and reads it with `read`. The one taken before must be given back first.
    ///
    /// Returns None when there is no chain.
    pub fn take<'m, T>(
        &mut self,
        memory: &'m GuestMemoryMmap,
        read: impl FnOnce(DescriptorChain<&'m GuestMemoryMmap>) -> T,
    ) -> Option<T> {
        if !self.is_usable() || self.taken.is_some() {
            return None;
        }
        let chain = match self.queue.iter(memory) {
            Ok(mut chains) => chains.next()?,
            Err(error) => {
                self.give_up(&error);
                return None;
            }
        };
        self.taken = Some(chain.head_index());
        Some(read(chain))
    }

    /// Gives the chain that was taken back to the driver as used, with nothing written; returns
    /// whether the driver was interrupted.
    pub fn give_back(&mut self, memory: &GuestMemoryMmap) -> bool {
        let Some(head) = self.taken.take() else {
            return false;
        };
        let given = self
            .queue
            .add_used(memory, head, 0)
            .and_then(|()| self.queue.needs_notification(memory));
        match given {
            Ok(interrupt) => interrupt && self.interrupt(),
            Err(error) => {
                self.give_up(&error);
                false
            }
        }
    }

    fn give_up(&mut self, error: &virtio_queue::Error) {
        warn!("ring stopped: {error}");
        self.broken = true;
    }

    fn interrupt(&self) -> bool {
        let call = self.call.as_ref();
        call.is_some_and(|mut call| call.write_all(&1u64.to_ne_bytes()).is_ok())
    }

    /// Asks the driver to notify for the next chain; returns whether one is there already.
    pub fn enable_notification(&mut self, memory: &GuestMemoryMmap) -> bool {
        self.is_usable() && self.queue.enable_notification(memory).unwrap_or(false)
    }
}

impl Default for Vring {
    fn default() -> Self {
        Self::new()
    }
}
