// SPDX-License-Identifier: GPL-2.0-only

//! A booted guest whose memory can be taken and given back, in one way or another.

use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use guest_tests::guest::Guest;
use guest_tests::page_set::PageSet;
use guest_tests::process::wait_until;
use guest_tests::qemu::{Machine, Qemu};
use guest_tests::vm::{boot, Driver, Vm};
use guest_tests::{initramfs, MIB, PAGE_SIZE};
use serde_json::{json, Value};

use crate::plan::Subject;
use crate::record::{Traffic, Way};

/// What either side has counted.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    pub device: Option<Traffic>,
    pub driver: Option<Traffic>,
}

/// The guest and what takes its memory.
pub trait Peer {
    fn guest(&mut self) -> &mut Guest;
    fn qemu(&mut self) -> &mut Qemu;
    /// Asks for so many pages to be taken away altogether, and does not wait.
    fn ask(&mut self, pages: u64) -> Result<()>;
    /// How many the device knows to be taken.
    fn taken(&mut self) -> Result<u64>;
    /// Fails unless so many really are.
    fn expect_taken(&mut self, pages: u64) -> Result<()>;
    /// What was counted so far.
    fn traffic(&mut self, way: Way) -> Result<Counters>;
    /// The pages that are taken, where the device knows.
    fn pages(&mut self) -> Result<Option<PageSet>>;
    /// Judges the guest and ends it.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Boots the subject's guest, of so much RAM, and loads the driver.
pub fn start(
    subject: Subject,
    machine: Machine,
    moved_mib: u64,
    logs: &Path,
) -> Result<Box<dyn Peer>> {
    let Some(setup) = subject.setup(machine.clone()) else {
        return Ok(Box::new(VirtioMem::start(machine, moved_mib, logs)?));
    };
    let mut vm = Vm::boot(&setup, logs)?;
    vm.load()?;
    Ok(Box::new(vm))
}

impl Peer for Vm {
    fn guest(&mut self) -> &mut Guest {
        &mut self.guest
    }

    fn qemu(&mut self) -> &mut Qemu {
        &mut self.qemu
    }

    fn ask(&mut self, pages: u64) -> Result<()> {
        self.set_target(pages)
    }

    fn taken(&mut self) -> Result<u64> {
        self.actual()
    }

    fn expect_taken(&mut self, pages: u64) -> Result<()> {
        self.expect_balloon(pages)
    }

    fn traffic(&mut self, way: Way) -> Result<Counters> {
        let device = match self.daemon {
            None => None,
            Some(_) => Some(serde_json::from_value(self.counters()?[way.name()].take())?),
        };
        let driver = match self.driver() {
            Driver::Stock => None,
            _ => {
                let counters = self.driver_counters()?;
                let counters = counters.first().context("the driver serves no device")?;
                let count = |name| counters.get(&format!("{}_{name}", way.name()));
                Some(Traffic {
                    messages: count("messages")?,
                    bytes: count("bytes")?,
                    notifications: count("notifications")?,
                })
            }
        };
        Ok(Counters { device, driver })
    }

    fn pages(&mut self) -> Result<Option<PageSet>> {
        self.device_pages()
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Vm::finish(*self)
    }
}

/// The memory device's id.
const MEMORY: &str = "taken";

/// A guest with a part of its memory in a virtio-mem device, which the distribution's driver serves.
pub struct VirtioMem {
    guest: Guest,
    qemu: Qemu,
    /// Pages of the device.
    pages: u64,
    /// The guest's MemTotal with all of them.
    total: u64,
}

impl VirtioMem {
    fn start(mut machine: Machine, moved_mib: u64, logs: &Path) -> Result<Self> {
        let all = machine.memory_mib;
        machine.memory_mib = all
            .checked_sub(moved_mib)
            .context("more memory to be taken than there is")?;
        // Only movable memory can be unplugged whatever was done with it.
        machine.command_line += " memhp_default_state=online_movable";
        machine.devices.extend([
            "-m".into(),
            format!("maxmem={all}M"),
            "-object".into(),
            format!("memory-backend-memfd,id=memory,size={moved_mib}M,share=on"),
            "-device".into(),
            format!("virtio-mem-pci,id={MEMORY},memdev=memory,requested-size={moved_mib}M"),
        ]);
        let (qemu, mut guest, total) = boot(&machine, logs)?;
        guest.shell(&format!("insmod {}", initramfs::module("virtio_mem")))?;
        let pages = moved_mib * MIB / PAGE_SIZE;
        let mut started = Self {
            guest,
            qemu,
            pages,
            total: total + pages,
        };
        wait_until(Duration::from_secs(120), "all memory to be plugged", || {
            Ok(started.taken()? == 0)
        })?;
        started.expect_taken(0)?;
        Ok(started)
    }

    fn property(&mut self, name: &str) -> Result<u64> {
        let path = format!("/machine/peripheral/{MEMORY}");
        let value = self
            .qemu
            .qmp
            .execute("qom-get", json!({ "path": path, "property": name }))?;
        value.as_u64().with_context(|| format!("{name} is {value}"))
    }
}

impl Peer for VirtioMem {
    fn guest(&mut self) -> &mut Guest {
        &mut self.guest
    }

    fn qemu(&mut self) -> &mut Qemu {
        &mut self.qemu
    }

    fn ask(&mut self, pages: u64) -> Result<()> {
        let left = self.pages.checked_sub(pages).context("too many pages")? * PAGE_SIZE;
        let path = format!("/machine/peripheral/{MEMORY}");
        let arguments = json!({ "path": path, "property": "requested-size", "value": left });
        let answer = self.qemu.qmp.execute("qom-set", arguments)?;
        ensure!(answer == json!({}) || answer == Value::Null, "{answer}");
        Ok(())
    }

    fn taken(&mut self) -> Result<u64> {
        Ok(self.pages - self.property("size")? / PAGE_SIZE)
    }

    fn expect_taken(&mut self, pages: u64) -> Result<()> {
        let mut found = 0;
        wait_until(Duration::from_secs(60), "the guest's account", || {
            found = self.guest.memory()?.total;
            Ok(found + pages == self.total)
        })
        .with_context(|| format!("{pages} of {} pages are taken, {found} left", self.total))
    }

    fn traffic(&mut self, _way: Way) -> Result<Counters> {
        Ok(Counters {
            device: None,
            driver: None,
        })
    }

    fn pages(&mut self) -> Result<Option<PageSet>> {
        Ok(None)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.guest.send_shell("poweroff -f")?;
        self.qemu
            .wait_end(Duration::from_secs(120))
            .context("powering the guest off")?;
        guest_tests::audit::audit(&self.qemu.guest_log()?, 1, &[])
    }
}
