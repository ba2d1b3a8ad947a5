// SPDX-License-Identifier: GPL-2.0-only

//! What the kernel runs of the encoder's tests, when it has KUnit; `tests/host` has many more.

use kernel::prelude::*;

#[kunit_tests(virtio_balloon_bmap_bitmap)]
mod bitmap {
    use crate::{
        abstractions::compat,
        bitmap::{
            PageBitmaps,
            PfnRange,
            Rest,
            MAX_BITMAPS,
            WORDS_PER_BITMAP, //
        },
    };
    use kernel::prelude::*;

    const PFNS_PER_BITMAP: u64 = 64 * 4096;

    fn pages<const N: usize>(pfns: [u64; N]) -> impl Iterator<Item = PfnRange> {
        pfns.into_iter().map(|pfn| PfnRange::block(pfn, 1))
    }

    fn zeroed() -> Result<KVec<u64>> {
        Ok(compat::zeroed(WORDS_PER_BITMAP, GFP_KERNEL)?)
    }

    #[test]
    fn a_range_needs_a_bitmap_a_gigabyte() -> Result {
        let bitmaps = |pfns: [u64; 2]| PfnRange::of(pages(pfns)).map(|range| range.bitmaps());

        assert_eq!(bitmaps([0, PFNS_PER_BITMAP - 1]), Some(1));
        assert_eq!(bitmaps([PFNS_PER_BITMAP, 0]), Some(2));
        // The first bit of a bitmap is that of a word.
        assert_eq!(bitmaps([63, PFNS_PER_BITMAP + 63]), Some(2));
        assert_eq!(bitmaps([64, PFNS_PER_BITMAP + 63]), Some(1));
        assert_eq!(bitmaps([0, u64::MAX]), Some(MAX_BITMAPS));
        assert!(PfnRange::of(pages([])).is_none());
        Ok(())
    }

    #[test]
    fn pages_beyond_the_window_are_left_for_the_next() -> Result {
        let mut map = PageBitmaps::new(zeroed()?);
        let mut rest = Rest::new(pages([1, PFNS_PER_BITMAP, 2 * PFNS_PER_BITMAP]));

        assert!(map.fill(&mut rest));
        assert!(map.words().eq([(0, 2)]));
        assert!(map.fill(&mut rest));
        assert!(map.words().eq([(PFNS_PER_BITMAP, 1)]));
        Ok(())
    }

    #[test]
    fn a_further_bitmap_widens_the_window_until_it_is_given_back() -> Result {
        let mut map = PageBitmaps::new(zeroed()?);
        assert!(map.add(zeroed()?).is_ok());
        let last = 2 * PFNS_PER_BITMAP - 1;
        let span = PfnRange { min: 0, max: last };

        assert!(map.cover(span));
        map.mark(span, pages([0, last]));
        assert!(map.words().eq([(0, 1), (last - 63, 1 << 63)]));
        map.shrink();
        assert_eq!(map.words().count(), 0);
        assert!(!map.cover(span));
        Ok(())
    }

    #[test]
    fn there_are_no_more_bitmaps_than_32() -> Result {
        let mut map = PageBitmaps::new(zeroed()?);
        for _ in 1..MAX_BITMAPS {
            assert!(map.add(zeroed()?).is_ok());
        }
        assert_eq!(map.len(), 32);
        assert!(map.add(zeroed()?).is_err());
        Ok(())
    }
}

#[kunit_tests(virtio_balloon_bmap_encoder)]
mod encoder {
    use crate::{
        abstractions::compat,
        bitmap::{
            PageBitmaps,
            PfnRange,
            WORDS_PER_BITMAP, //
        },
        resp_encoder::{
            response_header,
            Encoded,
            Encoder,
            Full, //
        },
    };
    use kernel::prelude::*;

