// SPDX-License-Identifier: GPL-2.0-only

//! Goes through the plan, and keeps what comes of it.

use std::cell::Cell;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use anyhow::{ensure, Context, Result};
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Parser};
use guest_tests::page_set::PageSet;
use guest_tests::{environment, MIB};
use indicatif::{ProgressBar, ProgressStyle};

use crate::figures::Figures;
use crate::plan::{jobs, Job, Part, State, Subject, UmlKernel, Zeroing};
use crate::record::{Failure, Record};
use crate::times::{Amounts, Times};
use crate::{allocator, discard, instructions, machine, picture, table, uml};

/// How often a job is tried: a busy machine may keep a guest from booting in time.
const TRIES: usize = 2;
/// RAM that is never moved.
const REST_MIB: u64 = 1024;

/// Measures virtio_balloon_bmap beside its peers, and the floors under all of them. As `make bench` has it, an
/// option --runs=3 is RUNS=3, and one without a value is given as 1: RESUME=1.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Rounds: how often everything but instructions is measured
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// How often instructions are counted, which repeat closely
    #[arg(long, default_value_t = 2)]
    instruction_runs: u32,
    /// Functions to show, of those of the guest's kernel with the most instructions
    #[arg(long, default_value_t = 0)]
    functions: usize,
    /// MiB that an idle guest gives away; it has 1024 more
    #[arg(long, default_value_t = 7168)]
    mib: u64,
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::ALL)]
    parts: Vec<Part>,
    /// Drivers and devices
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Subject::usual())]
    subjects: Vec<Subject>,
    /// What the guest's memory is like
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = State::ALL)]
    states: Vec<State>,
    /// Whether the guest's kernel zeroes memory
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Zeroing::ALL)]
    zeroing: Vec<Zeroing>,
    /// Go on with what results.json has, if there is one, and do only what is missing there
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value = "false",
        default_missing_value = "true", value_parser = BoolishValueParser::new())]
    resume: bool,
    /// Measure nothing: table and picture of what results.json has
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value = "false",
        default_missing_value = "true", value_parser = BoolishValueParser::new())]
    render: bool,
}

/// Where results go.
struct Output {
    directory: PathBuf,
}

impl Output {
    fn results(&self) -> PathBuf {
        self.directory.join("results.json")
    }

    /// Where the pages of the last balloon in such a guest are kept.
    fn balloon(&self, state: State) -> PathBuf {
        self.directory
            .join(format!("balloon-{}.json", state.title()))
    }
}

/// Measures, and shows what came of it.
///
/// # Errors
/// When a job has failed; all others are done before.
pub fn run(arguments: &Arguments) -> Result<()> {
    let output = Output {
        directory: environment::build_dir_of("bench")?,
    };
    let record = if arguments.render {
        Record::read(&output.results())?
    } else {
        measure(arguments, &output)?
    };
    show(&record, arguments.functions, &output)?;
    ensure!(
        record.failures.is_empty(),
        "{} jobs failed, {} went well",
        record.failures.len(),
        record.done.len()
    );
    Ok(())
}

fn show(record: &Record, functions: usize, output: &Output) -> Result<()> {
    let figures = Figures(record);
    let text = table::render(figures, functions);
    let files = ["table.txt", "bench.svg"].map(|name| output.directory.join(name));
    fs::write(&files[0], &text).with_context(|| format!("cannot write {}", files[0].display()))?;
    picture::draw(figures, &files[1])?;
    println!("{text}");
    for path in [&output.results(), &files[0], &files[1]] {
        println!("{}", path.display());
    }
    Ok(())
}

fn measure(arguments: &Arguments, output: &Output) -> Result<Record> {
    let amounts = Amounts {
        guest_mib: arguments.mib + REST_MIB,
        moved_mib: arguments.mib,
    };
    let mut record = begin(arguments, output, amounts)?;
    let mut left = jobs(
        &arguments.parts,
        &arguments.zeroing,
        &arguments.subjects,
        arguments.runs,
    );
    let all = left.len();
    left.retain(|job| !record.done.contains(job));
    let progress = Progress::new(all, all - left.len());
    for job in left {
        progress.next(job);
        let bench = Bench {
            arguments,
            output,
            amounts,
            progress: &progress,
        };
        bench.job(job, &mut record)?;
        record.write(&output.results())?;
    }
    progress.end();
    Ok(record)
}

/// A record to add to: the one that is there, if it is to be gone on with, or a new one.
fn begin(arguments: &Arguments, output: &Output, amounts: Amounts) -> Result<Record> {
    eprintln!("==> Looking at the machine and at a guest");
    let about = machine::about(amounts)?;
    let earlier = if arguments.resume {
        Record::read_if_any(&output.results())?
    } else {
        None
    };
    if let Some(mut record) = earlier {
        let dated = crate::record::About {
            date: record.about.date.clone(),
            ..about
        };
        ensure!(
            record.about == dated,
            "{} has another machine, or other amounts: {:?}, and this is {dated:?}",
            output.results().display(),
            record.about
        );
        record.failures.clear();
        return Ok(record);
    }
    for state in State::ALL {
        let path = output.balloon(state);
        if path.exists() {
            fs::remove_file(path)?;
        }
    }
    Ok(Record {
        about,
        ..Record::default()
    })
}

