// SPDX-License-Identifier: GPL-2.0-only

//! A guest that runs out of memory while a balloon has some.

use std::time::Duration;

use anyhow::{ensure, Context, Result};
use guest_tests::environment;
use guest_tests::process::wait_until;
use guest_tests::vm::{Driver, Vm};
use guest_tests::{MIB, PAGE_SIZE};

use super::parameters::set_parameter;
use super::statistics::newest;
use super::tracing::{self, Event};

/// Left free when the process has all that it wants.
const SPARE: u64 = 64 * MIB;
/// How long the process keeps its memory while the size worker is watched, in seconds.
const PRESSURE: f64 = 6.0;
/// Vain tries a second that are not spinning.
const TRIES_A_SECOND: f64 = 6.0;
/// How long the balloon waits after the guest ran out of memory, in seconds, at least.
const PAUSE: f64 = 5.0;

/// A process that fits if the balloon gives way lives, again and again; the balloon does not fight
/// for the memory, and comes back later.
pub fn oom(vm: &mut Vm) -> Result<()> {
    let runs = if environment::long() { 20 } else { 3 };
    let (target, wanted) = load(vm)?;
    for run in 1..=runs {
        inflate(vm, run, target)?;
        ensure!(
            vm.guest.feed(wanted)?,
            "the process was killed in run {run} of {runs}"
        );
        expect_relief(vm, target)?;
        // A driver that was just loaded does not know that it had better wait.
        vm.unload()?;
        vm.load()?;
        if run == 1 {
            expect_no_spinning(vm)?;
        }
        vm.guest.starve()?;
    }

    vm.reach(target)?;
    tracing::start(vm)?;
    // So little more than there is that the guest runs out of memory for a moment only.
    let little = vm.guest.memory()?.available * PAGE_SIZE + SPARE;
    ensure!(vm.guest.feed(little)?, "the process was killed at last");
    expect_relief(vm, target)?;
    vm.guest.starve()?;
    vm.await_actual(target)?;
    vm.expect_balloon(target)?;
    expect_politeness(&tracing::events(vm)?)
}

/// How many of 20 processes live next to a balloon that has just been loaded: all with the project's
/// driver. The distribution's is only counted, for comparison.
pub fn oom_survival(vm: &mut Vm) -> Result<()> {
    const RUNS: usize = 20;
    let (target, wanted) = load(vm)?;
    let mut lived = 0;
    for run in 1..=RUNS {
        inflate(vm, run, target)?;
        if vm.guest.feed(wanted)? {
            lived += 1;
            vm.guest.starve()?;
        }
        vm.count_all_oom_kills()?;
        vm.unload()?;
        vm.load()?;
    }
    let driver = vm.driver();
    println!(
        "oom: {lived} of {RUNS} processes lived with {}",
        driver.name()
    );
    ensure!(
        lived == RUNS || driver == Driver::Stock,
        "{lived} of {RUNS} processes lived"
    );
    vm.reach(0).map(|_| ())
}

/// Has the balloon at its target, or on a long way that it has begun: by turns.
fn inflate(vm: &mut Vm, run: usize, target: u64) -> Result<()> {
    if run % 2 == 1 {
        vm.reach(target)?;
    } else {
        vm.reach(target / 2)?;
        vm.set_target(vm.ram - 1)?;
    }
    Ok(())
}

/// A balloon that may not give way, or is told not to, keeps its size, and a process is killed.
pub fn oom_without_relief(vm: &mut Vm) -> Result<()> {
    let gives_way = vm.setup().clone().device.features().deflate_on_oom;
    let (target, wanted) = load(vm)?;
    let killed = vm.guest.memory()?.oom_kill;
    if gives_way {
        set_parameter(vm, "oom_pages", 0)?;
    }
    vm.reach(target)?;
    ensure!(!vm.guest.feed(wanted)?, "the process found memory");
    vm.count_oom_kill()?;
    vm.expect_balloon(target)?;
    let kills = newest(vm)?.get("stat-oom-kills").copied();
    ensure!(
        kills == Some(killed + 1),
        "the device knows of {kills:?} kills, {killed} were before"
    );
    vm.reach(0)?;
    ensure!(vm.guest.feed(wanted)?, "there is not enough memory at all");
    vm.guest.starve()
}

