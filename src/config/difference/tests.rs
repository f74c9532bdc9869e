//! Two texts, and what is said of them.

use std::path::Path;

use super::*;
use crate::config::{Nowhere, check};

const CLOUD: &str = "responder:
  listen: { quic: '127.0.0.1:1' }
  tls: { cert: a, key: b, client_ca: c }
  identity: 'spiffe://x/{tenant}/{cluster}/{node}'
  nodes:
    - { node: edge-1, cluster: stores, tenant: acme, token: 0123456789abcdef }
egress:
  - { http: '0.0.0.0:8080', host_id: a, routes: [ { host: a.b, service: s } ] }
admin: '127.0.0.1:9901'
";
const EDGE: &str = "initiator:
  node: edge-1
  cluster: stores
  token: 'a secret'
  tls: { ca: c, pins: [] }
  tunnels: [ { to: 'a:1' }, { to: 'b:1' } ]
services:
  - { name: web, match: {}, target: 'http://a' }
  - { name: ssh, target: 'tcp://a:22' }
";

fn checked(text: &str) -> Checked {
    let text = text.replace(", pins: []", "");
    check(&text, Path::new("adit.yaml"), &Nowhere).unwrap_or_else(|report| panic!("{report}"))
}

/// What is printed when the text changes like this.
fn lines(text: &str, changes: &[(&str, &str)]) -> Vec<String> {
    let new = changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    });
    let difference = checked(text).difference(&checked(&new));
    difference.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn equal_settings_have_no_difference() {
    assert!(checked(CLOUD).difference(&checked(CLOUD)).is_empty());
    assert_eq!(lines(EDGE, &[("'a:1'", "\"a:1\"")]), [""; 0]);
}

#[test]
fn a_value_is_shown_before_and_after() {
    assert_eq!(lines(CLOUD, &[("admin:", "log: { level: debug }\nadmin:")]), ["~ log.level: info -> debug"]);
    assert_eq!(lines(EDGE, &[("http://a'", "http://b'")]), ["~ services.web.target: http://a:80 -> http://b:80"]);
    assert_eq!(lines(EDGE, &[("'a:1' }", "'a:1', count: 3 }")]), ["~ initiator.tunnels[a:1].count: 1 -> 3"]);
    assert_eq!(lines(CLOUD, &[("host_id: a", "host_id: a, hold: 5s")]), ["~ egress[0.0.0.0:8080].hold: 2s -> 5s"]);
    assert_eq!(
        lines(CLOUD, &[("127.0.0.1:1", "127.0.0.1:2")]),
        ["~ responder.listen.quic: 127.0.0.1:1 -> 127.0.0.1:2"]
    );
}

#[test]
fn how_far_a_change_reaches_is_said_where_a_reader_could_wonder() {
    let said = [
        (
            CLOUD,
            ("listen:", "limits: { head_bytes: 8 KiB }\n  listen:"),
            "~ responder.limits.head_bytes: 65536 -> 8192 (live tunnels are told)",
        ),
        (
            CLOUD,
            ("listen:", "keepalive: 2s\n  listen:"),
            "~ responder.keepalive: 5s -> 2s (for tunnels that come up from then on)",
        ),
        (
            CLOUD,
            ("host_id: a", "host_id: a, limits: { head_fields: 50 }"),
            "~ egress[0.0.0.0:8080].limits.head_fields: 100 -> 50 (open connections are asked to come back)",
        ),
        (CLOUD, ("host_id: a", "host_id: a, hold: 5s"), "~ egress[0.0.0.0:8080].hold: 2s -> 5s"),
    ];
    for (text, change, expected) in said {
        assert_eq!(lines(text, &[change]), [expected]);
    }
    let with_tls = CLOUD.replace("host_id: a", "tls: { cert: a, key: b, client_ca: c }, host_id: a");
    assert_eq!(
        lines(&with_tls, &[("client_ca: c }, host_id", "client_ca: d }, host_id")]),
        ["~ egress[0.0.0.0:8080].tls.client_ca: c -> d (clients who would not be let in any more are sent away)"]
    );
}

#[test]
fn what_comes_and_goes_is_named_as_in_the_file() {
    let shop = "services:\n  - { name: shop, match: { prefix: /shop }, target: 'http://b' }";
    assert_eq!(lines(EDGE, &[("services:", shop)]), ["+ services.shop"]);
    assert_eq!(lines(EDGE, &[("  - { name: ssh, target: 'tcp://a:22' }\n", "")]), ["- services.ssh"]);
    assert_eq!(lines(EDGE, &[(", { to: 'b:1' }", "")]), ["- initiator.tunnels[b:1]"]);
    assert_eq!(lines(CLOUD, &[("0.0.0.0:8080", "0.0.0.0:8081")]), ["- egress[0.0.0.0:8080]", "+ egress[0.0.0.0:8081]"]);
    assert_eq!(lines(CLOUD, &[("admin: '127.0.0.1:9901'\n", "")]), ["- admin: 127.0.0.1:9901"]);
    assert_eq!(
        lines(CLOUD, &[("client_ca: c", "client_ca: c, crl: [d, e]")]),
        ["+ responder.tls.crl: d", "+ responder.tls.crl: e"]
    );
    let twice = CLOUD.replacen("client_ca: c", "client_ca: c, crl: [d, e, d]", 1);
    assert_eq!(
        lines(&twice, &[("[d, e, d]", "[f, d]")]),
        ["- responder.tls.crl: e", "- responder.tls.crl: d", "+ responder.tls.crl: f"]
    );
    assert_eq!(
        lines(CLOUD, &[("host: a.b, ", "host: a.b, prefix: /x, ")]),
        ["- egress[0.0.0.0:8080].routes[a.b/]", "+ egress[0.0.0.0:8080].routes[a.b/x]",]
    );
}

