// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The QEMU Machine Protocol as one client speaks it: JSON in, JSON out, no sockets.
//!
//! Commands, error classes and wording are QEMU's where QEMU has the command. Input is a stream of
//! JSON objects, with or without line ends between them.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde::Serialize;
use serde_json::json;
use serde_json::Deserializer;
use serde_json::Map;
use serde_json::Value;

use crate::control::Control;
use crate::properties;
use crate::properties::PropertyError;
use crate::role::Role;

/// Longest command accepted, in bytes.
pub const MAX_COMMAND_SIZE: usize = 64 * 1024;
/// Most ranges in one answer to `x-query-held`, so that an answer stays below half a megabyte.
pub const MAX_HELD_RANGES: usize = 8192;

/// QEMU's error classes, as far as they are used here.
#[derive(Clone, Copy, Debug, Serialize)]
enum ErrorClass {
    GenericError,
    CommandNotFound,
    DeviceNotActive,
}

/// An error as QMP says it.
#[derive(Clone, Debug, Serialize)]
struct QmpError {
    class: ErrorClass,
    desc: String,
}

impl QmpError {
    fn generic(desc: impl Into<String>) -> Self {
        Self {
            class: ErrorClass::GenericError,
            desc: desc.into(),
        }
    }

    fn wrong_type(name: &str, expected: &str) -> Self {
        Self::generic(format!(
            "Invalid parameter type for '{name}', expected: {expected}"
        ))
    }

    fn not_found(desc: impl Into<String>) -> Self {
        Self {
            class: ErrorClass::CommandNotFound,
            desc: desc.into(),
        }
    }

    fn not_active() -> Self {
        Self {
            class: ErrorClass::DeviceNotActive,
            desc: "No balloon device has been activated".into(),
        }
    }
}

impl From<PropertyError> for QmpError {
    fn from(error: PropertyError) -> Self {
        Self::generic(error.to_string())
    }
}

/// What a client's input led to.
#[derive(Debug, Default)]
pub struct Output {
    /// Bytes to send to the client.
    pub bytes: Vec<u8>,
    /// The client asked the daemon to end.
    pub quit: bool,
}

impl Output {
    fn push(&mut self, value: &Value) {
        self.bytes.extend(value.to_string().into_bytes());
        self.bytes.extend(b"\r\n");
    }
}

/// One client's state.
#[derive(Debug, Default)]
pub struct Session {
    /// The client may use the commands for tests.
    test_commands: bool,
    input: Vec<u8>,
    negotiated: bool,
    /// Input up to the next line end belongs to a command that was already refused.
    skipping: bool,
}

impl Session {
    /// A client that has said nothing yet, and may use the commands for tests or not.
    pub fn new(test_commands: bool) -> Self {
        Self {
            test_commands,
            ..Self::default()
        }
    }

    /// The first thing the server says.
    pub fn greeting() -> Vec<u8> {
        let mut output = Output::default();
        output.push(&json!({"QMP": {"version": version(), "capabilities": []}}));
        output.bytes
    }

    /// Whether the client may be sent events.
    pub fn wants_events(&self) -> bool {
        self.negotiated
    }

    /// Takes input and carries out the commands that are complete.
    pub fn feed(&mut self, bytes: &[u8], control: &mut dyn Control) -> Output {
        self.input.extend_from_slice(bytes);
        let mut output = Output::default();
        while !output.quit {
            if self.skipping && !self.skip_line() {
                break;
            }
            let mut values = Deserializer::from_slice(&self.input).into_iter::<Value>();
            match values.next() {
                None => {
                    self.input.clear();
                    break;
                }
                Some(Ok(request)) => {
                    let end = values.byte_offset();
                    self.input.drain(..end);
                    self.handle(&request, control, &mut output);
                }
                Some(Err(error)) if error.is_eof() && self.input.len() <= MAX_COMMAND_SIZE => break,
                Some(Err(error)) => {
                    let desc = if error.is_eof() {
                        format!("JSON expression is longer than {MAX_COMMAND_SIZE} bytes")
                    } else {
                        format!("JSON parse error, {error}")
                    };
                    output.push(&failure(QmpError::generic(desc), None));
                    self.skipping = true;
                }
            }
        }
        output
    }

