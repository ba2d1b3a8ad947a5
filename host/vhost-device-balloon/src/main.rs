// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::error::Error;
use std::process::ExitCode;

use clap::CommandFactory;
use clap::Parser;
use env_logger::Env;
use log::error;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SfdFlags;
use nix::sys::signalfd::SignalFd;

use vhost_device_balloon::args::Cli;
use vhost_device_balloon::args::Command;
use vhost_device_balloon::ctl;
use vhost_device_balloon::daemon::Daemon;
use vhost_device_balloon::daemon::DaemonConfig;

fn main() -> ExitCode {
    env_logger::Builder::from_env(Env::default().default_filter_or("info")).init();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    match (cli.command, cli.daemon) {
        (Some(Command::Ctl(args)), _) => Ok(ctl::run(&args)?),
        (None, Some(args)) => {
            let signals = block_signals()?;
            Ok(Daemon::new(&DaemonConfig::from(args), Some(signals))?.run()?)
        }
        (None, None) => Ok(Cli::command().print_help()?),
    }
}

/// Takes the signals that end the daemon as something to read instead.
fn block_signals() -> nix::Result<SignalFd> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)
}
