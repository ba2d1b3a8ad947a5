// SPDX-License-Identifier: GPL-2.0-only

//! A guest with a balloon, and what must be true of the two together.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use serde_json::{json, Value};

use crate::audit::{audit, proofs_of_boot, trouble, Incident};
use crate::balloon::{Daemon, Device, CHARDEV_ID, DEVICE_ID};
use crate::disk::Disk;
use crate::environment::Kernel;
use crate::guest::Guest;
use crate::kvm::best_accelerator;
use crate::memory::Memory;
use crate::process::{wait_closely, wait_until};
use crate::qemu::{Machine, Qemu};
use crate::qmp::Qmp;
use crate::{boots, environment, initramfs, MIB, PAGE_SIZE};

const BOOT_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a guest may fail to boot in a row, less one.
const BOOT_TRIES: usize = 3;
/// No target takes this long to reach under emulation; one that is never reached does.
const TARGET_TIMEOUT: Duration = Duration::from_secs(120);
/// VIRTIO_BALLOON_F_PAGE_BITMAP.
const PAGE_BITMAP_BIT: usize = 63;
/// VIRTIO_BALLOON_F_DEFLATE_ON_OOM.
const DEFLATE_ON_OOM_BIT: usize = 2;
/// How every line of the project's driver starts.
const OUR_PREFIX: &str = "virtio_balloon_bmap virtio";