    /// Drops input up to a line end; returns whether there was one.
    fn skip_line(&mut self) -> bool {
        let end = self.input.iter().position(|byte| *byte == b'\n');
        self.input
            .drain(..end.map_or(self.input.len(), |end| end + 1));
        self.skipping = end.is_none();
        !self.skipping
    }

    fn handle(&mut self, request: &Value, control: &mut dyn Control, output: &mut Output) {
        let id = request.get("id");
        let reply = match self.execute(request, control, output) {
            Ok(value) => with_id(json!({"return": value}), id),
            Err(error) => failure(error, id),
        };
        output.push(&reply);
    }

    fn execute(
        &mut self,
        request: &Value,
        control: &mut dyn Control,
        output: &mut Output,
    ) -> Result<Value, QmpError> {
        let request = request
            .as_object()
            .ok_or_else(|| QmpError::generic("QMP input must be a JSON object"))?;
        for member in request.keys() {
            if !["execute", "arguments", "id"].contains(&member.as_str()) {
                let desc = format!("QMP input member '{member}' is unexpected");
                return Err(QmpError::generic(desc));
            }
        }
        let command = request
            .get("execute")
            .ok_or_else(|| QmpError::generic("QMP input lacks member 'execute'"))?
            .as_str()
            .ok_or_else(|| QmpError::generic("QMP input member 'execute' must be a string"))?;
        let arguments = match request.get("arguments") {
            None => &Map::new(),
            Some(arguments) => arguments.as_object().ok_or_else(|| {
                QmpError::generic("QMP input member 'arguments' must be an object")
            })?,
        };
        let known = self.commands().find(|(name, _)| *name == command);
        match (command, self.negotiated) {
            ("qmp_capabilities", true) => {
                return Err(QmpError::not_found(
                    "Capabilities negotiation is already complete, command ignored",
                ))
            }
            ("qmp_capabilities", false) | (_, true) => {}
            (_, false) => {
                return Err(QmpError::not_found(
                    "Expecting capabilities negotiation with 'qmp_capabilities'",
                ))
            }
        }
        let Some((_, parameters)) = known else {
            let desc = format!("The command {command} has not been found");
            return Err(QmpError::not_found(desc));
        };
        expect_arguments(arguments, parameters)?;
        match command {
            "qmp_capabilities" => self.negotiate(arguments),
            "balloon" => balloon(arguments, control),
            "query-balloon" => {
                let actual = control.guest_bytes().ok_or_else(QmpError::not_active)?;
                Ok(json!({"actual": actual}))
            }
            "query-balloon-counters" => Ok(json!(control.counters())),
            "query-commands" => Ok(self
                .commands()
                .map(|(name, _)| json!({"name": name}))
                .collect()),
            "query-version" => Ok(version()),
            "qom-get" => {
                string(arguments, "path")?;
                Ok(properties::get(control, string(arguments, "property")?)?)
            }
            "qom-set" => {
                string(arguments, "path")?;
                let property = string(arguments, "property")?;
                properties::set(control, property, required(arguments, "value")?)?;
                Ok(json!({}))
            }
            "quit" => {
                output.quit = true;
                Ok(json!({}))
            }
            "x-leave-unserved" => leave_unserved(arguments, control),
            "x-query-held" => query_held(arguments, control),
            _ => unreachable!("there is no other"),
        }
    }

    /// The commands that the client may use.
    fn commands(&self) -> impl Iterator<Item = &'static Command> {
        let for_tests = self.test_commands.then_some(&TEST_COMMANDS);
        COMMANDS.iter().chain(for_tests.into_iter().flatten())
    }

    fn negotiate(&mut self, arguments: &Map<String, Value>) -> Result<Value, QmpError> {
        match arguments.get("enable") {
            None => {}
            Some(Value::Array(list)) if list.is_empty() => {}
            Some(_) => return Err(QmpError::generic("No capability can be enabled")),
        }
        self.negotiated = true;
        Ok(json!({}))
    }
}

