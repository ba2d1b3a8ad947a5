// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A virtio-balloon device that speaks vhost-user and understands page bitmaps.
//!
//! From the outside in: [`args`] and [`ctl`] are the command line, [`daemon`] the poll loop,
//! [`vhu_balloon`] what a frontend asks, [`queues`] how messages are served, [`message`],
//! [`statistics`] and [`report`] what they say, [`balloon`] what follows from it, and [`discard`]
//! how the host gets its pages back.

pub mod args;
pub mod balloon;
pub mod bits;
pub mod budget;
pub mod chain;
pub mod collector;
pub mod config_channel;
pub mod control;
pub mod control_server;
pub mod counters;
pub mod ctl;
pub mod daemon;
pub mod discard;
pub mod held;
pub mod memory;
pub mod message;
pub mod polling;
pub mod properties;
pub mod qmp;
pub mod queue;
pub mod queues;
pub mod report;
pub mod role;
pub mod socket;
pub mod statistics;
pub mod vhu_balloon;
pub mod virtio_balloon;
