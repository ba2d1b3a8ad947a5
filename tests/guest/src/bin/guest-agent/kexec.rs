// SPDX-License-Identifier: GPL-2.0-only

//! A kernel that starts from within another, with no reset of the machine in between.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::reboot::{reboot, RebootMode};

/// Loads a kernel for [`start`], or for when this one crashes.
pub fn load(kernel: &str, initramfs: &str, command_line: &str, on_crash: bool) -> Result<()> {
    let flags = if on_crash {
        libc::KEXEC_FILE_ON_CRASH
    } else {
        0
    };
    let kernel = File::open(kernel).with_context(|| kernel.to_owned())?;
    let initramfs = File::open(initramfs).with_context(|| initramfs.to_owned())?;
    let command_line = CString::new(command_line)?;
    // SAFETY: The kernel only reads the command line, which has this length with its end.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initramfs.as_raw_fd(),
            command_line.as_bytes_with_nul().len(),
            command_line.as_ptr(),
            flags,
        )
    };
    Errno::result(result).map(|_| ()).context("kexec_file_load")
}

/// Starts the kernel that was loaded. This one ends in an orderly way, and does not return.
pub fn start() -> Result<()> {
    match reboot(RebootMode::RB_KEXEC)? {}
}