    /// The example of docs/PROTOCOL.md: 134 pages from 0x3c on, page 0x12345, and 512 pages from
    /// 0x20000 on.
    #[rustfmt::skip]
    const EXAMPLE: [u8; 72] = [
        0x00, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xc0, 0x20,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xf0,
        0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x30, 0x01,
        0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0xc0, 0x20,
        0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x40, 0x23, 0x01, 0x00, 0x00, 0x00, 0xc0, 0x20,
        0x20, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x50, 0x01,
    ];

    #[test]
    fn the_example_of_the_protocol() -> Result {
        let pages = [(0x3c, 134), (0x12345, 1), (0x20000, 512)]
            .map(|(pfn, len)| PfnRange::block(pfn, len))
            .into_iter();
        let span = PfnRange::of(pages.clone()).ok_or(EINVAL)?;
        let mut map = PageBitmaps::new(compat::zeroed(WORDS_PER_BITMAP, GFP_KERNEL)?);
        map.mark(span, pages);

        let mut buf = compat::zeroed(1024, GFP_KERNEL)?;
        let mut encoder = Encoder::new(&mut buf);
        for (pfn, word) in map.words() {
            assert_eq!(encoder.push(pfn, word), Ok(()));
        }
        let encoded = encoder.finish();
        assert_eq!((encoded.runs, encoded.words), (2, 3));
        assert_eq!(
            EXAMPLE.split_at(8),
            (&response_header(64)[..], &buf[..encoded.len])
        );
        Ok(())
    }

    /// Whether a buffer begins with these words.
    fn begins_with(buf: &[u8], words: [u64; 2]) -> bool {
        let expected = words.map(u64::to_le_bytes);
        buf.chunks_exact(8).take(2).eq(expected.iter())
    }

    #[test]
    fn full_words_are_runs_the_largest_first() {
        let mut buf = [0; 1024];
        let mut encoder = Encoder::new(&mut buf);
        for word in 0..6 {
            assert_eq!(encoder.push(word * 64, u64::MAX), Ok(()));
        }
        assert_eq!(
            encoder.finish(),
            Encoded {
                len: 16,
                runs: 2,
                words: 0
            }
        );
        assert!(begins_with(&buf, [20 << 52, 256 | 19 << 52]));
    }

    #[test]
    fn two_stretches_share_a_grid() {
        let mut buf = [0; 1024];
        let mut encoder = Encoder::new(&mut buf);
        // A bit stands for 128 pages: three of them, a gap of one, and one.
        for word in [0, 1, 2, 3, 4, 5, 8, 9] {
            assert_eq!(encoder.push(word * 64, u64::MAX), Ok(()));
        }
        assert_eq!(
            encoder.finish(),
            Encoded {
                len: 16,
                runs: 0,
                words: 1
            }
        );
        assert!(begins_with(&buf, [19 << 52 | 8 << 58, 0b1_0111]));
    }

    #[test]
    fn seven_neighbours_share_a_head() {
        let mut buf = [0; 1024];
        let mut encoder = Encoder::new(&mut buf);
        for word in 0..8 {
            assert_eq!(encoder.push(word * 64, 1), Ok(()));
        }
        assert_eq!(
            encoder.finish(),
            Encoded {
                len: 64 + 16,
                runs: 0,
                words: 8
            }
        );
    }

    #[test]
    fn a_full_buffer_takes_nothing_more_and_loses_nothing() {
        // With the space that the encoder keeps in reserve, and no more.
        let mut buf = [0; 64 * 8];
        let mut encoder = Encoder::new(&mut buf);
        assert_eq!(encoder.push(0, 1), Ok(()));
        assert_eq!(encoder.push(1 << 20, 1), Ok(()));
        assert_eq!(encoder.push(1 << 21, 1), Err(Full));
        assert_eq!(encoder.push(1 << 21, 1), Err(Full));
        assert_eq!(
            encoder.finish(),
            Encoded {
                len: 32,
                runs: 0,
                words: 2
            }
        );
    }
}
