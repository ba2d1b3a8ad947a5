// SPDX-License-Identifier: GPL-2.0-only

//! A Debian system on a disk: root is the whole disk, an ext4 file system, and `/boot` has the kernels.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

/// A system's disk and the kernel to boot.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The raw image. The guest writes to it.
    pub image: PathBuf,
    /// The kernel's release.
    pub release: String,
}

impl Disk {
    /// A whole system takes minutes to come up under emulation on a busy machine.
    pub const BOOT_TIMEOUT: Duration = Duration::from_secs(600);

    /// The kernel and its initramfs, taken off the disk into `directory` as a boot loader would.
    pub fn kernel_and_initrd(&self, directory: &Path) -> Result<(PathBuf, PathBuf)> {
        let take = |name: &str| self.take_boot_file(&format!("{name}-{}", self.release), directory);
        Ok((take("vmlinuz")?, take("initrd.img")?))
    }

    /// The releases of the kernels on the disk.
    pub fn releases(image: &Path) -> Result<Vec<String>> {
        let output = Command::new("debugfs")
            .args(["-R", "ls -p /boot"])
            .arg(image)
            .output()
            .context("cannot start debugfs")?;
        Ok(String::from_utf8_lossy(&output.stdout)
            .split('/')
            .filter_map(|word| word.strip_prefix("vmlinuz-"))
            .map(str::to_owned)
            .collect())
    }

    fn take_boot_file(&self, name: &str, directory: &Path) -> Result<PathBuf> {
        let taken = directory.join(name);
        // Its exit status says nothing.
        let output = Command::new("debugfs")
            .arg("-R")
            .arg(format!("dump \"/boot/{name}\" \"{}\"", taken.display()))
            .arg(&self.image)
            .output()
            .context("cannot start debugfs")?;
        ensure!(
            fs::metadata(&taken).is_ok_and(|file| file.len() > 0),
            "no /boot/{name} on {}: {}",
            self.image.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_kernel_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::write(&image, []).unwrap();
        let disk = Disk {
            image,
            release: "7.3.4-none".into(),
        };
        let error = disk.kernel_and_initrd(dir.path()).unwrap_err().to_string();
        assert!(error.contains("/boot/vmlinuz-7.3.4-none"), "{error}");
    }
}
