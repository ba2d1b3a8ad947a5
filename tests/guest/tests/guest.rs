// SPDX-License-Identifier: GPL-2.0-only

//! The guest tests: each scenario against each pair of driver and device is a trial of its own,
//! named `CONFIGURATION::SCENARIO`, with its logs under `build/guest-tests/CONFIGURATION/SCENARIO`.

mod scenarios;

use std::path::Path;
use std::thread::available_parallelism;

use anyhow::Result;
use guest_tests::audit::logs;
use guest_tests::balloon::{Device, Features};
use guest_tests::environment::{self, Kernel};
use guest_tests::kvm::best_accelerator;
use guest_tests::qemu::Machine;
use guest_tests::vm::{Driver, Setup, Wire};
use libtest_mimic::{Arguments, Failed, Trial};
use scenarios::{
    floor, fragmented, hibernation, hinting, hot_unplug, hotplug, interrupts, kexec, lifecycle,
    memory_map, migration, observation, oom, parameters, reclaim, reload, reporting, silence,
    statistics, stress, targets, transfer, two_devices, wakeup,
};

/// Boots a guest, proves something, and ends with [`guest_tests::vm::Vm::finish`].
type Scenario = fn(Setup, &Path) -> Result<()>;

/// What every pair of driver and device must stand.
const EVERYWHERE: &[(&str, Scenario)] = &[
    ("targets", targets::targets),
    ("reclaim", reclaim::reclaim),
    ("fragmented", fragmented::fragmented),
    ("compaction", fragmented::compaction),
    ("rebind", reload::rebind),
    ("retarget", transfer::retarget),
    ("stop_cont", transfer::stop_cont),
    ("hotplug", hotplug::hotplug),
    ("reset", lifecycle::reset),
    ("suspend", lifecycle::suspend),
    ("hibernation", hibernation::hibernation),
    ("kexec", kexec::kexec),
    (
        "poweroff_while_inflating",
        lifecycle::poweroff_while_inflating,
    ),
];

/// What a module must stand besides.
const MODULE: &[(&str, Scenario)] = &[
    ("reload", reload::reload),
    ("rmmod_while_inflating", reload::rmmod_while_inflating),
];

/// What only the daemon can show: it acknowledges at its own time, as QEMU's balloon never does.
const DAEMON: &[(&str, Scenario)] = &[
    ("interrupts_elsewhere", interrupts::interrupts_elsewhere),
    ("next_guest", lifecycle::next_guest),
    ("stress", stress::stress),
    ("high_memory", memory_map::high_memory),
    ("wide_span", memory_map::wide_span),
    ("movable_memory", memory_map::movable_memory),
];

/// A device that does not answer, which only the daemon can be. How messages look does not matter.
const SILENCE: &[(&str, Scenario)] = &[("silence", silence::silence)];

/// The heart of it, for configurations that differ from another in one thing.
const CORE: &[(&str, Scenario)] = &[
    ("targets", targets::targets),
    ("reclaim", reclaim::reclaim),
    ("reload", reload::reload),
];

/// What is not about the balloon's pages, and which both drivers do alike.
const COMMON: &[(&str, Scenario)] = &[
    ("oom_without_relief", oom::oom_without_relief),
    ("wakeup", wakeup::wakeup),
];

/// What only the project's driver shows.
const OURS: &[(&str, Scenario)] = &[
    ("observation", observation::observation),
    ("bound", reclaim::bound),
    ("hot_unplug", hot_unplug::hot_unplug),
];

/// What a device with all features is for.
const PARITY: &[(&str, Scenario)] = &[
    ("targets", targets::targets),
    ("statistics", statistics::statistics),
    ("oom", oom::oom),
    ("oom_without_relief", oom::oom_without_relief),
    ("parameters", parameters::parameters),
    ("floor", floor::floor),
    ("reporting", reporting::reporting),
    ("poison", reporting::poison),
    ("observation", observation::observation),
    ("suspend", lifecycle::suspend),
    ("reset", lifecycle::reset),
];

/// What only QEMU's device can do: the daemon's does not migrate.
const MIGRATION: &[(&str, Scenario)] = &[("migration", migration::migration)];

