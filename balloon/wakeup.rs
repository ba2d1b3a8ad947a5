// SPDX-License-Identifier: GPL-2.0-only

//! Keeps the system awake from an event of the device until it was dealt with.
//!
//! The device cannot wake the system by itself, but what wakes it may be meant for the balloon.
//! Wakeup sources do not nest, so the balloon has its own beside that of the transport.

use crate::abstractions::{
    compat::{
        new_spinlock_irq,
        SpinLockIrq, //
    },
    pm_wakeup,
    transport::Transport, //
};
use kernel::prelude::*;

/// What the device wants.
#[derive(Clone, Copy)]
pub(crate) enum Event {
    /// Its target has changed.
    Adjust = 1,
    /// It asks for statistics.
    Stats = 2,
}

struct State {
    /// Events that nobody deals with yet.
    pending: u32,
    awake: bool,
}

/// The wakeup events of a device.
#[pin_data]
pub(crate) struct WakeupEvents {
    transport: Transport,
    #[pin]
    state: SpinLockIrq<State>,
}

impl WakeupEvents {
    /// No events yet.
    pub(crate) fn new(transport: Transport) -> impl PinInit<Self> {
        pm_wakeup::set_capable(transport.device());
        pin_init!(Self {
            transport,
            state <- new_spinlock_irq!(State { pending: 0, awake: false }),
        })
    }

    /// An event has come. May be called in interrupt context.
    pub(crate) fn raise(&self, event: Event) {
        let mut state = self.state.lock();
        state.pending |= event as u32;
        if !state.awake {
            state.awake = true;
            pm_wakeup::stay_awake(self.transport.device());
        }
    }

    /// Somebody begins to deal with the event. If it comes again, that is another one.
    pub(crate) fn begin(&self, event: Event) {
        self.state.lock().pending &= !(event as u32);
    }

    /// Somebody has dealt with an event.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        if state.pending == 0 && state.awake {
            state.awake = false;
            pm_wakeup::relax(self.transport.device());
        }
    }

    /// Nobody deals with events any more.
    pub(crate) fn drop_all(&self) {
        self.state.lock().pending = 0;
        self.end();
    }
}
