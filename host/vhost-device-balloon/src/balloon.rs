// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The balloon itself: target, what the guest reports, the pages held, and the counters.

use std::sync::Arc;

use log::debug;
use log::error;
use log::info;
use log::warn;
use thiserror::Error;

use crate::budget::Budget;
use crate::chain::Buffer;
use crate::chain::ChainError;
use crate::counters::reject;
use crate::counters::Counters;
use crate::counters::QueueCounters;
use crate::counters::ReportingCounters;
use crate::discard::Aggregate;
use crate::discard::Discard;
use crate::discard::Discarded;
use crate::held::HeldSet;
use crate::memory::GuestRam;
use crate::message::decode_pfns;
use crate::message::decode_response;
use crate::message::DecodeError;
use crate::report::decode_report;
use crate::statistics::StatisticsCounters;
use crate::virtio_balloon::feature;
use crate::virtio_balloon::Config;
use crate::virtio_balloon::CONFIG_SIZE;
use crate::virtio_balloon::PAGE_SIZE;
use crate::virtio_balloon::VIRTIO_BALLOON_F_MUST_TELL_HOST;
use crate::virtio_balloon::VIRTIO_BALLOON_F_PAGE_BITMAP;
use crate::virtio_balloon::VIRTIO_BALLOON_F_PAGE_POISON;

/// Why the frontend's access to the configuration space is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{size} bytes at {offset} are outside the configuration space")]
pub struct ConfigError {
    pub offset: u32,
    pub size: usize,
}

/// Why a message was given back without effect.
#[derive(Debug, Error)]
pub enum MessageError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Which way the pages of a message go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the guest to the host.
    Inflate,
    /// From the host back to the guest.
    Deflate,
}

/// The balloon of one virtual machine.
#[derive(Debug, Default)]
pub struct Balloon {
    ram: Option<Arc<GuestRam>>,
    held: HeldSet,
    forgotten: u64,
    config: Config,
    /// What the driver negotiated.
    features: u64,
    warned_aggregate: bool,
    inflate: QueueCounters,
    deflate: QueueCounters,
    discard: Discarded,
    reporting: ReportingCounters,
    interrupts: u64,
}

impl Balloon {
    /// The guest's memory, once the frontend has shared it.
    pub fn ram(&self) -> Option<&GuestRam> {
        self.ram.as_deref()
    }

    /// Takes over a new memory table. The pages held stay held.
    pub fn set_ram(&mut self, ram: GuestRam) {
        let host_page = ram.largest_host_page();
        if self.ram.is_none() {
            info!(
                "guest memory: {} bytes, host pages of {host_page} bytes",
                ram.bytes()
            );
            if ram.is_unshared() {
                error!(
                    "nothing the guest wrote is in the memory that the frontend shares: \
                     give it a shared memory backend (share=on)"
                );
            }
        }
        self.ram = Some(Arc::new(ram));
    }

    /// Takes over what the driver negotiated.
    pub fn set_features(&mut self, features: u64) {
        self.features = features;
    }

    fn has(&self, bit: u32) -> bool {
        self.features & feature(bit) != 0
    }

    /// Starts from nothing held: the device was reset, so the driver begins anew.
    ///
    /// `poison_val` stays: a driver has written it by the time this is known. What an earlier
    /// driver left there has no effect, unless PAGE_POISON is negotiated anew.
    pub fn driver_reset(&mut self) {
        self.forgotten += self.held.len();
        self.held.clear();
        self.config.actual = 0;
    }

    /// The pages held.
    pub fn held(&self) -> &HeldSet {
        &self.held
    }

    /// `num_pages`, in pages of 4 KiB.
    pub fn target(&self) -> u32 {
        self.config.num_pages
    }

    /// Sets `num_pages` so that the guest keeps `bytes`; returns whether that is a change.
    /// None until the guest's memory is known.
    pub fn set_guest_bytes(&mut self, bytes: u64) -> Option<bool> {
        let ram = self.ram.as_ref()?.bytes();
        let pages = ram.saturating_sub(bytes) / PAGE_SIZE;
        let pages = u32::try_from(pages).unwrap_or(u32::MAX);
        let changed = pages != self.config.num_pages;
        self.config.num_pages = pages;
        Some(changed)
    }

    /// The memory the guest keeps by its own account, in bytes. None until its memory is known.
    pub fn guest_bytes(&self) -> Option<u64> {
        let ram = self.ram.as_ref()?.bytes();
        Some(ram.saturating_sub(u64::from(self.config.actual) * PAGE_SIZE))
    }

    /// Reads the configuration space.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the bytes are not all inside it.
    pub fn read_config(&self, offset: u32, size: u32) -> Result<Vec<u8>, ConfigError> {
        let size = size as usize;
        let outside = ConfigError { offset, size };
        let start = offset as usize;
        let end = start.checked_add(size).ok_or(outside)?;
        let bytes = self.config.to_bytes();
        Ok(bytes.get(start..end).ok_or(outside)?.to_vec())
    }

    /// Writes the configuration space. Only `actual` and `poison_val` are the driver's to write:
    /// a frontend sends the whole space, with a `num_pages` that may be out of date.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the bytes are not all inside it; nothing is written then.
    pub fn write_config(&mut self, offset: u32, data: &[u8]) -> Result<(), ConfigError> {
        let size = data.len();
        let outside = ConfigError { offset, size };
        let start = offset as usize;
        let end = start.checked_add(size).ok_or(outside)?;
        let mut bytes: [u8; CONFIG_SIZE] = self.config.to_bytes();
        bytes
            .get_mut(start..end)
            .ok_or(outside)?
            .copy_from_slice(data);
        let written = Config::from_bytes(bytes);
        self.config.actual = written.actual;
        self.config.poison_val = written.poison_val;
        Ok(())
    }

