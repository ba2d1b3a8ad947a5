// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The client of the control socket.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::BufWriter;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use indicatif::HumanBytes;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use qapi::qmp;
use qapi::Command;
use qapi::ExecuteError;
use qapi::Qmp;
use qapi::Stream;
use serde::Serialize;
use thiserror::Error;

use crate::args::CtlArgs;
use crate::args::CtlCommand;
use crate::counters::Counters;
use crate::virtio_balloon::PAGE_SIZE;

/// Why a command did not succeed.
#[derive(Debug, Error)]
pub enum CtlError {
    #[error("{}: {source}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Execute(#[from] ExecuteError),
    #[error("the device's answer cannot be shown: {0}")]
    Answer(#[from] serde_json::Error),
    #[error("the guest is gone")]
    GuestGone,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The one command that QEMU does not have.
#[derive(Debug, Serialize)]
struct QueryBalloonCounters {}

impl Command for QueryBalloonCounters {
    type Ok = Counters;

    const NAME: &'static str = "query-balloon-counters";
    const ALLOW_OOB: bool = false;
}

/// Writes are buffered so that a command and its line end go out as one: the device may end as soon
/// as it has the command.
type Client = Qmp<Stream<BufReader<UnixStream>, BufWriter<UnixStream>>>;

/// How often the guest's progress is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Carries out one command.
///
/// # Errors
///
/// [`CtlError`] if the device cannot be reached or refuses.
pub fn run(args: &CtlArgs) -> Result<(), CtlError> {
    let mut client = connect(&args.control_path)?;
    match args.command {
        CtlCommand::Set { size, wait } => {
            let value = i64::try_from(size).map_err(io::Error::other)?;
            client.execute(&qmp::balloon { value })?;
            if wait {
                wait_for_target(&mut client)?;
            }
        }
        CtlCommand::Query => println!("{}", query(&mut client)?),
        CtlCommand::Counters => {
            let counters = client.execute(&QueryBalloonCounters {})?;
            println!("{}", serde_json::to_string_pretty(&counters)?);
        }
        CtlCommand::Stats { poll } => stats(&mut client, poll)?,
        CtlCommand::Watch => watch(&mut client)?,
        CtlCommand::Quit => drop(client.execute(&qmp::quit {})?),
    }
    Ok(())
}

fn connect(path: &PathBuf) -> Result<Client, CtlError> {
    let open = || {
        let stream = UnixStream::connect(path)?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Stream::new(reader, BufWriter::new(stream)))
    };
    let stream = open().map_err(|source| CtlError::Connect {
        path: path.clone(),
        source,
    })?;
    let mut client = Qmp::new(stream);
    client.handshake()?;
    Ok(client)
}

fn query(client: &mut Client) -> Result<i64, CtlError> {
    Ok(client.execute(&qmp::query_balloon {})?.actual)
}

fn stats(client: &mut Client, poll: Option<u32>) -> Result<(), CtlError> {
    // The device has only these properties, wherever one looks for them.
    let path = "/";
    if let Some(seconds) = poll {
        client.execute(&qmp::qom_set {
            path: path.into(),
            property: "guest-stats-polling-interval".into(),
            value: seconds.into(),
        })?;
    }
    let stats = client.execute(&qmp::qom_get {
        path: path.into(),
        property: "guest-stats".into(),
    })?;
    println!("{}", serde_json::to_string_pretty(&stats)?);
    Ok(())
}

/// Shows how the guest comes nearer to its target, and returns when it is there.
fn wait_for_target(client: &mut Client) -> Result<(), CtlError> {
    let first = client.execute(&QueryBalloonCounters {})?;
    let distance = first.target.abs_diff(first.actual);
    let style = ProgressStyle::with_template("{msg:>8} {wide_bar} {percent:>3} % {prefix}")
        .expect("the template is valid");
    let bar = ProgressBar::new(distance.into()).with_style(style);
    bar.set_message(if first.target >= first.actual {
        "inflate"
    } else {
        "deflate"
    });
    loop {
        let now = client.execute(&QueryBalloonCounters {})?;
        if now.ram == 0 {
            bar.abandon();
            return Err(CtlError::GuestGone);
        }
        let left = now.target.abs_diff(now.actual);
        bar.set_prefix(HumanBytes(guest_bytes(&now)).to_string());
        bar.set_position(distance.saturating_sub(left).into());
        if left == 0 {
            bar.finish();
            return Ok(());
        }
        thread::sleep(LOOK);
    }
}

fn guest_bytes(counters: &Counters) -> u64 {
    counters
        .ram
        .saturating_sub(u64::from(counters.actual) * PAGE_SIZE)
}

fn watch(client: &mut Client) -> Result<(), CtlError> {
    println!("{}", query(client)?);
    let mut line = String::new();
    while client.inner_mut().read_line(&mut line)? > 0 {
        if let qmp::Event::BALLOON_CHANGE { data, .. } = serde_json::from_str(&line)? {
            println!("{}", data.actual);
        }
        line.clear();
    }
    Ok(())
}
