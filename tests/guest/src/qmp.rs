// SPDX-License-Identifier: GPL-2.0-only

//! A QMP client for QEMU and for the balloon daemon, whose control socket speaks the same protocol.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Context, Result};
use serde::Deserialize;
use serde_json::{json, Value};

use crate::environment::patience;
use crate::json_lines::JsonLines;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A QMP session past its negotiation.
pub struct Qmp {
    lines: JsonLines,
    events: VecDeque<Event>,
    server: &'static str,
}

/// Something that happened at the server.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// Its name, such as `DEVICE_DELETED`.
    pub event: String,
    /// Its particulars.
    #[serde(default)]
    pub data: Value,
}

impl Qmp {
    /// Takes the greeting and leaves negotiation mode. `server` names the other end in errors.
    pub fn new(stream: UnixStream, server: &'static str) -> Result<Self> {
        let mut qmp = Self {
            lines: JsonLines::new(stream),
            events: VecDeque::new(),
            server,
        };
        let greeting = qmp.next(Instant::now() + patience(ANSWER_TIMEOUT))?;
        if greeting.get("QMP").is_none() {
            bail!("{server}: not a QMP greeting: {greeting}");
        }
        qmp.execute("qmp_capabilities", Value::Null)?;
        Ok(qmp)
    }

    /// Runs a command and returns what it returns; `arguments` is an object or null.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut request = json!({ "execute": command });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let answer = self.lines.send(&request).and_then(|()| loop {
            let message = self.next(Instant::now() + patience(ANSWER_TIMEOUT))?;
            match self.keep_event(message)? {
                Some(answer) => break Ok(answer),
                None => continue,
            }
        });
        let mut answer = answer.with_context(|| format!("{}: {command}", self.server))?;
        match answer.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => Err(anyhow!("{}: {command}: {}", self.server, answer["error"])),
        }
    }

    /// Waits for an event of this name for which `wanted` holds; earlier ones count too.
    pub fn wait_event(
        &mut self,
        name: &str,
        timeout: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Event> {
        let deadline = Instant::now() + patience(timeout);
        loop {
            let found = self
                .events
                .iter()
                .position(|event| event.event == name && wanted(&event.data));
            if let Some(event) = found.and_then(|index| self.events.remove(index)) {
                return Ok(event);
            }
            let message = self
                .next(deadline)
                .with_context(|| format!("{}: waiting for {name}", self.server))?;
            self.keep_event(message)?;
        }
    }

    fn keep_event(&mut self, message: Value) -> Result<Option<Value>> {
        if message.get("event").is_none() {
            return Ok(Some(message));
        }
        self.events.push_back(serde_json::from_value(message)?);
        Ok(None)
    }

    fn next(&mut self, deadline: Instant) -> Result<Value> {
        let line = self.lines.receive(deadline)?;
        serde_json::from_str(&line).with_context(|| format!("{}: not JSON: {line}", self.server))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn client(script: &str) -> (Result<Qmp>, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(script.as_bytes()).unwrap();
        (Qmp::new(ours, "test"), theirs)
    }

    #[test]
    fn answers_errors_and_events_are_told_apart() {
        let (qmp, _peer) = client(concat!(
            "{\"QMP\":{}}\n{\"return\":{}}\n",
            "{\"event\":\"A\",\"data\":{\"n\":1}}\n{\"return\":{\"actual\":7}}\n",
            "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no such thing\"}}\n",
            "{\"event\":\"A\",\"data\":{\"n\":2}}\n",
        ));
        let mut qmp = qmp.unwrap();
        assert_eq!(
            qmp.execute("query-balloon", Value::Null).unwrap()["actual"],
            7
        );
        let error = qmp.execute("nothing", Value::Null).unwrap_err().to_string();
        assert!(error.contains("no such thing"), "{error}");
        let second = qmp
            .wait_event("A", Duration::from_secs(1), |data| data["n"] == 2)
            .unwrap();
        assert_eq!(second.data["n"], 2);
        let first = qmp
            .wait_event("A", Duration::from_secs(1), |_| true)
            .unwrap();
        assert_eq!(first.data["n"], 1);
    }

    #[test]
    fn what_does_not_greet_is_refused() {
        let (qmp, _peer) = client("{\"return\":{}}\n");
        assert!(qmp.err().unwrap().to_string().contains("greeting"));
    }
}
