// SPDX-License-Identifier: GPL-2.0

pub(crate) mod back_off;
pub(crate) mod balloon_pages;
pub(crate) mod cushion;
pub(crate) mod driver;
pub(crate) mod hinting;
pub(crate) mod hot_unplug;
pub(crate) mod oom;
pub(crate) mod reporting;
pub(crate) mod shortage;
pub(crate) mod size_worker;
pub(crate) mod stats;
pub(crate) use driver::*;
