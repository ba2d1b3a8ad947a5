// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device's properties, as `qom-get` and `qom-set` have them. Names, values and wording are
//! those of QEMU's balloon.

use serde_json::Value;
use thiserror::Error;

use crate::control::Control;

const STATS: &str = "guest-stats";
const INTERVAL: &str = "guest-stats-polling-interval";

/// Why a property cannot be read or written.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PropertyError {
    #[error("Property 'virtio-balloon-device.{0}' not found")]
    NotFound(String),
    #[error("Property 'virtio-balloon-device.{0}' is not writable")]
    NotWritable(&'static str),
    #[error("Invalid parameter type for '{0}', expected: integer")]
    NoInteger(&'static str),
    #[error("timer value must be greater than zero")]
    Negative,
    #[error("timer value is too big")]
    TooBig,
}

/// The value of property `name`.
///
/// # Errors
///
/// [`PropertyError::NotFound`]
pub fn get(control: &dyn Control, name: &str) -> Result<Value, PropertyError> {
    match name {
        STATS => Ok(control.guest_stats()),
        INTERVAL => Ok(control.stats_polling_interval().into()),
        _ => Err(PropertyError::NotFound(name.into())),
    }
}

/// Sets property `name`.
///
/// # Errors
///
/// [`PropertyError`]; nothing is changed then.
pub fn set(control: &mut dyn Control, name: &str, value: &Value) -> Result<(), PropertyError> {
    match name {
        STATS => Err(PropertyError::NotWritable(STATS)),
        INTERVAL => {
            let seconds = value.as_i64().ok_or(PropertyError::NoInteger(INTERVAL))?;
            if seconds < 0 {
                return Err(PropertyError::Negative);
            }
            let seconds = u32::try_from(seconds).map_err(|_| PropertyError::TooBig)?;
            control.set_stats_polling_interval(seconds);
            Ok(())
        }
        _ => Err(PropertyError::NotFound(name.into())),
    }
}
