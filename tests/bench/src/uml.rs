// SPDX-License-Identifier: GPL-2.0-only

//! Native speed: User-mode Linux with the same driver and the same device. The guest is idle, so that the device has
//! nothing to discard but what the guest's kernel zeroes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use guest_tests::balloon::{Daemon, Features};
use guest_tests::process::{wait_until, Process};
use guest_tests::vm::Driver;
use guest_tests::{environment, initramfs, PAGE_SIZE};
use serde_json::{json, Value};

use crate::plan::UmlKernel;
use crate::record::{Native, Way};
use crate::times::{timed, Amounts};

/// Those that are compared.
pub const DRIVERS: [Driver; 2] = [Driver::Stock, Driver::BuiltIn];
const INIT: &str = include_str!("uml_init.sh");
/// It is up in less than a second.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The kernel, as a process, and its balloon.
struct Uml {
    process: Process,
    daemon: Daemon,
    log: PathBuf,
    /// Bytes of RAM.
    ram: u64,
}

/// Boots and measures, once the first inflation and deflation are over.
pub fn measure(
    amounts: Amounts,
    kernel: UmlKernel,
    driver: Driver,
    round: u32,
    logs: &Path,
) -> Result<Vec<Native>> {
    let mut uml = Uml::start(amounts, kernel, driver, logs)?;
    let mut found = Vec::new();
    for counts in [false, true] {
        for (way, target) in [(Way::Inflate, amounts.moved()), (Way::Deflate, 0)] {
            let time = uml.go(target)?;
            uml.expect(target)?;
            if counts {
                found.push(Native {
                    round,
                    kernel,
                    driver: driver.name().into(),
                    way,
                    pages: amounts.moved(),
                    seconds: time.as_secs_f64(),
                });
            }
        }
    }
    Ok(found)
}

impl Uml {
    fn start(amounts: Amounts, kernel: UmlKernel, driver: Driver, logs: &Path) -> Result<Self> {
        let features = Features {
            page_bitmap: true,
            ..Features::default()
        };
        let daemon = Daemon::start_with(features, &["--whole-messages"], logs)?;
        let initrd = logs.join("initramfs.cpio");
        initramfs::write_minimal(&initrd, INIT)?;
        let log = logs.join("guest.log");
        let program = match kernel {
            UmlKernel::Plain | UmlKernel::Patched => environment::user_mode_linux()?,
            UmlKernel::Zeroing => environment::user_mode_linux_unpatched()?,
        };
        let mut command = Command::new(program);
        command
            .arg(format!("mem={}M", amounts.guest_mib))
            .arg(format!("initrd={}", initrd.display()))
            .arg(format!("virtio_uml.device={}:5", daemon.socket_path()))
            .arg(format!("balloon_driver={}", driver.name()))
            .args([
                kernel.word(),
                "seccomp=on",
                "con0=null,fd:1",
                "con=null",
                "rdinit=/init",
                "panic=-1",
            ]);
        let process = Process::spawn("User-mode Linux", command, &log, Vec::new())?;
        let mut uml = Self {
            process,
            daemon,
            log,
            ram: 0,
        };
        uml.wait_for("balloon: served", 0)?;
        uml.ram = uml.counter("ram")?;
        Ok(uml)
    }

    /// Waits for a line in the log, after the first `from` bytes.
    fn wait_for(&mut self, what: &str, from: usize) -> Result<()> {
        wait_until(TIMEOUT, what, || {
            self.process.expect_alive()?;
            let log = fs::read(&self.log)?;
            let log = String::from_utf8_lossy(&log[from..]);
            Ok(log.lines().any(|line| line.trim() == what))
        })
        .with_context(|| format!("see {}", self.log.display()))
    }

    fn counter(&mut self, name: &str) -> Result<u64> {
        let counters = self
            .daemon
            .qmp
            .execute("query-balloon-counters", Value::Null)?;
        counters[name]
            .as_u64()
            .with_context(|| format!("no {name} in {counters}"))
    }

    /// Moves pages; returns how long it took until the device had been told of all.
    fn go(&mut self, pages: u64) -> Result<Duration> {
        let left = self
            .ram
            .checked_sub(pages * PAGE_SIZE)
            .context("a balloon larger than RAM")?;
        timed(
            pages,
            self,
            |uml| {
                let size = json!({ "value": left });
                uml.daemon.qmp.execute("balloon", size).map(|_| ())
            },
            |uml| {
                let answer = uml.daemon.qmp.execute("query-balloon", Value::Null)?;
                let bytes = answer["actual"].as_u64().context("no actual")?;
                Ok((uml.ram - bytes) / PAGE_SIZE)
            },
        )
    }

    /// Checks that device and guest have the same in the balloon.
    fn expect(&mut self, pages: u64) -> Result<()> {
        let held = self.counter("pages_held")?;
        ensure!(held == pages, "the device holds {held} pages, not {pages}");
        let said = fs::metadata(&self.log)?.len().try_into()?;
        self.wait_for(&format!("balloon: {pages} pages"), said)
    }
}
