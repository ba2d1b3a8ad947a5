// SPDX-License-Identifier: GPL-2.0-only

//! The files of the driver that need nothing but `core`, tested on the host.
//!
//! They are compiled here as they are in the module, and what they encode is decoded by the
//! device's own decoder.

#![cfg(test)]

#[path = "../../../bitmap.rs"]
mod bitmap;
#[path = "../../../resp_encoder.rs"]
mod resp_encoder;

mod balloon;
mod messages;

mod bitmap_tests;
mod byte_order_tests;
mod golden;
mod ledger_model;
mod page_sets;
mod round_trip;
