// SPDX-License-Identifier: GPL-2.0-only

//! What of the messages needs no kernel, and a model of who gets them.

#[path = "../../../messages/byte_order.rs"]
pub mod byte_order;
#[path = "../../../messages/host.rs"]
pub mod host;
#[path = "model_host.rs"]
pub mod model;
#[path = "../../../messages/pages.rs"]
pub mod pages;
