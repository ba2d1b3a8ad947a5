// SPDX-License-Identifier: GPL-2.0-only

//! What is measured: subjects, guests, and in which order.

use clap::ValueEnum;
use guest_tests::balloon::{Device, Features};
use guest_tests::qemu::Machine;
use guest_tests::vm::{Driver, Setup, Wire};
use serde::{Deserialize, Serialize};

/// A driver and a device.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// virtio_balloon on QEMU's device
    StockQemu,
    /// virtio_balloon on our device
    StockDaemon,
    /// virtio-mem on QEMU's device
    VirtioMem,
    /// Our driver on QEMU's device: PFN arrays
    OursQemu,
    /// Our driver on our device: page bitmaps
    OursDaemon,
    /// The same with block_order=0, as in the design of 2016
    OursSingle,
    /// virtio_balloon on the device of the QEMU of `make qemu`
    StockNative,
    /// Our driver on that device: PFN arrays
    PfnNative,
    /// Our driver on that device: page bitmaps
    BitmapNative,
}

impl Subject {
    /// All, in the order of the tables.
    pub const ALL: [Self; 9] = [
        Self::StockQemu,
        Self::StockDaemon,
        Self::VirtioMem,
        Self::OursQemu,
        Self::OursDaemon,
        Self::OursSingle,
        Self::StockNative,
        Self::PfnNative,
        Self::BitmapNative,
    ];

    /// Those with the distribution's QEMU, which are measured if nobody says otherwise.
    pub fn usual() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|subject| !subject.is_native())
    }

    /// Whether it is a subject of the QEMU of `make qemu`, of which only the messages differ.
    pub fn is_native(self) -> bool {
        matches!(
            self,
            Self::StockNative | Self::PfnNative | Self::BitmapNative
        )
    }

    /// What it is compared with: virtio_balloon on the device of the same QEMU.
    pub fn stock(self) -> Self {
        if self.is_native() {
            Self::StockNative
        } else {
            Self::StockQemu
        }
    }

    /// How tables name it.
    pub fn title(self) -> &'static str {
        match self {
            Self::StockQemu => "virtio_balloon, QEMU's device",
            Self::StockDaemon => "virtio_balloon, our device",
            Self::VirtioMem => "virtio_mem, QEMU's device",
            Self::OursQemu => "ours, QEMU's device (PFN array)",
            Self::OursDaemon => "ours, our device (bitmaps)",
            Self::OursSingle => "the same, block_order=0",
            Self::StockNative => "virtio_balloon, patched QEMU",
            Self::PfnNative => "ours, patched QEMU (PFN array)",
            Self::BitmapNative => "ours, patched QEMU (bitmaps)",
        }
    }

    /// The balloon in this machine; none where the subject is another kind of device.
    pub fn setup(self, machine: Machine) -> Option<Setup> {
        let qemu = Device::Qemu(Features::QEMU);
        let daemon = Device::daemon(true);
        let (device, driver, wire) = match self {
            Self::StockQemu => (qemu, Driver::Stock, Wire::PfnArray),
            Self::StockDaemon => (daemon, Driver::Stock, Wire::PfnArray),
            Self::VirtioMem => return None,
            Self::OursQemu => (qemu, Driver::Ours(""), Wire::PfnArray),
            Self::OursDaemon => (daemon, Driver::Ours(""), Wire::PageBitmaps),
            Self::OursSingle => (daemon, Driver::Ours("block_order=0"), Wire::PageBitmaps),
            Self::StockNative => (Device::native_qemu(true), Driver::Stock, Wire::PfnArray),
            Self::PfnNative => (Device::native_qemu(false), Driver::Ours(""), Wire::PfnArray),
            Self::BitmapNative => (
                Device::native_qemu(true),
                Driver::Ours(""),
                Wire::PageBitmaps,
            ),
        };
        Some(Setup {
            machine,
            device,
            driver,
            wire,
            plugged: true,
        })
    }
}

/// What the guest's memory is like before a balloon is inflated.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Never used, or given back to the host since
    Idle,
    /// Used and freed: the host has it all
    Touched,
    /// Every other page of most of it in use
    Scattered,
}

impl State {
    /// All, in the order in which one guest goes through them.
    pub const ALL: [Self; 3] = [Self::Idle, Self::Touched, Self::Scattered];

    /// How tables name it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Touched => "touched",
            Self::Scattered => "scattered",
        }
    }
}

/// Whether the guest's kernel zeroes each page that it allocates.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Zeroing {
    /// init_on_alloc=0
    Off,
    /// As the distribution configured it, which is to zero
    Default,
}

impl Zeroing {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Off, Self::Default];

    /// How tables name it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Off => "init_on_alloc=0",
            Self::Default => "distribution default (zeroing)",
        }
    }

    /// The word for the kernel's command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "init_on_alloc=0",
            Self::Default => "",
        }
    }
}

/// What User-mode Linux does about the pages that it allocates.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UmlKernel {
    /// Nothing: init_on_alloc=0
    Plain,
    /// Zeroes all
    Zeroing,
    /// Zeroes all but those for a balloon: patches/linux
    Patched,
}

