// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A daemon in a thread, and clients of its control socket.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use serde_json::Value;
use tempfile::TempDir;
use vhost_device_balloon::counters::Counters;
use vhost_device_balloon::daemon::Daemon;
use vhost_device_balloon::daemon::DaemonConfig;
use vhost_device_balloon::virtio_balloon::feature;
use vhost_device_balloon::virtio_balloon::BASE_FEATURES;
use vhost_device_balloon::virtio_balloon::VIRTIO_BALLOON_F_PAGE_BITMAP;

use crate::guest::Guest;

/// A running daemon.
pub struct Running {
    pub dir: TempDir,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub fn new() -> Self {
        Self::offering(feature(VIRTIO_BALLOON_F_PAGE_BITMAP))
    }

    pub fn offering(features: u64) -> Self {
        Self::start(features, |_| {})
    }

    pub fn with_whole_messages() -> Self {
        let features = feature(VIRTIO_BALLOON_F_PAGE_BITMAP);
        Self::start(features, |config| config.whole_messages = true)
    }

    pub fn with_test_commands(features: u64) -> Self {
        Self::start(features, |config| config.test_commands = true)
    }

    fn start(features: u64, change: impl FnOnce(&mut DaemonConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = DaemonConfig {
            socket_path: dir.path().join("socket"),
            control_path: dir.path().join("control"),
            features: BASE_FEATURES | features,
            whole_messages: false,
            test_commands: false,
        };
        change(&mut config);
        let mut daemon = Daemon::new(&config, None).unwrap();
        let thread = thread::spawn(move || daemon.run().unwrap());
        Self {
            dir,
            thread: Some(thread),
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    pub fn guest(&self) -> Guest {
        Guest::connect(&self.socket())
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.dir.path().join("control"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            if !thread.is_finished() {
                self.client().send("quit", json!({}));
            }
            thread.join().unwrap();
        }
        let left = self.dir.path().read_dir().unwrap().count();
        if !thread::panicking() {
            assert_eq!(left, 0, "a socket was left behind");
        }
    }
}

/// A QMP client.
pub struct Client {
    pub stream: UnixStream,
    lines: BufReader<UnixStream>,
    events: Vec<Value>,
}

impl Client {
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap());
        let mut client = Self {
            stream,
            lines,
            events: Vec::new(),
        };
        assert!(client.read()["QMP"].is_object());
        client.command("qmp_capabilities", json!({}));
        client
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    pub fn send(&mut self, name: &str, arguments: Value) {
        let command = json!({"execute": name, "arguments": arguments});
        self.stream
            .write_all(command.to_string().as_bytes())
            .unwrap();
    }

    pub fn execute(&mut self, name: &str, arguments: Value) -> Value {
        self.send(name, arguments);
        loop {
            let reply = self.read();
            if reply["event"].is_null() {
                return reply;
            }
            self.events.push(reply);
        }
    }

    pub fn command(&mut self, name: &str, arguments: Value) -> Value {
        let reply = self.execute(name, arguments);
        assert!(reply["error"].is_null(), "{reply}");
        reply["return"].clone()
    }

    pub fn balloon(&mut self, value: u64) {
        self.command("balloon", json!({"value": value}));
    }

    pub fn actual(&mut self) -> u64 {
        self.command("query-balloon", json!({}))["actual"]
            .as_u64()
            .unwrap()
    }

    pub fn counters(&mut self) -> Counters {
        serde_json::from_value(self.command("query-balloon-counters", json!({}))).unwrap()
    }

    pub fn held(&mut self) -> Value {
        self.command("x-query-held", json!({}))["ranges"].clone()
    }

    pub fn leave_unserved(&mut self, queues: &[&str]) {
        self.command("x-leave-unserved", json!({"queues": queues}));
    }

    pub fn stats(&mut self) -> Value {
        let property = json!({"path": "/", "property": "guest-stats"});
        self.command("qom-get", property)
    }

    /// Waits until the guest's free memory is known to be `bytes`.
    pub fn wait_for_free(&mut self, bytes: u64) {
        while self.stats()["stats"]["stat-free-memory"] != bytes {
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn poll_stats(&mut self, seconds: u32) {
        let property = "guest-stats-polling-interval";
        let arguments = json!({"path": "/", "property": property, "value": seconds});
        self.command("qom-set", arguments);
    }

    pub fn event(&mut self) -> Value {
        if self.events.is_empty() {
            let event = self.read();
            self.events.push(event);
        }
        self.events.remove(0)
    }
}
