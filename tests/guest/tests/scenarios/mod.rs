//! What is proved of a guest, one idea a file.

pub mod fragmented;
pub mod hotplug;
pub mod interrupts;
pub mod lifecycle;
pub mod memory_map;
pub mod reclaim;
pub mod reload;
pub mod stress;
pub mod targets;
pub mod transfer;
