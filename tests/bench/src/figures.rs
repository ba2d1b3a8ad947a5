// SPDX-License-Identifier: GPL-2.0-only

//! What a record comes to: medians, per GiB and per page.

use guest_tests::{MIB, PAGE_SIZE};

use crate::plan::{State, Subject, UmlKernel, Zeroing};
use crate::record::{Leg, Record, Traffic, Way};
use crate::statistics::Summary;

/// Pages in a GiB.
const GIB_PAGES: f64 = (1024 * MIB / PAGE_SIZE) as f64;

/// A record, seen by what it says of a subject in a guest.
#[derive(Clone, Copy)]
pub struct Figures<'a>(pub &'a Record);

/// A subject, in a guest, one way.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub zeroing: Zeroing,
    pub state: State,
    pub subject: Subject,
    pub way: Way,
}

impl Figures<'_> {
    fn legs(&self, case: Case) -> impl Iterator<Item = &Leg> {
        self.0.legs.iter().filter(move |leg| {
            (leg.zeroing, leg.state, leg.subject, leg.way)
                == (case.zeroing, case.state, case.subject, case.way)
        })
    }

    fn of_legs(&self, case: Case, figure: impl Fn(&Leg) -> Option<f64>) -> Option<Summary> {
        Summary::of(self.legs(case).filter_map(figure))
    }

    /// Milliseconds per GiB.
    pub fn time(&self, case: Case) -> Option<Summary> {
        self.of_legs(case, |leg| {
            Some(leg.seconds * 1e3 / (leg.pages as f64 / GIB_PAGES))
        })
    }

    /// How many times the first takes of what the second takes.
    pub fn ratio(&self, slow: Case, fast: Case) -> Option<f64> {
        Some(self.time(slow)?.median / self.time(fast)?.median)
    }

    /// Bytes on the wire per GiB.
    pub fn bytes(&self, case: Case) -> Option<Summary> {
        self.of_legs(case, |leg| {
            Some(traffic(leg)?.bytes as f64 / (leg.pages as f64 / GIB_PAGES))
        })
    }

    /// Bytes on the wire per GiB of guest memory in which the balloon has pages.
    pub fn bytes_of_span(&self, case: Case) -> Option<Summary> {
        self.of_legs(case, |leg| {
            Some(traffic(leg)?.bytes as f64 / (leg.span_mib? as f64 / 1024.0))
        })
    }

    /// Notifications per GiB.
    pub fn notifications(&self, case: Case) -> Option<Summary> {
        self.of_legs(case, |leg| {
            Some(traffic(leg)?.notifications as f64 / (leg.pages as f64 / GIB_PAGES))
        })
    }

    /// MiB by which the guest's share of the host's memory rose above what it was at the start.
    pub fn rise(&self, case: Case) -> Option<Summary> {
        self.of_legs(case, |leg| {
            Some(leg.host_most.saturating_sub(leg.host_before) as f64 / MIB as f64)
        })
    }

    /// Instructions of the guest's kernel a page, and those of its modules among them, less what an idle guest
    /// executes.
    pub fn instructions(
        &self,
        state: State,
        subject: Subject,
        way: Way,
    ) -> Option<(Summary, Summary)> {
        let runs = || {
            self.0
                .instructions
                .iter()
                .filter(move |run| (run.state, run.subject, run.way) == (state, subject, way))
        };
        let net = |all: u64, idle: u64, pages: u64| (all as f64 - idle as f64) / pages as f64;
        Some((
            Summary::of(runs().map(|run| net(run.kernel, run.idle_kernel, run.pages)))?,
            Summary::of(runs().map(|run| net(run.modules, run.idle_modules, run.pages)))?,
        ))
    }

    /// The functions of the guest's kernel with most of the instructions, how many a page each has, and which part
    /// of all that is; none if nothing was counted.
    pub fn functions(&self, state: State, subject: Subject, way: Way) -> Vec<(&str, f64, f64)> {
        let mut runs = self.0.instructions.iter();
        let found = runs.find(|run| (run.state, run.subject, run.way) == (state, subject, way));
        found.map_or_else(Vec::new, |run| {
            let all = (run.kernel - run.idle_kernel) as f64;
            let functions = run.functions.iter();
            functions
                .map(|(name, count)| {
                    let count = *count as f64;
                    (&**name, count / run.pages as f64, count / all)
                })
                .collect()
        })
    }

    /// Instructions a page that an idle guest executes meanwhile.
    pub fn idle_instructions(&self, state: State, subject: Subject, way: Way) -> Option<Summary> {
        Summary::of(
            self.0
                .instructions
                .iter()
                .filter(|run| (run.state, run.subject, run.way) == (state, subject, way))
                .map(|run| run.idle_kernel as f64 / run.pages as f64),
        )
    }

    /// Milliseconds per GiB of the page allocator alone: to take, or to give back.
    pub fn allocator(&self, zeroing: Zeroing, order: u32, way: Way) -> Option<Summary> {
        Summary::of(
            self.0
                .allocations
                .iter()
                .filter(|run| (run.zeroing, run.order) == (zeroing, order))
                .map(|run| {
                    let ns = match way {
                        Way::Inflate => run.allocate_ns,
                        Way::Deflate => run.free_ns,
                    };
                    ns as f64 / 1e6 / (run.pages as f64 / GIB_PAGES)
                }),
        )
    }

    /// Milliseconds per GiB of a driver in User-mode Linux.
    pub fn native(&self, kernel: UmlKernel, driver: &str, way: Way) -> Option<Summary> {
        Summary::of(
            self.0
                .natives
                .iter()
                .filter(|run| (run.kernel, &*run.driver, run.way) == (kernel, driver, way))
                .map(|run| run.seconds * 1e3 / (run.pages as f64 / GIB_PAGES)),
        )
    }

    /// Milliseconds per GiB of the host's discard alone, and how many ranges there were.
    pub fn discard(&self, state: Option<State>) -> Option<(Summary, u64)> {
        let runs = || self.0.discards.iter().filter(|run| run.state == state);
        let summary = Summary::of(
            runs().map(|run| run.seconds * 1e3 / (run.bytes as f64 / (1024 * MIB) as f64)),
        )?;
        Some((summary, runs().next()?.ranges))
    }
}

