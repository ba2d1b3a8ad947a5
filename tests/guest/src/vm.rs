//! A guest with a balloon, and what must be true of the two together.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use serde_json::{json, Value};

use crate::accelerator::Accelerator;
use crate::audit::{audit, proofs_of_boot};
use crate::balloon::{Daemon, Device, CHARDEV_ID, DEVICE_ID};
use crate::guest::Guest;
use crate::memory::Memory;
use crate::process::wait_until;
use crate::qemu::{Machine, Qemu};
use crate::qmp::Qmp;
use crate::{environment, initramfs, PAGE_SIZE};

const BOOT_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a guest may fail to boot in a row, less one.
const BOOT_TRIES: usize = 3;
/// No target takes this long to reach under emulation; one that is never reached does.
const TARGET_TIMEOUT: Duration = Duration::from_secs(120);
/// VIRTIO_BALLOON_F_PAGE_BITMAP.
const PAGE_BITMAP_BIT: usize = 63;
/// How every line of the project's driver starts.
const OUR_PREFIX: &str = "virtio_balloon_bmap virtio";

/// Which driver the guest loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The project's, with module parameters.
    Ours(&'static str),
    /// The project's, built so that it lacks something: driver/fault.rs has the names.
    Faulty(&'static str),
    /// The distribution's virtio_balloon.
    Stock,
}

impl Driver {
    /// Name of the loaded module.
    pub fn module(self) -> &'static str {
        match self {
            Self::Ours(_) | Self::Faulty(_) => "virtio_balloon_bmap",
            Self::Stock => "virtio_balloon",
        }
    }

    /// Command that loads the module.
    pub fn insmod(self) -> String {
        match self {
            Self::Ours(parameters) => format!("insmod {} {parameters}", initramfs::MODULE),
            Self::Faulty(fault) => format!("insmod {}", initramfs::faulty_module(fault)),
            Self::Stock => format!("insmod {}", initramfs::STOCK_MODULE),
        }
    }
}

/// How the driver and the device speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// By page bitmaps.
    PageBitmaps,
    /// By arrays of page numbers.
    PfnArray,
}

impl Wire {
    /// How the driver names it when it probes a device.
    pub fn name(self) -> &'static str {
        match self {
            Self::PageBitmaps => "page bitmaps",
            Self::PfnArray => "PFN array",
        }
    }
}

/// A machine, a device and a driver.
#[derive(Clone, Debug)]
pub struct Setup {
    pub machine: Machine,
    pub device: Device,
    pub driver: Driver,
    /// What the two have to agree on.
    pub wire: Wire,
    /// The device is there from the start; otherwise [`Vm::plug`] brings it.
    pub plugged: bool,
}

/// A booted guest. Dropping it ends everything; [`Vm::finish`] judges it first.
pub struct Vm {
    pub guest: Guest,
    pub qemu: Qemu,
    pub daemon: Option<Daemon>,
    setup: Setup,
    /// Memory before any driver was loaded.
    pub at_boot: Memory,
    /// RAM, in pages.
    pub ram: u64,
    boots: usize,
    probes: usize,
}

impl Vm {
    /// Boots the guest; all logs go to `directory`. No balloon driver is loaded yet.
    pub fn boot(setup: &Setup, directory: &Path) -> Result<Self> {
        let daemon = match setup.device {
            Device::Qemu => None,
            Device::Daemon(features) => Some(Daemon::start(features, directory)?),
        };
        Self::boot_with(setup, daemon, directory)
    }

