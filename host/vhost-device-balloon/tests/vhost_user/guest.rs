// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A frontend and a driver in one: what the daemon meets, without a virtual machine.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::poll::poll;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::sys::memfd::memfd_create;
use nix::sys::memfd::MFdFlags;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::Frontend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::VhostUserProtocolFeatures;
use vhost::VhostBackend;
use vhost::VhostUserMemoryRegionInfo;
use vhost::VringConfigData;
use vhost_device_balloon::virtio_balloon::CONFIG_SIZE;
use vhost_device_balloon::virtio_balloon::NUM_QUEUES;
use vmm_sys_util::eventfd::EventFd;

/// Pages of each of the two memory regions.
pub const REGION_PAGES: u64 = 1024;
/// First page of the second region: at 4 GiB, right behind the first in the file.
pub const HIGH_PFN: u64 = 1 << 20;
const PAGE: u64 = 4096;
/// Where the frontend says it has mapped guest address 0.
const USER_BASE: u64 = 0x7f00_0000_0000;

const QUEUE_SIZE: u16 = 8;
/// Rings lie in the first pages, which the tests do not give away, nor the message buffers.
const RINGS: u64 = 0;
const RING_BYTES: u64 = 4 * PAGE;
const BUFFERS: u64 = 768 * PAGE;
const BUFFER_BYTES: u64 = 2 * PAGE;
/// The first page that a test may inflate.
pub const FREE_PFN: u64 = 64;

const PATIENCE: Duration = Duration::from_secs(20);

/// One buffer of a chain.
pub enum Buffer<'a> {
    Readable(&'a [u8]),
    Writable(u32),
    /// A readable one at an address of the test's choice.
    At(u64, u32),
    /// A writable one at an address of the test's choice.
    Lent(u64, u32),
}

struct Ring {
    kick: EventFd,
    call: EventFd,
    next: u16,
}

/// The guest.
pub struct Guest {
    frontend: Frontend,
    memory: File,
    rings: [Ring; NUM_QUEUES],
    /// Queues that the driver has.
    queues: usize,
    channel: UnixStream,
}

impl Guest {
    /// Connects, and negotiates the protocol as QEMU does. The driver is not there yet.
    pub fn connect(socket: &Path) -> Self {
        let mut frontend = Frontend::connect(socket, NUM_QUEUES as u64).unwrap();
        frontend.set_owner().unwrap();
        frontend.get_features().unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        assert!(!protocol.contains(VhostUserProtocolFeatures::INBAND_NOTIFICATIONS));
        frontend.set_protocol_features(protocol).unwrap();
        // Every request is answered, so that the daemon has done it when a test goes on.
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        assert_eq!(frontend.get_queue_num().unwrap(), NUM_QUEUES as u64);
        let (channel, theirs) = UnixStream::pair().unwrap();
        channel.set_read_timeout(Some(PATIENCE)).unwrap();
        frontend.set_backend_request_fd(&theirs).unwrap();
        let memory = File::from(memfd_create("guest", MFdFlags::MFD_CLOEXEC).unwrap());
        memory.set_len(2 * REGION_PAGES * PAGE).unwrap();
        let ring = || Ring {
            kick: EventFd::new(0).unwrap(),
            call: EventFd::new(0).unwrap(),
            next: 0,
        };
        let guest = Self {
            frontend,
            memory,
            rings: std::array::from_fn(|_| ring()),
            queues: 0,
            channel,
        };
        guest.touch_everything();
        guest
    }

    pub fn features(&self) -> u64 {
        self.frontend.get_features().unwrap()
    }

    /// Shares the memory, as two regions of one file.
    pub fn share_memory(&self) {
        let region = |gpa, offset| VhostUserMemoryRegionInfo {
            guest_phys_addr: gpa,
            memory_size: REGION_PAGES * PAGE,
            userspace_addr: USER_BASE + gpa,
            mmap_offset: offset,
            mmap_handle: self.memory.as_raw_fd(),
        };
        let regions = [region(HIGH_PFN * PAGE, REGION_PAGES * PAGE), region(0, 0)];
        self.frontend.set_mem_table(&regions).unwrap();
    }

    /// A driver begins: fresh rings, base 0.
    pub fn start(&mut self, features: u64) {
        let rings = vec![0; NUM_QUEUES * RING_BYTES as usize];
        self.memory.write_all_at(&rings, RINGS).unwrap();
        for ring in &mut self.rings {
            ring.next = 0;
        }
        self.resume(features, [0; NUM_QUEUES]);
    }

