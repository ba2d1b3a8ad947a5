// SPDX-License-Identifier: GPL-2.0-only

//! The device leaves a queue unserved.

use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use guest_tests::process::wait_until;
use guest_tests::vm::{Setup, Vm};

/// The balloon stays as it is until the message that the driver waits for is taken.
pub fn silence(mut setup: Setup, directory: &Path) -> Result<()> {
    setup.device.features().test_commands = true;
    let mut vm = Vm::boot(&setup, directory)?;
    vm.load()?;
    let (half, more) = (vm.ram / 2, vm.ram * 5 / 8);
    vm.reach(half)?;

    vm.leave_unserved(&["inflate"])?;
    let [messages, notifications] = inflated(&mut vm)?;
    vm.set_target(more)?;
    wait_until(
        Duration::from_secs(60),
        "the driver to notify the device",
        || Ok(inflated(&mut vm)?[1] > notifications),
    )?;
    vm.guest.shell("true").context("a guest that waits")?;
    let counters = vm.counters()?;
    ensure!(
        counters["target"] == more && inflated(&mut vm)?[0] == messages,
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

/// Messages that the device has taken from the inflate queue, and the driver's notifications of it.
fn inflated(vm: &mut Vm) -> Result<[u64; 2]> {
    let counters = vm.counters()?;
    let count = |name| counters["inflate"][name].as_u64();
    let counts = count("messages").zip(count("notifications"));
    let (messages, notifications) = counts.with_context(|| format!("not counted: {counters}"))?;
    Ok([messages, notifications])
}
