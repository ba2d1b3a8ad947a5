// SPDX-License-Identifier: GPL-2.0-only

//! One JSON document a line over a Unix socket, with a deadline on every read: what QMP and the
//! agent's protocol have in common.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use serde::Serialize;

/// A socket read and written by lines.
pub struct JsonLines {
    stream: UnixStream,
    received: Vec<u8>,
}

impl JsonLines {
    /// Takes over a connected socket.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// Sends one document.
    pub fn send(&mut self, document: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(document)?;
        line.push(b'\n');
        self.stream
            .set_write_timeout(Some(Duration::from_secs(30)))?;
        self.stream
            .write_all(&line)
            .context("the other end takes no request")
    }

    /// The next line that is not empty.
    ///
    /// # Errors
    /// When the other end closes the connection or says nothing until the deadline.
    pub fn receive(&mut self, deadline: Instant) -> Result<String> {
        loop {
            while let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line).trim().to_owned();
                if !line.is_empty() {
                    return Ok(line);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no answer in time");
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 64 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => bail!("the other end closed the connection"),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error).context("the connection broke"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (JsonLines, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (JsonLines::new(ours), theirs)
    }

    #[test]
    fn lines_arrive_whole_however_they_are_cut() {
        let (mut lines, mut peer) = pair();
        let deadline = Instant::now() + Duration::from_secs(5);
        peer.write_all(b"\r\n{\"a\":").unwrap();
        peer.write_all(b"1}\r\n{\"b\":2}\n{\"half").unwrap();
        assert_eq!(lines.receive(deadline).unwrap(), "{\"a\":1}");
        assert_eq!(lines.receive(deadline).unwrap(), "{\"b\":2}");
        drop(peer);
        assert!(lines
            .receive(deadline)
            .unwrap_err()
            .to_string()
            .contains("closed"));
    }

    #[test]
    fn silence_is_an_error() {
        let (mut lines, _peer) = pair();
        let error = lines
            .receive(Instant::now() + Duration::from_millis(20))
            .unwrap_err();
        assert!(error.to_string().contains("no answer"));
    }
}
