// SPDX-License-Identifier: GPL-2.0-only

//! A process that wants memory, and may be killed for it: the agent itself, started once more.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use anyhow::{ensure, Context, Result};

use crate::mapping::Mapping;

/// The agent, by a path that ends with the name that the process shall have.
const PROGRAM: &str = "/bin/guest-agent";
/// The argument that makes the agent such a process; how much it wants follows.
pub const ARGUMENT: &str = "hog";
/// What it says when it has its memory.
const SATED: &str = "sated";

/// What the process does: takes memory, says so, and looks at it again when its input ends.
pub fn main(bytes: u64) -> Result<()> {
    let mapping = Mapping::new(bytes)?;
    mapping.write();
    println!("{SATED}");
    io::stdin().read_to_end(&mut Vec::new())?;
    mapping.verify(0, 1)
}

/// A running process.
pub struct Hog(Child);

impl Hog {
    /// Starts a process and waits until it has `bytes` bytes; `None` if it was killed instead.
    pub fn start(bytes: u64) -> Result<Option<Self>> {
        let mut child = Command::new(PROGRAM)
            .args([ARGUMENT, &bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a process")?;
        let mut said = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut said)?;
        if said.trim() == SATED {
            return Ok(Some(Self(child)));
        }
        let status = child.wait()?;
        ensure!(
            status.code().is_none(),
            "the process ended by itself: {status}"
        );
        Ok(None)
    }

    /// Has the process check its memory and end.
    pub fn end(mut self) -> Result<()> {
        // Closes its input first.
        let status = self.0.wait()?;
        ensure!(status.success(), "the process ended with {status}");
        Ok(())
    }
}
