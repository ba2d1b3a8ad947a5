// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A virtio-balloon device that speaks vhost-user and understands page bitmaps.
//!
//! From the outside in: [`args`] and [`ctl`] are the command line, [`daemon`] the poll loop,
//! [`vhu_balloon`] what a frontend asks, [`queue`] how a message is read, [`message`] what it
//! says, [`balloon`] what follows from it, and [`memory`] how the host gets its pages back.

pub mod args;
pub mod balloon;
pub mod config_channel;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod held;
pub mod memory;
pub mod message;
pub mod qmp;
pub mod queue;
pub mod socket;
pub mod vhu_balloon;
pub mod virtio_balloon;
