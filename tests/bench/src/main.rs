// SPDX-License-Identifier: GPL-2.0-only

//! `make bench`: the driver beside its peers and above its floors, in one table, one picture and one file with
//! every figure.

mod allocator;
mod bench;
mod discard;
mod figures;
mod instructions;
mod machine;
mod peer;
mod picture;
mod plan;
mod reach;
mod record;
mod statistics;
mod table;
mod times;
mod uml;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match bench::run(&bench::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}
