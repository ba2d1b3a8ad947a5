// SPDX-License-Identifier: GPL-2.0-only

//! What is to be reached, and whether it is.

use guest_tests::vm::Driver;

use crate::figures::{Case, Figures};
use crate::plan::{State, Subject, UmlKernel, Zeroing};
use crate::record::Way;

/// One aim.
#[derive(Clone, Debug)]
pub struct Row {
    pub guest: &'static str,
    pub measure: &'static str,
    pub bound: Bound,
    pub measured: Option<f64>,
}

/// On which side of a figure to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Row {
    /// Whether it is reached, where it was measured.
    pub fn is_reached(&self) -> Option<bool> {
        let measured = self.measured?;
        Some(match self.bound {
            Bound::AtLeast(bound) => measured >= bound,
            Bound::AtMost(bound) => measured <= bound,
        })
    }
}

/// All aims. Of two figures for one aim the worse counts.
pub fn rows(figures: Figures) -> Vec<Row> {
    use Bound::{AtLeast, AtMost};
    use Subject::{OursDaemon, OursQemu, OursSingle, StockQemu};
    use Way::{Deflate, Inflate};

    let case = |zeroing, state, subject, way| Case {
        zeroing,
        state,
        subject,
        way,
    };
    let idle = |subject, way| case(Zeroing::Off, State::Idle, subject, way);
    let faster = |subject, way| figures.ratio(idle(StockQemu, way), idle(subject, way));
    let instructions = |state, subject, way| {
        let (kernel, _) = figures.instructions(state, subject, way)?;
        Some(kernel.median)
    };
    let zeroed = case(Zeroing::Default, State::Idle, OursDaemon, Inflate);
    let touched = case(Zeroing::Off, State::Touched, OursDaemon, Inflate);
    let scattered = case(Zeroing::Off, State::Scattered, OursDaemon, Inflate);
    let of_stock = |way| {
        let of = |subject| instructions(State::Scattered, subject, way);
        Some(of(OursDaemon)? / of(StockQemu)?)
    };
    let over = |case, floor: Option<f64>| Some(figures.time(case)?.median / floor?);
    let least =
        |figures: &mut dyn Iterator<Item = Option<f64>>| figures.flatten().min_by(f64::total_cmp);
    let worst =
        |figures: &mut dyn Iterator<Item = Option<f64>>| figures.flatten().max_by(f64::total_cmp);

    vec![
        Row {
            guest: "idle, init_on_alloc=0",
            measure: "inflate, times faster than virtio_balloon on QEMU's device",
            bound: AtLeast(150.0),
            measured: faster(OursDaemon, Inflate),
        },
        Row {
            guest: "the same",
            measure: "deflate, the same",
            bound: AtLeast(100.0),
            measured: faster(OursDaemon, Deflate),
        },
        Row {
            guest: "the same",
            measure: "kernel instructions a page, inflate",
            bound: AtMost(20.0),
            measured: instructions(State::Idle, OursDaemon, Inflate),
        },
        Row {
            guest: "the same",
            measure: "kernel instructions a page, deflate",
            bound: AtMost(20.0),
            measured: instructions(State::Idle, OursDaemon, Deflate),
        },
        Row {
            guest: "the same, block_order=0",
            measure: "inflate, times faster",
            bound: AtLeast(7.0),
            measured: faster(OursSingle, Inflate),
        },
        Row {
            guest: "idle, distribution default",
            measure: "inflate, times the allocator at order 9 with zeroing",
            bound: AtMost(1.1),
            measured: over(
                zeroed,
                figures
                    .allocator(Zeroing::Default, 9, Inflate)
                    .map(|floor| floor.median),
            ),
        },
        Row {
            guest: "touched, init_on_alloc=0",
            measure: "inflate, times the host's discard of the same ranges",
            bound: AtMost(1.3),
            measured: over(
                touched,
                figures
                    .discard(Some(State::Touched))
                    .map(|(floor, _)| floor.median),
            ),
        },
        Row {
            guest: "scattered",
            measure: "kernel instructions a page, inflate, of virtio_balloon's",
            bound: AtMost(1.0 / 3.0),
            measured: of_stock(Inflate),
        },
        Row {
            guest: "the same",
            measure: "kernel instructions a page, deflate, of virtio_balloon's",
            bound: AtMost(1.0 / 3.0),
            measured: of_stock(Deflate),
        },
        Row {
            guest: "the same",
            measure: "KiB on the wire per GiB of span",
            bound: AtMost(40.0),
            measured: figures
                .bytes_of_span(scattered)
                .map(|bytes| bytes.median / 1024.0),
        },
        Row {
            guest: "idle",
            measure: "bytes per GiB; the worse of both ways",
            bound: AtMost(512.0),
            measured: worst(
                &mut Way::ALL
                    .into_iter()
                    .map(|way| Some(figures.bytes(idle(OursDaemon, way))?.median)),
            ),
        },
        Row {
            guest: "idle",
            measure: "notifications per GiB; the worse of both ways",
            bound: AtMost(16.0),
            measured: worst(
                &mut Way::ALL
                    .into_iter()
                    .map(|way| Some(figures.notifications(idle(OursDaemon, way))?.median)),
            ),
        },
        Row {
            guest: "any",
            measure: "MiB that the host's memory rises while inflating, at most",
            bound: AtMost(256.0),
            measured: worst(&mut Zeroing::ALL.into_iter().flat_map(|zeroing| {
                State::ALL.into_iter().flat_map(move |state| {
                    [OursDaemon, OursSingle, OursQemu].map(|subject| {
                        Some(figures.rise(case(zeroing, state, subject, Inflate))?.max)
                    })
                })
            })),
        },
        Row {
            guest: "idle, QEMU's own device",
            measure: "inflate by PFN arrays, times faster than virtio_balloon",
            bound: AtLeast(2.0),
            measured: faster(OursQemu, Inflate),
        },
        Row {
            guest: "User-mode Linux",
            measure: "times faster than virtio_balloon; the worse of both ways",
            bound: AtLeast(20.0),
            measured: least(&mut Way::ALL.into_iter().map(|way| {
                let time = |driver: Driver| {
                    Some(figures.native(UmlKernel::Plain, driver.name(), way)?.median)
                };
                Some(time(Driver::Stock)? / time(Driver::BuiltIn)?)
            })),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::record;

    #[test]
    fn what_is_measured_is_judged_and_what_is_not_is_left_open() {
        let record = record();
        let rows = rows(Figures(&record));
        let find = |measure: &str| {
            rows.iter()
                .find(|row| row.measure.contains(measure))
                .unwrap_or_else(|| panic!("no {measure}"))
        };
        let inflate = &rows[0];
        assert_eq!(
            (inflate.measured, inflate.is_reached()),
            (Some(200.0), Some(true))
        );
        assert_eq!(find("a page, inflate").is_reached(), Some(true));
        assert_eq!(find("a page, deflate").is_reached(), None);
        let zeroed = find("with zeroing");
        assert_eq!(
            (zeroed.measured, zeroed.is_reached()),
            (Some(10.0), Some(false))
        );
        assert_eq!(find("of span").measured, Some(0.25));
        assert_eq!(find("bytes per GiB").measured, Some(512.0));
        assert_eq!(find("bytes per GiB").is_reached(), Some(true));
        assert_eq!(find("MiB that the host").measured, Some(30.0));
        let native = rows.last().unwrap();
        assert_eq!(
            (native.guest, native.measured),
            ("User-mode Linux", Some(50.0))
        );
    }
}
