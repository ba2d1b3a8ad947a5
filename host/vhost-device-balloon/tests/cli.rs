// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program as a user runs it.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Output;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use nix::sys::signal::kill;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-device-balloon"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts the daemon with its sockets in `dir`, and waits until it listens.
fn daemon(dir: &Path) -> Child {
    let mut child = program()
        .arg("--socket-path")
        .arg(dir.join("socket"))
        .arg("--control-path")
        .arg(dir.join("control"))
        .spawn()
        .unwrap();
    while UnixStream::connect(dir.join("control")).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "the daemon ended");
        thread::sleep(Duration::from_millis(1));
    }
    child
}

fn ctl(dir: &Path, words: &[&str]) -> Output {
    let control = dir.join("control");
    let mut command = program();
    command
        .arg("ctl")
        .arg("--control-path")
        .arg(control)
        .args(words);
    command.output().unwrap()
}

fn assert_clean_end(dir: &Path, status: ExitStatus) {
    assert!(status.success(), "{status}");
    assert_eq!(
        dir.read_dir().unwrap().count(),
        0,
        "a socket was left behind"
    );
}

#[test]
fn quit_ends_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = daemon(dir.path());
    assert!(ctl(dir.path(), &["quit"]).status.success());
    assert_clean_end(dir.path(), child.wait().unwrap());
}

#[test]
fn signals_end_the_daemon() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = daemon(dir.path());
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        assert_clean_end(dir.path(), child.wait().unwrap());
    }
}

#[test]
fn a_killed_daemon_does_not_stand_in_the_way_of_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = daemon(dir.path());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(dir.path().join("socket").exists());
    let mut child = daemon(dir.path());
    assert!(ctl(dir.path(), &["quit"]).status.success());
    assert_clean_end(dir.path(), child.wait().unwrap());
}

#[test]
fn statistics_are_shown_and_their_interval_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = daemon(dir.path());
    for options in [&["stats", "--poll", "7"][..], &["stats"]] {
        let output = ctl(dir.path(), options);
        assert!(output.status.success());
        let stats = String::from_utf8(output.stdout).unwrap();
        assert!(stats.contains("\"last-update\": 0"), "{stats}");
        assert!(
            stats.contains("\"stat-free-memory\": 18446744073709551615"),
            "{stats}"
        );
    }
    assert!(!ctl(dir.path(), &["stats", "--poll", "-1"]).status.success());
    assert!(ctl(dir.path(), &["quit"]).status.success());
    assert_clean_end(dir.path(), child.wait().unwrap());
}

#[test]
fn failures_are_told_and_end_in_failure() {
    let dir = tempfile::tempdir().unwrap();
    let output = ctl(dir.path(), &["query"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("control: No such file"), "{errors}");

    let mut child = daemon(dir.path());
    let output = ctl(dir.path(), &["query"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("No balloon device has been activated"),
        "{errors}"
    );

    let output = ctl(dir.path(), &["counters"]);
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout)
        .unwrap()
        .contains("\"pages_held\": 0"));

    let second = program()
        .arg("--socket-path")
        .arg(dir.path().join("socket"))
        .arg("--control-path")
        .arg(dir.path().join("other"))
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let errors = String::from_utf8(second.stderr).unwrap();
    assert!(errors.contains("another process listens there"), "{errors}");

    assert!(ctl(dir.path(), &["quit"]).status.success());
    assert_clean_end(dir.path(), child.wait().unwrap());
}
