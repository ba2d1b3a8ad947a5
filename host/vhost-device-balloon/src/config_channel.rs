// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The backend channel, and how a configuration change is sent over it without killing QEMU.
//!
//! A new target reaches the guest through CONFIG_CHANGE_MSG: a bare 12-byte header that the
//! backend sends over a socket of its own, which the frontend hands out with SET_BACKEND_REQ_FD.
//! QEMU follows a null pointer if it reads that message while the device is not started: before
//! DRIVER_OK, after the driver is gone, while paused. Looking whether the device is started before
//! sending is not enough, for it may stop while the message is under way. So the message goes out
//! in two writes:
//!
//! 1. The first byte alone. It is the same for every message this device sends.
//! 2. The frontend's main socket is served as usual until the channel's send queue is empty
//!    (SIOCOUTQ). QEMU has then read that byte and waits for the rest of the header. It does so
//!    with its global lock held, hence can neither start nor stop the device.
//! 3. What QEMU may have said on the main socket before that is served too. Now what this side
//!    knows about the device is exact, and stays so.
//! 4. The other 11 bytes. If the device is started they make the message a CONFIG_CHANGE_MSG, else
//!    one with a request number that nobody knows: QEMU logs it and goes on.
//!
//! A frontend that does not wait for the rest of a message, as User-mode Linux, loses it. It can have
//! the message in one write.
//!
//! No reply is asked for: QEMU would send it while it may be waiting for this side's answer to
//! GET_CONFIG.

use std::io;
use std::io::IoSliceMut;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;

use nix::cmsg_space;
use nix::sys::socket::recv;
use nix::sys::socket::recvmsg;
use nix::sys::socket::ControlMessageOwned;
use nix::sys::socket::MsgFlags;

/// SET_BACKEND_REQ_FD, a request of the frontend's.
const SET_BACKEND_REQ_FD: u32 = 21;
/// Size of a vhost-user header: request, flags and payload size, each a u32 in host order.
const HEADER_SIZE: usize = 12;

/// CONFIG_CHANGE_MSG, a request of the backend's.
const CONFIG_CHANGE: u32 = 2;
/// A request number that no frontend knows and that starts with the same byte.
const NO_CHANGE: u32 = 0x102;
/// Version 1 of the protocol, no reply wanted.
const FLAGS: u32 = 1;

nix::ioctl_read_bad!(siocoutq, nix::libc::TIOCOUTQ, nix::libc::c_int);

/// The channel on which configuration changes are sent.
#[derive(Debug)]
pub struct ConfigChannel {
    socket: UnixStream,
    /// The first byte of a message is out, the rest is not.
    begun: bool,
}

impl ConfigChannel {
    /// A channel over the socket that the frontend handed out.
    ///
    /// # Errors
    ///
    /// The system's, if the descriptor cannot be used.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            begun: false,
        })
    }

    /// Whether a message is begun and waits for [`Self::finish`].
    pub fn is_begun(&self) -> bool {
        self.begun
    }

    /// Sends a configuration change in one write.
    ///
    /// # Errors
    ///
    /// The system's: the channel is useless then.
    pub fn send(&mut self) -> io::Result<()> {
        self.socket.write_all(&header(CONFIG_CHANGE))
    }

    /// Sends the first byte of a message.
    ///
    /// # Errors
    ///
    /// The system's: the channel is useless then.
    pub fn begin(&mut self) -> io::Result<()> {
        let [first, ..] = header(CONFIG_CHANGE);
        self.socket.write_all(&[first])?;
        self.begun = true;
        Ok(())
    }

    /// Whether the frontend has read the first byte, and so waits for the rest.
    ///
    /// # Errors
    ///
    /// The system's: the channel is useless then.
    pub fn is_frontend_waiting(&self) -> io::Result<bool> {
        let mut unread = 0;
        // SAFETY: the descriptor is open for as long as `self.socket` lives, and `unread` is the
        // int that this request writes.
        unsafe { siocoutq(self.socket.as_raw_fd(), &mut unread) }?;
        Ok(self.begun && unread == 0)
    }

    /// Sends the rest of the message: as a configuration change if the device is `started`, else
    /// as a message without effect.
    ///
    /// # Errors
    ///
    /// The system's: the channel is useless then.
    pub fn finish(&mut self, started: bool) -> io::Result<()> {
        let [_, rest @ ..] = header(if started { CONFIG_CHANGE } else { NO_CHANGE });
        self.begun = false;
        self.socket.write_all(&rest)
    }
}

fn header(request: u32) -> [u8; HEADER_SIZE] {
    let mut bytes = [0; HEADER_SIZE];
    bytes[..4].copy_from_slice(&request.to_ne_bytes());
    bytes[4..8].copy_from_slice(&FLAGS.to_ne_bytes());
    bytes
}

/// A duplicate of the descriptor that comes with the next message on `frontend`, if that message
/// is SET_BACKEND_REQ_FD. The message stays where it is.
///
/// The vhost crate takes the descriptor too, but keeps it to itself and has no way to send a
/// configuration change.
///
/// # Errors
///
/// The system's.
pub fn peek_backend_channel(frontend: &impl AsFd) -> io::Result<Option<OwnedFd>> {
    let fd = frontend.as_fd().as_raw_fd();
    let mut header = [0; HEADER_SIZE];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let len = match recv(fd, &mut header, flags) {
        Ok(len) => len,
        Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let [a, b, c, d, ..] = header;
    if len < HEADER_SIZE || u32::from_ne_bytes([a, b, c, d]) != SET_BACKEND_REQ_FD {
        return Ok(None);
    }
    let mut space = cmsg_space!(RawFd);
    let mut buffer = [IoSliceMut::new(&mut header)];
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(fd, &mut buffer, Some(&mut space), flags)?;
    let mut channel = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            for fd in fds {
                // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
                channel = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok(channel)
}
