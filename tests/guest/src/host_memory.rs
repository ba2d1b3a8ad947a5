//! What a guest's RAM costs the host.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{bail, Context, Result};

/// Bytes of host memory behind the memfd RAM of the QEMU process `pid`: a punched page is in none
/// of the file's blocks.
pub fn resident(pid: u32) -> Result<u64> {
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
            let metadata = fs::metadata(&path)?;
            memories.push((metadata.ino(), metadata.blocks() * 512));
        }
    }
    memories.sort_unstable();
    memories.dedup_by_key(|memory| memory.0);
    if memories.is_empty() {
        bail!("process {pid} has no guest memory in {directory}");
    }
    Ok(memories.iter().map(|memory| memory.1).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{memfd_create, MFdFlags};
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    #[test]
    fn only_pages_that_exist_count() {
        let file = File::from(memfd_create("memory-backend-memfd", MFdFlags::empty()).unwrap());
        file.set_len(1 << 20).unwrap();
        let again = file.try_clone().unwrap();
        assert_eq!(resident(std::process::id()).unwrap(), 0);
        file.write_all_at(&[1; 8192], 65536).unwrap();
        again.write_all_at(&[1; 8192], 65536).unwrap();
        assert_eq!(resident(std::process::id()).unwrap(), 8192);
    }
}