/// Loads the driver. Returns its balloon's target, and how many bytes a process can have without one.
fn load(vm: &mut Vm) -> Result<(u64, u64)> {
    vm.load()?;
    let available = vm.guest.memory()?.available * PAGE_SIZE;
    let wanted = available
        .checked_sub(SPARE)
        .context("the guest is too small")?;
    let target = vm.ram * 3 / 4;
    Ok((target, wanted))
}

/// Checks that the balloon gave way, and nobody was killed.
fn expect_relief(vm: &mut Vm, target: u64) -> Result<()> {
    let actual = vm.actual()?;
    ensure!(actual < target, "the balloon did not give way: {actual}");
    ensure!(
        vm.driver_counter("oom_pages")? > 0,
        "the balloon shrank for another reason"
    );
    vm.expect_oom_kills()
}

/// Watches the size worker, which has a long way to go and no memory to go it.
fn expect_no_spinning(vm: &mut Vm) -> Result<()> {
    wait_until(Duration::from_secs(60), "memory to run short", || {
        Ok(vm.driver_counter("out_of_puff")? > 0)
    })?;
    // The window that it ran short in takes a while.
    wait_until(Duration::from_secs(60), "the workers to have rest", || {
        let (seconds, busy, _) = work_within(vm, 1.0)?;
        Ok(busy < seconds / 4.0)
    })?;
    let (seconds, busy, tries) = work_within(vm, PRESSURE)?;
    println!(
        "oom: in {seconds:.1} s under pressure {tries} tries, kernel workers {busy:.2} s busy"
    );
    ensure!(
        tries <= seconds * TRIES_A_SECOND,
        "{tries} tries in {seconds} s"
    );
    ensure!(
        busy < seconds / 4.0,
        "the kernel's workers were busy for {busy} of {seconds} s"
    );
    Ok(())
}

/// What [`work`] counts within some seconds.
fn work_within(vm: &mut Vm, seconds: f64) -> Result<(f64, f64, f64)> {
    let (start, busy, tries) = work(vm)?;
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let (end, busy_then, tries_then) = work(vm)?;
    Ok((end - start, busy_then - busy, (tries_then - tries) as f64))
}

/// The guest's uptime, how long its kernel workers were busy, both in seconds, and how often the size
/// worker tried to get memory in vain.
fn work(vm: &mut Vm) -> Result<(f64, f64, u64)> {
    let tries = vm.driver_counter("out_of_puff")?;
    let figures = vm.guest.shell(
        "cut -d ' ' -f 1 /proc/uptime; \
         cat /proc/[0-9]*/stat 2>/dev/null | grep '(kworker' | sed 's/.*) //' | cut -d ' ' -f 12,13",
    )?;
    let mut lines = figures.lines();
    let uptime = lines.next().context("no uptime")?.parse()?;
    let ticks = lines
        .flat_map(str::split_whitespace)
        .map(|ticks| ticks.parse::<u64>().context("not ticks"))
        .sum::<Result<u64>>()?;
    // USER_HZ is 100 on all machines that there are.
    Ok((uptime, ticks as f64 / 100.0, tries))
}

/// Checks that the balloon did not grow for a while after the guest ran out of memory, but then did.
fn expect_politeness(events: &[Event]) -> Result<()> {
    let mut ran_out = None;
    let mut pauses = 0;
    for event in events {
        match event.name.as_str() {
            "oom" => ran_out = Some(event.seconds),
            "inflate" => {
                if let Some(ran_out) = ran_out.take() {
                    let pause = event.seconds - ran_out;
                    ensure!(
                        pause >= PAUSE,
                        "the balloon grew {pause} s after the guest ran out of memory"
                    );
                    pauses += 1;
                }
            }
            _ => {}
        }
    }
    ensure!(pauses > 0, "the balloon never grew again: {events:?}");
    Ok(())
}