/// What went over the wire: what the driver says it sent, or else what the device got. A device may get several
/// notifications as one.
fn traffic(leg: &Leg) -> Option<Traffic> {
    leg.driver.or(leg.device)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::record::{Allocation, Discard, Instructions, Native};
    use crate::uml;

    const CASE: Case = Case {
        zeroing: Zeroing::Off,
        state: State::Idle,
        subject: Subject::OursDaemon,
        way: Way::Inflate,
    };

    fn leg(case: Case, seconds: f64) -> Leg {
        let traffic = Traffic {
            messages: 10,
            bytes: 1024,
            notifications: 8,
        };
        Leg {
            zeroing: case.zeroing,
            round: 1,
            subject: case.subject,
            state: case.state,
            way: case.way,
            pages: 2 * 262_144,
            seconds,
            device: (case.subject != Subject::StockQemu).then_some(traffic),
            driver: (case.subject != Subject::StockQemu).then_some(traffic),
            host_before: 100 * MIB,
            host_most: 130 * MIB,
            host_after: 50 * MIB,
            span_mib: Some(4096),
        }
    }

    /// A record with the same figures in every guest.
    pub fn record() -> Record {
        let mut record = Record::default();
        for zeroing in Zeroing::ALL {
            for state in State::ALL {
                for way in Way::ALL {
                    for (subject, seconds) in
                        [(Subject::StockQemu, 4.0), (Subject::OursDaemon, 0.02)]
                    {
                        let case = Case {
                            zeroing,
                            state,
                            subject,
                            way,
                        };
                        record.legs.push(leg(case, seconds));
                        record.legs.push(leg(case, seconds * 2.0));
                        record.legs.push(leg(case, seconds * 3.0));
                    }
                }
            }
            record.allocations.push(Allocation {
                zeroing,
                round: 1,
                order: 9,
                pages: 2 * 262_144,
                allocate_ns: 4_000_000,
                free_ns: 6_000_000,
            });
        }
        record.discards.push(Discard {
            round: 1,
            state: Some(State::Touched),
            ranges: 3,
            bytes: 2048 * MIB,
            seconds: 0.03,
        });
        for (kernel, factor) in UmlKernel::ALL.into_iter().zip([1.0, 100.0, 3.0]) {
            for (driver, seconds) in uml::DRIVERS.into_iter().zip([1.0, 0.02]) {
                record.natives.extend(Way::ALL.map(|way| Native {
                    round: 1,
                    kernel,
                    driver: driver.name().into(),
                    way,
                    pages: 2 * 262_144,
                    seconds: seconds * factor,
                }));
            }
        }
        record.instructions.push(Instructions {
            subject: Subject::OursDaemon,
            state: State::Idle,
            way: Way::Inflate,
            repetition: 1,
            pages: 1000,
            kernel: 21_000,
            modules: 3_000,
            idle_kernel: 1_000,
            idle_modules: 0,
            functions: vec![("free".into(), 12_000), ("mark".into(), 3_000)],
        });
        record
    }

    #[test]
    fn figures_are_per_gib() {
        let record = record();
        let figures = Figures(&record);
        let time = figures.time(CASE).unwrap();
        assert_eq!((time.median, time.min, time.max), (20.0, 10.0, 30.0));
        let stock = Case {
            subject: Subject::StockQemu,
            ..CASE
        };
        assert_eq!(figures.ratio(stock, CASE).unwrap(), 200.0);
        assert_eq!(figures.bytes(CASE).unwrap().median, 512.0);
        assert_eq!(figures.bytes_of_span(CASE).unwrap().median, 256.0);
        assert_eq!(figures.notifications(CASE).unwrap().median, 4.0);
        assert_eq!(figures.bytes(stock), None);
        assert_eq!(figures.rise(CASE).unwrap().max, 30.0);
        let missing = Case {
            subject: Subject::VirtioMem,
            ..CASE
        };
        assert_eq!(figures.time(missing), None);
        assert_eq!(figures.ratio(missing, CASE), None);
    }

    #[test]
    fn floors_and_instructions_are_found() {
        let record = record();
        let figures = Figures(&record);
        let floor = |way| figures.allocator(Zeroing::Off, 9, way).unwrap().median;
        assert_eq!((floor(Way::Inflate), floor(Way::Deflate)), (2.0, 3.0));
        let (discard, ranges) = figures.discard(Some(State::Touched)).unwrap();
        assert_eq!((discard.median, ranges), (15.0, 3));
        assert!(figures.discard(None).is_none());
        let (kernel, modules) = figures
            .instructions(State::Idle, Subject::OursDaemon, Way::Inflate)
            .unwrap();
        assert_eq!((kernel.median, modules.median), (20.0, 3.0));
    }
}
