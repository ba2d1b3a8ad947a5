//! KVM where a guest lives under it, software emulation otherwise.

use std::env;
use std::fmt;
use std::fs::OpenOptions;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use serde_json::Value;

use crate::environment;
use crate::qemu::{Machine, Qemu};

/// A guest under working KVM greets in less than two seconds.
const KVM_PATIENCE: Duration = Duration::from_secs(15);

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU's emulation.
    Tcg,
}

impl Accelerator {
    /// The best that works here, found out once a process by booting a guest. `VBB_ACCEL=kvm` or
    /// `VBB_ACCEL=tcg` settles it beforehand.
    pub fn best() -> Self {
        static BEST: OnceLock<Accelerator> = OnceLock::new();
        *BEST.get_or_init(|| match env::var("VBB_ACCEL").as_deref() {
            Ok("kvm") => Self::Kvm,
            Ok("tcg") => Self::Tcg,
            _ if kvm_lives() => Self::Kvm,
            _ => Self::Tcg,
        })
    }

    /// QEMU's arguments.
    pub fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kvm => "KVM",
            Self::Tcg => "TCG (no guest lives under KVM here)",
        })
    }
}

/// That /dev/kvm opens says little: under some nested virtualization every guest dies.
fn kvm_lives() -> bool {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok()
        && greets_under_kvm().is_ok()
}

fn greets_under_kvm() -> Result<()> {
    let directory = environment::artefacts("kvm-trial")?;
    let machine = Machine {
        memory_mib: 256,
        ..Machine::default()
    };
    let (mut qemu, mut guest) = Qemu::start(&machine, Accelerator::Kvm, &directory)?;
    let deadline = Instant::now() + KVM_PATIENCE;
    while guest.wait_hello(Duration::from_millis(200)).is_err() {
        let status = qemu.qmp.execute("query-status", Value::Null)?;
        ensure!(status["running"] == true, "the guest has died: {status}");
        ensure!(Instant::now() < deadline, "the guest does not come up");
    }
    Ok(())
}
