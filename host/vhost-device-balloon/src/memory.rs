// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory as the frontend shares it: regions of files.

use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use nix::sys::stat::fstat;
use nix::sys::statfs::fstatfs;
use nix::sys::statfs::HUGETLBFS_MAGIC;
use nix::unistd::sysconf;
use nix::unistd::SysconfVar;
use thiserror::Error;
use vm_memory::mmap::MmapRegionError;
use vm_memory::FileOffset;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;
use vm_memory::GuestRegionCollectionError;
use vm_memory::GuestRegionMmap;
use vm_memory::MmapRegion;

use crate::message::GuestPages;
use crate::message::PageRange;
use crate::virtio_balloon::PAGE_SIZE;
use crate::virtio_balloon::PFN_SHIFT;

/// Why the frontend's memory table cannot be used.
#[derive(Debug, Error)]
pub enum MemoryError {
    #[error("the frontend shares no memory (give the guest a shared memory backend, share=on)")]
    NoRegions,
    #[error("region at {gpa:#x} is not made of whole 4 KiB pages")]
    Unaligned { gpa: u64 },
    #[error("region at {gpa:#x} leaves the address space")]
    OutOfRange { gpa: u64 },
    #[error("region at {gpa:#x} leaves its file")]
    BeyondFile { gpa: u64 },
    #[error("region at {gpa:#x} cannot be mapped: {source}")]
    Map { gpa: u64, source: MmapRegionError },
    #[error("region at {gpa:#x}: its file cannot be examined: {source}")]
    Examine { gpa: u64, source: nix::Error },
    #[error("the regions do not fit together: {0}")]
    Regions(#[from] GuestRegionCollectionError),
}

/// One region as the frontend describes it.
#[derive(Debug)]
pub struct RegionInfo {
    /// Guest physical address of the first byte.
    pub gpa: u64,
    /// Length in bytes.
    pub size: u64,
    /// Address of the first byte in the frontend, in which it gives the rings' addresses.
    pub user_addr: u64,
    /// Offset of the first byte in `file`.
    pub file_offset: u64,
    /// The shared file.
    pub file: File,
}

/// A mapped region.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) gpa: u64,
    pub(crate) size: u64,
    user_addr: u64,
    pub(crate) file_offset: u64,
    pub(crate) file: Arc<File>,
    /// What the host can discard at once, in bytes: a power of two, at least 4 KiB.
    pub(crate) host_page: u64,
}

/// The guest's memory.
#[derive(Debug)]
pub struct GuestRam {
    memory: GuestMemoryMmap,
    regions: Vec<Region>,
    file_bytes: u64,
    file_blocks: u64,
}

