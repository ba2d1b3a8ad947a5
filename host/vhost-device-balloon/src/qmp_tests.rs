// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use super::*;
use crate::counters::Counters;
use crate::message::PageRange;

/// A guest of 1 GiB, or none.
struct Fake {
    bytes: Option<u64>,
    interval: u32,
    held: Vec<PageRange>,
    unserved: Vec<Role>,
}

impl Control for Fake {
    fn set_guest_bytes(&mut self, bytes: u64) -> Option<()> {
        self.bytes.as_mut().map(|guest| *guest = bytes)
    }

    fn guest_bytes(&self) -> Option<u64> {
        self.bytes
    }

    fn counters(&self) -> Counters {
        Counters {
            pages_held: 7,
            ..Counters::default()
        }
    }

    fn guest_stats(&self) -> Value {
        json!({"stats": {}, "last-update": 11})
    }

    fn stats_polling_interval(&self) -> u32 {
        self.interval
    }

    fn set_stats_polling_interval(&mut self, seconds: u32) {
        self.interval = seconds;
    }

    fn held(&self, from: u64, limit: usize) -> Vec<PageRange> {
        let ranges = self.held.iter().copied();
        ranges
            .filter(|range| range.start_pfn >= from)
            .take(limit)
            .collect()
    }

    fn leave_unserved(&mut self, roles: Vec<Role>) {
        self.unserved = roles;
    }
}

fn guest() -> Fake {
    Fake {
        bytes: Some(1 << 30),
        interval: 0,
        held: Vec::new(),
        unserved: Vec::new(),
    }
}

fn replies(output: &Output) -> Vec<Value> {
    Deserializer::from_slice(&output.bytes)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap()
}

/// The one reply to one command of a client that has negotiated.
fn ask(control: &mut Fake, command: &str) -> Value {
    ask_in(Session::default(), control, command)
}

/// The same of a client that may use the commands for tests.
fn ask_in_test(control: &mut Fake, command: &str) -> Value {
    ask_in(Session::new(true), control, command)
}

fn ask_in(mut session: Session, control: &mut Fake, command: &str) -> Value {
    session.negotiated = true;
    let replies = replies(&session.feed(command.as_bytes(), control));
    assert_eq!(replies.len(), 1, "{replies:?}");
    replies[0].clone()
}

fn error(class: &str, desc: &str) -> Value {
    json!({"error": {"class": class, "desc": desc}})
}

#[test]
fn the_greeting_names_version_and_capabilities() {
    let greeting: Value = serde_json::from_slice(&Session::greeting()).unwrap();
    assert_eq!(greeting["QMP"]["capabilities"], json!([]));
    assert!(greeting["QMP"]["version"]["qemu"]["major"].is_u64());
    assert!(greeting["QMP"]["version"]["package"].is_string());
}

