// SPDX-License-Identifier: GPL-2.0-only

//! Medians and spreads of few figures.

/// What is left of the runs of one figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The one in the middle, or half way between the two.
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub runs: usize,
}

impl Summary {
    /// Of these figures; none of none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let runs = figures.len();
        let (&min, &max) = (figures.first()?, figures.last()?);
        let median = (figures[(runs - 1) / 2] + figures[runs / 2]) / 2.0;
        Some(Self {
            median,
            min,
            max,
            runs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        let odd = Summary::of([9.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.median, odd.min, odd.max, odd.runs), (2.0, 1.0, 9.0, 3));
        assert_eq!(Summary::of([4.0, 1.0, 2.0, 100.0]).unwrap().median, 3.0);
        assert_eq!(Summary::of([5.0]).unwrap().median, 5.0);
        assert_eq!(Summary::of([]), None);
    }
}
