// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The balloon itself: target, what the guest reports, the pages held, and the counters.

use std::cmp::Ordering;

use log::debug;
use log::error;
use log::info;
use log::warn;
use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

use crate::held::HeldSet;
use crate::memory::Aggregate;
use crate::memory::Discarded;
use crate::memory::GuestRam;
use crate::message::decode_pfns;
use crate::message::decode_response;
use crate::message::DecodeError;
use crate::queue::ChainError;
use crate::virtio_balloon::Config;
use crate::virtio_balloon::CONFIG_SIZE;
use crate::virtio_balloon::PAGE_SIZE;

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

/// What came through one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCounters {
    /// Messages taken off the queue, whatever became of them.
    pub messages: u64,
    /// Bytes of those messages.
    pub bytes: u64,
    /// Pages of 4 KiB in the accepted messages.
    pub pages: u64,
    /// Runs in the accepted bitmap messages.
    pub runs: u64,
    /// Bitmap words in the accepted bitmap messages.
    pub words: u64,
    /// Pages that were held already (inflate) or not held (deflate).
    pub duplicates: u64,
    /// Messages rejected as malformed.
    pub rejected: u64,
    /// Messages ignored for their unknown command.
    pub ignored: u64,
    /// Notifications from the driver (kicks).
    pub notifications: u64,
}

/// All counters, from the frontend's connection on, and the state they belong to.
///
/// This is the answer to `query-balloon-counters`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub inflate: QueueCounters,
    pub deflate: QueueCounters,
    pub discard: Discarded,
    /// Pages of 4 KiB the balloon holds now.
    pub pages_held: u64,
    /// Interrupts sent to the driver.
    pub interrupts: u64,
    /// Pages of 4 KiB the balloon shall hold (`num_pages`).
    pub target: u32,
    /// Pages of 4 KiB the driver says it holds.
    pub actual: u32,
    /// Whether messages are page bitmaps.
    pub page_bitmap: bool,
    /// The guest's memory size in bytes.
    pub ram: u64,
    /// Whether a driver is running.
    pub started: bool,
}

/// The balloon of one virtual machine.
#[derive(Debug, Default)]
pub struct Balloon {
    ram: Option<GuestRam>,
    held: HeldSet,
    config: Config,
    page_bitmap: bool,
    must_tell_host: bool,
    warned_aggregate: bool,
    inflate: QueueCounters,
    deflate: QueueCounters,
    discard: Discarded,
    interrupts: u64,
}

impl Balloon {
    /// The guest's memory, once the frontend has shared it.
    pub fn ram(&self) -> Option<&GuestRam> {
        self.ram.as_ref()
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
        self.ram = Some(ram);
    }

    /// Takes over what the driver negotiated.
    pub fn set_negotiated(&mut self, page_bitmap: bool, must_tell_host: bool) {
        self.page_bitmap = page_bitmap;
        self.must_tell_host = must_tell_host;
    }

    /// Starts from nothing held: the device was reset, so the driver begins anew.
    pub fn driver_reset(&mut self) {
        self.held.clear();
        self.config.actual = 0;
        self.config.poison_val = 0;
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

    /// Acts on one message, all or nothing.
    pub fn handle(&mut self, direction: Direction, message: Result<&[u8], ChainError>) {
        let bytes = message.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let queue = self.queue_mut(direction);
        queue.messages += 1;
        queue.bytes += bytes;
        let result = message
            .map_err(MessageError::from)
            .and_then(|bytes| self.apply(direction, bytes));
        let queue = self.queue_mut(direction);
        match result {
            Ok(()) => {}
            Err(MessageError::Decode(error @ DecodeError::UnknownCommand(_))) => {
                queue.ignored += 1;
                debug!("{direction:?} message ignored: {error}");
            }
            Err(error) => {
                queue.rejected += 1;
                // A hostile guest must not fill the log.
                match queue.rejected.cmp(&REJECTIONS_LOGGED) {
                    Ordering::Less => warn!("{direction:?} message rejected: {error}"),
                    Ordering::Equal => warn!(
                        "{direction:?} message rejected: {error}; more are counted, not logged"
                    ),
                    Ordering::Greater => {}
                }
            }
        }
    }

    fn apply(&mut self, direction: Direction, bytes: &[u8]) -> Result<(), MessageError> {
        let ram = self.ram.as_ref().ok_or(ChainError::NoMemory)?;
        let message = if self.page_bitmap {
            decode_response(bytes, ram)?
        } else {
            decode_pfns(bytes, ram)?
        };
        let pages = message.pages();
        let mut changed = 0;
        for range in &message.ranges {
            changed += match direction {
                Direction::Inflate => self.held.insert(*range),
                Direction::Deflate => self.held.remove(*range),
            };
        }
        if direction == Direction::Inflate {
            let aggregate = if self.must_tell_host {
                Aggregate::Held
            } else {
                Aggregate::Message
            };
            if aggregate == Aggregate::Message
                && ram.largest_host_page() > PAGE_SIZE
                && !self.warned_aggregate
            {
                self.warned_aggregate = true;
                warn!(
                    "host pages are larger than 4 KiB and MUST_TELL_HOST is not negotiated: \
                     only host pages wholly in one message are discarded (see --must-tell-host)"
                );
            }
            ram.discard(&message.ranges, &self.held, aggregate, &mut self.discard);
        }
        let queue = self.queue_mut(direction);
        queue.pages += pages;
        queue.runs += message.runs;
        queue.words += message.words;
        queue.duplicates += pages - changed;
        Ok(())
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
    pub fn counters(&self, started: bool) -> Counters {
        Counters {
            inflate: self.inflate,
            deflate: self.deflate,
            discard: self.discard,
            pages_held: self.held.len(),
            interrupts: self.interrupts,
            target: self.config.num_pages,
            actual: self.config.actual,
            page_bitmap: self.page_bitmap,
            ram: self.ram.as_ref().map_or(0, GuestRam::bytes),
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

/// Rejected messages that are logged, for each queue and virtual machine.
const REJECTIONS_LOGGED: u64 = 10;

#[cfg(test)]
#[path = "balloon_tests.rs"]
mod tests;