    /// Boots the guest with a daemon that may have served others before.
    pub fn boot_with(setup: &Setup, daemon: Option<Daemon>, directory: &Path) -> Result<Self> {
        if let Driver::Faulty(fault) = setup.driver {
            let known = environment::faulty_modules()?
                .iter()
                .any(|(name, _)| name == fault);
            ensure!(known, "no {fault}.ko in the directory that VBB_FAULTY_MODULES names; `make check` builds it");
        }
        let mut machine = setup.machine.clone();
        if setup.plugged {
            if let Some(daemon) = &daemon {
                let chardev = format!("socket,id={CHARDEV_ID},path={}", daemon.socket_path());
                machine.devices.extend(["-chardev".into(), chardev]);
            }
            machine
                .devices
                .extend(["-device".into(), setup.device.description().to_string()]);
        }
        let (mut qemu, guest, at_boot) = boot(&machine, directory)?;
        let ram = qemu.memory_size()? / PAGE_SIZE;
        Ok(Self {
            guest,
            qemu,
            daemon,
            setup: setup.clone(),
            at_boot,
            ram,
            boots: 1,
            probes: 0,
        })
    }

    /// The driver under test.
    pub fn driver(&self) -> Driver {
        self.setup.driver
    }

    /// Loads the driver and checks what it says at probe.
    pub fn load(&mut self) -> Result<()> {
        self.guest.shell(&self.setup.driver.insmod())?;
        if self.setup.plugged {
            self.expect_probe()?;
        }
        Ok(())
    }

    /// Takes the driver out.
    pub fn unload(&mut self) -> Result<()> {
        self.guest
            .shell(&format!("rmmod {}", self.setup.driver.module()))
            .map(|_| ())
    }

    /// Checks that driver and device have agreed as they should, and that the project's driver has
    /// said so once more, in one line.
    pub fn expect_probe(&mut self) -> Result<()> {
        self.probes += 1;
        let bound = format!(
            "/sys/bus/virtio/drivers/{}/virtio*/features",
            self.setup.driver.module()
        );
        wait_until(Duration::from_secs(20), "the driver to be bound", || {
            Ok(self.guest.try_shell(&format!("cat {bound}"))?.status == 0)
        })?;
        let features = self.guest.shell(&format!("cat {bound}"))?;
        let negotiated = features.as_bytes().get(PAGE_BITMAP_BIT) == Some(&b'1');
        ensure!(
            negotiated == (self.setup.wire == Wire::PageBitmaps),
            "{:?} expected, but the features are {features}",
            self.setup.wire
        );
        if self.setup.driver == Driver::Stock {
            return Ok(());
        }
        wait_until(
            Duration::from_secs(20),
            "the driver's line at probe",
            || Ok(self.probe_lines()?.len() >= self.probes),
        )?;
        let lines = self.probe_lines()?;
        ensure!(
            lines.len() == self.probes,
            "{} probes, but the driver says: {lines:#?}",
            self.probes
        );
        let line = &lines[self.probes - 1];
        ensure!(
            line.contains(self.setup.wire.name()),
            "{:?} expected, but the driver says: {line}",
            self.setup.wire
        );
        Ok(())
    }

    /// A probe that nobody looked at, as in a loop within the guest.
    pub fn count_probes(&mut self, count: usize) {
        self.probes += count;
    }

    /// All the driver says, but for "Out of puff", which is about memory and not about a probe.
    fn probe_lines(&self) -> Result<Vec<String>> {
        let log = self.qemu.guest_log()?;
        Ok(log
            .lines()
            .filter(|line| line.contains(OUR_PREFIX) && !line.contains("Out of puff"))
            .map(str::to_owned)
            .collect())
    }

    /// The monitor that rules the balloon: the daemon's or QEMU's.
    pub fn balloon(&mut self) -> &mut Qmp {
        self.daemon
            .as_mut()
            .map_or(&mut self.qemu.qmp, |daemon| &mut daemon.qmp)
    }

    /// Asks for a balloon of this many pages, and does not wait.
    pub fn set_target(&mut self, pages: u64) -> Result<()> {
        let bytes = self
            .ram
            .checked_sub(pages)
            .context("a balloon larger than RAM")?
            * PAGE_SIZE;
        self.set_guest_size(bytes)
    }

    /// The QMP command `balloon`, which takes what is left to the guest, in bytes.
    pub fn set_guest_size(&mut self, bytes: u64) -> Result<()> {
        self.balloon()
            .execute("balloon", json!({ "value": bytes }))
            .map(|_| ())
    }

