// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How much is done for the guest before the frontend and the control socket get their turn.

/// What one turn may take, in units of roughly a microsecond.
const TURN: u64 = 10_000;
/// What any message or discard takes.
const ONE: u64 = 2;
/// Bytes of a message that take a unit to decode, at worst.
const MESSAGE_BYTES: u64 = 4;
/// Bytes of memory that take a unit to discard.
const DISCARD_BYTES: u64 = 32 * 1024;

/// What is left of a turn.
///
/// It is counted in work done and not in time, so that what a turn does can be told beforehand.
#[derive(Debug)]
pub struct Budget {
    left: u64,
}

impl Budget {
    /// A whole turn.
    pub fn new() -> Self {
        Self { left: TURN }
    }

    /// Whether the turn is over.
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Takes note of a message of `bytes`.
    pub fn spend_on_message(&mut self, bytes: usize) {
        self.spend(bytes as u64 / MESSAGE_BYTES);
    }

    /// Takes note of a call that discards `bytes`.
    pub fn spend_on_discard(&mut self, bytes: u64) {
        self.spend(bytes / DISCARD_BYTES);
    }

    fn spend(&mut self, units: u64) {
        self.left = self.left.saturating_sub(ONE.saturating_add(units));
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}
