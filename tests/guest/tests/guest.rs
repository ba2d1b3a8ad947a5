// SPDX-License-Identifier: GPL-2.0-only

//! The guest tests: each scenario against each pair of driver and device is a trial of its own,
//! named `CONFIGURATION::SCENARIO`. Its logs are under `build/guest-tests/CONFIGURATION/SCENARIO`, or
//! where those are of the scenario that booted the guest they share.

mod groups;
mod scenarios;

use std::process::ExitCode;
use std::thread::available_parallelism;

use anyhow::Result;
use groups::Group;
use groups::Scenario::{self, Alone, Last, Shared};
use guest_tests::balloon::{Device, Features};
use guest_tests::boots;
use guest_tests::environment::{self, Kernel};
use guest_tests::kvm::best_accelerator;
use guest_tests::qemu::Machine;
use guest_tests::vm::{Driver, Setup, Wire};
use libtest_mimic::Arguments;
use scenarios::{
    floor, fragmented, hibernation, hinting, hot_unplug, hotplug, interrupts, kexec, lifecycle,
    memory_map, migration, observation, oom, open_file, parameters, pauses, reclaim, reload,
    reporting, silence, statistics, stress, targets, transfer, two_devices, wakeup,
};

/// What every pair of driver and device must stand.
const EVERYWHERE: &[(&str, Scenario)] = &[
    ("targets", Shared(targets::targets)),
    ("reclaim", Shared(reclaim::reclaim)),
    ("fragmented", Shared(fragmented::fragmented)),
    ("compaction", Shared(fragmented::compaction)),
    ("rebind", Shared(reload::rebind)),
    ("retarget", Shared(transfer::retarget)),
    ("stop_cont", Shared(transfer::stop_cont)),
    ("hotplug", Alone(hotplug::hotplug)),
    ("suspend", Shared(lifecycle::suspend)),
    ("reset", Shared(lifecycle::reset)),
    ("hibernation", Alone(hibernation::hibernation)),
    ("kexec", Alone(kexec::kexec)),
    (
        "poweroff_while_inflating",
        Last(lifecycle::poweroff_while_inflating),
    ),
];

/// What a module must stand besides.
const MODULE: &[(&str, Scenario)] = &[
    ("reload", Shared(reload::reload)),
    (
        "rmmod_while_inflating",
        Shared(reload::rmmod_while_inflating),
    ),
];

/// What only the daemon can show: it acknowledges at its own time, as QEMU's balloon never does.
const DAEMON: &[(&str, Scenario)] = &[
    (
        "interrupts_elsewhere",
        Shared(interrupts::interrupts_elsewhere),
    ),
    ("next_guest", Alone(lifecycle::next_guest)),
    ("stress", Shared(stress::stress)),
    ("high_memory", Alone(memory_map::high_memory)),
    ("wide_span", Alone(memory_map::wide_span)),
    ("movable_memory", Alone(memory_map::movable_memory)),
];

/// What only a module of ours shows, and the daemon where it is told to be silent. How messages look does
/// not matter.
const SILENCE: &[(&str, Scenario)] = &[
    ("silence", Alone(silence::silence)),
    (
        "nobody_waits_for_the_silent",
        Alone(silence::nobody_waits_for_the_silent),
    ),
    (
        "relief_from_the_silent",
        Alone(silence::relief_from_the_silent),
    ),
    ("leaves_the_silent", Alone(silence::leaves_the_silent)),
    (
        "moves_no_more_than_one",
        Alone(silence::moves_no_more_than_one),
    ),
    ("open_file", Shared(open_file::open_file)),
];

/// What holds back the balloon's growth.
const PAUSES: &[(&str, Scenario)] = &[
    ("shrinks_in_a_pause", Shared(pauses::shrinks_in_a_pause)),
    (
        "floor_is_heeded_at_once",
        Shared(pauses::floor_is_heeded_at_once),
    ),
];

/// With a device that uses no buffer of the hint queue.
const DEAF: &[(&str, Scenario)] = &[("hinting_to_the_deaf", Alone(hinting::hinting_to_the_deaf))];

/// The heart of it, for configurations that differ from another in one thing.
const CORE: &[(&str, Scenario)] = &[
    ("targets", Shared(targets::targets)),
    ("reclaim", Shared(reclaim::reclaim)),
    ("reload", Shared(reload::reload)),
];

