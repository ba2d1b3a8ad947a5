// SPDX-License-Identifier: GPL-2.0-only

//! The demonstration: a stock guest gives most of its memory back to the host and takes it again,
//! told by PFN arrays and then by page bitmaps.

mod table;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{bail, Context, Result};
use guest_tests::audit::logs;
use guest_tests::balloon::{Device, Features};
use guest_tests::kvm::best_accelerator;
use guest_tests::qemu::Machine;
use guest_tests::reclaim::Reclaim;
use guest_tests::vm::{Driver, Setup, Vm, Wire};
use guest_tests::{environment, MIB, PAGE_SIZE};
use table::{Leg, Traffic};

const GUEST_MIB: u64 = 2048;
const BALLOON_MIB: u64 = 1536;
/// MiB that stay with the guest beside its file. What it has just freed lies on its processors' own
/// lists, which hold up to 100 MiB here: neither available to a balloon nor drained for one.
const SPARE_MIB: u64 = 192;

fn main() -> ExitCode {
    match demonstrate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demonstrate() -> Result<()> {
    let features = Features {
        page_bitmap: true,
        ..Features::default()
    };
    let device = match std::env::args().nth(1).as_deref() {
        None | Some("daemon") => Device::Daemon(features),
        Some("qemu") => Device::NativeQemu(features),
        Some(other) => bail!("{other} is no device; there are daemon and qemu"),
    };
    println!("Looking for an accelerator");
    println!(
        "Guest: {GUEST_MIB} MiB, 2 processors, {}",
        best_accelerator()
    );
    let mut legs = Vec::new();
    let mut failures = Vec::new();
    for (wire, parameters, name) in [
        (Wire::PfnArray, "page_bitmap=0", "run/pfn-array"),
        (Wire::PageBitmaps, "page_bitmap=1", "run/page-bitmaps"),
    ] {
        let directory = environment::artefacts(name)?;
        let setup = Setup {
            machine: Machine {
                memory_mib: GUEST_MIB,
                ..Machine::default()
            },
            device,
            driver: Driver::Ours(parameters),
            wire,
            plugged: true,
        };
        let mut demonstration = Demonstration {
            wire,
            legs: &mut legs,
            failures: &mut failures,
        };
        demonstration
            .run(&setup, &directory)
            .with_context(|| wire.name())
            .inspect_err(|_| eprint!("{}", logs(&directory)))?;
    }
    println!("\n{}\n", table::render(&legs));
    if failures.is_empty() {
        println!("Host memory fell by what the balloon held, the guest's data is intact, its log is clean.");
        return Ok(());
    }
    bail!("\n  {}", failures.join("\n  "));
}

/// One guest, from boot to the end.
struct Demonstration<'a> {
    wire: Wire,
    legs: &'a mut Vec<Leg>,
    failures: &'a mut Vec<String>,
}

impl Demonstration<'_> {
    fn run(&mut self, setup: &Setup, directory: &Path) -> Result<()> {
        self.say(&format!(
            "booting a stock kernel; logs in {}",
            directory.display()
        ));
        let mut vm = Vm::boot(setup, directory)?;
        vm.load()?;

        self.say("filling the guest's memory, part of it with a file");
        let pages = BALLOON_MIB * MIB / PAGE_SIZE;
        let reclaim = Reclaim::prepare(&mut vm, pages, SPARE_MIB * MIB)?;

        self.say(&format!(
            "inflating to {BALLOON_MIB} MiB, around a file of {} MiB",
            reclaim.file_bytes() / MIB
        ));
        self.leg(&mut vm, "inflate", pages)?;
        let fell = reclaim.expect_host_fell(&mut vm);
        self.check("host memory", fell);
        self.say("comparing the file");
        let data = reclaim.expect_data(&mut vm);
        self.check("data while inflated", data);

        self.say("deflating");
        self.leg(&mut vm, "deflate", 0)?;
        let data = reclaim.expect_data(&mut vm);
        self.check("data after deflating", data);
        let end = vm.finish();
        self.check("end of the guest", end);
        Ok(())
    }

    /// Sends the balloon to a size and notes what that took.
    fn leg(&mut self, vm: &mut Vm, queue: &'static str, pages: u64) -> Result<()> {
        let traffic = Traffic::of(vm, queue)?;
        let host_before = vm.qemu.resident()?;
        let total_before = vm.guest.memory()?.total;
        let time = vm.reach(pages)?;
        self.legs.push(Leg {
            wire: self.wire.name(),
            queue,
            time,
            traffic: Traffic::of(vm, queue)?.since(&traffic)?,
            host_mib: (host_before / MIB, vm.qemu.resident()? / MIB),
            mem_total_mib: (
                total_before * PAGE_SIZE / MIB,
                vm.guest.memory()?.total * PAGE_SIZE / MIB,
            ),
        });
        Ok(())
    }

    fn check(&mut self, what: &str, result: Result<()>) {
        if let Err(error) = result {
            self.failures
                .push(format!("{}: {what}: {error:#}", self.wire.name()));
        }
    }

    fn say(&self, what: &str) {
        println!("{}: {what}", self.wire.name());
    }
}
