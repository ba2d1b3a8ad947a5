// SPDX-License-Identifier: GPL-2.0-only

//! What a guest's RAM costs the host.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use anyhow::{ensure, Context, Result};
use nix::fcntl::{fallocate, FallocateFlags};

/// The memfds that are a guest's RAM.
pub struct HostMemory(Vec<File>);

impl HostMemory {
    /// The RAM of the QEMU process `pid`.
    pub fn of(pid: u32) -> Result<Self> {
        let directory = format!("/proc/{pid}/fd");
        let mut memories = Vec::new();
        for entry in fs::read_dir(&directory).with_context(|| directory.clone())? {
            let path = entry?.path();
            let Ok(target) = fs::read_link(&path) else {
                continue;
            };
            if target
                .to_string_lossy()
                .starts_with("/memfd:memory-backend-memfd")
            {
                let file = File::options().read(true).write(true).open(&path)?;
                memories.push((file.metadata()?.ino(), file));
            }
        }
        memories.sort_unstable_by_key(|memory| memory.0);
        memories.dedup_by_key(|memory| memory.0);
        ensure!(
            !memories.is_empty(),
            "process {pid} has no guest memory in {directory}"
        );
        Ok(Self(memories.into_iter().map(|memory| memory.1).collect()))
    }

    /// Bytes of host memory behind it: a punched page is in none of the files' blocks.
    pub fn resident(&self) -> Result<u64> {
        self.0
            .iter()
            .map(|file| Ok(file.metadata()?.blocks() * 512))
            .sum()
    }

    /// Gives the guest all of it, as if it had used each page.
    pub fn populate(&self) -> Result<()> {
        for file in &self.0 {
            let size = file.metadata()?.len().try_into()?;
            fallocate(file, FallocateFlags::empty(), 0, size)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{memfd_create, MFdFlags};
    use std::os::unix::fs::FileExt;

    #[test]
    fn only_pages_that_exist_count() {
        let file = File::from(memfd_create("memory-backend-memfd", MFdFlags::empty()).unwrap());
        file.set_len(1 << 20).unwrap();
        let again = file.try_clone().unwrap();
        assert_eq!(
            HostMemory::of(std::process::id())
                .unwrap()
                .resident()
                .unwrap(),
            0
        );
        file.write_all_at(&[1; 8192], 65536).unwrap();
        again.write_all_at(&[1; 8192], 65536).unwrap();
        assert_eq!(
            HostMemory::of(std::process::id())
                .unwrap()
                .resident()
                .unwrap(),
            8192
        );
        let memory = HostMemory::of(std::process::id()).unwrap();
        memory.populate().unwrap();
        assert_eq!(memory.resident().unwrap(), 1 << 20);
        let mut kept = [0; 2];
        file.read_exact_at(&mut kept, 65536 + 8191).unwrap();
        assert_eq!(kept, [1, 0], "what is there stays");
    }
}
