// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The vhost-user face of the balloon: what the frontend asks, one method a request.
//!
//! The protocol has no message for a reset of the device. What it has is the ring base: the
//! frontend hands a resumed driver the base it got when the ring was stopped, and a driver that
//! begins anew the base 0. So a base of 0 on the inflate queue means that nothing is held. (After
//! a pause at exactly a multiple of 65536 messages that is wrong, and harmless: pages that are
//! held count as not held.)

use std::fs::File;
use std::io;

use log::info;
use thiserror::Error;
use vhost::vhost_user::message::VhostTransferStateDirection;
use vhost::vhost_user::message::VhostTransferStatePhase;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::vhost_user::message::VhostUserInflight;
use vhost::vhost_user::message::VhostUserLog;
use vhost::vhost_user::message::VhostUserMemoryRegion;
use vhost::vhost_user::message::VhostUserShMemConfig;
use vhost::vhost_user::message::VhostUserSharedMsg;
use vhost::vhost_user::message::VhostUserSingleMemoryRegion;
use vhost::vhost_user::message::VhostUserVringAddrFlags;
use vhost::vhost_user::message::VhostUserVringState;
use vhost::vhost_user::Error as VhostUserError;
use vhost::vhost_user::GpuBackend;
use vhost::vhost_user::Result as VhostUserResult;
use vhost::vhost_user::VhostUserBackendReqHandlerMut;
use vhost::vhost_user::VhostUserProtocolFeatures;
use vhost::vhost_user::VhostUserVirtioFeatures;
use vhost::VhostUserMemoryRegionBase;
use vm_memory::GuestAddress;

use crate::balloon::ConfigError;
use crate::memory::GuestRam;
use crate::memory::MemoryError;
use crate::memory::RegionInfo;
use crate::queue::RingError;
use crate::queue::Vring;
use crate::queues::Queues;
use crate::role::Role;
use crate::virtio_balloon::feature;
use crate::virtio_balloon::NUM_QUEUES;
use crate::virtio_balloon::VIRTIO_BALLOON_F_PAGE_BITMAP;

/// Why a request of the frontend's is refused.
#[derive(Debug, Error)]
pub enum RequestError {
    #[error("features {0:#x} were not offered")]
    Features(u64),
    #[error("there is no queue {0}")]
    NoQueue(u32),
    #[error("address {0:#x} is not in the shared memory")]
    Address(u64),
    #[error("the memory table comes before the rings")]
    NoMemory,
    #[error("a queue without a notification descriptor is not supported")]
    NoKick,
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl From<RequestError> for VhostUserError {
    fn from(error: RequestError) -> Self {
        VhostUserError::ReqHandlerError(io::Error::other(error))
    }
}

/// A balloon device as one frontend sees it.
pub struct VhuBalloon {
    /// What is behind the frontend: the guest's side.
    pub queues: Queues,
    features: u64,
    /// The message format last announced in the log: whether it is page bitmaps.
    announced: Option<bool>,
}

impl VhuBalloon {
    /// A device that offers `features`, besides what vhost-user itself needs.
    pub fn new(features: u64) -> Self {
        Self {
            queues: Queues::default(),
            features: features | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits(),
            announced: None,
        }
    }

    fn has(&self, bit: u32) -> bool {
        self.queues.features() & feature(bit) != 0
    }

    fn ring(&mut self, index: u32) -> Result<&mut Vring, RequestError> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.queues.ring_mut(index))
            .ok_or(RequestError::NoQueue(index))
    }

    fn guest_address(&self, user_addr: u64) -> Result<GuestAddress, RequestError> {
        self.queues
            .balloon
            .ram()
            .ok_or(RequestError::NoMemory)?
            .guest_address(user_addr)
            .ok_or(RequestError::Address(user_addr))
    }

    /// Says in the log how the guest reports pages, unless it was said before.
    fn announce(&mut self) {
        let page_bitmap = self.has(VIRTIO_BALLOON_F_PAGE_BITMAP);
        if !self.queues.is_started() || self.announced == Some(page_bitmap) {
            return;
        }
        self.announced = Some(page_bitmap);
        if page_bitmap {
            info!("the guest reports pages by bitmap");
        } else if self.features & feature(VIRTIO_BALLOON_F_PAGE_BITMAP) != 0 {
            info!("the guest does not know page bitmaps; it reports pages by PFN arrays");
        } else {
            info!("the guest reports pages by PFN arrays");
        }
    }
}

/// A request that needs a protocol feature this device does not have.
fn unsupported<T>(what: &'static str) -> VhostUserResult<T> {
    Err(RequestError::Unsupported(what).into())
}

impl VhostUserBackendReqHandlerMut for VhuBalloon {
    fn set_owner(&mut self) -> VhostUserResult<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> VhostUserResult<()> {
        unsupported("RESET_OWNER")
    }

    fn reset_device(&mut self) -> VhostUserResult<()> {
        unsupported("RESET_DEVICE")
    }

