// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One virtqueue as vhost-user sets it up, and how a message is read from it.

use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::ops::Deref;

use log::warn;
use nix::fcntl::fcntl;
use nix::fcntl::FcntlArg;
use nix::fcntl::OFlag;
use thiserror::Error;
use virtio_queue::DescriptorChain;
use virtio_queue::Queue;
use virtio_queue::QueueOwnedT;
use virtio_queue::QueueT;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;

use crate::message::MAX_MESSAGE_SIZE;
use crate::virtio_balloon::MAX_QUEUE_SIZE;

/// Descriptors in one chain, at most.
pub const MAX_CHAIN_DESCRIPTORS: usize = 1024;

/// Why a descriptor chain is no message.
#[derive(Debug, Error)]
pub enum ChainError {
    #[error("the descriptor chain is broken")]
    Broken,
    #[error("the descriptor chain has a device-writable buffer")]
    Writable,
    #[error("the descriptor chain has more than {MAX_CHAIN_DESCRIPTORS} descriptors")]
    TooManyDescriptors,
    #[error("the descriptor chain carries more than {MAX_MESSAGE_SIZE} bytes")]
    TooLarge,
    #[error("a buffer of the descriptor chain is outside guest memory")]
    OutsideMemory,
    #[error("the guest's memory is not known")]
    NoMemory,
}

/// Why a ring cannot be set up or used.
#[derive(Debug, Error)]
pub enum RingError {
    #[error("ring size {0} is not a power of two up to {MAX_QUEUE_SIZE}")]
    Size(u32),
    #[error("ring index {0} does not fit in 16 bits")]
    Base(u32),
    #[error("ring addresses are not aligned as they must be: {0}")]
    Address(virtio_queue::Error),
    #[error("the ring is unusable: {0}")]
    Ring(#[from] virtio_queue::Error),
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
    buffer: Vec<u8>,
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
            buffer: Vec::new(),
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

    /// Sets the index of the next message to take.
    pub fn set_base(&mut self, base: u32) -> Result<(), RingError> {
        let base = u16::try_from(base).map_err(|_| RingError::Base(base))?;
        self.queue.set_next_avail(base);
        // All messages taken were returned before the ring was stopped.
        self.queue.set_next_used(base);
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

    /// Stops the ring and returns the index of the next message to take.
    pub fn stop(&mut self) -> u16 {
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

    /// Takes the next message, hands its bytes to `handle` and returns it to the driver as used.
    ///
    /// Returns None when there is no message, else whether the driver was interrupted.
    pub fn next_message(
        &mut self,
        memory: &GuestMemoryMmap,
        handle: impl FnOnce(Result<&[u8], ChainError>),
    ) -> Option<bool> {
        if !self.is_running() || self.broken {
            return None;
        }
        let result = self.try_next(memory, handle);
        result.unwrap_or_else(|error| {
            warn!("ring stopped: {error}");
            self.broken = true;
            None
        })
    }

    fn try_next(
        &mut self,
        memory: &GuestMemoryMmap,
        handle: impl FnOnce(Result<&[u8], ChainError>),
    ) -> Result<Option<bool>, RingError> {
        let Some(chain) = self.queue.iter(memory)?.next() else {
            return Ok(None);
        };
        let head = chain.head_index();
        let message = read_chain(chain, &mut self.buffer);
        handle(message.map(|()| self.buffer.as_slice()));
        self.queue.add_used(memory, head, 0)?;
        let interrupt = self.queue.needs_notification(memory)?;
        Ok(Some(interrupt && self.interrupt()))
    }

    fn interrupt(&self) -> bool {
        let call = self.call.as_ref();
        call.is_some_and(|mut call| call.write_all(&1u64.to_ne_bytes()).is_ok())
    }

    /// Asks the driver to notify for the next message; returns whether one is there already.
    pub fn enable_notification(&mut self, memory: &GuestMemoryMmap) -> bool {
        self.is_running() && !self.broken && self.queue.enable_notification(memory).unwrap_or(false)
    }
}

impl Default for Vring {
    fn default() -> Self {
        Self::new()
    }
}

/// Copies the buffers of `chain` to `message`, wherever the driver split them.
fn read_chain<M>(mut chain: DescriptorChain<M>, message: &mut Vec<u8>) -> Result<(), ChainError>
where
    M: Deref<Target = GuestMemoryMmap> + Clone,
{
    message.clear();
    let memory = chain.memory().clone();
    let mut more = true;
    let mut count = 0;
    for descriptor in chain.by_ref() {
        count += 1;
        if count > MAX_CHAIN_DESCRIPTORS {
            return Err(ChainError::TooManyDescriptors);
        }
        if descriptor.is_write_only() {
            return Err(ChainError::Writable);
        }
        let start = message.len();
        let end = start
            .checked_add(descriptor.len() as usize)
            .filter(|end| *end <= MAX_MESSAGE_SIZE)
            .ok_or(ChainError::TooLarge)?;
        message.resize(end, 0);
        memory
            .read_slice(&mut message[start..], descriptor.addr())
            .map_err(|_| ChainError::OutsideMemory)?;
        more = descriptor.has_next();
    }
    // The chain ends in silence where it is invalid; a valid one ends at a last descriptor.
    if more {
        return Err(ChainError::Broken);
    }
    Ok(())
}