/// What is not about the balloon's pages, and which both drivers do alike.
const COMMON: &[(&str, Scenario)] = &[
    ("oom_without_relief", Shared(oom::oom_without_relief)),
    ("wakeup", Shared(wakeup::wakeup)),
];

/// What only the project's driver shows.
const OURS: &[(&str, Scenario)] = &[
    ("observation", Shared(observation::observation)),
    ("bound", Alone(reclaim::bound)),
    ("hot_unplug", Alone(hot_unplug::hot_unplug)),
];

/// What a device with all features is for.
const PARITY: &[(&str, Scenario)] = &[
    ("targets", Shared(targets::targets)),
    ("statistics", Alone(statistics::statistics)),
    ("oom", Shared(oom::oom)),
    ("oom_without_relief", Shared(oom::oom_without_relief)),
    ("parameters", Shared(parameters::parameters)),
    ("floor", Shared(floor::floor)),
    ("reporting", Alone(reporting::reporting)),
    ("poison", Alone(reporting::poison)),
    ("observation", Shared(observation::observation)),
    ("suspend", Shared(lifecycle::suspend)),
    ("reset", Shared(lifecycle::reset)),
];

/// What only QEMU's device can do: the daemon's does not migrate.
const MIGRATION: &[(&str, Scenario)] = &[("migration", Shared(migration::migration))];

/// What QEMU's device does in a migration if it may.
const HINTING: &[(&str, Scenario)] = &[
    ("hinting", Alone(hinting::hinting)),
    (
        "hinting_under_pressure",
        Shared(hinting::hinting_under_pressure),
    ),
];

/// What it is to run out of memory with either driver.
const SURVIVAL: &[(&str, Scenario)] = &[("oom_survival", Shared(oom::oom_survival))];

/// What shows that QEMU reads page bitmaps as the daemon does.
const NATIVE: &[(&str, Scenario)] = &[
    ("targets", Shared(targets::targets)),
    ("reclaim", Shared(reclaim::reclaim)),
    ("fragmented", Shared(fragmented::fragmented)),
    ("compaction", Shared(fragmented::compaction)),
    ("reload", Shared(reload::reload)),
    ("retarget", Shared(transfer::retarget)),
    ("stop_cont", Shared(transfer::stop_cont)),
    ("suspend", Shared(lifecycle::suspend)),
    ("reset", Shared(lifecycle::reset)),
    ("bound", Alone(reclaim::bound)),
];

/// Two devices of different makers.
const TWO: &[(&str, Scenario)] = &[("two_devices", Shared(two_devices::two_devices))];

/// What shows that pages move and come back, and migrate, and that the module can go.
const MOVES: &[(&str, Scenario)] = &[
    ("retarget", Shared(transfer::retarget)),
    ("compaction", Shared(fragmented::compaction)),
    ("reload", Shared(reload::reload)),
];

/// What shows what goes on beside.
const BESIDE: &[(&str, Scenario)] = &[
    ("statistics", Alone(statistics::statistics)),
    ("oom", Shared(oom::oom)),
    ("reporting", Alone(reporting::reporting)),
    ("observation", Shared(observation::observation)),
];

/// What goes differently with blocks of another size.
const BLOCKS: &[(&str, Scenario)] = &[
    ("targets", Shared(targets::targets)),
    ("fragmented", Shared(fragmented::fragmented)),
    ("retarget", Shared(transfer::retarget)),
];

/// What the size of blocks shows in, of what goes on beside.
const PRESSURE: &[(&str, Scenario)] = &[
    ("oom", Shared(oom::oom)),
    ("oom_without_relief", Shared(oom::oom_without_relief)),
    ("floor", Shared(floor::floor)),
    ("bound", Alone(reclaim::bound)),
];

/// Without memory for the first bitmap.
const FAULTS: &[(&str, Scenario)] = &[
    ("dropped_feature", Shared(reload::dropped_feature)),
    ("targets", Shared(targets::targets)),
];

/// Where one bitmap does not reach.
const SPANS: &[(&str, Scenario)] = &[
    ("high_memory", Alone(memory_map::high_memory)),
    ("wide_span", Alone(memory_map::wide_span)),
];