    /// The device is set going with rings as they are.
    pub fn resume(&mut self, features: u64, bases: [u16; NUM_QUEUES]) {
        // Inflation, deflation, and one for each of statistics, hinting and reporting.
        self.queues = 2 + (features & 0b10_1010).count_ones() as usize;
        self.frontend.set_features(features).unwrap();
        self.share_memory();
        for (index, ring) in self.rings.iter().take(self.queues).enumerate() {
            let base = USER_BASE + ring_address(index);
            self.frontend.set_vring_num(index, QUEUE_SIZE).unwrap();
            self.frontend.set_vring_base(index, bases[index]).unwrap();
            let addresses = VringConfigData {
                queue_max_size: QUEUE_SIZE,
                queue_size: QUEUE_SIZE,
                flags: 0,
                desc_table_addr: base,
                avail_ring_addr: base + PAGE,
                used_ring_addr: base + 2 * PAGE,
                log_addr: None,
            };
            self.frontend.set_vring_addr(index, &addresses).unwrap();
            self.frontend.set_vring_kick(index, &ring.kick).unwrap();
            self.frontend.set_vring_call(index, &ring.call).unwrap();
        }
        for index in 0..NUM_QUEUES {
            self.frontend.set_vring_enable(index, true).unwrap();
        }
    }

    /// The device is stopped: the guest is paused, or its driver gone. Returns the ring bases.
    pub fn stop(&mut self) -> [u16; NUM_QUEUES] {
        for index in 0..NUM_QUEUES {
            self.frontend.set_vring_enable(index, false).unwrap();
        }
        std::array::from_fn(|index| self.frontend.get_vring_base(index).unwrap() as u16)
    }