/// What QEMU's device does in a migration if it may.
const HINTING: &[(&str, Scenario)] = &[
    ("hinting", hinting::hinting),
    ("hinting_under_pressure", hinting::hinting_under_pressure),
];

/// What it is to run out of memory with either driver.
const SURVIVAL: &[(&str, Scenario)] = &[("oom_survival", oom::oom_survival)];

/// What shows that QEMU reads page bitmaps as the daemon does.
const NATIVE: &[(&str, Scenario)] = &[
    ("targets", targets::targets),
    ("reclaim", reclaim::reclaim),
    ("fragmented", fragmented::fragmented),
    ("compaction", fragmented::compaction),
    ("reload", reload::reload),
    ("retarget", transfer::retarget),
    ("stop_cont", transfer::stop_cont),
    ("reset", lifecycle::reset),
    ("suspend", lifecycle::suspend),
    ("bound", reclaim::bound),
];

/// Two devices of different makers.
const TWO: &[(&str, Scenario)] = &[("two_devices", two_devices::two_devices)];

/// What shows that pages move and come back, and migrate, and that the module can go.
const MOVES: &[(&str, Scenario)] = &[
    ("retarget", transfer::retarget),
    ("compaction", fragmented::compaction),
    ("reload", reload::reload),
];

/// What shows what goes on beside.
const BESIDE: &[(&str, Scenario)] = &[
    ("statistics", statistics::statistics),
    ("oom", oom::oom),
    ("reporting", reporting::reporting),
    ("observation", observation::observation),
];

/// What goes differently with blocks of another size.
const BLOCKS: &[(&str, Scenario)] = &[
    ("targets", targets::targets),
    ("fragmented", fragmented::fragmented),
    ("retarget", transfer::retarget),
];

/// What the size of blocks shows in, of what goes on beside.
const PRESSURE: &[(&str, Scenario)] = &[
    ("oom", oom::oom),
    ("oom_without_relief", oom::oom_without_relief),
    ("floor", floor::floor),
    ("bound", reclaim::bound),
];

/// Without memory for the first bitmap.
const FAULTS: &[(&str, Scenario)] = &[
    ("dropped_feature", reload::dropped_feature),
    ("targets", targets::targets),
];

/// Where one bitmap does not reach.
const SPANS: &[(&str, Scenario)] = &[
    ("high_memory", memory_map::high_memory),
    ("wide_span", memory_map::wide_span),
];

fn main() -> Result<()> {
    let kernel = environment::kernel_kind()?;
    let mut arguments = Arguments::from_args();
    // A guest has two processors, but seldom uses both.
    let processors = available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(processors);
    if !arguments.list {
        println!("guests run under {}", best_accelerator());
    }
    libtest_mimic::run(&arguments, trials(kernel)).exit();
}