impl GuestRam {
    /// Maps the regions of a memory table.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] if a region cannot be used; nothing is kept mapped then.
    pub fn new(table: Vec<RegionInfo>) -> Result<Self, MemoryError> {
        if table.is_empty() {
            return Err(MemoryError::NoRegions);
        }
        let mut regions = Vec::with_capacity(table.len());
        let mut mapped = Vec::with_capacity(table.len());
        let mut files = HashSet::new();
        let mut file_bytes = 0u64;
        let mut file_blocks = 0u64;
        for info in table {
            let gpa = info.gpa;
            if (gpa | info.size | info.file_offset) % PAGE_SIZE != 0 {
                return Err(MemoryError::Unaligned { gpa });
            }
            let fits = |start: u64| start.checked_add(info.size).is_some();
            let size = usize::try_from(info.size).map_err(|_| MemoryError::OutOfRange { gpa })?;
            if !(fits(gpa) && fits(info.user_addr) && fits(info.file_offset)) {
                return Err(MemoryError::OutOfRange { gpa });
            }
            let examine = |source| MemoryError::Examine { gpa, source };
            let stat = fstat(&info.file).map_err(examine)?;
            let host_page = host_page_size(&info.file).map_err(examine)?;
            let file_size = u64::try_from(stat.st_size).unwrap_or(0);
            // What is mapped beyond a file's end kills whoever touches it. Devices have no end.
            let is_file = info
                .file
                .metadata()
                .is_ok_and(|metadata| metadata.is_file());
            if is_file && info.file_offset + info.size > file_size {
                return Err(MemoryError::BeyondFile { gpa });
            }
            if files.insert((stat.st_dev, stat.st_ino)) {
                file_bytes = file_bytes.saturating_add(file_size);
                file_blocks =
                    file_blocks.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0));
            }
            let region = Region::new(info, host_page);
            let offset = FileOffset::from_arc(region.file.clone(), region.file_offset);
            let mapping = MmapRegion::from_file(offset, size)
                .map_err(|source| MemoryError::Map { gpa, source })?;
            let mapping = GuestRegionMmap::new(mapping, GuestAddress(gpa))
                .ok_or(MemoryError::OutOfRange { gpa })?;
            mapped.push(mapping);
            regions.push(region);
        }
        regions.sort_by_key(|region| region.gpa);
        mapped.sort_by_key(|region: &GuestRegionMmap| {
            vm_memory::GuestMemoryRegion::start_addr(region)
        });
        Ok(Self {
            memory: GuestMemoryMmap::from_regions(mapped)?,
            regions,
            file_bytes,
            file_blocks,
        })
    }

    /// The mapped memory, for the rings and the messages.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// The guest's memory size in bytes.
    ///
    /// It is the size of the files: the regions alone miss what firmware and VGA hide.
    pub fn bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Whether the files were empty when they came: a guest that runs writes to other memory then.
    pub fn is_unshared(&self) -> bool {
        self.file_blocks == 0
    }

    /// The guest physical address of an address of the frontend's.
    pub fn guest_address(&self, user_addr: u64) -> Option<GuestAddress> {
        self.regions.iter().find_map(|region| {
            let offset = user_addr.checked_sub(region.user_addr)?;
            (offset < region.size).then(|| GuestAddress(region.gpa + offset))
        })
    }

    /// The largest host page below the guest's memory, in bytes.
    pub fn largest_host_page(&self) -> u64 {
        self.regions
            .iter()
            .map(|region| region.host_page)
            .max()
            .unwrap_or(PAGE_SIZE)
    }

    /// The regions, in ascending order.
    pub(crate) fn regions(&self) -> &[Region] {
        &self.regions
    }
}

impl GuestPages for GuestRam {
    fn contains(&self, range: PageRange) -> bool {
        let Some(end) = range.end_pfn() else {
            return false;
        };
        // Regions may touch, so a range may need several of them.
        let mut next = range.start_pfn;
        for region in &self.regions {
            let pfns = region.pfns();
            if pfns.contains(&next) {
                next = pfns.end;
            }
        }
        next >= end
    }
}

impl Region {
    /// The region that `info` describes, in host pages of `host_page` bytes.
    pub(crate) fn new(info: RegionInfo, host_page: u64) -> Self {
        Self {
            gpa: info.gpa,
            size: info.size,
            user_addr: info.user_addr,
            file_offset: info.file_offset,
            file: Arc::new(info.file),
            host_page,
        }
    }

    /// The page frames in the region.
    pub(crate) fn pfns(&self) -> Range<u64> {
        self.gpa >> PFN_SHIFT..(self.gpa + self.size) >> PFN_SHIFT
    }
}

/// The size of the pages `file` is made of in the host: of its huge pages, or the host's own.
fn host_page_size(file: &File) -> nix::Result<u64> {
    let statfs = fstatfs(file)?;
    let size = if statfs.filesystem_type() == HUGETLBFS_MAGIC {
        u64::try_from(statfs.block_size()).ok()
    } else {
        sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| u64::try_from(size).ok())
    };
    match size {
        Some(size) if size.is_power_of_two() => Ok(size.max(PAGE_SIZE)),
        _ => Err(nix::Error::EINVAL),
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
pub(crate) mod tests;
