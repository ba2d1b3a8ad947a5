// SPDX-License-Identifier: GPL-2.0-only

//! A QEMU process: machine, monitor, console log and the agent's port.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use serde_json::{json, Value};

use crate::accelerator::Accelerator;
use crate::disk::Disk;
use crate::environment::Kernel;
use crate::guest::Guest;
use crate::host_memory::HostMemory;
use crate::process::Process;
use crate::protocol::PORT_NAME;
use crate::qmp::Qmp;
use crate::{environment, initramfs};

/// The bus that takes devices while the guest runs.
const HOTPLUG_BUS: &str = "hotplug-port";

/// Everything about the machine but its balloon.
#[derive(Clone, Debug)]
pub struct Machine {
    /// RAM, beside what a debugging kernel takes for itself.
    pub memory_mib: u64,
    /// The host has all RAM from the start, not only what the guest has written to.
    pub preallocated: bool,
    /// More RAM, this many GiB up in the guest's physical address space.
    pub far_memory: Option<FarMemory>,
    /// More words for the kernel's command line.
    pub command_line: String,
    /// QEMU is the one with the patches in host/qemu.
    pub native: bool,
    /// More arguments for QEMU.
    pub devices: Vec<String>,
    /// The guest was migrated to this file.
    pub incoming: Option<PathBuf>,
    /// The system to boot; without one, the stock kernel with the agent as its first process.
    pub disk: Option<Disk>,
    /// The guest is one that was there before, and its log goes on.
    pub goes_on: bool,
    /// What executes its instructions, where that is not to be the best there is.
    pub accelerator: Option<Accelerator>,
}

/// A memory module at a place of its own.
#[derive(Clone, Copy, Debug)]
pub struct FarMemory {
    /// Its size.
    pub mib: u64,
    /// Where it starts.
    pub at_gib: u64,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            memory_mib: 512,
            preallocated: false,
            far_memory: None,
            command_line: String::new(),
            native: false,
            devices: Vec::new(),
            incoming: None,
            disk: None,
            goes_on: false,
            accelerator: None,
        }
    }
}

impl Machine {
    /// Adds a disk, /dev/nvme0n1, with the contents of `file`.
    pub fn add_disk(&mut self, file: &Path) -> Result<()> {
        self.devices.extend([
            "-drive".into(),
            format!("if=none,id=disk,format=raw,file={}", escape(file)?),
            "-device".into(),
            "nvme,drive=disk,serial=disk".into(),
        ]);
        Ok(())
    }
}

/// A running QEMU; dropping it ends it.
pub struct Qemu {
    process: Process,
    /// The monitor.
    pub qmp: Qmp,
    log: PathBuf,
}

impl Qemu {
    /// Starts a machine whose logs go to `directory`: the guest's console to `guest.log`, what QEMU
    /// says to `qemu.log`. The guest's agent will greet on the connection returned.
    pub fn start(
        machine: &Machine,
        accelerator: Accelerator,
        directory: &Path,
    ) -> Result<(Self, Guest)> {
        let (monitor, qemu_monitor) = UnixStream::pair()?;
        let (agent, qemu_agent) = UnixStream::pair()?;
        let log = directory.join("guest.log");
        let (kernel, initrd, root) = match &machine.disk {
            None => (environment::kernel()?, initramfs::path()?, ""),
            Some(disk) => {
                let (kernel, initrd) = disk.kernel_and_initrd(directory)?;
                (kernel, initrd, "root=/dev/vda rw")
            }
        };
        let mut command = Command::new(if machine.native {
            environment::native_qemu()?
        } else {
            environment::qemu()?
        });
        command
            .args(accelerator.arguments())
            .args(["-machine", "q35,memory-backend=ram", "-smp", "2"])
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-action", "reboot=shutdown"])
            .args(memory_arguments(machine, kernel_share(machine)?))
            .args([
                "-chardev".into(),
                format!(
                    "file,id=console,path={},append={}",
                    escape(&log)?,
                    if machine.goes_on { "on" } else { "off" }
                ),
            ])
            .args(["-serial", "chardev:console"])
            .args([
                "-chardev".into(),
                format!("socket,id=monitor,fd={}", qemu_monitor.as_raw_fd()),
            ])
            .args(["-mon", "chardev=monitor,mode=control"])
            .args([
                "-chardev".into(),
                format!("socket,id=agent,fd={}", qemu_agent.as_raw_fd()),
            ])
            .args(["-device", "virtio-serial-pci"])
            .args([
                "-device".into(),
                format!("virtserialport,chardev=agent,name={PORT_NAME}"),
            ])
            .args([
                "-device".into(),
                format!("pcie-root-port,id={HOTPLUG_BUS},chassis=1"),
            ])
            .args(&machine.devices)
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initrd)
            .args([
                "-append",
                &format!(
                    "console=ttyS0 panic=-1 {} {root} {}",
                    kernel_words()?,
                    machine.command_line
                ),
            ]);
        if let Some(file) = &machine.incoming {
            command
                .arg("-incoming")
                .arg(format!("file:{}", escape(file)?));
        }
        if let Some(disk) = &machine.disk {
            let image = escape(&disk.image)?;
            command
                .args([
                    "-drive".into(),
                    format!("id=disk,if=none,format=raw,discard=unmap,file={image}"),
                ])
                .args(["-device", "virtio-blk-pci,drive=disk"]);
        }
        let inherited = vec![qemu_monitor.into(), qemu_agent.into()];
        let output = directory.join("qemu.log");
        let process = Process::spawn("QEMU", command, &output, inherited)?;
        let qmp = Qmp::new(monitor, "QEMU").with_context(|| {
            format!(
                "QEMU says: {}",
                fs::read_to_string(&output).unwrap_or_default().trim()
            )
        })?;
        Ok((Self { process, qmp, log }, Guest::new(agent)))
    }

    /// Everything the guest's console has shown.
    pub fn guest_log(&self) -> Result<String> {
        let bytes =
            fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Bytes of host memory that the guest's RAM takes.
    pub fn resident(&self) -> Result<u64> {
        self.host_memory()?.resident()
    }

    /// The guest's RAM, for a closer look at it.
    pub fn host_memory(&self) -> Result<HostMemory> {
        HostMemory::of(self.process.id())
    }

    /// Fails when QEMU has ended.
    pub fn expect_alive(&mut self) -> Result<()> {
        self.process.expect_alive()
    }

    /// Bytes of RAM that the guest was given.
    pub fn memory_size(&mut self) -> Result<u64> {
        let sizes = self.qmp.execute("query-memory-size-summary", Value::Null)?;
        let bytes = |name: &str| sizes[name].as_u64().unwrap_or(0);
        Ok(bytes("base-memory") + bytes("plugged-memory"))
    }

    /// Whether a reset starts the guest again; otherwise it ends QEMU, as it does at first.
    pub fn allow_resets(&mut self, allow: bool) -> Result<()> {
        let action = if allow { "reset" } else { "shutdown" };
        self.qmp
            .execute("set-action", json!({ "reboot": action }))
            .map(|_| ())
    }

    /// Plugs a device into a running guest.
    pub fn plug(&mut self, mut device: Value) -> Result<()> {
        device["bus"] = json!(HOTPLUG_BUS);
        self.qmp.execute("device_add", device).map(|_| ())
    }

    /// Unplugs a device and waits until the guest has let go of it.
    pub fn unplug(&mut self, id: &str) -> Result<()> {
        self.qmp.execute("device_del", json!({ "id": id }))?;
        self.qmp
            .wait_event("DEVICE_DELETED", Duration::from_secs(60), |data| {
                data["device"] == id
            })?;
        Ok(())
    }

    /// Waits for QEMU to end well, as it does when the guest powers off.
    pub fn wait_end(&mut self, timeout: Duration) -> Result<()> {
        let status = self.process.wait(timeout)?;
        if !status.success() {
            bail!("QEMU ended with {status}");
        }
        Ok(())
    }
}

