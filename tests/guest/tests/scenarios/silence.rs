// SPDX-License-Identifier: GPL-2.0-only

//! The device leaves a queue unserved.

use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use guest_tests::process::wait_until;
use guest_tests::vm::{Driver, Setup, Vm};
use guest_tests::{MIB, PAGE_SIZE};

use super::fragmented::arrange;
use super::parameters::set_parameter;
use super::reload::expect_all_back;

/// No wait of the driver is as long, nor are many of them together.
const BOUND: Duration = Duration::from_secs(180);

/// The balloon stays as it is until the message that the driver waits for is taken.
pub fn silence(mut setup: Setup, directory: &Path) -> Result<()> {
    setup.device.features().test_commands = true;
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    let (half, more) = (vm.ram / 2, vm.ram * 5 / 8);
    vm.reach(half)?;

    vm.leave_unserved(&["inflate"])?;
    let messages = count(&mut vm, "inflate", "messages")?;
    change_in_vain(&mut vm, "inflate", more)?;
    vm.guest.shell("true").context("a guest that waits")?;
    let counters = vm.counters()?;
    ensure!(
        counters["target"] == more && count(&mut vm, "inflate", "messages")? == messages,
        "a message was taken, or the target is another: {counters}"
    );
    let (actual, held) = (vm.actual()?, vm.pages_held()?);
    ensure!(
        actual == half && held == Some(half),
        "{half} pages expected: actual is {actual}, the device was told of {held:?}"
    );

    vm.leave_unserved(&[])?;
    vm.await_actual(more)?;
    vm.expect_balloon(more)?;
    vm.finish()
}

/// A guest that runs out of memory, or takes some offline, gets from the balloon what the host lets go of
/// in time, and is not held up: a process that fits only with the balloon's memory is killed, an attempt
/// to take memory offline fails, and neither has to be waited for longer than the driver waits itself.
pub fn nobody_waits_for_the_silent(mut setup: Setup, directory: &Path) -> Result<()> {
    let features = setup.device.features();
    (
        features.test_commands,
        features.must_tell_host,
        features.deflate_on_oom,
    ) = (true, true, true);
    setup.machine.memory_mib = 1024;
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    let available = vm.guest.memory()?.available * PAGE_SIZE;
    let wanted = available.checked_sub(64 * MIB).context("a small guest")?;
    // More would leave less than the kernel keeps for itself once memory went offline and came back.
    let target = vm.ram / 2;
    vm.reach(target)?;
    vm.leave_unserved(&["deflate"])?;
    // Blocks of the balloon are in nearly all of it.
    let refused = vm.guest.shell_within(
        BOUND,
        "for block in /sys/devices/system/memory/memory[1-9]*; do \
             if echo offline 2>/dev/null > $block/state; then echo online_kernel > $block/state; \
             else echo refused; fi; \
         done",
    )?;
    ensure!(
        refused.contains("refused"),
        "all memory went offline: {refused}"
    );
    ensure!(!vm.guest.feed(wanted)?, "the process found memory");
    vm.count_oom_kill()?;
    ensure!(
        vm.driver_counter("oom_calls")? > 0,
        "the balloon was not asked"
    );

    vm.leave_unserved(&[])?;
    vm.reach(target / 2)?;
    ensure!(vm.guest.feed(wanted)?, "the process was killed");
    vm.guest.starve()?;
    vm.reach(0)?;
    vm.finish()
}

/// Where the host does not have to read that pages are taken back, its silence costs nobody anything.
pub fn relief_from_the_silent(mut setup: Setup, directory: &Path) -> Result<()> {
    let features = setup.device.features();
    (features.test_commands, features.deflate_on_oom) = (true, true);
    setup.machine.memory_mib = 1024;
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    let available = vm.guest.memory()?.available * PAGE_SIZE;
    let wanted = available.checked_sub(64 * MIB).context("a small guest")?;
    let target = vm.ram * 3 / 4;
    vm.reach(target)?;
    set_parameter(&mut vm, "oom_pages", 512 * MIB / PAGE_SIZE)?;
    vm.leave_unserved(&["deflate"])?;
    ensure!(vm.guest.feed(wanted)?, "the process was killed");
    ensure!(
        vm.driver_counter("oom_pages")? > 0,
        "the balloon did not give way"
    );
    vm.guest.starve()?;
    vm.leave_unserved(&[])?;
    vm.reach(target / 2)?;
    vm.reach(0)?;
    vm.finish()
}