/// One job's surroundings.
struct Bench<'a> {
    arguments: &'a Arguments,
    output: &'a Output,
    amounts: Amounts,
    progress: &'a Progress,
}

impl Bench<'_> {
    /// Does a job, once more if it fails. Of one that fails to the end nothing is kept but why: what was measured
    /// in a guest in which anything is wrong is worth nothing.
    fn job(&self, job: Job, record: &mut Record) -> Result<()> {
        let mut tries = 0;
        loop {
            tries += 1;
            let logs = self.output.directory.join("logs").join(job.directory());
            let logs = environment::empty(logs)?;
            let mut found = Record::default();
            let Err(error) = self.attempt(job, &logs, &mut found) else {
                record.legs.append(&mut found.legs);
                record.instructions.append(&mut found.instructions);
                record.allocations.append(&mut found.allocations);
                record.discards.append(&mut found.discards);
                record.natives.append(&mut found.natives);
                record.done.push(job);
                return Ok(());
            };
            let error = format!("{error:#}");
            let logs = logs.display();
            self.progress.say(&format!(
                "{}, try {tries}: {error}; logs in {logs}",
                job.title()
            ));
            if tries == TRIES {
                record.failures.push(Failure { job, error });
                return Ok(());
            }
        }
    }

    fn attempt(&self, job: Job, logs: &Path, found: &mut Record) -> Result<()> {
        match job {
            Job::Times {
                zeroing,
                round,
                subject,
            } => {
                let times = Times {
                    amounts: self.amounts,
                    zeroing,
                    round,
                    subject,
                    states: &self.arguments.states,
                    note: &|what| self.progress.note(job, what),
                };
                let mut balloons = Vec::new();
                times.measure(logs, &mut found.legs, &mut balloons)?;
                if (subject, zeroing) == (Subject::OursDaemon, Zeroing::Off) {
                    for (state, pages) in balloons {
                        fs::write(self.output.balloon(state), serde_json::to_vec(&pages)?)?;
                    }
                }
            }
            Job::Allocator { zeroing, round } => {
                found.allocations = allocator::measure(self.amounts, zeroing, round, logs)?;
            }
            Job::Discard { round } => self.discard(round, found)?,
            Job::Uml { round } => {
                for kernel in UmlKernel::ALL {
                    for driver in uml::DRIVERS {
                        let logs =
                            logs.join(format!("{kernel:?}-{}", driver.name()).to_lowercase());
                        let logs = environment::empty(logs)?;
                        let mut natives = uml::measure(self.amounts, kernel, driver, round, &logs)?;
                        found.natives.append(&mut natives);
                    }
                }
            }
            Job::Instructions { subject } => instructions::measure(
                self.amounts,
                subject,
                &self.arguments.states,
                self.arguments.instruction_runs,
                logs,
                &mut found.instructions,
            )?,
        }
        Ok(())
    }

    /// What balloons had in this round, and the same amount in one piece.
    fn discard(&self, round: u32, found: &mut Record) -> Result<()> {
        let guest = self.amounts.guest_mib * MIB;
        let moved = self.amounts.moved_mib * MIB;
        found
            .discards
            .push(discard::in_one_range(guest, moved, round)?);
        for state in [State::Touched, State::Scattered] {
            let Ok(text) = fs::read(self.output.balloon(state)) else {
                continue;
            };
            let pages: PageSet = serde_json::from_slice(&text)?;
            found
                .discards
                .push(discard::of_balloon(guest, state, &pages, round)?);
        }
        Ok(())
    }
}

/// What is being done, for a person who waits: a bar on a terminal, a line each elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    all: usize,
    at: Cell<usize>,
}

impl Progress {
    fn new(all: usize, done: usize) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = "{elapsed_precise} [{bar:30}] {pos}/{len}, {eta} left: {msg}";
            let style = ProgressStyle::with_template(style).expect("a template");
            let bar = ProgressBar::new(all as u64)
                .with_position(done as u64)
                .with_style(style);
            bar.reset_eta();
            bar.enable_steady_tick(Duration::from_secs(1));
            bar
        });
        Self {
            bar,
            all,
            at: Cell::new(done),
        }
    }

    fn next(&self, job: Job) {
        self.at.set(self.at.get() + 1);
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.at.get() as u64 - 1);
                bar.set_message(job.title());
            }
            None => eprintln!("==> {} of {}: {}", self.at.get(), self.all, job.title()),
        }
    }

    /// What exactly is being done.
    fn note(&self, job: Job, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {what}", job.title()));
        }
    }

    fn say(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{what}")),
            None => eprintln!("{what}"),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