/// Which driver the guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The project's, with module parameters.
    Ours(&'static str),
    /// The project's, built so that it lacks something: messages/fault.rs has the names.
    Faulty(&'static str),
    /// The distribution's virtio_balloon.
    Stock,
    /// The project's, built into the kernel. It comes and goes by being bound and unbound.
    BuiltIn,
}

/// Binds the driver that is built in to the balloon, where it is not bound.
const BIND: &str = "for device in /sys/bus/virtio/devices/*; do \
        if grep -q 0x0005 $device/device && [ ! -e $device/driver ]; then \
            echo ${device##*/} > /sys/bus/virtio/drivers/virtio_balloon_bmap/bind || exit; \
        fi; \
    done";
/// Unbinds the driver that is built in from all that it serves.
const UNBIND: &str = "cd /sys/bus/virtio/drivers/virtio_balloon_bmap && \
    for device in virtio*; do echo $device > unbind || exit; done";

impl Driver {
    /// Name of the driver, and of its module.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours(_) | Self::Faulty(_) | Self::BuiltIn => "virtio_balloon_bmap",
            Self::Stock => "virtio_balloon",
        }
    }

    /// Script that brings the driver.
    pub fn load_script(self) -> String {
        match self {
            Self::Ours(parameters) => format!("insmod {} {parameters}", initramfs::MODULE),
            Self::Faulty(fault) => format!("insmod {}", initramfs::faulty_module(fault)),
            Self::Stock => format!("insmod {}", initramfs::STOCK_MODULE),
            Self::BuiltIn => BIND.into(),
        }
    }

    /// Script that takes the driver away.
    pub fn unload_script(self) -> String {
        match self {
            Self::BuiltIn => UNBIND.into(),
            module => format!("rmmod {}", module.name()),
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

/// A booted guest. Dropping it ends everything; [`Vm::finish`] judges it first, and [`Vm::rest`] keeps it
/// for another purpose.
pub struct Vm {
    pub guest: Guest,
    pub qemu: Qemu,
    pub daemon: Option<Daemon>,
    setup: Setup,
    /// With all that the device needs.
    machine: Machine,
    directory: PathBuf,
    /// MemTotal with an empty balloon, in pages.
    total: u64,
    /// RAM, in pages, beside what a debugging kernel takes for itself.
    pub ram: u64,
    /// All RAM, in pages.
    pub size: u64,
    boots: usize,
    probes: usize,
    incidents: Vec<Incident>,
    /// How many of them the boots before this one had.
    past_incidents: usize,
    /// What else the driver may say.
    expected: Vec<&'static str>,
    /// Pages in the balloon are used, and not gone.
    keeps_total: bool,
    /// It has slept since it was started.
    slept: bool,
}

impl Vm {
    /// Boots the guest; all logs go to `directory`. No balloon driver is loaded yet, unless it is
    /// built in.
    pub fn boot(setup: &Setup, directory: &Path) -> Result<Self> {
        let daemon = match setup.device {
            Device::Qemu(_) | Device::NativeQemu(_) => None,
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
        machine.devices.extend(setup.device.needs());
        machine.native |= matches!(setup.device, Device::NativeQemu(_));
        if setup.plugged {
            if let Some(daemon) = &daemon {
                let chardev = format!("socket,id={CHARDEV_ID},path={}", daemon.socket_path());
                machine.devices.extend(["-chardev".into(), chardev]);
            }
            machine
                .devices
                .extend(["-device".into(), setup.device.description().to_string()]);
        }
        let (mut qemu, guest, total) = boot(&machine, directory)?;
        let size = qemu.memory_size()? / PAGE_SIZE;
        let mut vm = Self {
            guest,
            qemu,
            daemon,
            setup: setup.clone(),
            ram: machine.ram_mib() * MIB / PAGE_SIZE,
            size,
            machine,
            directory: directory.to_owned(),
            total,
            boots: 0,
            probes: 0,
            incidents: Vec::new(),
            past_incidents: 0,
            expected: Vec::new(),
            keeps_total: false,
            slept: false,
        };
        vm.count_boot();
        Ok(vm)
    }

    /// A kernel that has started, up to the agent.
    fn count_boot(&mut self) {
        self.boots += 1;
        self.count_probe_at_boot();
    }

    /// A driver that is built in has its first probe before there is anybody to load it.
    fn count_probe_at_boot(&mut self) {
        if self.setup.driver == Driver::BuiltIn && self.setup.plugged {
            self.probes += 1;
        }
    }

    /// What it was booted with.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The driver under test.
    pub fn driver(&self) -> Driver {
        self.setup.driver
    }

    /// Where all logs go.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a line to the guest's log.
    pub fn note(&mut self, words: &str) -> Result<()> {
        self.guest
            .shell(&format!("echo {words} > /dev/kmsg"))
            .map(|_| ())
    }

    /// Loads the driver and checks what it says at probe.
    pub fn load(&mut self) -> Result<()> {
        self.guest.shell(&self.setup.driver.load_script())?;
        if self.setup.plugged {
            self.expect_probe()?;
        }
        Ok(())
    }

    /// Takes the driver out.
    pub fn unload(&mut self) -> Result<()> {
        self.guest
            .shell(&self.setup.driver.unload_script())
            .map(|_| ())
    }

    /// Checks that driver and device have agreed as they should, and that the project's driver has
    /// said so once more, in one line.
    pub fn expect_probe(&mut self) -> Result<()> {
        self.probes += 1;
        let mut features = Vec::new();
        wait_until(Duration::from_secs(20), "the driver to be bound", || {
            features = self.features()?;
            Ok(!features.is_empty())
        })?;
        ensure!(
            features.contains(&PAGE_BITMAP_BIT) == (self.setup.wire == Wire::PageBitmaps),
            "{:?} expected, but the features are {features:?}",
            self.setup.wire
        );
        self.keeps_total = features.contains(&DEFLATE_ON_OOM_BIT);
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

    /// The bits of the features that driver and device have agreed on; none without a driver.
    pub fn features(&mut self) -> Result<Vec<usize>> {
        let driver = self.setup.driver.name();
        let bits = self.guest.try_shell(&format!(
            "cat /sys/bus/virtio/drivers/{driver}/virtio*/features"
        ))?;
        let bits = bits.text.bytes().take_while(|bit| b"01".contains(bit));
        Ok(bits
            .enumerate()
            .filter_map(|(bit, on)| (on == b'1').then_some(bit))
            .collect())
    }

    /// A probe that nobody looked at, as in a loop within the guest.
    pub fn count_probes(&mut self, count: usize) {
        self.probes += count;
    }

    /// Expects that the guest has killed one more process for want of memory, and that its log will
    /// say so.
    pub fn count_oom_kill(&mut self) -> Result<()> {
        self.incidents.push(Incident::OomKill);
        self.expect_oom_kills()
    }

    /// Checks that the guest has killed nobody but those that it was expected to.
    pub fn expect_oom_kills(&mut self) -> Result<()> {
        let killed = self.guest.memory()?.oom_kill;
        let expected = &self.incidents[self.past_incidents..];
        ensure!(
            killed == expected.len() as u64,
            "{killed} processes were killed, and not only {expected:?}"
        );
        Ok(())
    }

    /// Expects all that the guest has killed for want of memory so far, whoever it was.
    pub fn count_all_oom_kills(&mut self) -> Result<()> {
        let killed = usize::try_from(self.guest.memory()?.oom_kill)?;
        self.incidents
            .resize(self.past_incidents + killed, Incident::OomKill);
        Ok(())
    }

    /// Expects that the driver says this, and says it of what happened until now.
    pub fn expect_line(&mut self, line: &'static str) -> Result<()> {
        self.expected.push(line);
        wait_until(Duration::from_secs(20), "the driver's line", || {
            Ok(self.qemu.guest_log()?.contains(line))
        })
    }

    /// Has the guest's kernel crash, and does not wait. The log will say so.
    pub fn crash(&mut self) -> Result<()> {
        self.incidents.push(Incident::Crash);
        self.guest.send_shell("echo c > /proc/sysrq-trigger")
    }

    /// All the driver says, but for what is expected and "Out of puff", which is about memory and not
    /// about a probe.
    fn probe_lines(&self) -> Result<Vec<String>> {
        let log = self.qemu.guest_log()?;
        Ok(log
            .lines()
            .filter(|line| line.contains(OUR_PREFIX) && !line.contains("Out of puff"))
            .filter(|line| !self.expected.iter().any(|expected| line.contains(expected)))
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
            .size
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
        Ok(self.size.saturating_sub(bytes / PAGE_SIZE))
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
        let reached = wait_until(TARGET_TIMEOUT, "the balloon's target", || {
            self.qemu.expect_alive()?;
            actual = self.actual()?;
            Ok(actual == pages)
        });
        reached.with_context(|| {
            let memory = self.guest.memory();
            format!("the target is {pages} pages, actual is {actual}: {memory:?}")
        })
    }

    /// Checks that guest and device agree, to the page, on a balloon of this size.
    pub fn expect_balloon(&mut self, pages: u64) -> Result<()> {
        let mut memory = self.guest.memory()?;
        // The guest's figures are not all of the same moment, and a driver may report before the last
        // page's account is closed.
        let closed = wait_until(TARGET_TIMEOUT, "the guest's account", || {
            memory = self.guest.memory()?;
            Ok(memory.nr_balloon_pages == pages && self.expect_consistent(&memory).is_ok())
        });
        let closed = closed.and_then(|()| self.expect_consistent(&memory));
        closed.with_context(|| format!("{pages} pages expected in the balloon: {memory:?}"))?;
        // It may also report after that: what was `actual` until now may be that of the boot before, which
        // devices remember until a new driver is there. And a page that compaction moves is the device's
        // at both places for a moment.
        let (mut actual, mut held) = (0, None);
        let told = wait_until(TARGET_TIMEOUT, "the device's account", || {
            actual = self.actual()?;
            held = self.pages_held()?;
            Ok(actual == pages && held.is_none_or(|held| held == pages))
        });
        told.with_context(|| {
            format!(
                "the balloon holds {pages} pages, actual is {actual}, the device was told of {held:?}"
            )
        })
    }

    /// Checks that the guest's own figures fit each other.
    pub fn expect_consistent(&self, memory: &Memory) -> Result<()> {
        let gone = if self.keeps_total {
            0
        } else {
            memory.nr_balloon_pages
        };
        ensure!(
            Some(memory.total) == self.total.checked_sub(gone),
            "MemTotal must fall by {gone} pages: {} at boot, now {memory:?}",
            self.total
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
        wait_closely(
            Duration::from_micros(100),
            TARGET_TIMEOUT,
            "the balloon to change",
            || {
                pages = self.actual()?;
                Ok(pages != from)
            },
        )?;
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

    /// Has the daemon take no more messages from these queues, `inflate`, `deflate`, `stats` and
    /// `reporting`, and serve all others. The device must have [`test_commands`].
    ///
    /// [`test_commands`]: crate::balloon::Features::test_commands
    pub fn leave_unserved(&mut self, queues: &[&str]) -> Result<()> {
        self.balloon()
            .execute("x-leave-unserved", json!({ "queues": queues }))
            .map(|_| ())
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

    /// Resets the machine, which starts the guest again.
    pub fn reset(&mut self) -> Result<()> {
        self.qemu.allow_resets(true)?;
        self.qemu
            .qmp
            .execute("system_reset", Value::Null)
            .map(|_| ())
    }

    /// Waits for the guest to come up again after a reset, with no driver loaded. One that hangs at its
    /// clocks is reset again, as in `boot`. No more resets are expected then.
    pub fn await_reboot(&mut self) -> Result<()> {
        self.count_boot();
        let timeout = boot_timeout(&self.machine);
        let mut tries = 0;
        loop {
            tries += 1;
            match greet(&mut self.guest, &self.qemu, self.boots, timeout) {
                Ok(total) => {
                    self.total = total;
                    self.slept = false;
                    self.past_incidents = self.incidents.len();
                    return self.qemu.allow_resets(false);
                }
                Err(error) if tries < BOOT_TRIES && trouble(&self.qemu.guest_log()?).is_empty() => {
                    eprintln!("boot {tries} after a reset failed: {error:#}");
                    self.qemu.qmp.execute("system_reset", Value::Null)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Checks, where the kernel can tell, that no memory was lost.
    pub fn expect_no_leaks(&mut self) -> Result<()> {
        if environment::kernel_kind()? != Kernel::Debug {
            return Ok(());
        }
        // What was allocated in the last five seconds does not count.
        let leaks = self.guest.shell(
            "cd /sys/kernel/debug && echo scan > kmemleak && sleep 6 && echo scan > kmemleak && cat kmemleak",
        )?;
        ensure!(leaks.is_empty(), "the guest has lost memory:\n{leaks}");
        Ok(())
    }

    /// Judges a guest whose balloon is at rest, powers it off, and ends the daemon.
    pub fn finish(mut self) -> Result<()> {
        self.expect_conserved()?;
        self.expect_no_leaks()?;
        self.restart_if_slept()?;
        self.power_off()?.map_or(Ok(()), Daemon::stop)
    }

    /// Judges a guest whose balloon is at rest as [`Self::finish`] does, and has it for another purpose:
    /// without a driver, with an empty balloon and without files.
    pub fn rest(&mut self) -> Result<()> {
        self.expect_conserved()?;
        self.expect_no_leaks()?;
        self.expect_content_device()?;
        if !self.features()?.is_empty() {
            self.unload()?;
        }
        self.set_target(0)?;
        self.poll_statistics(0)?;
        self.expect_balloon(0)?;
        self.guest.shell("rm -rf /tmp/*")?;
        self.expect_clean_log()
    }

    /// Has the device ask for statistics each so many seconds, or no longer.
    pub fn poll_statistics(&mut self, seconds: u64) -> Result<()> {
        let interval = json!({
            "path": format!("/machine/peripheral/{DEVICE_ID}"),
            "property": "guest-stats-polling-interval",
            "value": seconds,
        });
        self.balloon().execute("qom-set", interval).map(|_| ())
    }

    /// Has the guest sleep, and waits until it does.
    pub fn sleep(&mut self, script: &str, timeout: Duration) -> Result<()> {
        self.slept = true;
        self.guest.send_shell(script)?;
        wait_until(timeout, "the guest to sleep", || {
            let status = self.qemu.qmp.execute("query-status", Value::Null)?;
            Ok(status["status"] == "suspended")
        })
    }

    /// QEMU does not power a guest off that has slept.
    pub fn restart_if_slept(&mut self) -> Result<()> {
        if self.slept {
            self.reset()?;
            self.await_reboot()?;
        }
        Ok(())
    }

    /// Powers the guest off in an orderly way, whatever the balloon does, and judges its log. The
    /// daemon lives on.
    pub fn power_off(mut self) -> Result<Option<Daemon>> {
        self.guest
            .memory()
            .context("the guest does not answer at the end")?;
        self.expect_content_device()?;
        self.guest.send_shell("poweroff -f")?;
        self.qemu
            .wait_end(Duration::from_secs(120))
            .context("powering the guest off")?;
        if let Some(daemon) = &mut self.daemon {
            daemon.expect_alive()?;
        }
        self.expect_clean_log()?;
        Ok(self.daemon)
    }

    /// Checks that the guest's log has all that it must have so far, and no more.
    fn expect_clean_log(&self) -> Result<()> {
        audit(&self.qemu.guest_log()?, self.boots, &self.incidents)?;
        let lines = self.probe_lines()?;
        if self.setup.driver != Driver::Stock && lines.len() != self.probes {
            bail!(
                "one line a probe expected, {} probes: {lines:#?}",
                self.probes
            );
        }
        Ok(())
    }

    /// Has another QEMU go on with the guest, from the file that it was migrated to, or else from what
    /// it has saved itself.
    pub fn go_on(&mut self, migrated: Option<&Path>) -> Result<()> {
        self.machine.incoming = migrated.map(Path::to_owned);
        self.machine.goes_on = true;
        let (qemu, guest) = start(&self.machine, &self.directory)?;
        (self.qemu, self.guest) = (qemu, guest);
        if migrated.is_none() {
            // The kernel that reads what was saved is one of its own, for a while.
            self.count_probe_at_boot();
        }
        Ok(())
    }

    /// Kills QEMU. The daemon lives on.
    pub fn kill(self) -> Option<Daemon> {
        self.daemon
    }
}

/// Starts the machine until its guest comes up, and returns its memory in pages too. Under TCG the kernel hangs now and
/// then while it looks at its clocks, long before there is a balloon driver.
pub fn boot(machine: &Machine, directory: &Path) -> Result<(Qemu, Guest, u64)> {
    let mut tries = 0;
    loop {
        tries += 1;
        let (qemu, mut guest) = start(machine, directory)?;
        match greet(&mut guest, &qemu, 1, boot_timeout(machine)) {
            Ok(total) => return Ok((qemu, guest, total)),
            Err(error) if tries < BOOT_TRIES && is_hang(&qemu.guest_log()?)? => {
                eprintln!("boot {tries} failed: {error:#}")
            }
            Err(error) => return Err(error),
        }
    }
}

fn start(machine: &Machine, directory: &Path) -> Result<(Qemu, Guest)> {
    let accelerator = machine.accelerator.unwrap_or_else(best_accelerator);
    Qemu::start(machine, accelerator, directory)
}

/// Whether a guest that does not come up may have hung at its clocks: it says nothing more then, or that
/// it stalls. Where a driver of ours is there from the start, only silence passes for that.
fn is_hang(log: &str) -> Result<bool> {
    Ok(environment::kernel_kind()? != Kernel::BuiltIn || trouble(log).is_empty())
}

/// How long a boot may take.
fn boot_timeout(machine: &Machine) -> Duration {
    if machine.disk.is_some() {
        Disk::BOOT_TIMEOUT
    } else {
        BOOT_TIMEOUT
    }
}

/// Waits for a boot, which is the guest's `boots`th, to be done and in the log; returns its memory in
/// pages. A driver that is built in may be moving some of it, which no two looks show in the same state.
fn greet(guest: &mut Guest, qemu: &Qemu, boots: usize, timeout: Duration) -> Result<u64> {
    let start = Instant::now();
    guest.wait_hello(timeout)?;
    wait_until(
        Duration::from_secs(20),
        "the guest's console to show its boot",
        || Ok(proofs_of_boot(&qemu.guest_log()?) == boots),
    )?;
    boots::count(start);
    let mut total = 0;
    wait_until(TARGET_TIMEOUT, "two equal accounts of memory", || {
        let memory = guest.memory()?;
        let before = std::mem::replace(&mut total, memory.total + memory.nr_balloon_pages);
        Ok(total == before)
    })?;
    Ok(total)
}