    /// Sends one message and waits until it is used; returns the length it was used with.
    pub fn send(&mut self, queue: usize, buffers: &[Buffer<'_>]) -> u32 {
        self.post(queue, buffers);
        self.kick(queue);
        self.wait_used(queue)
    }

    /// Notifies the device.
    pub fn kick(&self, queue: usize) {
        self.rings[queue].kick.write(1).unwrap();
    }

    /// Waits until the last message is used; returns the length it was used with.
    pub fn wait_used(&self, queue: usize) -> u32 {
        let next = self.rings[queue].next;
        let used = ring_address(queue) + 2 * PAGE;
        while self.read_u16(used + 2) != next {
            self.wait_for_interrupt(queue);
        }
        let slot = u64::from(next.wrapping_sub(1) % QUEUE_SIZE);
        let mut length = [0; 4];
        self.memory
            .read_exact_at(&mut length, used + 4 + 8 * slot + 4)
            .unwrap();
        u32::from_le_bytes(length)
    }

    /// Sends one message in one buffer.
    pub fn send_bytes(&mut self, queue: usize, message: &[u8]) -> u32 {
        self.send(queue, &[Buffer::Readable(message)])
    }

    /// Makes one message available, without a notification.
    pub fn post(&mut self, queue: usize, buffers: &[Buffer<'_>]) {
        assert!(buffers.len() <= usize::from(QUEUE_SIZE));
        let ring = ring_address(queue);
        for (index, buffer) in (0u16..).zip(buffers) {
            let slot = queue as u64 * u64::from(QUEUE_SIZE) + u64::from(index);
            let own = BUFFERS + slot * BUFFER_BYTES;
            let (address, len, flags) = match *buffer {
                Buffer::Readable(bytes) => {
                    assert!(bytes.len() as u64 <= BUFFER_BYTES);
                    self.memory.write_all_at(bytes, own).unwrap();
                    (own, bytes.len() as u32, 0u16)
                }
                Buffer::Writable(len) => (own, len, 2),
                Buffer::At(address, len) => (address, len, 0),
                Buffer::Lent(address, len) => (address, len, 2),
            };
            let last = usize::from(index) + 1 == buffers.len();
            let mut descriptor = Vec::from(address.to_le_bytes());
            descriptor.extend(len.to_le_bytes());
            descriptor.extend((flags | u16::from(!last)).to_le_bytes());
            descriptor.extend((index + 1).to_le_bytes());
            let at = ring + 16 * u64::from(index);
            self.memory.write_all_at(&descriptor, at).unwrap();
        }
        let available = ring + PAGE;
        let next = &mut self.rings[queue].next;
        let slot = u64::from(*next % QUEUE_SIZE);
        *next = next.wrapping_add(1);
        // Every chain begins at descriptor 0: there is one at a time.
        let head = 0u16.to_le_bytes();
        self.memory
            .write_all_at(&head, available + 4 + 2 * slot)
            .unwrap();
        let index = next.to_le_bytes();
        self.memory.write_all_at(&index, available + 2).unwrap();
    }

    /// Makes one message available in one buffer, and leaves it to the device.
    pub fn offer(&mut self, queue: usize, message: &[u8]) {
        self.post(queue, &[Buffer::Readable(message)]);
        self.kick(queue);
    }

    /// Whether the device has all messages of a queue.
    pub fn is_kept(&self, queue: usize) -> bool {
        self.read_u16(ring_address(queue) + 2 * PAGE + 2) != self.rings[queue].next
    }

    fn wait_for_interrupt(&self, queue: usize) {
        let call = &self.rings[queue].call;
        wait_readable(call);
        call.read().unwrap();
    }

    fn read_u16(&self, at: u64) -> u16 {
        let mut bytes = [0; 2];
        self.memory.read_exact_at(&mut bytes, at).unwrap();
        u16::from_le_bytes(bytes)
    }

    /// The configuration space.
    pub fn config(&mut self) -> [u8; CONFIG_SIZE] {
        let flags = VhostUserConfigFlags::empty();
        let size = CONFIG_SIZE as u32;
        let (_, bytes) = self
            .frontend
            .get_config(0, size, flags, &[0; CONFIG_SIZE])
            .unwrap();
        bytes.try_into().unwrap()
    }

    pub fn num_pages(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.config();
        u32::from_le_bytes([a, b, c, d])
    }

    /// Writes `actual` as QEMU does: with the whole space, and a `num_pages` from long ago.
    pub fn set_actual(&mut self, actual: u32) {
        let mut bytes = self.config();
        bytes[..4].copy_from_slice(&0xdead_beef_u32.to_le_bytes());
        bytes[4..8].copy_from_slice(&actual.to_le_bytes());
        let flags = VhostUserConfigFlags::WRITABLE;
        self.frontend.set_config(0, flags, &bytes).unwrap();
    }

    /// Writes what free pages are filled with.
    pub fn set_poison(&mut self, value: u32) {
        let mut bytes = self.config();
        bytes[12..].copy_from_slice(&value.to_le_bytes());
        let flags = VhostUserConfigFlags::WRITABLE;
        self.frontend.set_config(0, flags, &bytes).unwrap();
    }

    /// Writes outside the configuration space; returns whether that was refused.
    pub fn set_config_outside(&mut self) -> bool {
        let flags = VhostUserConfigFlags::WRITABLE;
        self.frontend.set_config(12, flags, &[0xff; 8]).is_err()
    }

    /// Offers back features that were never offered; returns whether that was refused.
    pub fn set_features_unasked(&mut self, features: u64) -> bool {
        self.frontend.set_features(features).is_err()
    }

    /// Reads `N` bytes from the channel on which configuration changes come.
    pub fn read_channel<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.channel.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// What a single look at the channel finds, once there is something.
    pub fn receive_channel(&mut self) -> Vec<u8> {
        let mut bytes = [0; 64];
        let len = self.channel.read(&mut bytes).unwrap();
        bytes[..len].to_vec()
    }

    /// Whether nothing comes on the channel for a while.
    pub fn is_channel_silent(&self) -> bool {
        let mut fds = [PollFd::new(self.channel.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(200u8)).unwrap() == 0
    }

    /// Writes to every page, so that the host holds all of them.
    fn touch_everything(&self) {
        let page = [0x5a; PAGE as usize];
        for index in 0..2 * REGION_PAGES {
            self.memory.write_all_at(&page, index * PAGE).unwrap();
        }
    }

    /// Pages the host holds for the guest.
    pub fn host_pages(&self) -> u64 {
        self.memory.metadata().unwrap().blocks() * 512 / PAGE
    }

    /// The first byte of a page.
    pub fn peek(&self, pfn: u64) -> u8 {
        let index = if pfn < HIGH_PFN {
            pfn
        } else {
            pfn - HIGH_PFN + REGION_PAGES
        };
        let mut byte = [0];
        self.memory.read_exact_at(&mut byte, index * PAGE).unwrap();
        byte[0]
    }
}

fn ring_address(queue: usize) -> u64 {
    RINGS + queue as u64 * RING_BYTES
}

fn wait_readable(fd: &impl AsRawFd) {
    // SAFETY: the caller's reference keeps the descriptor open.
    let fd = unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) };
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut fds, timeout).unwrap(), 1, "the daemon is silent");
}