/// The driver goes, whoever waits for the host: in the middle of an inflation and of a deflation, by
/// removal, by unbinding and by a reboot. The guest has all of its memory then.
pub fn leaves_the_silent(mut setup: Setup, directory: &Path) -> Result<()> {
    let features = setup.device.features();
    (features.test_commands, features.must_tell_host) = (true, true);
    let mut vm = Vm::boot(&setup, directory)?;
    let (half, more, less) = (vm.ram / 2, vm.ram * 5 / 8, vm.ram / 4);
    let driver = setup.driver.name();
    let unbind = format!("cd /sys/bus/virtio/drivers/{driver} && echo virtio* > unbind");
    for (queue, then, gone) in [
        ("inflate", more, format!("rmmod {driver}")),
        ("deflate", less, format!("rmmod {driver}")),
        ("deflate", less, format!("{unbind} && rmmod {driver}")),
    ] {
        vm.load()?;
        vm.reach(half)?;
        vm.leave_unserved(&[queue])?;
        change_in_vain(&mut vm, queue, then)?;
        vm.guest.shell_within(BOUND, &gone)?;
        vm.expect_line("the device does not answer")?;
        expect_all_back(&mut vm)?;
        vm.leave_unserved(&[])?;
        vm.set_target(0)?;
    }
    vm.load()?;
    vm.reach(half)?;
    vm.leave_unserved(&["inflate"])?;
    change_in_vain(&mut vm, "inflate", more)?;
    vm.qemu.allow_resets(true)?;
    vm.guest.send_shell("reboot -f")?;
    vm.await_reboot()?;
    vm.leave_unserved(&[])?;
    vm.load()?;
    vm.reach(half)?;
    vm.reach(0)?;
    vm.finish()
}

/// Compaction does not wait for the silent either. A page that it has moved stays the host's until that
/// has read of it, and no other page is moved before.
pub fn moves_no_more_than_one(mut setup: Setup, directory: &Path) -> Result<()> {
    let features = setup.device.features();
    (features.test_commands, features.must_tell_host) = (true, true);
    setup.machine.memory_mib = 1024;
    setup.driver = Driver::Ours("block_order=0");
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    arrange(&mut vm)?;
    vm.leave_unserved(&["deflate"])?;
    let before = vm.driver_counter("migrations")?;
    for _ in 0..3 {
        vm.guest
            .shell_within(BOUND, "echo 1 > /proc/sys/vm/compact_memory")?;
    }
    let moved = vm.driver_counter("migrations")? - before;
    ensure!(moved == 1, "{moved} pages were moved");
    ensure!(vm.driver_counter("kept")? == 1, "the old page is free");
    let (actual, held) = (vm.actual()?, vm.pages_held()?);
    ensure!(
        held == Some(actual + 1),
        "the host has both pages: {held:?}, actual is {actual}"
    );
    vm.leave_unserved(&[])?;
    vm.reach(actual / 2)?;
    ensure!(
        vm.driver_counter("kept")? == 0,
        "the old page is kept for ever"
    );
    vm.reach(0)?;
    vm.finish()
}

/// Sets a target, and waits until the driver has notified the device of the first message about it, on a
/// queue that it leaves unserved.
fn change_in_vain(vm: &mut Vm, queue: &str, target: u64) -> Result<()> {
    let before = count(vm, queue, "notifications")?;
    vm.set_target(target)?;
    wait_until(
        Duration::from_secs(60),
        "the driver to notify the device",
        || Ok(count(vm, queue, "notifications")? > before),
    )
}

/// What the device counts of a queue.
fn count(vm: &mut Vm, queue: &str, name: &str) -> Result<u64> {
    let counters = vm.counters()?;
    counters[queue][name]
        .as_u64()
        .with_context(|| format!("not counted: {counters}"))
}
