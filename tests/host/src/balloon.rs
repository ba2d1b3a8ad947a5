// SPDX-License-Identifier: GPL-2.0-only

//! What of the balloon needs no kernel.

#[allow(dead_code)]
#[path = "../../../balloon/ledger.rs"]
pub mod ledger;
