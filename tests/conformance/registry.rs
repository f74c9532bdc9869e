//! Every number of the code stands in `proto-spec/registry.toml`, and every number there is in the code.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use adit::id;
use adit::message::interim;
use adit::protocol;
use adit::protocol::code::{CloseCode, DownCause, OpenCause, RefusalCode, StreamCode};
use adit::protocol::control;
use adit::protocol::control::Close;
use adit::protocol::envoy;
use adit::protocol::envoy::{EchoSettings, Echoer, PingSettings};
use adit::protocol::fleet;
use adit::protocol::flows::FlowLimits;
use adit::protocol::handshake::{Hello, Refusal, ServiceKind, Welcome};
use adit::protocol::health::Health;
use adit::protocol::limits;
use adit::protocol::reauth;
use adit::protocol::reauth::{Reauth, Reauthed};
use adit::protocol::roster::{Listed, Roster};
use adit::protocol::session::{Drain, Timing};
use adit::protocol::stream;
use adit::protocol::tcp;
use adit::protocol::varint;
use toml::{Table, Value};

fn registry() -> Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto-spec/registry.toml");
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

/// A section of numbers, by name.
fn section(name: &str) -> BTreeMap<String, i64> {
    let number = |(key, value): (&String, &Value)| (key.clone(), value.as_integer().unwrap());
    registry()[name].as_table().unwrap().iter().map(number).collect()
}

fn numbers<T: Into<u64>>(code: impl IntoIterator<Item = (String, T)>) -> BTreeMap<String, i64> {
    code.into_iter().map(|(name, number)| (name, number.into() as i64)).collect()
}

fn millis(time: Duration) -> i64 {
    time.as_millis() as i64
}

// spec: OV-2, OV-3
#[test]
fn version_and_alpn() {
    let registry = registry();
    assert_eq!(registry["version"].as_integer(), Some(protocol::VERSION.into()));
    assert_eq!(registry["alpn"].as_str().unwrap().as_bytes(), protocol::ALPN);
}

// spec: FL-30, FL-33, FL-40
#[test]
fn between_siblings() {
    assert_eq!(registry()["fleet"]["alpn"].as_str().unwrap().as_bytes(), fleet::ALPN);
    let ids = |fields: &[(&str, u64)]| numbers(fields.iter().map(|&(name, id)| (name.to_owned(), id)));
    assert_eq!(section("fleet_frames"), ids(&[("GREETING", fleet::GREETING), ("REFUSE", fleet::REFUSE)]));
    assert_eq!(section("fleet_stream_types"), ids(&[("relayed", fleet::RELAYED)]));
    assert_eq!(section("greeting_fields"), ids(&fleet::Greeting::FIELDS));
    assert_eq!(section("route_fields"), ids(&fleet::Route::OPTIONS));
    assert_eq!(section("relayed_frames"), ids(&[("HERE", stream::HERE)]));
    assert_eq!(
        (stream::FrameType::from_number(stream::HERE), stream::HERE % 2),
        (None, 0),
        "it is skipped in a tunnel"
    );
    // An end that knows only tunnels skips no GREETING, and knows no such stream.
    assert_eq!(control::FrameType::from_number(fleet::GREETING), None);
    assert_eq!(stream::StreamType::from_number(fleet::RELAYED), None);
}

// spec: CT-1, ST-1, ST-4
#[test]
fn types() {
    let control = control::FrameType::ALL.map(|frame| (frame.name().to_owned(), frame.number()));
    assert_eq!(section("control_frames"), numbers(control));
    let streams = stream::StreamType::ALL.map(|kind| (format!("{kind:?}").to_lowercase(), kind.number()));
    assert_eq!(section("stream_types"), numbers(streams));
    let frames = stream::FrameType::ALL.map(|frame| (format!("{frame:?}").to_uppercase(), frame.number()));
    assert_eq!(section("stream_frames"), numbers(frames));
    let frames = stream::ServiceFrame::ALL.map(|frame| (format!("{frame:?}").to_uppercase(), frame.number()));
    // OPENED is OPEN the other way.
    let opened = ("OPENED".to_owned(), stream::ServiceFrame::Open.number());
    assert_eq!(section("service_frames"), numbers(frames.into_iter().chain([opened])));
    let kinds = ServiceKind::ALL.map(|kind| (format!("{kind:?}").to_lowercase(), kind.number()));
    assert_eq!(section("service_kinds"), numbers(kinds));
}

