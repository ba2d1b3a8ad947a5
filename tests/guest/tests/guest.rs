//! The guest tests: each scenario against each pair of driver and device is a trial of its own,
//! named `CONFIGURATION::SCENARIO`, with its logs under `build/guest-tests/CONFIGURATION/SCENARIO`.

mod scenarios;

use std::path::Path;
use std::thread::available_parallelism;

use anyhow::Result;
use guest_tests::accelerator::Accelerator;
use guest_tests::audit::logs;
use guest_tests::balloon::{Device, Features};
use guest_tests::environment;
use guest_tests::qemu::Machine;
use guest_tests::vm::{Driver, Setup, Wire};
use libtest_mimic::{Arguments, Failed, Trial};
use scenarios::{
    fragmented, hotplug, interrupts, lifecycle, memory_map, reclaim, reload, stress, targets,
    transfer,
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
    ("reload", reload::reload),
    ("rmmod_while_inflating", reload::rmmod_while_inflating),
    ("retarget", transfer::retarget),
    ("stop_cont", transfer::stop_cont),
    ("hotplug", hotplug::hotplug),
    ("reset", lifecycle::reset),
    (
        "poweroff_while_inflating",
        lifecycle::poweroff_while_inflating,
    ),
];

/// What only the daemon can show: it acknowledges at its own time, as QEMU's balloon never does.
const DAEMON: &[(&str, Scenario)] = &[
    ("interrupts_elsewhere", interrupts::interrupts_elsewhere),
    ("next_guest", lifecycle::next_guest),
    ("stress", stress::stress),
    ("high_memory", memory_map::high_memory),
    ("wide_span", memory_map::wide_span),
];

/// The heart of it, for configurations that differ from another in one thing.
const CORE: &[(&str, Scenario)] = &[
    ("targets", targets::targets),
    ("reclaim", reclaim::reclaim),
    ("reload", reload::reload),
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

fn main() {
    let mut arguments = Arguments::from_args();
    // A guest has two processors, but seldom uses both.
    let processors = available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(processors);
    if !arguments.list {
        println!("guests run under {}", Accelerator::best());
    }
    libtest_mimic::run(&arguments, trials()).exit();
}

fn trials() -> Vec<Trial> {
    let daemon = |page_bitmap, must_tell_host| {
        Device::Daemon(Features {
            page_bitmap,
            must_tell_host,
        })
    };
    let ours = Driver::Ours("");
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
    add(
        "bitmap",
        ours,
        daemon(true, false),
        bitmaps,
        &[EVERYWHERE, DAEMON],
    );
    add(
        "bitmap_must_tell_host",
        ours,
        daemon(true, true),
        bitmaps,
        &[CORE],
    );
    add("pfn_qemu", ours, Device::Qemu, pfns, &[EVERYWHERE]);
    add(
        "pfn_device",
        ours,
        daemon(false, false),
        pfns,
        &[EVERYWHERE, DAEMON],
    );
    add(
        "pfn_device_must_tell_host",
        ours,
        daemon(false, true),
        pfns,
        &[CORE],
    );
    add(
        "pfn_parameter",
        Driver::Ours("page_bitmap=0"),
        daemon(true, false),
        pfns,
        &[CORE],
    );
    add(
        "no_first_bitmap",
        Driver::Faulty("first_bitmap"),
        daemon(true, false),
        pfns,
        &[FAULTS],
    );
    add(
        "no_further_bitmap",
        Driver::Faulty("more_bitmaps"),
        daemon(true, false),
        bitmaps,
        &[SPANS],
    );
    // The device is a balloon by itself, and the harness right, when the distribution's driver says so.
    let stock = if environment::long() {
        EVERYWHERE
    } else {
        CORE
    };
    add(
        "stock_device",
        Driver::Stock,
        daemon(true, false),
        pfns,
        &[CORE],
    );
    add("stock_qemu", Driver::Stock, Device::Qemu, pfns, &[stock]);
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