    /// Pages in the balloon as the driver reported them to the device.
    pub fn actual(&mut self) -> Result<u64> {
        let answer = self.balloon().execute("query-balloon", Value::Null)?;
        let bytes = answer["actual"]
            .as_u64()
            .with_context(|| format!("no actual in {answer}"))?;
        Ok(self.ram.saturating_sub(bytes / PAGE_SIZE))
    }

    /// Sets a target and waits until everybody agrees, to the page, that it is reached. Returns how
    /// long the device took to hear of it.
    pub fn reach(&mut self, pages: u64) -> Result<Duration> {
        let start = Instant::now();
        self.set_target(pages)?;
        self.await_actual(pages)?;
        let elapsed = start.elapsed();
        self.expect_balloon(pages)?;
        Ok(elapsed)
    }

    /// Waits until the device has been told of a balloon of this size.
    pub fn await_actual(&mut self, pages: u64) -> Result<()> {
        let mut actual = 0;
        wait_until(TARGET_TIMEOUT, "the balloon's target", || {
            self.qemu.expect_alive()?;
            actual = self.actual()?;
            Ok(actual == pages)
        })
        .with_context(|| format!("the target is {pages} pages, actual is {actual}"))
    }

    /// Checks that guest and device agree, to the page, on a balloon of this size.
    pub fn expect_balloon(&mut self, pages: u64) -> Result<()> {
        let mut memory = self.guest.memory()?;
        // A driver may report before the last page's account is closed.
        let closed = wait_until(Duration::from_secs(10), "the guest's account", || {
            memory = self.guest.memory()?;
            Ok(memory.nr_balloon_pages == pages)
        });
        closed.with_context(|| format!("{pages} pages expected in the balloon: {memory:?}"))?;
        self.expect_consistent(&memory)?;
        let actual = self.actual()?;
        ensure!(
            actual == pages,
            "the balloon holds {pages} pages, actual is {actual}"
        );
        if let Some(held) = self.pages_held()? {
            ensure!(
                held == pages,
                "the balloon holds {pages} pages, the device was told of {held}"
            );
        }
        Ok(())
    }

    /// Checks that the guest's own figures fit each other.
    pub fn expect_consistent(&self, memory: &Memory) -> Result<()> {
        let expected = self.at_boot.total.checked_sub(memory.nr_balloon_pages);
        ensure!(
            Some(memory.total) == expected,
            "MemTotal must fall by the balloon: {:?} at boot, now {memory:?}",
            self.at_boot
        );
        ensure!(
            memory.balloon == memory.nr_balloon_pages,
            "Balloon and nr_balloon_pages differ: {memory:?}"
        );
        let counted = memory.balloon_inflate.checked_sub(memory.balloon_deflate);
        ensure!(
            counted == Some(memory.nr_balloon_pages),
            "the event counters do not fit: {memory:?}"
        );
        Ok(())
    }

    /// Waits until `actual` is no longer `from`, and returns what it is then.
    pub fn await_change(&mut self, from: u64) -> Result<u64> {
        let mut pages = from;
        wait_until(TARGET_TIMEOUT, "the balloon to change", || {
            pages = self.actual()?;
            Ok(pages != from)
        })?;
        Ok(pages)
    }

    /// Pages that the daemon counts as held, where the device is the daemon.
    pub fn pages_held(&mut self) -> Result<Option<u64>> {
        if self.daemon.is_none() {
            return Ok(None);
        }
        let counters = self.counters()?;
        counters["pages_held"]
            .as_u64()
            .map(Some)
            .with_context(|| format!("no pages_held in {counters}"))
    }

