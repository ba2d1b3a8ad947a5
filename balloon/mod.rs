// SPDX-License-Identifier: GPL-2.0-only

//! What a balloon does.
//!
//! [`account`] has the books ([`ledger`]) and all that changes them; [`size_worker`], [`oom`] and
//! [`hot_unplug`] decide when. [`hinting`], [`reporting`] and [`statistics`] have queues of their own,
//! and nothing to do with the balloon's pages. [`driver`] puts all of it together.

pub(crate) mod account;
pub(crate) mod allocation;
pub(crate) mod config;
pub(crate) mod driver;
pub(crate) mod growth;
pub(crate) mod held_pages;
pub(crate) mod hinting;
pub(crate) mod hot_unplug;
pub(crate) mod ledger;
pub(crate) mod observation;
pub(crate) mod oom;
pub(crate) mod oom_state;
pub(crate) mod reporting;
pub(crate) mod reserve;
pub(crate) mod size_worker;
pub(crate) mod statistics;
pub(crate) mod wakeup;