    /// Takes in one message, all or nothing; returns what there is to discard before the message
    /// is given back to the driver.
    pub fn receive(
        &mut self,
        direction: Direction,
        message: Result<&[u8], ChainError>,
    ) -> Option<Discard> {
        let bytes = message.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let queue = self.queue_mut(direction);
        queue.messages += 1;
        queue.bytes += bytes;
        let result = message
            .map_err(MessageError::from)
            .and_then(|bytes| self.apply(direction, bytes));
        let queue = self.queue_mut(direction);
        match result {
            Ok(discard) => return discard,
            Err(MessageError::Decode(error @ DecodeError::UnknownCommand(_))) => {
                queue.ignored += 1;
                debug!("{direction:?} message ignored: {error}");
            }
            Err(error) => {
                let what = match direction {
                    Direction::Inflate => "inflate message",
                    Direction::Deflate => "deflate message",
                };
                reject(&mut queue.rejected, what, &error);
            }
        }
        None
    }

    fn apply(
        &mut self,
        direction: Direction,
        bytes: &[u8],
    ) -> Result<Option<Discard>, MessageError> {
        let ram = self.ram.clone().ok_or(ChainError::NoMemory)?;
        let message = if self.has(VIRTIO_BALLOON_F_PAGE_BITMAP) {
            decode_response(bytes, &*ram)?
        } else {
            decode_pfns(bytes, &*ram)?
        };
        let pages = message.pages();
        let mut changed = 0;
        for range in &message.ranges {
            changed += match direction {
                Direction::Inflate => self.held.insert(*range),
                Direction::Deflate => self.held.remove(*range),
            };
        }
        let queue = self.queue_mut(direction);
        queue.pages += pages;
        queue.runs += message.runs;
        queue.words += message.words;
        queue.duplicates += pages - changed;
        Ok(match direction {
            Direction::Inflate => {
                let aggregate = self.aggregate(&ram);
                Some(Discard::new(ram, message.ranges, aggregate))
            }
            Direction::Deflate => None,
        })
    }

    fn aggregate(&mut self, ram: &GuestRam) -> Aggregate {
        if self.has(VIRTIO_BALLOON_F_MUST_TELL_HOST) {
            return Aggregate::Held;
        }
        if ram.largest_host_page() > PAGE_SIZE && !self.warned_aggregate {
            self.warned_aggregate = true;
            warn!(
                "host pages are larger than 4 KiB and MUST_TELL_HOST is not negotiated: \
                 only host pages wholly in one message are discarded (see --must-tell-host)"
            );
        }
        Aggregate::Message
    }

    /// Takes in one free page report, all or nothing; returns what there is to discard before the
    /// pages are given back to the driver. What the balloon holds stays as it is.
    pub fn receive_report(&mut self, report: Result<Vec<Buffer>, ChainError>) -> Option<Discard> {
        self.reporting.messages += 1;
        match report
            .map_err(MessageError::from)
            .and_then(|buffers| self.apply_report(&buffers))
        {
            Ok(discard) => discard,
            Err(error) => {
                reject(&mut self.reporting.rejected, "free page report", &error);
                None
            }
        }
    }

    fn apply_report(&mut self, buffers: &[Buffer]) -> Result<Option<Discard>, MessageError> {
        let ram = self.ram.clone().ok_or(ChainError::NoMemory)?;
        let ranges = decode_report(buffers, &*ram)?;
        self.reporting.pages += ranges.iter().map(|range| range.pages).sum::<u64>();
        // A discarded page reads as zeros, which is not what such a guest left in it.
        if self.has(VIRTIO_BALLOON_F_PAGE_POISON) && self.config.poison_val != 0 {
            self.reporting.poisoned += 1;
            return Ok(None);
        }
        Ok(Some(Discard::new(ram, ranges, Aggregate::Message)))
    }

    /// Goes on with what an inflate message gave to discard; returns whether all is done.
    pub fn discard_inflated(&mut self, discard: &mut Discard, budget: &mut Budget) -> bool {
        discard.go_on(&self.held, budget, &mut self.discard)
    }

    /// Goes on with what a free page report gave to discard; returns whether all is done.
    pub fn discard_reported(&mut self, discard: &mut Discard, budget: &mut Budget) -> bool {
        discard.go_on(&self.held, budget, &mut self.reporting.discard)
    }

    /// Counts `count` notifications from the driver.
    pub fn count_notifications(&mut self, direction: Direction, count: u64) {
        let queue = self.queue_mut(direction);
        queue.notifications = queue.notifications.saturating_add(count);
    }

    /// Counts one interrupt to the driver.
    pub fn count_interrupt(&mut self) {
        self.interrupts += 1;
    }

    /// The counters as they stand.
    pub fn counters(&self, started: bool, statistics: StatisticsCounters) -> Counters {
        Counters {
            inflate: self.inflate,
            deflate: self.deflate,
            discard: self.discard,
            reporting: self.reporting,
            statistics,
            pages_held: self.held.len(),
            pages_forgotten: self.forgotten,
            interrupts: self.interrupts,
            target: self.config.num_pages,
            actual: self.config.actual,
            poison_val: self.config.poison_val,
            page_bitmap: self.has(VIRTIO_BALLOON_F_PAGE_BITMAP),
            ram: self.ram().map_or(0, GuestRam::bytes),
            started,
        }
    }

    fn queue_mut(&mut self, direction: Direction) -> &mut QueueCounters {
        match direction {
            Direction::Inflate => &mut self.inflate,
            Direction::Deflate => &mut self.deflate,
        }
    }
}

#[cfg(test)]
#[path = "balloon_tests.rs"]
mod tests;