    fn get_features(&mut self) -> VhostUserResult<u64> {
        Ok(self.features)
    }

    fn set_features(&mut self, features: u64) -> VhostUserResult<()> {
        let unknown = features & !self.features;
        if unknown != 0 {
            return Err(RequestError::Features(unknown).into());
        }
        self.queues.set_features(features);
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        table: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> VhostUserResult<Option<Vec<VhostUserMemoryRegionBase>>> {
        let table = table
            .iter()
            .zip(files)
            .map(|(region, file)| RegionInfo {
                gpa: region.guest_phys_addr,
                size: region.memory_size,
                user_addr: region.user_addr,
                file_offset: region.mmap_offset,
                file,
            })
            .collect();
        let ram = GuestRam::new(table).map_err(RequestError::from)?;
        self.queues.set_ram(ram);
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> VhostUserResult<()> {
        Ok(self
            .ring(index)?
            .set_size(num)
            .map_err(RequestError::from)?)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> VhostUserResult<()> {
        let descriptor = self.guest_address(descriptor)?;
        let available = self.guest_address(available)?;
        let used = self.guest_address(used)?;
        let ring = self.ring(index)?;
        Ok(ring
            .set_addresses(descriptor, available, used)
            .map_err(RequestError::from)?)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> VhostUserResult<()> {
        self.ring(index)?
            .set_base(base)
            .map_err(RequestError::from)?;
        if Role::Inflate.queue(self.queues.features()) == Some(index as usize) && base == 0 {
            self.queues.balloon.driver_reset();
        }
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> VhostUserResult<VhostUserVringState> {
        // Taken again later, the message would count twice.
        self.queues.finish(index as usize);
        let base = self.ring(index)?.stop();
        Ok(VhostUserVringState::new(index, u32::from(base)))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> VhostUserResult<()> {
        let kick = fd.ok_or(RequestError::NoKick)?;
        // Without protocol features a ring is enabled as soon as it is started.
        let enabled =
            self.queues.features() & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0;
        let ring = self.ring(index.into())?;
        ring.start(kick).map_err(RequestError::from)?;
        if enabled {
            ring.set_enabled(true);
        }
        self.announce();
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> VhostUserResult<()> {
        self.ring(index.into())?.set_call(fd);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, _fd: Option<File>) -> VhostUserResult<()> {
        self.ring(index.into())?;
        Ok(())
    }

    fn get_protocol_features(&mut self) -> VhostUserResult<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK)
    }

    fn set_protocol_features(&mut self, _features: u64) -> VhostUserResult<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> VhostUserResult<u64> {
        Ok(NUM_QUEUES as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> VhostUserResult<()> {
        self.ring(index)?.set_enabled(enable);
        self.announce();
        Ok(())
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> VhostUserResult<Vec<u8>> {
        let bytes = self.queues.balloon.read_config(offset, size);
        Ok(bytes.map_err(RequestError::from)?)
    }

    fn set_config(
        &mut self,
        offset: u32,
        data: &[u8],
        _flags: VhostUserConfigFlags,
    ) -> VhostUserResult<()> {
        let written = self.queues.balloon.write_config(offset, data);
        Ok(written.map_err(RequestError::from)?)
    }

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> VhostUserResult<()> {
        unsupported("GPU_SET_SOCKET")
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> VhostUserResult<File> {
        unsupported("GET_SHARED_OBJECT")
    }

    fn get_inflight_fd(
        &mut self,
        _inflight: &VhostUserInflight,
    ) -> VhostUserResult<(VhostUserInflight, File)> {
        unsupported("GET_INFLIGHT_FD")
    }

    fn set_inflight_fd(
        &mut self,
        _inflight: &VhostUserInflight,
        _file: File,
    ) -> VhostUserResult<()> {
        unsupported("SET_INFLIGHT_FD")
    }

    fn get_max_mem_slots(&mut self) -> VhostUserResult<u64> {
        unsupported("GET_MAX_MEM_SLOTS")
    }

    fn add_mem_region(
        &mut self,
        _region: &VhostUserSingleMemoryRegion,
        _file: File,
        _postcopy_listening: Option<bool>,
    ) -> VhostUserResult<Option<VhostUserMemoryRegionBase>> {
        unsupported("ADD_MEM_REG")
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> VhostUserResult<()> {
        unsupported("REM_MEM_REG")
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> VhostUserResult<Option<File>> {
        unsupported("SET_DEVICE_STATE_FD")
    }

    fn check_device_state(&mut self) -> VhostUserResult<()> {
        unsupported("CHECK_DEVICE_STATE")
    }

    fn get_shmem_config(&mut self) -> VhostUserResult<VhostUserShMemConfig> {
        unsupported("GET_SHMEM_CONFIG")
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> VhostUserResult<()> {
        unsupported("SET_LOG_BASE")
    }
}

#[cfg(test)]
#[path = "vhu_balloon_tests.rs"]
mod tests;