#[test]
fn shares_are_named_by_whom_they_are_of() {
    let shares = "shares: { tenants: [ { tenant: acme, weight: 2 } ], nodes: [ { node: 'edge-*', tenant: acme, streams: 1 }, \
                  { node: edge-1, streams: 1 } ] }";
    let with = CLOUD.replacen("responder:\n", &format!("responder:\n  {shares}\n"), 1);
    let changed = lines(
        &with,
        &[("weight: 2", "weight: 3"), ("streams: 1", "streams: 2"), (", streams: 1 } ]", ", flows: 1 } ]")],
    );
    let expected = [
        "~ responder.shares.nodes[edge-*:acme].streams: 1 -> 2",
        "+ responder.shares.nodes.edge-1.flows: 1",
        "- responder.shares.nodes.edge-1.streams: 1",
        "~ responder.shares.tenants.acme.weight: 2 -> 3",
    ];
    assert_eq!(changed, expected);
}

#[test]
fn a_role_that_comes_is_one_line() {
    let both = format!("{CLOUD}{EDGE}");
    let difference = checked(CLOUD).difference(&checked(&both));
    assert_eq!(difference.to_string(), "+ initiator\n+ services.ssh\n+ services.web");
}

#[test]
fn a_secret_is_noticed_and_never_shown() {
    let changed = lines(EDGE, &[("a secret", "another")]);
    assert_eq!(changed, ["~ initiator.token: another secret"]);
    assert_eq!(lines(EDGE, &[("  token: 'a secret'\n", "")]), ["- initiator.token: ***"]);
    let node = lines(CLOUD, &[("0123456789abcdef", "fedcba9876543210")]);
    assert_eq!(node, ["~ responder.nodes[edge-1:stores:acme].token: another secret"]);
    let step = "rewrite: [ { set: { name: x-a, value: first } } ], ";
    let with = EDGE.replacen("name: web, ", &format!("name: web, {step}"), 1);
    assert_eq!(lines(&with, &[("first", "second")]), ["~ services.web.rewrite[0].set.value: another secret"]);
    let added = checked(EDGE).difference(&checked(&with));
    let shown = format!("{added} {added:?} {}", serde_json::to_string(&added).unwrap());
    assert!(!shown.contains("first") && !shown.contains('\u{e000}') && shown.contains("***"), "{shown}");
}

#[test]
fn the_order_of_a_list_alone_is_a_difference() {
    let swapped = lines(EDGE, &[("'a:1'", "'c:1'"), ("'b:1'", "'a:1'"), ("'c:1'", "'b:1'")]);
    assert_eq!(swapped, ["~ initiator.tunnels: another order"]);
}

#[test]
fn items_without_a_name_are_compared_from_both_ends() {
    let with = |steps: &str| EDGE.replacen("name: web, ", &format!("name: web, rewrite: [ {steps} ], "), 1);
    let (old, new) = (with("{ remove: a }, { remove: c }"), with("{ remove: a }, { remove: b }, { remove: c }"));
    let difference = checked(&old).difference(&checked(&new));
    assert_eq!(difference.to_string(), "+ services.web.rewrite[1]");
    assert_eq!(checked(&new).difference(&checked(&old)).to_string(), "- services.web.rewrite[1]");
}

#[test]
fn two_items_of_one_name_are_two() {
    let twice = EDGE.replacen("'b:1'", "'a:1', transport: tcp", 1);
    assert_eq!(
        lines(&twice, &[("transport: tcp", "transport: quic")]),
        ["~ initiator.tunnels[a:1#2].transport: tcp -> quic"]
    );
}

#[test]
fn a_value_cannot_break_its_line() {
    let name = lines(CLOUD, &[("responder:\n", "responder:\n  name: \"a\\nb c\"\n")]);
    assert_eq!(name, ["~ responder.name: adit -> \"a\\nb c\""]);
    let long = lines(CLOUD, &[("host_id: a", &format!("host_id: a, balance: hash, affinity: '{}'", "x".repeat(1000)))]);
    assert!(long[0].len() < 300 && long[0].ends_with('…'), "{long:?}");
}

#[test]
fn json_says_the_same() {
    let edge = checked(&EDGE.replacen("'http://a'", "'http://b'", 1).replacen("  token: 'a secret'\n", "", 1));
    let json = serde_json::to_value(checked(EDGE).difference(&edge)).unwrap();
    assert_eq!(
        json,
        serde_json::json!([
            { "change": "removed", "key": "initiator.token", "old": "***" },
            { "change": "changed", "key": "services.web.target", "old": "http://a:80", "new": "http://b:80" },
        ])
    );
}

#[test]
fn what_a_key_touches_is_at_it_below_it_or_around_it() {
    let mut difference = checked(CLOUD).difference(&checked(&CLOUD.replacen("host_id: a", "host_id: b", 1)));
    for (key, touched) in [
        ("egress", true),
        ("egress[0.0.0.0:8080]", true),
        ("egress[0.0.0.0:8080].host_id.x", true),
        ("egress[0.0.0.0:8080].hold", false),
        ("egr", false),
        ("log", false),
    ] {
        assert_eq!(difference.touches(key), touched, "{key}");
    }
    difference.note("responder.tls.cert", "another certificate");
    assert!(difference.to_string().ends_with("\n~ responder.tls.cert: another certificate"), "{difference}");
}

#[test]
fn what_no_key_says_is_a_difference_too() {
    let (old, mut new) = (checked(CLOUD), checked(CLOUD));
    new.responder.as_mut().unwrap().admission.quotas.retry_after *= 2;
    assert_eq!(old.difference(&new).to_string(), "~ settings that no key of the file says");
}