// spec: HS-4, CT-20, CT-32, CT-34, CT-56, ST-10
#[test]
fn fields_and_flags() {
    let ids = |fields: &[(&str, u64)]| numbers(fields.iter().map(|&(name, id)| (name.to_owned(), id)));
    assert_eq!(section("hello_fields"), ids(&Hello::FIELDS));
    assert_eq!(section("welcome_fields"), ids(&Welcome::FIELDS));
    assert_eq!(section("refuse_fields"), ids(&Refusal::FIELDS));
    assert_eq!(section("drain_fields"), ids(&Drain::FIELDS));
    assert_eq!(section("close_fields"), ids(&Close::FIELDS));
    assert_eq!(section("health_fields"), ids(&Health::FIELDS));
    assert_eq!(section("reauth_fields"), ids(&Reauth::FIELDS));
    assert_eq!(section("roster_fields"), ids(&Roster::FIELDS));
    assert_eq!(section("listed_fields"), ids(&Listed::FIELDS));
    assert_eq!(section("reauthed_fields"), ids(&Reauthed::FIELDS));
    assert_eq!(section("head_flags"), numbers(stream::HEAD_FLAGS.map(|(name, bit)| (name.to_owned(), u64::from(bit)))));
}

// spec: OV-15, OV-16
#[test]
fn no_number_that_is_set_aside_is_given_away() {
    let ranges = section("ranges");
    let set_aside = ranges["first_grease"]..=ranges["last_private"];
    assert_eq!(ranges["last_grease"] + 1, ranges["first_private"]);
    for (name, value) in registry() {
        let is_space =
            ["_frames", "_fields", "_types", "_codes", "_causes", "_kinds"].iter().any(|end| name.ends_with(end));
        let Some(numbers) = value.as_table().filter(|_| is_space) else { continue };
        for (what, number) in numbers {
            assert!(
                !set_aside.contains(&number.as_integer().unwrap()),
                "{name} gives {what} a number that is set aside"
            );
        }
    }
}

#[test]
fn types_are_found_by_their_number() {
    for frame in control::FrameType::ALL {
        assert_eq!(control::FrameType::from_number(frame.number()), Some(frame));
    }
    for frame in stream::FrameType::ALL {
        assert_eq!(stream::FrameType::from_number(frame.number()), Some(frame));
    }
    for frame in stream::ServiceFrame::ALL {
        assert_eq!(stream::ServiceFrame::from_number(frame.number()), Some(frame));
    }
    for kind in stream::StreamType::ALL {
        assert_eq!(stream::StreamType::from_number(kind.number()), Some(kind));
    }
}

// spec: ER-1, ER-2, ER-3, ER-9
#[test]
fn codes() {
    let refusals = RefusalCode::ALL.map(|code| (code.label().to_owned(), u64::from(code.number())));
    assert_eq!(section("refusal_codes"), numbers(refusals));
    let closes = CloseCode::ALL.iter().map(|code| (code.label().to_owned(), code.number()));
    assert_eq!(section("close_codes"), numbers(closes));
    let resets = StreamCode::ALL.iter().map(|code| (code.label().to_owned(), code.number()));
    assert_eq!(section("stream_codes"), numbers(resets));
    let causes = OpenCause::ALL.iter().map(|cause| (cause.label().to_owned(), cause.number()));
    assert_eq!(section("open_causes"), numbers(causes));
    let causes = DownCause::ALL.iter().map(|cause| (cause.label().to_owned(), cause.number()));
    assert_eq!(section("down_causes"), numbers(causes));
}

// spec: ER-5
#[test]
fn an_unknown_code_has_no_meaning() {
    assert_eq!(RefusalCode::from_number(418), None);
    assert_eq!(CloseCode::from_number(0x09), None);
    assert_eq!(StreamCode::from_number(0x0d), None);
}

// spec: ST-66
#[test]
fn options_of_open() {
    assert_eq!(section("open_options"), numbers([("client".to_owned(), stream::CLIENT_OPTION)]));
}

