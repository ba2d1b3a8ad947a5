// SPDX-License-Identifier: GPL-2.0-only

//! Who boots a guest, and when: scenarios that leave a guest as they found it take turns with one.
//! Such a group runs from its beginning to its end on one thread, and groups run beside each other.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::mpsc::{channel, Sender};
use std::sync::Mutex;
use std::thread;

use anyhow::Result;
use guest_tests::audit::logs;
use guest_tests::environment;
use guest_tests::vm::{Setup, Vm};
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};

/// Memory of a guest that scenarios share.
const SHARED_MIB: u64 = 1024;

/// What proves something of a guest.
#[derive(Clone, Copy)]
pub enum Scenario {
    /// Finds a guest as [`Vm::boot`] or [`Vm::rest`] has left it, and leaves it with its balloon at rest
    /// and all but the driver's own settings as they were.
    Shared(fn(&mut Vm) -> Result<()>),
    /// Finds the same, and is the end of it.
    Last(fn(Vm) -> Result<()>),
    /// Boots guests that are not like others', and ends each with [`Vm::finish`].
    Alone(fn(Setup, &Path) -> Result<()>),
}

/// Scenarios with their names that one guest is enough for, or one scenario.
pub struct Group {
    setup: Setup,
    scenarios: Vec<(String, Scenario)>,
}

impl Group {
    /// The groups of a configuration; each scenario is one if nothing is to be shared.
    pub fn of(
        configuration: &str,
        setup: &Setup,
        scenarios: Vec<(&str, Scenario)>,
        share: bool,
    ) -> Vec<Self> {
        let (mut shared, mut last, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        for (name, scenario) in scenarios {
            let members = match scenario {
                Scenario::Shared(_) if share => &mut shared,
                Scenario::Last(_) if share => &mut last,
                _ => &mut alone,
            };
            members.push((format!("{configuration}::{name}"), scenario));
        }
        shared.extend(last);
        let alone = alone.into_iter().map(|scenario| vec![scenario]);
        std::iter::once(shared)
            .chain(alone)
            .filter(|scenarios| !scenarios.is_empty())
            .map(|scenarios| Self {
                setup: setup.clone(),
                scenarios,
            })
            .collect()
    }
}

/// Runs those scenarios that the arguments ask for, as many groups at a time as these allow threads.
/// Each scenario is a trial of its own to the test runner, which only waits for what comes of it.
pub fn run(mut arguments: Arguments, mut groups: Vec<Group>) -> Conclusion {
    // A long one would be alone at the end.
    groups.sort_by_key(|group| Reverse(group.scenarios.len()));
    let (mut trials, mut queue) = (Vec::new(), VecDeque::new());
    for Group { setup, scenarios } in groups {
        let mut jobs = Vec::new();
        for (name, scenario) in scenarios {
            let (outcome, awaited) = channel::<Outcome>();
            let trial = Trial::test(name.clone(), move || {
                awaited.recv()?.unwrap_or_else(|panic| resume_unwind(panic))
            });
            if !arguments.list && !arguments.is_filtered_out(&trial) {
                jobs.push(Job {
                    name,
                    scenario,
                    outcome,
                });
            }
            trials.push(trial);
        }
        queue.push_back((setup, jobs));
    }

    let threads = arguments.test_threads.unwrap_or(1);
    if threads > 1 {
        arguments.test_threads = Some(trials.len());
    }
    let queue = Mutex::new(queue);
    let next = || queue.lock().ok()?.pop_front();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((setup, jobs)) = next() {
                    run_group(&setup, jobs);
                }
            });
        }
        libtest_mimic::run(&arguments, trials)
    })
}

/// What comes of a scenario, or its panic.
type Outcome = thread::Result<Result<(), Failed>>;

/// A scenario that is wanted.
struct Job {
    name: String,
    scenario: Scenario,
    outcome: Sender<Outcome>,
}

/// One after another. A guest that something went wrong with is nobody's any more.
fn run_group(setup: &Setup, jobs: Vec<Job>) {
    let mut guest = None;
    let mut jobs = jobs.into_iter().peekable();
    while let Some(job) = jobs.next() {
        let last = jobs.peek().is_none();
        let outcome = catch_unwind(AssertUnwindSafe(|| job.run(setup, &mut guest, last)));
        // Nobody listens where the runner has given up.
        let _ = job.outcome.send(outcome);
    }
}

impl Job {
    /// Runs the scenario with the guest that the one before has left, or else with one of its own,
    /// which the next one gets if there is one.
    fn run(&self, setup: &Setup, guest: &mut Option<Vm>, last: bool) -> Result<(), Failed> {
        let vm = guest.take();
        let directory = match &vm {
            Some(vm) => Ok(vm.directory().to_owned()),
            None => environment::artefacts(&self.name),
        };
        let directory = directory.map_err(|error| Failed::from(format!("{error:#}")))?;
        self.prove(setup, &directory, vm, last)
            .map(|vm| *guest = vm)
            .map_err(|error| Failed::from(format!("{error:#}\n{}", logs(&directory))))
    }

    fn prove(
        &self,
        setup: &Setup,
        directory: &Path,
        vm: Option<Vm>,
        last: bool,
    ) -> Result<Option<Vm>> {
        let booted = || match vm {
            Some(vm) => Ok(vm),
            None => {
                let mut setup = setup.clone();
                setup.machine.memory_mib = SHARED_MIB;
                Vm::boot(&setup, directory)
            }
        };
        match self.scenario {
            Scenario::Alone(prove) => prove(setup.clone(), directory)?,
            Scenario::Last(prove) => {
                let mut vm = booted()?;
                vm.note(&self.name)?;
                prove(vm)?;
            }
            Scenario::Shared(prove) => {
                let mut vm = booted()?;
                vm.note(&self.name)?;
                prove(&mut vm)?;
                if !last {
                    vm.rest()?;
                    return Ok(Some(vm));
                }
                vm.finish()?;
            }
        }
        Ok(None)
    }
}
