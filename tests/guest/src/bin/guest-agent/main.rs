// SPDX-License-Identifier: GPL-2.0-only

//! The guest's first process: does what the harness asks for over a virtio-serial port.
//!
//! It is process 1, so the OOM killer spares it and the kernel panics should it ever end. What it
//! does with memory it does by itself, without a process to start: a guest whose balloon holds
//! nearly everything still answers.

mod balloon_pages;
mod data;
mod hog;
mod kexec;
mod mapping;
mod scattered;

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use guest_tests::memory::Memory;
use guest_tests::protocol::{Answer, Call, Hello, Output, Request, PORT_NAME, READY};
use hog::Hog;
use mapping::Mapping;
use scattered::Scattered;
use serde_json::Value;

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() == Some(hog::ARGUMENT) {
        return hog::main(arguments.next().context("how much?")?.parse()?);
    }
    // Without the newline the kernel waits for the rest of the line.
    fs::write("/dev/kmsg", format!("{READY}\n"))?;
    let mut holdings = Holdings::default();
    loop {
        // An error is that the port went away, as it does when its driver is bound anew.
        let _ = serve(port()?, &mut holdings);
    }
}

/// What holds memory from one request to another.
#[derive(Default)]
struct Holdings {
    scattered: Option<Scattered>,
    hog: Option<Hog>,
}

fn serve(port: File, holdings: &mut Holdings) -> Result<()> {
    let mut answers = port.try_clone()?;
    let hello = Hello {
        release: fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_owned(),
        boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")?
            .trim()
            .to_owned(),
    };
    // A line of its own, whatever a boot before this one left unfinished.
    answers.write_all(b"\n")?;
    send(&mut answers, 0, Ok(serde_json::to_value(hello)?))?;

    for line in BufReader::new(port).lines() {
        let line = line?;
        // Requests to a boot before this one may have been cut.
        let Ok(call) = serde_json::from_str::<Call>(&line) else {
            continue;
        };
        let result = perform(call.request, holdings).map_err(|error| format!("{error:#}"));
        send(&mut answers, call.id, result)?;
    }
    Ok(())
}

fn perform(request: Request, holdings: &mut Holdings) -> Result<Value> {
    match request {
        Request::Shell { script } => return Ok(serde_json::to_value(shell(&script)?)?),
        Request::Memory => return Ok(serde_json::to_value(memory()?)?),
        Request::BalloonPages { from } => {
            return Ok(serde_json::to_value(balloon_pages::find(from)?)?)
        }
        Request::MakeFile { path, bytes, seed } => data::make(&path, bytes, seed)?,
        Request::VerifyFile { path, bytes, seed } => data::verify(&path, bytes, seed)?,
        Request::Touch { bytes } => Mapping::new(bytes)?.write(),
        Request::Fragment { bytes } => holdings.scattered = Some(Scattered::new(bytes)?),
        Request::Release => holdings
            .scattered
            .take()
            .context("nothing is held")?
            .verify()?,
        Request::Feed { bytes } => {
            holdings.hog = Hog::start(bytes)?;
            return Ok(holdings.hog.is_some().into());
        }
        Request::LoadKernel {
            kernel,
            initramfs,
            command_line,
            on_crash,
        } => kexec::load(&kernel, &initramfs, &command_line, on_crash)?,
        Request::StartKernel => kexec::start()?,
        Request::Starve => holdings.hog.take().context("there is no process")?.end()?,
    }
    Ok(Value::Null)
}

fn send(port: &mut File, id: u64, result: Result<Value, String>) -> Result<()> {
    let mut line = serde_json::to_vec(&Answer { id, result })?;
    line.push(b'\n');
    Ok(port.write_all(&line)?)
}

/// The harness's port, which may appear only after the first process starts.
fn port() -> Result<File> {
    loop {
        for entry in fs::read_dir("/sys/class/virtio-ports")? {
            let entry = entry?;
            if fs::read_to_string(entry.path().join("name"))
                .is_ok_and(|name| name.trim() == PORT_NAME)
            {
                let device = PathBuf::from("/dev").join(entry.file_name());
                return OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(&device)
                    .with_context(|| device.display().to_string());
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn shell(script: &str) -> Result<Output> {
    let output = Command::new("/bin/sh")
        .args(["-c", &format!("exec 2>&1; {script}")])
        .stdin(Stdio::null())
        .output()
        .context("cannot start a shell")?;
    Ok(Output {
        status: output.status.code().unwrap_or(-1),
        text: String::from_utf8_lossy(&output.stdout).into_owned(),
    })
}

fn memory() -> Result<Memory> {
    // The kernel keeps small differences on each processor; this adds them up.
    fs::write("/proc/sys/vm/stat_refresh", "1").context("stat_refresh")?;
    let [meminfo, vmstat, zoneinfo] =
        ["meminfo", "vmstat", "zoneinfo"].map(|name| fs::read_to_string(format!("/proc/{name}")));
    Memory::parse(&meminfo?, &vmstat?, &zoneinfo?)
}