// spec: TB-5, TB-6, TB-12, TB-13, TB-16
#[test]
fn names_inside_http2() {
    let code = [
        ("authority", tcp::AUTHORITY),
        ("control_uri", tcp::CONTROL_URI),
        ("service_uri", tcp::SERVICE_URI),
        ("raw_protocol", tcp::RAW_PROTOCOL),
        ("flow_protocol", tcp::FLOW_PROTOCOL),
        ("service_field", tcp::SERVICE_FIELD.as_str()),
        ("client_field", tcp::CLIENT_FIELD.as_str()),
        ("cause_field", tcp::CAUSE_FIELD.as_str()),
        ("reason_field", tcp::REASON_FIELD.as_str()),
    ];
    let expected: Table = code.map(|(name, text)| (name.to_owned(), text.into())).into_iter().collect();
    assert_eq!(registry()["tcp"].as_table(), Some(&expected));
}

// spec: CT-54
#[test]
fn texts_of_a_proof() {
    let code = [("exporter_label", reauth::EXPORTER_LABEL), ("signature_context", reauth::SIGNATURE_CONTEXT)];
    let text = |(name, text): (&str, &[u8])| (name.to_owned(), std::str::from_utf8(text).unwrap().into());
    assert_eq!(registry()["reauth"].as_table(), Some(&code.map(text).into_iter().collect()));
}

#[test]
fn bounds() {
    let code = [
        ("id_bytes", id::MAX_ID_BYTES as i64),
        ("service_name_bytes", id::MAX_SERVICE_NAME_BYTES as i64),
        ("token_bytes", limits::MAX_TOKEN_BYTES as i64),
        ("certificates", limits::MAX_CERTIFICATES as i64),
        ("signature_schemes", limits::MAX_SIGNATURE_SCHEMES as i64),
        ("roster", limits::MAX_ROSTER as i64),
        ("roster_bytes", limits::MAX_ROSTER_BYTES as i64),
        ("roster_addresses", limits::MAX_ROSTER_ADDRESSES as i64),
        ("region_bytes", limits::MAX_REGION_BYTES as i64),
        ("services", limits::MAX_SERVICES as i64),
        ("build_bytes", limits::MAX_BUILD_BYTES as i64),
        ("responder_bytes", limits::MAX_RESPONDER_BYTES as i64),
        ("responder_id_bytes", id::MAX_RESPONDER_ID_BYTES as i64),
        ("route_bytes", fleet::MAX_ROUTE_BYTES as i64),
        ("observed_bytes", limits::MAX_OBSERVED_BYTES as i64),
        ("reason_bytes", limits::MAX_REASON_BYTES as i64),
        ("control_payload_bytes", limits::MAX_CONTROL_PAYLOAD as i64),
        ("skipped_payload_bytes", limits::MAX_SKIPPED_PAYLOAD as i64),
        ("method_bytes", limits::MAX_METHOD_BYTES as i64),
        ("authority_bytes", limits::MAX_AUTHORITY_BYTES as i64),
        ("protocol_bytes", limits::MAX_PROTOCOL_BYTES as i64),
        ("content_length_digits", limits::MAX_CONTENT_LENGTH_DIGITS as i64),
        ("passed_interim_responses", interim::MAX_PASSED as i64),
        ("waiting_interim_responses", interim::MAX_WAITING as i64),
        ("read_interim_responses", interim::MAX_READ as i64),
        ("open_bytes", limits::MAX_OPEN_BYTES as i64),
        ("datagram_bytes", limits::MAX_DATAGRAM_BYTES as i64),
        ("early_datagrams", limits::MAX_EARLY_DATAGRAMS as i64),
        ("duration_ms", millis(limits::MAX_DURATION)),
        ("min_keepalive_ms", millis(limits::MIN_KEEPALIVE)),
        ("max_keepalive_ms", millis(limits::MAX_KEEPALIVE)),
        ("min_head_bytes", limits::MIN_HEAD_BYTES.into()),
        ("min_head_fields", limits::MIN_HEAD_FIELDS.into()),
        ("max_integer", varint::MAX as i64),
    ];
    assert_eq!(section("limits"), code.map(|(name, number)| (name.to_owned(), number)).into());
}