impl Machine {
    /// All RAM of the trial, in MiB.
    pub fn ram_mib(&self) -> u64 {
        self.memory_mib + self.far_memory.map_or(0, |far| far.mib)
    }
}

/// What a debugging kernel needs on top, in MiB: a shadow of an eighth of it all, and room for its books.
fn kernel_share(machine: &Machine) -> Result<u64> {
    Ok(match environment::kernel_kind()? {
        Kernel::Debug => machine.ram_mib() / 7 + 64,
        Kernel::Distribution | Kernel::BuiltIn => 0,
    })
}

/// A debugging kernel has page tables of four levels. With five of them identify_cpu() forgets for a moment, at boot,
/// how many there are, and KASAN takes what an interrupt then does for wild accesses.
fn kernel_words() -> Result<&'static str> {
    Ok(match environment::kernel_kind()? {
        Kernel::Debug => "no5lvl",
        Kernel::Distribution | Kernel::BuiltIn => "",
    })
}

fn memory_arguments(machine: &Machine, kernel_share: u64) -> Vec<String> {
    let mib = machine.memory_mib + kernel_share;
    let prealloc = if machine.preallocated { "on" } else { "off" };
    let backend = |id: &str, mib: u64| {
        format!("memory-backend-memfd,id={id},size={mib}M,share=on,prealloc={prealloc}")
    };
    let mut arguments = vec!["-object".into(), backend("ram", mib), "-m".into()];
    match machine.far_memory {
        None => arguments.push(format!("{mib}M")),
        Some(far) => arguments.extend([
            format!(
                "{mib}M,slots=1,maxmem={}G",
                far.at_gib + far.mib.div_ceil(1024)
            ),
            "-object".into(),
            backend("far", far.mib),
            "-device".into(),
            format!("pc-dimm,memdev=far,addr={:#x}", far.at_gib << 30),
        ]),
    }
    arguments
}

/// A comma in an option's value is written twice.
fn escape(path: &Path) -> Result<String> {
    Ok(path
        .to_str()
        .context("a path is not UTF-8")?
        .replace(',', ",,"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_memory_becomes_a_module_at_its_address() {
        let machine = Machine {
            far_memory: Some(FarMemory {
                mib: 512,
                at_gib: 40,
            }),
            ..Machine::default()
        };
        let arguments = memory_arguments(&machine, 64).join(" ");
        assert!(
            arguments.contains("-m 576M,slots=1,maxmem=41G"),
            "{arguments}"
        );
        assert!(
            arguments.contains("pc-dimm,memdev=far,addr=0xa00000000"),
            "{arguments}"
        );
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        assert_eq!(escape(Path::new("/a,b")).unwrap(), "/a,,b");
    }
}
