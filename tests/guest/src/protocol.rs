// SPDX-License-Identifier: GPL-2.0-only

//! What the harness and the agent in the guest say to each other over a virtio-serial port: one
//! JSON document a line, an answer for each request.

use serde::{Deserialize, Serialize};

use crate::page_set::PageSet;

/// Name of the port, as in /sys/class/virtio-ports/*/name.
pub const PORT_NAME: &str = "guest-agent";
/// What the agent writes to the kernel log before it answers: the log's proof of boot.
pub const READY: &str = "guest-agent: ready";

/// A request and the number that its answer will bear; 0 is the agent's own [`Hello`].
#[derive(Debug, Deserialize, Serialize)]
pub struct Call {
    pub id: u64,
    pub request: Request,
}

/// What came of the request of the same number.
#[derive(Debug, Deserialize, Serialize)]
pub struct Answer {
    pub id: u64,
    pub result: Result<serde_json::Value, String>,
}

/// The agent is up. Sent unasked, once a boot.
#[derive(Debug, Deserialize, Serialize)]
pub struct Hello {
    /// The kernel's release.
    pub release: String,
    /// This boot's identity.
    pub boot_id: String,
}

/// Something for the agent to do. What it answers stands behind each.
#[derive(Debug, Deserialize, Serialize)]
pub enum Request {
    /// Run a script by busybox's shell: [`Output`].
    Shell { script: String },
    /// The kernel's account of memory: [`crate::memory::Memory`].
    Memory,
    /// Make a file of pseudo-random data that follows from the seed: null.
    MakeFile { path: String, bytes: u64, seed: u64 },
    /// Compare a file with what [`Request::MakeFile`] wrote, to the last byte: null.
    VerifyFile { path: String, bytes: u64, seed: u64 },
    /// Write to this much memory and give it back, so that the host has it: null.
    Touch { bytes: u64 },
    /// Map this much memory and give every other page back: null. What is free then lies in single
    /// pages, until [`Request::Release`].
    Fragment { bytes: u64 },
    /// Check what [`Request::Fragment`] holds and free it: null.
    Release,
    /// The pages of all balloons, from a page number on: [`BalloonPages`].
    BalloonPages { from: u64 },
    /// Start a process that wants this much memory, and wait until it has it or was killed for it:
    /// whether it lives.
    Feed { bytes: u64 },
    /// Have that process check its memory and end: null.
    Starve,
    /// Load a kernel for [`Request::StartKernel`], or for when this one crashes: null.
    LoadKernel {
        kernel: String,
        initramfs: String,
        command_line: String,
        on_crash: bool,
    },
    /// Start that kernel in place of this one. If all is well there is no answer.
    StartKernel,
}

/// Pages of balloons.
#[derive(Debug, Deserialize, Serialize)]
pub struct BalloonPages {
    /// As many as go into an answer.
    pub pages: PageSet,
    /// Where to go on, if there may be more.
    pub next: Option<u64>,
}

/// How a script ended.
#[derive(Debug, Deserialize, Serialize)]
pub struct Output {
    /// Exit status, -1 for a signal.
    pub status: i32,
    /// Standard output and error, together.
    pub text: String,
}
