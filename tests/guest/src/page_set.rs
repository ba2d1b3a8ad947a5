// SPDX-License-Identifier: GPL-2.0-only

//! Sets of page numbers, as ranges.

use serde::{Deserialize, Serialize};

/// Page numbers as ranges in ascending order, of which no two touch.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct PageSet {
    /// The first page of each range, and how many there are.
    ranges: Vec<(u64, u64)>,
}

impl PageSet {
    /// Adds pages that all come after those of the set.
    pub fn push(&mut self, start: u64, pages: u64) {
        match self.ranges.last_mut() {
            Some((last, length)) if *last + *length == start => *length += pages,
            _ => self.ranges.push((start, pages)),
        }
    }

    /// How many ranges there are.
    pub fn ranges(&self) -> usize {
        self.ranges.len()
    }

    /// The ranges: the first page of each, and how many there are.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().copied()
    }

    /// How many pages there are.
    pub fn pages(&self) -> u64 {
        self.ranges.iter().map(|range| range.1).sum()
    }

    /// The first `ranges` ranges, for a person to read.
    pub fn beginning(&self, ranges: usize) -> String {
        let shown = &self.ranges[..ranges.min(self.ranges.len())];
        format!("{} pages {shown:?}", self.pages())
    }

    /// The pages that are not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = Self::default();
        let mut others = other.ranges.iter().copied().peekable();
        for &(start, pages) in &self.ranges {
            let (mut next, end) = (start, start + pages);
            while next < end {
                // Those that end before `next` are of no use any more.
                while others.next_if(|other| other.0 + other.1 <= next).is_some() {}
                let (from, to) = others
                    .peek()
                    .map_or((end, end), |&(start, pages)| (start, start + pages));
                if next < from.min(end) {
                    rest.push(next, from.min(end) - next);
                }
                next = to.max(next).min(end);
            }
        }
        rest
    }
}

/// Ranges that all come after those of the set, in ascending order.
impl Extend<(u64, u64)> for PageSet {
    fn extend<I: IntoIterator<Item = (u64, u64)>>(&mut self, ranges: I) {
        for (start, pages) in ranges {
            self.push(start, pages);
        }
    }
}

/// Ranges in ascending order.
impl FromIterator<(u64, u64)> for PageSet {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(ranges: I) -> Self {
        let mut set = Self::default();
        set.extend(ranges);
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u64, u64)]) -> PageSet {
        ranges.iter().copied().collect()
    }

    #[test]
    fn neighbours_become_one_range() {
        let mut pages = set(&[(3, 2), (5, 1), (9, 1)]);
        assert_eq!(pages, set(&[(3, 3), (9, 1)]));
        assert_eq!((pages.ranges(), pages.pages()), (2, 4));
        pages.extend([(10, 5), (20, 1)]);
        assert_eq!(pages, set(&[(3, 3), (9, 6), (20, 1)]));
    }

    #[test]
    fn what_only_one_has_is_found() {
        let full = set(&[(10, 10)]);
        for (other, rest) in [
            (set(&[]), set(&[(10, 10)])),
            (set(&[(0, 10), (20, 5)]), set(&[(10, 10)])),
            (set(&[(0, 12), (18, 50)]), set(&[(12, 6)])),
            (
                set(&[(11, 1), (13, 2), (16, 1)]),
                set(&[(10, 1), (12, 1), (15, 1), (17, 3)]),
            ),
            (set(&[(0, 100)]), set(&[])),
        ] {
            assert_eq!(full.without(&other), rest, "without {other:?}");
        }
        let many = set(&[(0, 2), (4, 2), (8, 2)]);
        assert_eq!(
            many.without(&set(&[(1, 4), (9, 1)])),
            set(&[(0, 1), (5, 1), (8, 1)])
        );
        assert_eq!(many.without(&many), set(&[]));
    }
}
