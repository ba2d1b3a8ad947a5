// SPDX-License-Identifier: GPL-2.0-only

//! KVM where a guest lives under it, software emulation otherwise.

use std::env;
use std::fs::OpenOptions;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use serde_json::Value;

use crate::accelerator::Accelerator;
use crate::environment;
use crate::qemu::{Machine, Qemu};

/// A guest under working KVM greets in less than two seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// The best that works here, found out once a process by booting a guest. `VBB_ACCEL=kvm` or
/// `VBB_ACCEL=tcg` settles it beforehand.
pub fn best_accelerator() -> Accelerator {
    static BEST: OnceLock<Accelerator> = OnceLock::new();
    *BEST.get_or_init(|| match env::var("VBB_ACCEL").as_deref() {
        Ok("kvm") => Accelerator::Kvm,
        Ok("tcg") => Accelerator::Tcg,
        _ if kvm_lives() => Accelerator::Kvm,
        _ => Accelerator::Tcg,
    })
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
    let deadline = Instant::now() + PATIENCE;
    while guest.wait_hello(Duration::from_millis(200)).is_err() {
        let status = qemu.qmp.execute("query-status", Value::Null)?;
        ensure!(status["running"] == true, "the guest has died: {status}");
        ensure!(Instant::now() < deadline, "the guest does not come up");
    }
    Ok(())
}
