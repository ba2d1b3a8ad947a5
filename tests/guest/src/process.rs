// SPDX-License-Identifier: GPL-2.0-only

//! Child processes that never outlive the trial that started them.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use nix::fcntl::{fcntl, FcntlArg, FdFlag};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::environment::patience;

/// A running program, killed when this is dropped and when the thread that started it dies.
pub struct Process {
    child: Child,
    name: &'static str,
}

impl Process {
    /// Starts `command` with its output in the file `log`. The descriptors in `inherited` keep
    /// their numbers in the child.
    pub fn spawn(
        name: &'static str,
        mut command: Command,
        log: &Path,
        inherited: Vec<OwnedFd>,
    ) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        // SAFETY: Between fork and exec only system calls are made; `inherited` is owned by the closure.
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)?;
                for descriptor in &inherited {
                    let descriptor = BorrowedFd::borrow_raw(descriptor.as_raw_fd());
                    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
                }
                Ok(())
            });
        }
        let child = command.spawn().with_context(|| {
            format!(
                "cannot start {name} ({})",
                command.get_program().to_string_lossy()
            )
        })?;
        Ok(Self { child, name })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails when the process has ended.
    pub fn expect_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended: {status}", self.name),
        }
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let mut ended = None;
        wait_until(timeout, &format!("the end of {}", self.name), || {
            ended = self.child.try_wait()?;
            Ok(ended.is_some())
        })?;
        ended.context("no exit status")
    }

    /// Asks the process to end as an operator would.
    pub fn terminate(&self) -> Result<()> {
        kill(Pid::from_raw(self.child.id().try_into()?), Signal::SIGTERM)
            .with_context(|| format!("cannot signal {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks `condition` again and again until it holds; `what` says in the error what did not come.
pub fn wait_until(
    timeout: Duration,
    what: &str,
    condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    wait_closely(Duration::from_millis(10), timeout, what, condition)
}

/// The same for what may be over in less than 10 ms, with a pause of one's own.
pub fn wait_closely(
    pause: Duration,
    timeout: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let timeout = patience(timeout);
    let deadline = Instant::now() + timeout;
    while !condition()? {
        if Instant::now() > deadline {
            bail!("waited {} s in vain for {what}", timeout.as_secs());
        }
        std::thread::sleep(pause);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str) -> Process {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn("shell", command, &dir.path().join("log"), Vec::new()).unwrap()
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let process = start("sleep 1000");
        let id = process.id();
        assert!(Path::new(&format!("/proc/{id}")).exists());
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn an_ended_process_is_noticed() {
        let mut process = start("exit 3");
        assert_eq!(
            process.wait(Duration::from_secs(5)).unwrap().code(),
            Some(3)
        );
        assert!(process
            .expect_alive()
            .unwrap_err()
            .to_string()
            .contains("shell has ended"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Process::spawn(
            "QEMU",
            Command::new("/nonexistent"),
            &dir.path().join("log"),
            Vec::new(),
        );
        assert!(error
            .err()
            .unwrap()
            .to_string()
            .contains("QEMU (/nonexistent)"));
    }
}
