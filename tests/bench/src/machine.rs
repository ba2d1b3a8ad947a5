// SPDX-License-Identifier: GPL-2.0-only

//! The machine that it is all measured on.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::{Context, Result};
use guest_tests::environment;
use guest_tests::kvm::best_accelerator;
use guest_tests::vm::boot;
use serde_json::Value;

use crate::record::About;
use crate::times::Amounts;

/// Looks at the machine, and at a guest.
pub fn about(amounts: Amounts) -> Result<About> {
    let logs = environment::empty(environment::build_dir_of("bench")?.join("logs/machine"))?;
    let (mut qemu, mut guest, _) = boot(&amounts.machine(""), &logs)?;
    let version = qemu.qmp.execute("query-version", Value::Null)?["qemu"].take();
    let guest_kernel = guest.shell("uname -r")?;
    Ok(About {
        processor: field("/proc/cpuinfo", "model name")?,
        processors: available_parallelism()?.get(),
        host_memory_mib: field("/proc/meminfo", "MemTotal")?
            .trim_end_matches(" kB")
            .parse::<u64>()?
            / 1024,
        host_kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .into(),
        accelerator: best_accelerator().to_string(),
        qemu: format!(
            "{}.{}.{}",
            version["major"], version["minor"], version["micro"]
        ),
        guest_kernel: guest_kernel.trim().into(),
        guest_mib: amounts.guest_mib,
        moved_mib: amounts.moved_mib,
        date: date()?,
    })
}

fn date() -> Result<String> {
    let output = Command::new("date")
        .args(["--utc", "+%Y-%m-%d %H:%M UTC"])
        .output()
        .context("date")?;
    Ok(String::from_utf8(output.stdout)?.trim().into())
}

/// The first field of this name in a file of the kernel's.
fn field(path: &str, name: &str) -> Result<String> {
    fs::read_to_string(path)?
        .lines()
        .find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
        .with_context(|| format!("no {name} in {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        assert!(field("/proc/meminfo", "MemTotal").unwrap().ends_with(" kB"));
        assert!(field("/proc/meminfo", "Mem").is_err());
        assert!(date().unwrap().ends_with("UTC"));
    }
}