#[test]
fn defaults() {
    let mut defaults = registry()["defaults"].as_table().unwrap().clone();
    assert_eq!(defaults.remove("tenant").unwrap().as_str(), Some(id::DEFAULT_TENANT));
    let (timing, flows) = (Timing::default(), FlowLimits::default());
    let code = [
        ("head_bytes", limits::Limits::default().head_bytes as i64),
        ("head_fields", limits::Limits::default().head_fields as i64),
        ("handshake_timeout_ms", millis(timing.handshake_timeout)),
        ("keepalive_interval_ms", millis(timing.keepalive_interval)),
        ("suspect_timeout_ms", millis(timing.suspect_timeout)),
        ("idle_timeout_ms", millis(timing.idle_timeout)),
        ("drain_deadline_ms", millis(Drain::default().deadline)),
        ("open_timeout_ms", millis(limits::DEFAULT_OPEN_TIMEOUT)),
        ("flows", flows.max_flows as i64),
        ("flow_idle_timeout_ms", millis(flows.idle_timeout)),
    ];
    assert_eq!(defaults, code.map(|(name, number)| (name.to_owned(), Value::from(number))).into_iter().collect());
}

// spec: ST-11, ST-16
#[test]
fn tables() {
    let texts = |name: &str| -> Vec<String> { registry()["tables"][name].clone().try_into().unwrap() };
    let methods: Vec<&str> = stream::METHODS.iter().map(|method| method.as_str()).collect();
    assert_eq!(texts("methods"), methods);
    let names: Vec<&str> = stream::NAMES.iter().map(|name| name.as_str()).collect();
    assert_eq!(texts("field_names"), names);
}

fn envoy_section(name: &str) -> BTreeMap<String, Value> {
    registry()["envoy"][name].as_table().unwrap().clone().into_iter().collect()
}

// spec: EV-1, EV-2, EV-14, EV-18, EV-20
#[test]
fn names_of_envoy() {
    let mut registry = registry()["envoy"].as_table().unwrap().clone();
    for section in ["fields", "limits", "defaults"] {
        assert!(registry.remove(section).is_some());
    }
    let counters = envoy::Counter::ALL.map(|counter| Value::from(counter.name())).to_vec();
    let texts = [
        ("path", Value::from(envoy::DEFAULT_PATH)),
        ("ping", std::str::from_utf8(envoy::PING).unwrap().into()),
        ("upgrade_token", envoy::UPGRADE_TOKEN.into()),
        ("counters", counters.into()),
    ];
    assert_eq!(registry, texts.map(|(name, text)| (name.to_owned(), text)).into_iter().collect());
    let fields = [
        ("node", envoy::names::NODE),
        ("cluster", envoy::names::CLUSTER),
        ("tenant", envoy::names::TENANT),
        ("upstream_cluster", envoy::names::UPSTREAM_CLUSTER),
        ("initiation_time", envoy::names::INITIATION_TIME),
        ("worker", envoy::names::WORKER),
        ("connection", envoy::names::CONNECTION),
        ("reason", envoy::names::REASON),
    ];
    assert_eq!(envoy_section("fields"), fields.map(|(name, field)| (name.to_owned(), field.into())).into());
}

// spec: EV-4, EV-10, EV-22, EV-33
#[test]
fn bounds_of_envoy() {
    let code = [
        ("path_bytes", envoy::MAX_PATH_BYTES as i64),
        ("head_bytes", envoy::MAX_HEAD_BYTES as i64),
        ("head_fields", envoy::MAX_HEAD_FIELDS as i64),
        ("interim_responses", envoy::MAX_INTERIM_RESPONSES as i64),
        ("min_ping_interval_ms", millis(*PingSettings::INTERVALS.start())),
        ("max_ping_interval_ms", millis(*PingSettings::INTERVALS.end())),
        ("ping_jitter_percent", PingSettings::JITTER_PERCENT.into()),
        ("min_expected_interval_ms", millis(Echoer::LEAST_INTERVAL)),
        ("max_expected_interval_ms", millis(Echoer::LONGEST_INTERVAL)),
        ("dead_intervals", Echoer::DEAD_INTERVALS.into()),
    ];
    assert_eq!(envoy_section("limits"), code.map(|(name, number)| (name.to_owned(), number.into())).into());
    let pings = PingSettings::default();
    let defaults = [
        ("request_timeout_ms", millis(envoy::REQUEST_TIMEOUT)),
        ("response_timeout_ms", millis(envoy::RESPONSE_TIMEOUT)),
        ("ping_interval_ms", millis(pings.interval)),
        ("ping_threshold", pings.threshold.into()),
        ("proof_delay_ms", millis(pings.proof_delay)),
        ("echo_grace_ms", millis(EchoSettings::default().grace)),
    ];
    assert_eq!(envoy_section("defaults"), defaults.map(|(name, number)| (name.to_owned(), number.into())).into());
}