/// Of a configuration, what has the driver do what others have it do already: `make check-long` only.
const REPEATED: &[(&str, &[&str])] = &[
    // What a guest that goes and comes asks of the driver, or its memory's places, is the same however
    // pages are told. `pfn_qemu` has arrays in it, and `bitmap` all of it with the daemon.
    (
        "pfn_device",
        &[
            "hotplug",
            "suspend",
            "reset",
            "hibernation",
            "kexec",
            "next_guest",
            "high_memory",
            "movable_memory",
            "bound",
        ],
    ),
    // A new kernel and a saved one leave the driver as a reset and a sleep do. Of memory that goes
    // offline, `pfn_device` knows each page, and QEMU only the number of them.
    ("pfn_qemu", &["hibernation", "kexec", "hot_unplug"]),
    // What the driver does by itself, `all_qemu` has; a guest with this device goes and comes in `bitmap`.
    (
        "all_device",
        &[
            "oom_without_relief",
            "parameters",
            "floor",
            "suspend",
            "reset",
        ],
    ),
    // QEMU's patches change how pages are told. All else is in `all_qemu`, or in `pfn_qemu`.
    (
        "all_native",
        &[
            "statistics",
            "reporting",
            "hinting",
            "hinting_under_pressure",
        ],
    ),
    ("bitmap_native", &["suspend", "bound"]),
    // It is about pages that come back, and not about those that the host gets.
    ("bitmap_must_tell_host", &["reclaim"]),
    ("pfn_device_must_tell_host", &["reclaim"]),
    // Once arrays are agreed on, all is as in `pfn_device`, `pfn_qemu` and `stock_device`.
    ("pfn_parameter", &["reclaim", "reload"]),
    ("pfn_native", &["reclaim", "reload"]),
    ("stock_native", &["reload"]),
    // `wide_span` has pages further apart.
    ("no_further_bitmap", &["high_memory"]),
];

fn main() -> Result<ExitCode> {
    let kernel = environment::kernel_kind()?;
    let mut arguments = Arguments::from_args();
    // A guest has two processors, but seldom uses both.
    let processors = available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(processors);
    if arguments.list {
        return Ok(groups::run(arguments, configurations(kernel)).exit_code());
    }
    println!("guests run under {}", best_accelerator());
    let conclusion = groups::run(arguments, configurations(kernel));
    println!("{}", boots::summary());
    Ok(conclusion.exit_code())
}

fn is_repeated(configuration: &str, scenario: &str) -> bool {
    REPEATED
        .iter()
        .any(|(name, scenarios)| *name == configuration && scenarios.contains(&scenario))
}

fn configurations(kernel: Kernel) -> Vec<Group> {
    let qemu = Device::Qemu(Features::QEMU);
    let (all_of_qemu, all_of_daemon) = (Device::Qemu(Features::ALL), Device::Daemon(Features::ALL));
    let (bitmaps, pfns) = (Wire::PageBitmaps, Wire::PfnArray);
    // What looks for leaks says whose they are.
    let share = kernel != Kernel::Debug;
    let repeat = environment::long() || kernel != Kernel::Distribution;
    let mut groups = Vec::new();
    let mut add = |name, driver, device, wire, scenarios: &[&[(&'static str, Scenario)]]| {
        let setup = Setup {
            machine: Machine::default(),
            device,
            driver,
            wire,
            plugged: true,
        };
        let mut scenarios = scenarios.concat();
        if !repeat {
            scenarios.retain(|&(scenario, _)| !is_repeated(name, scenario));
        }
        groups.extend(Group::of(name, &setup, scenarios, share));
    };
    if kernel == Kernel::BuiltIn {
        let driver = Driver::BuiltIn;
        let all = &[EVERYWHERE, DAEMON, OURS];
        add("bitmap", driver, Device::daemon(true), bitmaps, all);
        add("pfn_qemu", driver, qemu, pfns, &[EVERYWHERE, OURS]);
        add("all_qemu", driver, all_of_qemu, pfns, &[PARITY]);
        return groups;
    }
    let ours = Driver::Ours("");
    if environment::short() {
        add("bitmap", ours, Device::daemon(true), bitmaps, &[MOVES]);
        add("all_qemu", ours, all_of_qemu, pfns, &[BESIDE]);
        return groups;
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
    let all = &[PARITY, HINTING, PAUSES];
    add("all_qemu", ours, all_of_qemu, pfns, all);
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
    add(
        "dead_hint_queue",
        Driver::Faulty("dead_hint_queue"),
        all_of_qemu,
        pfns,
        &[DEAF],
    );
    if kernel != Kernel::Distribution {
        return groups;
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
        // `stock_native` has the heart of it, on much the same device.
        add("stock_qemu", stock, qemu, pfns, &[COMMON]);
    }
    groups
}
