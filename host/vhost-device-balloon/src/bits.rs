// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bitmap words as stretches of ones.

/// The stretches of ones in `bits`, from the lowest on: where each begins, and its length.
pub fn stretches(bits: u64) -> impl Iterator<Item = (u32, u32)> {
    let mut rest = bits;
    let mut at = 0;
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let skip = rest.trailing_zeros();
        rest >>= skip;
        let ones = rest.trailing_ones();
        rest = rest.checked_shr(ones).unwrap_or(0);
        let start = at + skip;
        at = start + ones;
        Some((start, ones))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_go_from_one_zero_to_the_next() {
        let all = |bits| stretches(bits).collect::<Vec<_>>();
        assert_eq!(all(0), []);
        assert_eq!(all(u64::MAX), [(0, 64)]);
        assert_eq!(all(1 | (0b110 << 61)), [(0, 1), (62, 2)]);
        assert_eq!(all(0b0111_0110), [(1, 2), (4, 3)]);
    }
}