#[test]
fn commands_come_after_the_negotiation() {
    let mut session = Session::default();
    let control = &mut guest();
    let mut say = |text: &str| replies(&session.feed(text.as_bytes(), control)).remove(0);
    assert_eq!(
        say(r#"{"execute": "query-balloon"}"#),
        error(
            "CommandNotFound",
            "Expecting capabilities negotiation with 'qmp_capabilities'"
        )
    );
    let oob = r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}"#;
    assert_eq!(say(oob)["error"]["class"], "GenericError");
    assert_eq!(
        say(r#"{"execute": "qmp_capabilities"}"#),
        json!({"return": {}})
    );
    assert_eq!(
        say(r#"{"execute": "qmp_capabilities"}"#)["error"]["class"],
        "CommandNotFound"
    );
    assert_eq!(
        say(r#"{"execute": "query-balloon"}"#),
        json!({"return": {"actual": 1 << 30}})
    );
    assert!(session.wants_events());
}

#[test]
fn balloon_sets_what_the_guest_keeps() {
    let mut control = guest();
    let reply = ask(
        &mut control,
        r#"{"execute": "balloon", "arguments": {"value": 4096}}"#,
    );
    assert_eq!(reply, json!({"return": {}}));
    assert_eq!(control.bytes, Some(4096));
}

#[test]
fn bad_values_are_refused_and_change_nothing() {
    let mut control = guest();
    for (arguments, desc) in [
        (r#"{"value": 0}"#, "Parameter 'target' expects a size"),
        (r#"{"value": -4096}"#, "Parameter 'target' expects a size"),
        (r#"{}"#, "Parameter 'value' is missing"),
        (
            r#"{"value": "1G"}"#,
            "Invalid parameter type for 'value', expected: integer",
        ),
        (
            r#"{"value": 1.5}"#,
            "Invalid parameter type for 'value', expected: integer",
        ),
        (r#"{"value": 1, "x": 2}"#, "Parameter 'x' is unexpected"),
    ] {
        let command = format!(r#"{{"execute": "balloon", "arguments": {arguments}}}"#);
        assert_eq!(ask(&mut control, &command), error("GenericError", desc));
    }
    assert_eq!(control.bytes, Some(1 << 30));
}

#[test]
fn without_a_guest_the_device_is_not_active() {
    let mut control = Fake {
        bytes: None,
        ..guest()
    };
    let not_active = error("DeviceNotActive", "No balloon device has been activated");
    for command in [
        r#"{"execute": "query-balloon"}"#,
        r#"{"execute": "balloon", "arguments": {"value": 4096}}"#,
        r#"{"execute": "balloon", "arguments": {"value": 0}}"#,
    ] {
        assert_eq!(ask(&mut control, command), not_active);
    }
    let counters = ask(&mut control, r#"{"execute": "query-balloon-counters"}"#);
    assert!(counters["return"].is_object());
}

#[test]
fn counters_have_their_published_names() {
    let reply = ask(&mut guest(), r#"{"execute": "query-balloon-counters"}"#);
    let queue = json!({
        "messages": 0, "bytes": 0, "pages": 0, "runs": 0, "words": 0,
        "duplicates": 0, "rejected": 0, "ignored": 0, "notifications": 0,
    });
    let discard = json!({"calls": 0, "bytes": 0, "errors": 0});
    assert_eq!(
        reply,
        json!({"return": {
            "inflate": queue, "deflate": queue,
            "discard": discard,
            "reporting": {
                "messages": 0, "pages": 0, "rejected": 0, "poisoned": 0, "discard": discard,
            },
            "statistics": {"requests": 0, "updates": 0, "unknown_tags": 0, "rejected": 0},
            "pages_held": 7, "pages_forgotten": 0, "interrupts": 0, "target": 0,
            "actual": 0, "poison_val": 0, "page_bitmap": false, "ram": 0, "started": false,
        }})
    );
}

#[test]
fn properties_are_read_and_written_as_in_qemu() {
    let mut control = guest();
    let mut say = |name: &str, arguments: Value| {
        let command = json!({"execute": name, "arguments": arguments});
        ask(&mut control, &command.to_string())
    };
    let interval = "guest-stats-polling-interval";
    let stats = json!({"path": "/machine/x", "property": "guest-stats"});
    assert_eq!(
        say("qom-get", stats),
        json!({"return": {"stats": {}, "last-update": 11}})
    );
    for seconds in [7, 0, u32::MAX] {
        let value = json!({"path": "/", "property": interval, "value": seconds});
        assert_eq!(say("qom-set", value), json!({"return": {}}));
        let get = json!({"path": "/", "property": interval});
        assert_eq!(say("qom-get", get), json!({"return": seconds}));
    }
    let no_integer = &*format!("Invalid parameter type for '{interval}', expected: integer");
    for (value, desc) in [
        (json!(-1), "timer value must be greater than zero"),
        (json!(1u64 << 32), "timer value is too big"),
        (json!(1u64 << 63), no_integer),
        (json!("1"), no_integer),
        (json!(1.5), no_integer),
        (json!(null), no_integer),
    ] {
        let arguments = json!({"path": "/", "property": interval, "value": value});
        assert_eq!(say("qom-set", arguments), error("GenericError", desc));
    }
    for (name, arguments, desc) in [
        (
            "qom-get",
            json!({"property": "guest-stats"}),
            "Parameter 'path' is missing",
        ),
        (
            "qom-get",
            json!({"path": "/"}),
            "Parameter 'property' is missing",
        ),
        (
            "qom-set",
            json!({"path": "/", "property": interval}),
            "Parameter 'value' is missing",
        ),
        (
            "qom-get",
            json!({"path": 1, "property": interval}),
            "Invalid parameter type for 'path', expected: string",
        ),
        (
            "qom-get",
            json!({"path": "/", "property": "type"}),
            "Property 'virtio-balloon-device.type' not found",
        ),
        (
            "qom-set",
            json!({"path": "/", "property": "type", "value": 1}),
            "Property 'virtio-balloon-device.type' not found",
        ),
        (
            "qom-set",
            json!({"path": "/", "property": "guest-stats", "value": 1}),
            "Property 'virtio-balloon-device.guest-stats' is not writable",
        ),
    ] {
        assert_eq!(say(name, arguments), error("GenericError", desc));
    }
    assert_eq!(
        control.interval,
        u32::MAX,
        "what is refused changes nothing"
    );
}

#[test]
fn held_pages_are_told_in_answers_of_bounded_size() {
    let mut control = guest();
    let empty = json!({"return": {"ranges": []}});
    assert_eq!(ask(&mut control, r#"{"execute": "x-query-held"}"#), empty);
    let count = MAX_HELD_RANGES as u64 + 2;
    let range = |i: u64| PageRange {
        start_pfn: u64::from(u32::MAX) + 2 * i,
        pages: 1,
    };
    control.held = (0..count).map(range).collect();
    let mut told = Vec::new();
    let mut start_pfn = json!(0);
    loop {
        let command = json!({"execute": "x-query-held", "arguments": {"start_pfn": start_pfn}});
        let reply = ask(&mut control, &command.to_string());
        assert!(reply.to_string().len() < 512 * 1024);
        told.extend(reply["return"]["ranges"].as_array().unwrap().clone());
        let Some(next) = reply["return"].get("next_pfn") else {
            break;
        };
        start_pfn = next.clone();
    }
    let all: Vec<Value> = (0..count).map(|i| json!([range(i).start_pfn, 1])).collect();
    assert_eq!(told, all);
    assert_eq!(
        ask(
            &mut control,
            r#"{"execute": "x-query-held", "arguments": {"start_pfn": -1}}"#
        ),
        error(
            "GenericError",
            "Invalid parameter type for 'start_pfn', expected: integer"
        )
    );
}

#[test]
fn commands_are_listed_and_all_of_them_exist() {
    let reply = ask(&mut guest(), r#"{"execute": "query-commands"}"#);
    let names: Vec<&str> = reply["return"]
        .as_array()
        .unwrap()
        .iter()
        .map(|command| command["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, COMMANDS.map(|(name, _)| name));
    for name in names.into_iter().filter(|name| *name != "qmp_capabilities") {
        let reply = ask(&mut guest(), &json!({"execute": name}).to_string());
        assert_ne!(reply["error"]["class"], "CommandNotFound", "{name}");
    }
}

#[test]
fn commands_for_tests_exist_in_tests_alone() {
    let names = |reply: Value| {
        let commands = reply["return"].as_array().unwrap().clone();
        commands.into_iter().map(|command| command["name"].clone())
    };
    let list = r#"{"execute": "query-commands"}"#;
    let usual = names(ask(&mut guest(), list));
    let in_test = names(ask_in_test(&mut guest(), list));
    assert!(in_test.eq(usual.chain([json!("x-leave-unserved")])));

    let mut control = guest();
    let command = r#"{"execute": "x-leave-unserved", "arguments": {"queues": ["inflate"]}}"#;
    assert_eq!(
        ask(&mut control, command),
        error(
            "CommandNotFound",
            "The command x-leave-unserved has not been found"
        )
    );
    assert_eq!(control.unserved, []);
    assert_eq!(ask_in_test(&mut control, command), json!({"return": {}}));
    assert_eq!(control.unserved, [Role::Inflate]);
}

#[test]
fn queues_to_leave_unserved_are_named() {
    let mut control = guest();
    let mut leave = |arguments: Value| {
        let command = json!({"execute": "x-leave-unserved", "arguments": arguments});
        ask_in_test(&mut control, &command.to_string())
    };
    let all = json!({"queues": ["deflate", "stats", "reporting"]});
    assert_eq!(leave(all), json!({"return": {}}));
    for (arguments, desc) in [
        (json!({}), "Parameter 'queues' is missing"),
        (
            json!({"queues": "inflate"}),
            "Invalid parameter type for 'queues', expected: array",
        ),
        (
            json!({"queues": ["inflate", "hinting"]}),
            "Parameter 'queues' does not accept value \"hinting\"",
        ),
        (
            json!({"queues": [0]}),
            "Parameter 'queues' does not accept value 0",
        ),
    ] {
        assert_eq!(leave(arguments), error("GenericError", desc));
    }
    let roles = [Role::Deflate, Role::Statistics, Role::Reporting];
    assert_eq!(control.unserved, roles, "what is refused changes nothing");
    let none = r#"{"execute": "x-leave-unserved", "arguments": {"queues": []}}"#;
    assert_eq!(ask_in_test(&mut control, none), json!({"return": {}}));
    assert_eq!(control.unserved, []);
}

#[test]
fn arguments_are_checked_everywhere() {
    for (name, _) in COMMANDS
        .iter()
        .filter(|(name, _)| *name != "qmp_capabilities")
    {
        let command = json!({"execute": name, "arguments": {"bogus": 1}});
        assert_eq!(
            ask(&mut guest(), &command.to_string()),
            error("GenericError", "Parameter 'bogus' is unexpected")
        );
    }
}

#[test]
fn an_unknown_command_is_not_found() {
    assert_eq!(
        ask(&mut guest(), r#"{"execute": "stop"}"#),
        error("CommandNotFound", "The command stop has not been found")
    );
}

#[test]
fn quit_is_acknowledged() {
    let mut session = Session {
        negotiated: true,
        ..Session::default()
    };
    let input = br#"{"execute": "quit"} {"execute": "query-balloon"}"#;
    let output = session.feed(input, &mut guest());
    assert!(output.quit);
    assert_eq!(replies(&output), [json!({"return": {}})]);
}

#[test]
fn the_id_comes_back_whatever_it_is() {
    for id in [json!(1), json!("x"), json!({"a": [null]})] {
        let good = json!({"execute": "query-balloon", "id": id});
        assert_eq!(ask(&mut guest(), &good.to_string())["id"], id);
        let bad = json!({"execute": "stop", "id": id});
        assert_eq!(ask(&mut guest(), &bad.to_string())["id"], id);
    }
}

#[test]
fn requests_must_be_well_formed() {
    for (request, desc) in [
        ("[1]", "QMP input must be a JSON object"),
        ("{}", "QMP input lacks member 'execute'"),
        (
            r#"{"execute": 1}"#,
            "QMP input member 'execute' must be a string",
        ),
        (
            r#"{"execute": "quit", "arguments": []}"#,
            "QMP input member 'arguments' must be an object",
        ),
        (
            r#"{"execute": "quit", "control": 1}"#,
            "QMP input member 'control' is unexpected",
        ),
    ] {
        assert_eq!(ask(&mut guest(), request), error("GenericError", desc));
    }
}

#[test]
fn input_may_come_in_any_pieces() {
    let text = r#"{"execute":"qmp_capabilities"}{"execute":"query-balloon"}
        {"execute":"query-balloon","id":1}"#;
    for size in [1, 2, 7, text.len()] {
        let mut session = Session::default();
        let mut found = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            found.extend(replies(&session.feed(piece, &mut guest())));
        }
        assert_eq!(found.len(), 3, "{size}");
        assert_eq!(found[2]["id"], 1);
    }
}

#[test]
fn malformed_json_costs_one_line() {
    let mut session = Session {
        negotiated: true,
        ..Session::default()
    };
    let input = b"{\"execute\": nonsense} {}\n{\"execute\": \"query-balloon\"}\n";
    let found = replies(&session.feed(input, &mut guest()));
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0]["error"]["class"], "GenericError");
    assert!(found[1]["return"].is_object());
}

#[test]
fn an_endless_command_is_refused_and_not_kept() {
    let mut session = Session {
        negotiated: true,
        ..Session::default()
    };
    let mut control = guest();
    let mut found = replies(&session.feed(b"{\"execute\": \"", &mut control));
    for _ in 0..64 {
        found.extend(replies(&session.feed(&[b'x'; 4096], &mut control)));
        assert!(session.input.len() <= MAX_COMMAND_SIZE + 4096);
    }
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["error"]["class"], "GenericError");
    let rest = b"\"}\n{\"execute\": \"query-balloon\"}";
    let found = replies(&session.feed(rest, &mut control));
    assert_eq!(found.len(), 1);
    assert!(found[0]["return"].is_object());
}

#[test]
fn deep_nesting_is_refused() {
    let deep = "[".repeat(10_000) + "\n";
    let reply = ask(&mut guest(), &deep);
    assert_eq!(reply["error"]["class"], "GenericError");
}

#[test]
fn the_event_has_qemus_shape() {
    let time = UNIX_EPOCH + std::time::Duration::from_micros(3_000_002);
    let event: Value = serde_json::from_slice(&balloon_change(4096, time)).unwrap();
    assert_eq!(
        event,
        json!({
            "timestamp": {"seconds": 3, "microseconds": 2},
            "event": "BALLOON_CHANGE",
            "data": {"actual": 4096},
        })
    );
}