/// A command's name and the arguments it takes.
type Command = (&'static str, &'static [&'static str]);

/// The commands for everybody.
const COMMANDS: [Command; 10] = [
    ("balloon", &["value"]),
    ("qmp_capabilities", &["enable"]),
    ("qom-get", &["path", "property"]),
    ("qom-set", &["path", "property", "value"]),
    ("query-balloon", &[]),
    ("query-balloon-counters", &[]),
    ("query-commands", &[]),
    ("query-version", &[]),
    ("quit", &[]),
    ("x-query-held", &["start_pfn"]),
];

/// Those that would do harm outside of a test.
const TEST_COMMANDS: [Command; 1] = [("x-leave-unserved", &["queues"])];

fn balloon(arguments: &Map<String, Value>, control: &mut dyn Control) -> Result<Value, QmpError> {
    let value = required(arguments, "value")?
        .as_i64()
        .ok_or_else(|| QmpError::wrong_type("value", "integer"))?;
    // As in QEMU, there must be a device before its target can be wrong.
    if control.guest_bytes().is_none() {
        return Err(QmpError::not_active());
    }
    match u64::try_from(value) {
        Ok(bytes) if bytes > 0 => control
            .set_guest_bytes(bytes)
            .map(|()| json!({}))
            .ok_or_else(QmpError::not_active),
        _ => Err(QmpError::generic("Parameter 'target' expects a size")),
    }
}

fn leave_unserved(
    arguments: &Map<String, Value>,
    control: &mut dyn Control,
) -> Result<Value, QmpError> {
    let names = required(arguments, "queues")?
        .as_array()
        .ok_or_else(|| QmpError::wrong_type("queues", "array"))?;
    let role = |name: &Value| {
        let unknown = || format!("Parameter 'queues' does not accept value {name}");
        let role = name.as_str().and_then(Role::named);
        role.ok_or_else(|| QmpError::generic(unknown()))
    };
    control.leave_unserved(names.iter().map(role).collect::<Result<_, _>>()?);
    Ok(json!({}))
}

fn query_held(arguments: &Map<String, Value>, control: &dyn Control) -> Result<Value, QmpError> {
    let from = match arguments.get("start_pfn") {
        None => 0,
        Some(value) => value
            .as_u64()
            .ok_or_else(|| QmpError::wrong_type("start_pfn", "integer"))?,
    };
    let mut held = control.held(from, MAX_HELD_RANGES + 1);
    let next = held.get(MAX_HELD_RANGES).map(|range| range.start_pfn);
    held.truncate(MAX_HELD_RANGES);
    let ranges: Vec<Value> = held
        .iter()
        .map(|range| json!([range.start_pfn, range.pages]))
        .collect();
    let mut answer = json!({"ranges": ranges});
    if let Some(next) = next {
        answer["next_pfn"] = next.into();
    }
    Ok(answer)
}

fn required<'a>(arguments: &'a Map<String, Value>, name: &str) -> Result<&'a Value, QmpError> {
    let missing = || QmpError::generic(format!("Parameter '{name}' is missing"));
    arguments.get(name).ok_or_else(missing)
}

fn string<'a>(arguments: &'a Map<String, Value>, name: &str) -> Result<&'a str, QmpError> {
    let wrong = || QmpError::wrong_type(name, "string");
    required(arguments, name)?.as_str().ok_or_else(wrong)
}

fn expect_arguments(arguments: &Map<String, Value>, known: &[&str]) -> Result<(), QmpError> {
    match arguments
        .keys()
        .find(|name| !known.contains(&name.as_str()))
    {
        None => Ok(()),
        Some(name) => Err(QmpError::generic(format!(
            "Parameter '{name}' is unexpected"
        ))),
    }
}

fn failure(error: QmpError, id: Option<&Value>) -> Value {
    with_id(json!({"error": error}), id)
}

fn with_id(mut reply: Value, id: Option<&Value>) -> Value {
    if let Some(id) = id {
        reply["id"] = id.clone();
    }
    reply
}

fn version() -> Value {
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    json!({
        "qemu": {
            "major": number(env!("CARGO_PKG_VERSION_MAJOR")),
            "minor": number(env!("CARGO_PKG_VERSION_MINOR")),
            "micro": number(env!("CARGO_PKG_VERSION_PATCH")),
        },
        "package": concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")),
    })
}

/// The event that tells of the memory the guest keeps.
pub fn balloon_change(actual: u64, time: SystemTime) -> Vec<u8> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut output = Output::default();
    output.push(&json!({
        "timestamp": {"seconds": since.as_secs(), "microseconds": since.subsec_micros()},
        "event": "BALLOON_CHANGE",
        "data": {"actual": actual},
    }));
    output.bytes
}

#[cfg(test)]
#[path = "qmp_tests.rs"]
mod tests;