fn trials(kernel: Kernel) -> Vec<Trial> {
    let qemu = Device::Qemu(Features::QEMU);
    let (all_of_qemu, all_of_daemon) = (Device::Qemu(Features::ALL), Device::Daemon(Features::ALL));
    let (bitmaps, pfns) = (Wire::PageBitmaps, Wire::PfnArray);
    let mut trials = Vec::new();
    let mut add = |name, driver, device, wire, scenarios: &[&[(&'static str, Scenario)]]| {
        let setup = Setup {
            machine: Machine::default(),
            device,
            driver,
            wire,
            plugged: true,
        };
        trials.extend(
            scenarios
                .concat()
                .into_iter()
                .map(|(scenario, run)| trial(format!("{name}::{scenario}"), setup.clone(), run)),
        );
    };
    if kernel == Kernel::BuiltIn {
        let driver = Driver::BuiltIn;
        let all = &[EVERYWHERE, DAEMON, OURS];
        add("bitmap", driver, Device::daemon(true), bitmaps, all);
        add("pfn_qemu", driver, qemu, pfns, &[EVERYWHERE, OURS]);
        add("all_qemu", driver, all_of_qemu, pfns, &[PARITY]);
        return trials;
    }
    let ours = Driver::Ours("");
    if environment::short() {
        add("bitmap", ours, Device::daemon(true), bitmaps, &[MOVES]);
        add("all_qemu", ours, all_of_qemu, pfns, &[BESIDE]);
        return trials;
    }
    add(
        "bitmap",
        ours,
        Device::daemon(true),
        bitmaps,
        &[EVERYWHERE, MODULE, DAEMON, SILENCE, COMMON, OURS, TWO],
    );
    add(
        "bitmap_must_tell_host",
        ours,
        Device::daemon_to_be_told(true),
        bitmaps,
        &[CORE],
    );
    let all = &[EVERYWHERE, MODULE, COMMON, OURS, MIGRATION];
    add("pfn_qemu", ours, qemu, pfns, all);
    add("all_qemu", ours, all_of_qemu, pfns, &[PARITY, HINTING]);
    add("all_device", ours, all_of_daemon, bitmaps, &[PARITY]);
    if environment::native_qemu().is_ok() {
        let all = Device::NativeQemu(Features::ALL);
        let scenarios = &[NATIVE, MIGRATION];
        add(
            "bitmap_native",
            ours,
            Device::native_qemu(true),
            bitmaps,
            scenarios,
        );
        add("all_native", ours, all, bitmaps, &[BESIDE, HINTING]);
        // Only one side knows the bitmaps.
        add(
            "pfn_native",
            ours,
            Device::native_qemu(false),
            pfns,
            &[CORE],
        );
        if kernel == Kernel::Distribution {
            add(
                "stock_native",
                Driver::Stock,
                Device::native_qemu(true),
                pfns,
                &[CORE],
            );
        }
    }
    add(
        "pfn_device",
        ours,
        Device::daemon(false),
        pfns,
        &[EVERYWHERE, MODULE, DAEMON, OURS],
    );
    add(
        "pfn_device_must_tell_host",
        ours,
        Device::daemon_to_be_told(false),
        pfns,
        &[CORE],
    );
    add(
        "pfn_parameter",
        Driver::Ours("page_bitmap=0"),
        Device::daemon(true),
        pfns,
        &[CORE],
    );
    let single = Driver::Ours("block_order=0");
    if environment::long() {
        let all = &[EVERYWHERE, MODULE, DAEMON];
        add("single_pages", single, Device::daemon(true), bitmaps, all);
        let pressure = &[PRESSURE];
        add("all_single_pages", single, all_of_daemon, bitmaps, pressure);
    } else {
        add(
            "single_pages",
            single,
            Device::daemon(true),
            bitmaps,
            &[BLOCKS],
        );
    }
    for (name, parameter) in [
        ("small_blocks", "block_order=4"),
        ("huge_pages", "block_order=9"),
    ] {
        let driver = Driver::Ours(parameter);
        add(name, driver, Device::daemon(true), bitmaps, &[BLOCKS]);
    }
    add(
        "no_first_bitmap",
        Driver::Faulty("first_bitmap"),
        Device::daemon(true),
        pfns,
        &[FAULTS],
    );
    add(
        "no_further_bitmap",
        Driver::Faulty("more_bitmaps"),
        Device::daemon(true),
        bitmaps,
        &[SPANS],
    );
    if kernel != Kernel::Distribution {
        return trials;
    }
    // The device is a balloon by itself, and the harness right, when the distribution's driver says so.
    let stock = Driver::Stock;
    add("stock_device", stock, Device::daemon(true), pfns, &[CORE]);
    if environment::long() {
        let all = &[EVERYWHERE, MODULE, COMMON, MIGRATION];
        add("stock_qemu", stock, qemu, pfns, all);
        add(
            "stock_all_qemu",
            stock,
            all_of_qemu,
            pfns,
            &[HINTING, SURVIVAL],
        );
        add("all_qemu", ours, all_of_qemu, pfns, &[SURVIVAL]);
    } else {
        add("stock_qemu", stock, qemu, pfns, &[CORE, COMMON]);
    }
    trials
}

fn trial(name: String, setup: Setup, scenario: Scenario) -> Trial {
    Trial::test(name.clone(), move || {
        let directory =
            environment::artefacts(&name).map_err(|error| Failed::from(format!("{error:#}")))?;
        scenario(setup, &directory)
            .map_err(|error| Failed::from(format!("{error:#}\n{}", logs(&directory))))
    })
}
