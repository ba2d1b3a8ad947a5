// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The control socket: any number of QMP clients, served without ever waiting for one.

use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use log::debug;
use log::warn;

use crate::control::Control;
use crate::qmp::balloon_change;
use crate::qmp::Session;
use crate::socket::Listener;

/// Clients served at once.
const MAX_CLIENTS: usize = 64;
/// A client that leaves this many bytes unread is dropped.
const MAX_UNREAD: usize = 1024 * 1024;
/// Least time between two events.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);

/// The server and its clients.
#[derive(Debug)]
pub struct ControlServer {
    listener: Listener,
    test_commands: bool,
    clients: Vec<Client>,
    throttle: Throttle,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    session: Session,
    output: Vec<u8>,
    gone: bool,
}

impl ControlServer {
    /// A server for the clients of `listener`, who may use the commands for tests or not.
    pub fn new(listener: Listener, test_commands: bool) -> Self {
        Self {
            listener,
            test_commands,
            clients: Vec::new(),
            throttle: Throttle::default(),
        }
    }

    /// The descriptor that becomes readable when a client connects.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// The clients' descriptors, each with whether there is output for it.
    pub fn clients(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        self.clients
            .iter()
            .map(|client| (client.stream.as_fd(), !client.output.is_empty()))
    }

    /// Takes one waiting client in.
    pub fn accept(&mut self) {
        let stream = match self.listener.accept() {
            Ok(stream) => stream,
            Err(error) => {
                debug!("no control client accepted: {error}");
                return;
            }
        };
        if self.clients.len() >= MAX_CLIENTS {
            warn!("more than {MAX_CLIENTS} control clients; the newest is turned away");
            return;
        }
        if let Err(error) = stream.set_nonblocking(true) {
            warn!("control client turned away: {error}");
            return;
        }
        let mut client = Client {
            stream,
            session: Session::new(self.test_commands),
            output: Session::greeting(),
            gone: false,
        };
        client.flush();
        self.clients.push(client);
    }

    /// Reads what client number `index` sent and carries it out; returns whether it asked to quit.
    pub fn serve(&mut self, index: usize, control: &mut dyn Control) -> bool {
        match self.clients.get_mut(index) {
            Some(client) => client.serve(control),
            None => false,
        }
    }

    /// Drops the clients that have left. The others' numbers change.
    pub fn sweep(&mut self) {
        self.clients.retain(|client| !client.gone);
    }

    /// Tells the clients that the guest now keeps `actual` bytes: at once, or, when the last such
    /// event was less than a second ago, later and only if no newer value comes.
    pub fn balloon_changed(&mut self, actual: u64, now: Instant) {
        self.throttle.set(actual);
        self.send_due(now);
    }

    /// Sends the event whose time has come, if any.
    pub fn send_due(&mut self, now: Instant) {
        let Some(actual) = self.throttle.take_due(now) else {
            return;
        };
        let event = balloon_change(actual, SystemTime::now());
        for client in &mut self.clients {
            if client.session.wants_events() {
                client.send(&event);
            }
        }
    }

    /// How long until an event is due.
    pub fn next_due(&self, now: Instant) -> Option<Duration> {
        self.throttle.next_due(now)
    }
}

impl Client {
    fn serve(&mut self, control: &mut dyn Control) -> bool {
        self.flush();
        let mut buffer = [0; 4096];
        let len = match self.stream.read(&mut buffer) {
            Ok(0) => {
                self.gone = true;
                return false;
            }
            Ok(len) => len,
            Err(error) => {
                self.gone |= !is_temporary(&error);
                return false;
            }
        };
        let output = self.session.feed(&buffer[..len], control);
        self.send(&output.bytes);
        output.quit
    }

    fn send(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
        self.flush();
        if self.output.len() > MAX_UNREAD {
            warn!("a control client does not read; it is dropped");
            self.gone = true;
        }
    }

    fn flush(&mut self) {
        while !self.gone && !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(len) => drop(self.output.drain(..len)),
                Err(error) if is_temporary(&error) => return,
                Err(_) => self.gone = true,
            }
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Lets one value a second through; the newest always gets through in the end.
#[derive(Debug, Default)]
struct Throttle {
    last: Option<Instant>,
    waiting: Option<u64>,
}

impl Throttle {
    fn set(&mut self, value: u64) {
        self.waiting = Some(value);
    }

    fn next_due(&self, now: Instant) -> Option<Duration> {
        self.waiting?;
        let since = self.last.map(|last| now.saturating_duration_since(last));
        Some(since.map_or(Duration::ZERO, |since| EVENT_INTERVAL.saturating_sub(since)))
    }

    fn take_due(&mut self, now: Instant) -> Option<u64> {
        if self.next_due(now) != Some(Duration::ZERO) {
            return None;
        }
        self.last = Some(now);
        self.waiting.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_throttled_and_the_last_one_is_sent() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut throttle = Throttle::default();
        assert_eq!(throttle.next_due(start), None);
        throttle.set(1);
        assert_eq!(throttle.take_due(start), Some(1));
        throttle.set(2);
        throttle.set(3);
        assert_eq!(throttle.take_due(after(10)), None);
        assert_eq!(
            throttle.next_due(after(400)),
            Some(Duration::from_millis(600))
        );
        assert_eq!(throttle.take_due(after(1000)), Some(3));
        assert_eq!(throttle.take_due(after(9000)), None);
    }
}