impl UmlKernel {
    /// All.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Zeroing, Self::Patched];

    /// How tables name it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Plain => "init_on_alloc=0",
            Self::Zeroing => "init_on_alloc=1",
            Self::Patched => "the same, patches/linux",
        }
    }

    /// The word for its command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Plain => "init_on_alloc=0",
            Self::Zeroing | Self::Patched => "init_on_alloc=1",
        }
    }
}

/// A kind of measurement.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Seconds, bytes, notifications and the host's memory
    Times,
    /// The floor in the guest: the page allocator alone
    Allocator,
    /// The floor in the host: discarding alone
    Discard,
    /// Instructions of the guest's kernel a page
    Instructions,
    /// Both drivers in User-mode Linux
    Uml,
}

impl Part {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::Times,
        Self::Allocator,
        Self::Discard,
        Self::Instructions,
        Self::Uml,
    ];
}

/// One guest, or one look at the host.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "part")]
pub enum Job {
    Times {
        zeroing: Zeroing,
        round: u32,
        subject: Subject,
    },
    Allocator {
        zeroing: Zeroing,
        round: u32,
    },
    Discard {
        round: u32,
    },
    Instructions {
        subject: Subject,
    },
    Uml {
        round: u32,
    },
}

impl Job {
    /// What is being done, for a person who waits.
    pub fn title(self) -> String {
        match self {
            Self::Times {
                zeroing,
                round,
                subject,
            } => format!("round {round}, {}: {}", zeroing.title(), subject.title()),
            Self::Allocator { zeroing, round } => {
                format!("round {round}, {}: the allocator alone", zeroing.title())
            }
            Self::Discard { round } => format!("round {round}: the host's discard alone"),
            Self::Instructions { subject } => format!("instructions: {}", subject.title()),
            Self::Uml { round } => format!("round {round}: User-mode Linux"),
        }
    }

    /// A name for the directory of its logs.
    pub fn directory(self) -> String {
        match self {
            Self::Times {
                zeroing,
                round,
                subject,
            } => format!("times-{zeroing:?}-{round}-{subject:?}"),
            Self::Allocator { zeroing, round } => format!("allocator-{zeroing:?}-{round}"),
            Self::Discard { round } => format!("discard-{round}"),
            Self::Instructions { subject } => format!("instructions-{subject:?}"),
            Self::Uml { round } => format!("uml-{round}"),
        }
        .to_lowercase()
    }
}

/// All that is to be done. Rounds are interleaved: what disturbs the machine for a while meets all alike. The QEMU of
/// `make qemu` has no plugins to count instructions.
pub fn jobs(parts: &[Part], zeroings: &[Zeroing], subjects: &[Subject], runs: u32) -> Vec<Job> {
    let mut jobs = Vec::new();
    for round in 1..=runs {
        for &zeroing in zeroings {
            if parts.contains(&Part::Times) {
                jobs.extend(subjects.iter().map(|&subject| Job::Times {
                    zeroing,
                    round,
                    subject,
                }));
            }
            if parts.contains(&Part::Allocator) {
                jobs.push(Job::Allocator { zeroing, round });
            }
        }
        if parts.contains(&Part::Discard) {
            jobs.push(Job::Discard { round });
        }
        if parts.contains(&Part::Uml) {
            jobs.push(Job::Uml { round });
        }
    }
    if parts.contains(&Part::Instructions) {
        jobs.extend(
            subjects
                .iter()
                .filter(|subject| !subject.is_native())
                .map(|&subject| Job::Instructions { subject }),
        );
    }
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_has_every_subject_before_the_next_begins() {
        let subjects = [Subject::StockQemu, Subject::OursDaemon];
        let jobs = jobs(&Part::ALL, &[Zeroing::Off], &subjects, 2);
        let times = |round, subject| Job::Times {
            zeroing: Zeroing::Off,
            round,
            subject,
        };
        let allocator = |round| Job::Allocator {
            zeroing: Zeroing::Off,
            round,
        };
        assert_eq!(
            jobs,
            [
                times(1, Subject::StockQemu),
                times(1, Subject::OursDaemon),
                allocator(1),
                Job::Discard { round: 1 },
                Job::Uml { round: 1 },
                times(2, Subject::StockQemu),
                times(2, Subject::OursDaemon),
                allocator(2),
                Job::Discard { round: 2 },
                Job::Uml { round: 2 },
                Job::Instructions {
                    subject: Subject::StockQemu
                },
                Job::Instructions {
                    subject: Subject::OursDaemon
                },
            ]
        );
    }

    #[test]
    fn the_patched_qemu_is_measured_on_request_and_counts_no_instructions() {
        assert!(Subject::usual().all(|subject| subject.stock() == Subject::StockQemu));
        let natives: Vec<_> = Subject::ALL
            .into_iter()
            .filter(|subject| !Subject::usual().any(|usual| usual == *subject))
            .collect();
        assert_eq!(natives.len(), 3);
        assert!(natives
            .iter()
            .all(|subject| subject.stock() == Subject::StockNative));
        assert!(jobs(&[Part::Instructions], &[], &natives, 1).is_empty());
    }
}
