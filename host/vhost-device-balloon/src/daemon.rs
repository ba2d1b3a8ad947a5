// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The poll loop: one thread that serves the frontend, the queues and the control socket.
//!
//! One thread, because a configuration change may only be sent while what is known about the
//! device is exact (see [`crate::config_channel`]).

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use log::error;
use log::info;
use log::warn;
use nix::poll::ppoll;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::sys::signalfd::SignalFd;
use nix::sys::time::TimeSpec;
use serde_json::Value;
use thiserror::Error;
use vhost::vhost_user::BackendReqHandler;
use vhost::vhost_user::Error as VhostUserError;

use crate::config_channel::peek_backend_channel;
use crate::config_channel::ConfigChannel;
use crate::control::Control;
use crate::control_server::ControlServer;
use crate::counters::Counters;
use crate::message::PageRange;
use crate::role::Role;
use crate::socket::Listener;
use crate::socket::SocketError;
use crate::vhu_balloon::VhuBalloon;

/// What the daemon is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// Where the frontend connects.
    pub socket_path: PathBuf,
    /// Where QMP clients connect.
    pub control_path: PathBuf,
    /// The features to offer.
    pub features: u64,
    /// Whether a configuration change is sent in one write, which may crash QEMU.
    pub whole_messages: bool,
    /// Whether control clients may use the commands for tests.
    pub test_commands: bool,
}

/// Why the daemon cannot start or go on.
#[derive(Debug, Error)]
pub enum DaemonError {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("waiting for events failed: {0}")]
    Poll(nix::Error),
}

/// Requests refused in a row before the frontend is given up.
const MAX_BAD_REQUESTS: u32 = 16;
/// Pauses between two looks at whether the frontend has read a message's first byte.
const FIRST_LOOK: Duration = Duration::from_micros(100);
const LAST_LOOK: Duration = Duration::from_millis(20);

type Device = Arc<Mutex<VhuBalloon>>;

/// What a descriptor that is ready belongs to.
#[derive(Clone, Copy, Debug)]
enum Source {
    Signal,
    Listener,
    Frontend,
    Queue(usize),
    ControlListener,
    Client(usize),
}

/// The daemon.
pub struct Daemon {
    features: u64,
    whole_messages: bool,
    listener: Listener,
    control: ControlServer,
    signals: Option<SignalFd>,
    session: Session,
    frontend: Option<Frontend>,
}

/// What belongs to one virtual machine, from its connection to its end.
struct Session {
    device: Device,
    /// The guest has not been told of the newest target.
    change_pending: bool,
    /// The last value of which the control clients know.
    reported: Option<u64>,
}

/// A connected frontend.
struct Frontend {
    handler: BackendReqHandler<Mutex<VhuBalloon>>,
    stream: UnixStream,
    channel: Option<ConfigChannel>,
    look_again: Duration,
    bad_requests: u32,
}

impl Daemon {
    /// Makes both sockets. A signal that arrives on `signals` ends the daemon.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Socket`] if a socket cannot be made.
    pub fn new(config: &DaemonConfig, signals: Option<SignalFd>) -> Result<Self, DaemonError> {
        let listener = Listener::bind(&config.socket_path)?;
        let control = Listener::bind(&config.control_path)?;
        Ok(Self {
            features: config.features,
            whole_messages: config.whole_messages,
            listener,
            control: ControlServer::new(control, config.test_commands),
            signals,
            session: Session::new(config.features),
            frontend: None,
        })
    }

    /// Serves until a signal comes or a control client asks to quit.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Poll`] if the system refuses to wait.
    pub fn run(&mut self) -> Result<(), DaemonError> {
        let mut more_messages = false;
        loop {
            let timeout = self.timeout(more_messages);
            for source in self.wait(timeout)? {
                match source {
                    Source::Signal => {
                        info!("ended by a signal");
                        return Ok(());
                    }
                    Source::Listener => self.connect(),
                    Source::Frontend => self.serve_frontend(),
                    Source::Queue(index) => self.session.device().queues.take_kicks(index),
                    Source::ControlListener => self.control.accept(),
                    Source::Client(index) => {
                        if self.control.serve(index, &mut self.session) {
                            info!("ended by a control client");
                            return Ok(());
                        }
                    }
                }
            }
            self.control.sweep();
            self.session.device().queues.poll_statistics(Instant::now());
            more_messages = self.session.device().queues.serve();
            self.send_config_change();
            self.report_actual();
        }
    }

