// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Free page reports: the guest lends its free pages, and has them back when the report is used.

use crate::chain::Buffer;
use crate::message::DecodeError;
use crate::message::GuestPages;
use crate::message::PageRange;
use crate::message::Ranges;
use crate::virtio_balloon::PAGE_SIZE;
use crate::virtio_balloon::PFN_SHIFT;

/// The pages of a report, sorted, merged and without overlap.
///
/// # Errors
///
/// [`DecodeError::NotPages`] and [`DecodeError::OutsideMemory`].
pub fn decode_report(
    buffers: &[Buffer],
    ram: &impl GuestPages,
) -> Result<Vec<PageRange>, DecodeError> {
    let mut ranges = Ranges::default();
    for &Buffer { address, len } in buffers {
        let bytes = u64::from(len);
        if bytes == 0 || (address | bytes) % PAGE_SIZE != 0 {
            return Err(DecodeError::NotPages { address, len });
        }
        ranges.push(address >> PFN_SHIFT, bytes >> PFN_SHIFT);
    }
    ranges.into_checked(ram)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 64 pages.
    struct Ram;

    impl GuestPages for Ram {
        fn contains(&self, range: PageRange) -> bool {
            range.end_pfn().is_some_and(|end| end <= 64)
        }
    }

    fn decode(buffers: &[(u64, u32)]) -> Result<Vec<(u64, u64)>, DecodeError> {
        let buffers: Vec<Buffer> = buffers
            .iter()
            .map(|&(address, len)| Buffer { address, len })
            .collect();
        let ranges = decode_report(&buffers, &Ram)?;
        Ok(ranges.iter().map(|r| (r.start_pfn, r.pages)).collect())
    }

    #[test]
    fn buffers_become_ranges() {
        assert_eq!(decode(&[]), Ok(vec![]));
        assert_eq!(
            decode(&[(0x8000, 0x2000), (0x1000, 0x1000), (0xa000, 0x1000)]),
            Ok(vec![(1, 1), (8, 3)])
        );
        assert_eq!(decode(&[(0, 64 << 12)]), Ok(vec![(0, 64)]));
    }

    #[test]
    fn what_is_not_whole_pages_is_refused() {
        for (address, len) in [(1, 4096), (4096, 4095), (4096, 0), (0xff, 0xf01)] {
            let refused = Err(DecodeError::NotPages { address, len });
            assert_eq!(decode(&[(0, 4096), (address, len)]), refused);
        }
    }

    #[test]
    fn what_is_not_memory_is_refused() {
        for (address, len) in [
            (64 << 12, 4096),
            (0, 65 << 12),
            (!0xfff, 4096),
            (!0xfff, 8192),
        ] {
            assert!(matches!(
                decode(&[(0, 4096), (address, len)]),
                Err(DecodeError::OutsideMemory { .. })
            ));
        }
    }
}