    /// Checks that the daemon, where it is the device, has nothing to complain of.
    fn expect_content_device(&mut self) -> Result<()> {
        if self.daemon.is_none() {
            return Ok(());
        }
        let counters = self.counters()?;
        for (part, names) in [
            ("inflate", &["rejected", "ignored", "duplicates"][..]),
            ("deflate", &["rejected", "ignored", "duplicates"]),
            ("discard", &["errors"]),
        ] {
            for name in names {
                ensure!(
                    counters[part][name] == 0,
                    "the device counts {part} {name}: {counters}"
                );
            }
        }
        Ok(())
    }

    /// The daemon's counters.
    pub fn counters(&mut self) -> Result<Value> {
        self.balloon()
            .execute("query-balloon-counters", Value::Null)
    }

    /// Brings the device while the guest runs.
    pub fn plug(&mut self) -> Result<()> {
        if let Some(daemon) = &self.daemon {
            let address = json!({ "type": "unix", "data": { "path": daemon.socket_path() } });
            let backend = json!({ "type": "socket", "data": { "addr": address, "server": false } });
            self.qemu.qmp.execute(
                "chardev-add",
                json!({ "id": CHARDEV_ID, "backend": backend }),
            )?;
        }
        self.qemu.plug(self.setup.device.description())
    }

    /// Takes the device away while the guest runs.
    pub fn unplug(&mut self) -> Result<()> {
        self.qemu.unplug(DEVICE_ID)?;
        if self.daemon.is_some() {
            self.qemu
                .qmp
                .execute("chardev-remove", json!({ "id": CHARDEV_ID }))?;
        }
        Ok(())
    }

    /// Waits for the guest to come up again after a reset, with no driver loaded.
    pub fn await_reboot(&mut self) -> Result<()> {
        self.boots += 1;
        self.at_boot = greet(&mut self.guest, &self.qemu, self.boots)?;
        Ok(())
    }

    /// Powers the guest off in an orderly way, whatever the balloon does, judges its log, and ends
    /// the daemon.
    pub fn finish(self) -> Result<()> {
        self.power_off()?.map_or(Ok(()), Daemon::stop)
    }

    /// Powers the guest off in an orderly way and judges its log. The daemon lives on.
    pub fn power_off(mut self) -> Result<Option<Daemon>> {
        self.guest
            .memory()
            .context("the guest does not answer at the end")?;
        self.expect_content_device()?;
        self.guest.send_shell("poweroff -f")?;
        self.qemu
            .wait_end(Duration::from_secs(60))
            .context("powering the guest off")?;
        if let Some(daemon) = &mut self.daemon {
            daemon.expect_alive()?;
        }
        audit(&self.qemu.guest_log()?, self.boots)?;
        let lines = self.probe_lines()?;
        if self.setup.driver != Driver::Stock && lines.len() != self.probes {
            bail!(
                "one line a probe expected, {} probes: {lines:#?}",
                self.probes
            );
        }
        Ok(self.daemon)
    }

    /// Kills QEMU. The daemon lives on.
    pub fn kill(self) -> Option<Daemon> {
        self.daemon
    }
}

/// Waits for a boot, which is the guest's `boots`th, to be done and in the log; returns its memory.
/// Starts the machine until its guest comes up. Under TCG the kernel hangs now and then while it looks
/// at its clocks, long before there is a balloon driver.
fn boot(machine: &Machine, directory: &Path) -> Result<(Qemu, Guest, Memory)> {
    let mut tries = 0;
    loop {
        tries += 1;
        let (qemu, mut guest) = Qemu::start(machine, Accelerator::best(), directory)?;
        match greet(&mut guest, &qemu, 1) {
            Ok(at_boot) => return Ok((qemu, guest, at_boot)),
            Err(error) if tries < BOOT_TRIES => eprintln!("boot {tries} failed: {error:#}"),
            Err(error) => return Err(error),
        }
    }
}

fn greet(guest: &mut Guest, qemu: &Qemu, boots: usize) -> Result<Memory> {
    guest.wait_hello(BOOT_TIMEOUT)?;
    wait_until(
        Duration::from_secs(20),
        "the guest's console to show its boot",
        || Ok(proofs_of_boot(&qemu.guest_log()?) == boots),
    )?;
    guest.memory()
}