    fn timeout(&self, more_messages: bool) -> Option<Duration> {
        if more_messages {
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        let event = self.control.next_due(now);
        let poll = self.session.device().queues.collector.polling.next_due(now);
        let look = self.frontend.as_ref().and_then(|frontend| {
            let begun = frontend
                .channel
                .as_ref()
                .is_some_and(ConfigChannel::is_begun);
            begun.then_some(frontend.look_again)
        });
        event.into_iter().chain(poll).chain(look).min()
    }

    fn wait(&self, timeout: Option<Duration>) -> Result<Vec<Source>, DaemonError> {
        let device = self.session.device();
        let mut sources = Vec::new();
        let mut fds = Vec::new();
        let mut add = |fd, flags, source| {
            fds.push(PollFd::new(fd, flags));
            sources.push(source);
        };
        let input = PollFlags::POLLIN;
        if let Some(signals) = &self.signals {
            add(signals.as_fd(), input, Source::Signal);
        }
        match &self.frontend {
            Some(frontend) => add(frontend.stream.as_fd(), input, Source::Frontend),
            // One at a time: the next one waits in the listener's backlog.
            None => add(self.listener.as_fd(), input, Source::Listener),
        }
        for (index, kick) in device.queues.kicks() {
            add(kick.as_fd(), input, Source::Queue(index));
        }
        for (index, (fd, has_output)) in self.control.clients().enumerate() {
            let output = if has_output {
                PollFlags::POLLOUT
            } else {
                PollFlags::empty()
            };
            add(fd, input | output, Source::Client(index));
        }
        add(self.control.listener(), input, Source::ControlListener);
        match ppoll(&mut fds, timeout.map(TimeSpec::from), None) {
            Ok(_) => {}
            Err(nix::Error::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(DaemonError::Poll(error)),
        }
        let ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
        Ok(sources
            .into_iter()
            .zip(ready)
            .filter_map(|(source, ready)| ready.then_some(source))
            .collect())
    }

    fn connect(&mut self) {
        let frontend = self
            .listener
            .accept()
            .and_then(|stream| Frontend::new(stream, self.session.device.clone()));
        match frontend {
            Ok(frontend) => {
                info!("frontend connected");
                self.frontend = Some(frontend);
            }
            Err(error) => warn!("no frontend accepted: {error}"),
        }
    }

    /// Serves one request of the frontend's, or its end.
    fn serve_frontend(&mut self) {
        let Some(frontend) = &mut self.frontend else {
            return;
        };
        if !frontend.serve_one() {
            info!("frontend disconnected");
            self.frontend = None;
            self.session = Session::new(self.features);
        }
    }

    /// Brings a configuration change forward by as much as is possible now.
    fn send_config_change(&mut self) {
        if let Err(error) = self.try_send_config_change() {
            warn!("configuration changes can no longer be sent: {error}");
            if let Some(frontend) = &mut self.frontend {
                frontend.channel = None;
            }
        }
    }

    fn try_send_config_change(&mut self) -> io::Result<()> {
        let Some(frontend) = &mut self.frontend else {
            return Ok(());
        };
        let Some(channel) = &mut frontend.channel else {
            return Ok(());
        };
        if !channel.is_begun() {
            if !self.session.change_pending || !self.session.device().queues.is_started() {
                return Ok(());
            }
            if self.whole_messages {
                channel.send()?;
                self.session.change_pending = false;
            } else {
                channel.begin()?;
                frontend.look_again = FIRST_LOOK;
            }
            return Ok(());
        }
        if !channel.is_frontend_waiting()? {
            frontend.look_again = (frontend.look_again * 2).min(LAST_LOOK);
            return Ok(());
        }
        while self.frontend.as_ref().is_some_and(Frontend::has_request) {
            self.serve_frontend();
        }
        // Serving may have ended the frontend, or given it another channel.
        let channel = self
            .frontend
            .as_mut()
            .and_then(|frontend| frontend.channel.as_mut());
        if let Some(channel) = channel.filter(|channel| channel.is_begun()) {
            let started = self.session.device().queues.is_started();
            channel.finish(started)?;
            self.session.change_pending &= !started;
        }
        Ok(())
    }

    fn report_actual(&mut self) {
        let now = Instant::now();
        let actual = self.session.device().queues.balloon.guest_bytes();
        if let Some(bytes) = actual.filter(|_| actual != self.session.reported) {
            // What a guest begins with is no change.
            if self.session.reported.is_some() {
                self.control.balloon_changed(bytes, now);
            }
            self.session.reported = actual;
        }
        self.control.send_due(now);
    }
}

impl Session {
    fn new(features: u64) -> Self {
        Self {
            device: Arc::new(Mutex::new(VhuBalloon::new(features))),
            change_pending: false,
            reported: None,
        }
    }

    fn device(&self) -> MutexGuard<'_, VhuBalloon> {
        // One thread only: the lock is there because the vhost crate wants one.
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control for Session {
    fn set_guest_bytes(&mut self, bytes: u64) -> Option<()> {
        let changed = self.device().queues.balloon.set_guest_bytes(bytes)?;
        self.change_pending |= changed;
        Some(())
    }

    fn guest_bytes(&self) -> Option<u64> {
        self.device().queues.balloon.guest_bytes()
    }

    fn counters(&self) -> Counters {
        self.device().queues.counters()
    }

    fn guest_stats(&self) -> Value {
        self.device().queues.collector.last().to_json()
    }

    fn stats_polling_interval(&self) -> u32 {
        self.device().queues.collector.polling.interval()
    }

    fn set_stats_polling_interval(&mut self, seconds: u32) {
        let polling = &mut self.device().queues.collector.polling;
        polling.set_interval(seconds, Instant::now());
    }

    fn held(&self, from: u64, limit: usize) -> Vec<PageRange> {
        let device = self.device();
        let ranges = device.queues.balloon.held().ranges(from).take(limit);
        ranges.collect()
    }

    fn leave_unserved(&mut self, roles: Vec<Role>) {
        self.device().queues.leave_unserved(roles);
    }
}

impl Frontend {
    fn new(stream: UnixStream, device: Device) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        Ok(Self {
            handler: BackendReqHandler::from_stream(stream.try_clone()?, device),
            stream,
            channel: None,
            look_again: FIRST_LOOK,
            bad_requests: 0,
        })
    }

    /// Whether a request, or the end of the connection, can be read without waiting.
    fn has_request(&self) -> bool {
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        ppoll(&mut fds, Some(TimeSpec::from(Duration::ZERO)), None).is_ok_and(|ready| ready > 0)
    }

    /// Serves one request; returns false once the frontend is gone.
    fn serve_one(&mut self) -> bool {
        match peek_backend_channel(&self.stream) {
            Ok(None) => {}
            Ok(Some(socket)) => match ConfigChannel::new(socket) {
                Ok(channel) => self.channel = Some(channel),
                Err(error) => warn!("the frontend's channel is unusable: {error}"),
            },
            Err(error) => warn!("the frontend's socket cannot be looked at: {error}"),
        }
        match self.handler.handle_request() {
            Ok(()) => {
                self.bad_requests = 0;
                true
            }
            Err(VhostUserError::SocketRetry(_)) => true,
            Err(VhostUserError::Disconnected) => false,
            Err(
                error @ (VhostUserError::PartialMessage
                | VhostUserError::SocketBroken(_)
                | VhostUserError::SocketError(_)),
            ) => {
                warn!("the frontend broke off: {error}");
                false
            }
            Err(error) => {
                // A guest's mistake must not cost it the device, so go on where that is possible.
                error!("request of the frontend refused: {error}");
                self.bad_requests += 1;
                self.bad_requests < MAX_BAD_REQUESTS
            }
        }
    }
}
