// SPDX-License-Identifier: GPL-2.0-only

//! The agent inside the guest, called from the host.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Context, Result};
use serde::de::DeserializeOwned;

use crate::buddyinfo::{self, Zone};
use crate::environment::patience;
use crate::json_lines::JsonLines;
use crate::memory::Memory;
use crate::page_set::PageSet;
use crate::protocol::{Answer, BalloonPages, Call, Hello, Output, Request};

/// No request takes this long under emulation on a busy machine; a hung guest does.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// The connection to the agent.
pub struct Guest {
    lines: JsonLines,
    last_id: u64,
}

impl Guest {
    /// Takes over the host's end of the agent's port.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            lines: JsonLines::new(stream),
            last_id: 0,
        }
    }

    /// Waits until the agent of a new boot speaks.
    pub fn wait_hello(&mut self, timeout: Duration) -> Result<Hello> {
        let value = self
            .answer(0, Instant::now() + patience(timeout))
            .context("the guest does not come up")?;
        Ok(serde_json::from_value(value)?)
    }

    /// Runs a script and returns its output; any exit status but 0 is an error.
    pub fn shell(&mut self, script: &str) -> Result<String> {
        self.shell_within(ANSWER_TIMEOUT, script)
    }

    /// Runs a script that may take this long.
    pub fn shell_within(&mut self, timeout: Duration, script: &str) -> Result<String> {
        let output: Output = self.call_within(
            timeout,
            Request::Shell {
                script: script.to_owned(),
            },
        )?;
        if output.status != 0 {
            bail!(
                "in the guest, `{script}` ended with {}: {}",
                output.status,
                output.text.trim()
            );
        }
        Ok(output.text)
    }

    /// Runs a script that may fail.
    pub fn try_shell(&mut self, script: &str) -> Result<Output> {
        self.call(Request::Shell {
            script: script.to_owned(),
        })
    }

    /// The kernel's account of memory, exact.
    pub fn memory(&mut self) -> Result<Memory> {
        self.call(Request::Memory)
    }

    /// How its free memory lies, zone by zone.
    pub fn free_blocks(&mut self) -> Result<Vec<Zone>> {
        buddyinfo::parse(&self.shell("cat /proc/buddyinfo")?)
    }

    /// Makes a file of `bytes` bytes that follow from `seed`.
    pub fn make_file(&mut self, path: &str, bytes: u64, seed: u64) -> Result<()> {
        self.call(Request::MakeFile {
            path: path.to_owned(),
            bytes,
            seed,
        })
    }

    /// Fails unless the file is what [`Self::make_file`] made.
    pub fn verify_file(&mut self, path: &str, bytes: u64, seed: u64) -> Result<()> {
        self.call(Request::VerifyFile {
            path: path.to_owned(),
            bytes,
            seed,
        })
    }

    /// Writes to `bytes` bytes of memory and frees them.
    pub fn touch(&mut self, bytes: u64) -> Result<()> {
        self.call(Request::Touch { bytes })
    }

    /// Holds every other page of `bytes` bytes until [`Self::release`].
    pub fn fragment(&mut self, bytes: u64) -> Result<()> {
        self.call(Request::Fragment { bytes })
    }

    /// Checks what [`Self::fragment`] holds and frees it.
    pub fn release(&mut self) -> Result<()> {
        self.call(Request::Release)
    }

    /// The pages of all balloons, as the kernel marks them.
    pub fn balloon_pages(&mut self) -> Result<PageSet> {
        let mut pages = PageSet::default();
        let mut next = Some(0);
        while let Some(from) = next {
            let found: BalloonPages = self.call(Request::BalloonPages { from })?;
            pages.extend(found.pages.iter());
            next = found.next;
        }
        Ok(pages)
    }

    /// Starts a process that wants `bytes` bytes, and waits until it has them, or was killed for it.
    /// Returns whether it lives, which it does until [`Self::starve`].
    pub fn feed(&mut self, bytes: u64) -> Result<bool> {
        self.call(Request::Feed { bytes })
    }

    /// Ends that process, and fails unless it finds its memory as it wrote it.
    pub fn starve(&mut self) -> Result<()> {
        self.call(Request::Starve)
    }

    /// Loads the kernel and the initramfs in two of the guest's files for [`Self::start_kernel`].
    pub fn load_kernel(&mut self, kernel: &str, initramfs: &str) -> Result<()> {
        let command_line = self.shell("cat /proc/cmdline")?.trim().to_owned();
        self.call(Request::LoadKernel {
            kernel: kernel.to_owned(),
            initramfs: initramfs.to_owned(),
            command_line,
            on_crash: false,
        })
    }

    /// Loads them into what `crashkernel=` reserves, to start when the kernel that runs crashes.
    pub fn load_capture_kernel(&mut self, kernel: &str, initramfs: &str) -> Result<()> {
        let command_line = self.shell("cat /proc/cmdline")?;
        let words = command_line
            .split_whitespace()
            .filter(|word| !word.starts_with("crashkernel="))
            .chain(["nr_cpus=1", "reset_devices"]);
        self.call(Request::LoadKernel {
            kernel: kernel.to_owned(),
            initramfs: initramfs.to_owned(),
            command_line: words.collect::<Vec<_>>().join(" "),
            on_crash: true,
        })
    }

    /// Starts that kernel in place of the one that runs, and does not wait.
    pub fn start_kernel(&mut self) -> Result<()> {
        self.send(Request::StartKernel).map(|_| ())
    }

    /// Sends a request whose answer nobody waits for, such as one to power off.
    pub fn send_shell(&mut self, script: &str) -> Result<()> {
        self.send(Request::Shell {
            script: script.to_owned(),
        })
        .map(|_| ())
    }

    fn call<T: DeserializeOwned>(&mut self, request: Request) -> Result<T> {
        self.call_within(ANSWER_TIMEOUT, request)
    }

    fn call_within<T: DeserializeOwned>(
        &mut self,
        timeout: Duration,
        request: Request,
    ) -> Result<T> {
        let what = format!("{request:?}");
        let id = self
            .send(request)
            .with_context(|| format!("asking the guest for {what}"))?;
        let value = self
            .answer(id, Instant::now() + patience(timeout))
            .with_context(|| format!("asked the guest for {what}"))?;
        Ok(serde_json::from_value(value)?)
    }

    fn send(&mut self, request: Request) -> Result<u64> {
        self.last_id += 1;
        self.lines.send(&Call {
            id: self.last_id,
            request,
        })?;
        Ok(self.last_id)
    }

    /// A guest that was reset may leave half a line and answers that nobody waits for.
    fn answer(&mut self, id: u64, deadline: Instant) -> Result<serde_json::Value> {
        loop {
            let line = self.lines.receive(deadline)?;
            match serde_json::from_str::<Answer>(&line) {
                Ok(answer) if answer.id == id => {
                    return answer.result.map_err(|error| anyhow!(error))
                }
                _ => continue,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn stale_and_broken_answers_are_passed_over() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut guest = Guest::new(ours);
        theirs
            .write_all(
                b"{\"id\":9,\"res\n{\"id\":0,\"result\":{\"Ok\":{\"release\":\"7.3\",\"boot_id\":\"a\"}}}\n\
                  {\"id\":7,\"result\":{\"Ok\":null}}\n{\"id\":1,\"result\":{\"Err\":\"no room\"}}\n",
            )
            .unwrap();
        assert_eq!(
            guest.wait_hello(Duration::from_secs(1)).unwrap().release,
            "7.3"
        );
        let error = guest.touch(1).unwrap_err();
        assert!(format!("{error:#}").contains("no room"));
    }
}
