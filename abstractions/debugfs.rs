// SPDX-License-Identifier: GPL-2.0

//! What the driver does, under /sys/kernel/debug/virtio_balloon_bmap-virtioN: one file, `stats`, a
//! line for each number.

use crate::balloon::Balloon;
use kernel::{
    debugfs::{
        Dir,
        File,
        Writer, //
    },
    fmt,
    prelude::*,
    sync::Arc, //
};

/// Room for the directory's name.
const NAME_SIZE: usize = 64;

/// What the file shows.
pub(crate) struct Stats(Arc<Balloon>);

impl Writer for Stats {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_stats(f)
    }
}

/// The file of a device. It is gone when this is dropped.
#[pin_data]
pub(crate) struct DebugFs {
    #[pin]
    stats: File<Stats>,
}

impl DebugFs {
    /// Makes the directory and the file. Without debugfs there are none, which is no error.
    ///
    /// # Errors
    ///
    /// EINVAL.
    pub(crate) fn new(balloon: Arc<Balloon>) -> Result<impl PinInit<Self, Error>> {
        let dir = Dir::new(balloon.dev.full_name(&mut [0; NAME_SIZE])?);
        Ok(pin_init::pin_init_scope(move || {
            Ok(try_pin_init!(Self {
                stats <- dir.read_only_file(c"stats", Stats(balloon)),
            }? Error))
        }))
    }
}
