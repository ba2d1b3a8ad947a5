// SPDX-License-Identifier: GPL-2.0-only

//! The byte order of a device's messages. Needs nothing but `core`.

/// How numbers of more than a byte are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    /// That of the guest.
    const GUEST: Self = if cfg!(target_endian = "big") {
        Self::Big
    } else {
        Self::Little
    };

    /// That of a device with or without VIRTIO_F_VERSION_1: legacy devices have the guest's.
    pub(crate) const fn of_version_1(modern: bool) -> Self {
        if modern {
            Self::Little
        } else {
            Self::GUEST
        }
    }

    pub(crate) const fn u16(self, value: u16) -> [u8; 2] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    pub(crate) const fn u32(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    pub(crate) const fn u64(self, value: u64) -> [u8; 8] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }
}
