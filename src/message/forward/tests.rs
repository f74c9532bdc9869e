use std::sync::LazyLock;

use http::Request;

use super::*;

fn hop(remote: &str) -> Hop<'static> {
    static NOBODY: LazyLock<Trust> = LazyLock::new(|| Trust::new(Vec::new()));
    Hop {
        remote: remote.parse().unwrap(),
        local: "198.51.100.1:8085".parse().unwrap(),
        tls: false,
        trust: &NOBODY,
        forms: Forms::Both,
    }
}

/// From one of the proxies.
fn trusted(remote: &str) -> Hop<'static> {
    static PROXIES: LazyLock<Trust> = LazyLock::new(|| {
        Trust::new(["192.0.2.1", "2001:db8::1", "10.0.0.0/8"].map(|prefix| prefix.parse().unwrap()).into())
    });
    let hop = Hop { trust: &PROXIES, ..hop(remote) };
    assert!(hop.is_trusted());
    hop
}

fn values(head: &request::Parts, name: &str) -> Vec<String> {
    head.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

fn forwarded_request(request: Request<()>, hop: &Hop<'_>) -> request::Parts {
    let (mut head, ()) = request.into_parts();
    super::request(&mut head, hop).unwrap();
    head
}

fn origin_form() -> request::Builder {
    Request::get("/a?b=c").header(HOST, "example.com:8080")
}

#[test]
fn the_authority_moves_from_host_into_the_uri() {
    let head = forwarded_request(origin_form().body(()).unwrap(), &hop("192.0.2.1:5"));
    assert_eq!(head.uri, "http://example.com:8080/a?b=c");
    assert!(!head.headers.contains_key(HOST));
}

#[test]
fn the_uri_wins_over_host() {
    let request = Request::get("https://uri.example/").header(HOST, "host.example").body(()).unwrap();
    let head = forwarded_request(request, &hop("192.0.2.1:5"));
    assert_eq!(head.uri, "https://uri.example/");
    assert!(!head.headers.contains_key(HOST));
    assert_eq!(head.headers[FORWARDED], "for=192.0.2.1;host=uri.example;proto=http", "as it came, not as it says");
}

#[test]
fn options_star_keeps_its_star() {
    let request = Request::options("*").header(HOST, "example.com").body(()).unwrap();
    let head = forwarded_request(request, &hop("192.0.2.1:5"));
    assert_eq!(head.uri.path(), "*");
    assert_eq!(head.uri.authority().unwrap(), "example.com");
}

#[test]
fn a_request_without_a_host_is_for_the_address_it_came_to() {
    let head = forwarded_request(Request::get("/a").body(()).unwrap(), &hop("192.0.2.1:5"));
    assert_eq!(head.uri, "http://198.51.100.1:8085/a");
}

#[test]
fn a_host_that_is_none_is_refused() {
    let (mut head, ()) = Request::get("/").header(HOST, "a b").body(()).unwrap().into_parts();
    let failure = request(&mut head, &hop("192.0.2.1:5")).unwrap_err();
    assert_eq!(failure.cause(), Cause::BadRequest);
}

#[test]
fn fields_of_this_hop_stay_here() {
    let request = origin_form()
        .header("connection", "x-hop, close")
        .header("x-hop", "1")
        .header("te", "trailers")
        .header("transfer-encoding", "chunked")
        .body(())
        .unwrap();
    let head = forwarded_request(request, &hop("192.0.2.1:5"));
    for gone in ["connection", "x-hop", "transfer-encoding"] {
        assert!(!head.headers.contains_key(gone), "{gone}");
    }
    assert_eq!(head.headers["te"], "trailers");
}

fn claims() -> Request<()> {
    origin_form()
        .header("x-forwarded-for", "203.0.113.9")
        .header("x-forwarded-for", "203.0.113.10, 203.0.113.11")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "shop.example")
        .header("x-forwarded-client-cert", "URI=spiffe://admin")
        .header("x-real-ip", "203.0.113.9")
        .header("x-envoy-internal", "true")
        .header("x_forwarded_for", "203.0.113.9")
        .header("forwarded", "for=203.0.113.11")
        .header("x-request-id", "7")
        .body(())
        .unwrap()
}

#[test]
fn what_an_untrusted_sender_says_of_a_client_is_replaced_by_what_was_seen() {
    let head = forwarded_request(claims(), &hop("192.0.2.1:5"));
    assert_eq!(values(&head, "forwarded"), ["for=192.0.2.1;host=\"example.com:8080\";proto=http"]);
    assert_eq!(values(&head, "x-forwarded-for"), ["192.0.2.1"]);
    assert_eq!(values(&head, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&head, "x-request-id"), ["7"]);
    let others = ["x-forwarded-host", "x-forwarded-client-cert", "x-real-ip", "x-envoy-internal", "x_forwarded_for"];
    for gone in others {
        assert_eq!(values(&head, gone), [""; 0], "{gone}");
    }
}

#[test]
fn what_a_trusted_sender_says_of_a_client_is_passed_on_and_extended() {
    let head = forwarded_request(claims(), &trusted("[2001:db8::1]:5"));
    let forwarded = ["for=203.0.113.11", "for=\"[2001:db8::1]\";host=\"example.com:8080\";proto=http"];
    assert_eq!(values(&head, "forwarded"), forwarded);
    assert_eq!(values(&head, "x-forwarded-for"), ["203.0.113.9, 203.0.113.10, 203.0.113.11, 2001:db8::1"]);
    for (kept, value) in [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-client-cert", "URI=spiffe://admin"),
        ("x-real-ip", "203.0.113.9"),
        ("x-envoy-internal", "true"),
    ] {
        assert_eq!(values(&head, kept), [value], "{kept}");
    }
}

#[test]
fn a_sender_who_says_nothing_is_told_of_all_the_same() {
    for hop in [hop("192.0.2.1:5"), trusted("192.0.2.1:5")] {
        let head = forwarded_request(origin_form().body(()).unwrap(), &Hop { tls: true, ..hop });
        assert_eq!(values(&head, "x-forwarded-for"), ["192.0.2.1"]);
        assert_eq!(values(&head, "x-forwarded-proto"), ["https"]);
        assert_eq!(values(&head, "forwarded"), ["for=192.0.2.1;host=\"example.com:8080\";proto=https"]);
    }
}

#[test]
fn who_has_come_through_adit_too_often_goes_in_circles() {
    let passed = |via: &[&str]| {
        let mut request = origin_form();
        for value in via {
            request = request.header(VIA, *value);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        super::request(&mut head, &hop("192.0.2.1:5")).map_err(|failure| failure.cause())
    };
    let list = vec!["2.0 adit"; MAX_PASSES - 2].join(", ");
    assert_eq!(passed(&[&list, "1.1 adit"]), Ok(()));
    assert_eq!(passed(&[&list, "1.1 adit", "1.1 other, 1.1 anotheradit, 1.1 adit-x"]), Ok(()), "others do not count");
    assert_eq!(passed(&[&list, "1.1 adit", "1.1 other,1.1 adit"]), Err(Cause::Loop));
}

#[test]
fn via_tells_the_version_received_and_keeps_what_was_there() {
    let mut request = origin_form().header(VIA, "1.0 before").body(()).unwrap();
    *request.version_mut() = Version::HTTP_2;
    let head = forwarded_request(request, &hop("192.0.2.1:5"));
    let via: Vec<_> = head.headers.get_all(VIA).iter().collect();
    assert_eq!(via, ["1.0 before", "2.0 adit"]);
}

#[test]
fn forwarded_is_appended_and_quotes_what_is_no_token() {
    let request = origin_form().header(FORWARDED, "for=203.0.113.9").body(()).unwrap();
    let head = forwarded_request(request, &trusted("[2001:db8::1]:5"));
    let elements: Vec<_> = head.headers.get_all(FORWARDED).iter().collect();
    assert_eq!(elements, ["for=203.0.113.9", "for=\"[2001:db8::1]\";host=\"example.com:8080\";proto=http"]);
}

#[test]
fn an_ipv4_client_of_a_dual_stack_listener_is_told_as_ipv4() {
    let head = forwarded_request(origin_form().body(()).unwrap(), &hop("[::ffff:192.0.2.7]:5"));
    assert!(head.headers[FORWARDED].to_str().unwrap().starts_with("for=192.0.2.7;"));
}

#[test]
fn a_response_gets_via_and_says_nothing_of_a_client() {
    let claims = http::Response::builder().header("x-forwarded-client-cert", "a").header("forwarded", "for=b");
    let (mut head, ()) = claims.body(()).unwrap().into_parts();
    response(&mut head);
    assert_eq!(head.headers[VIA], "1.1 adit");
    assert_eq!(head.headers.len(), 1);
}

fn told(hop: Hop, forms: Forms, names: [&str; 3]) -> [Vec<String>; 3] {
    let head = forwarded_request(claims(), &Hop { forms, ..hop });
    names.map(|name| values(&head, name))
}

#[test]
fn a_form_that_is_not_written_is_not_passed_on_either() {
    let names = ["forwarded", "x-forwarded-for", "x-forwarded-host"];
    let (stranger, proxy) = (hop("192.0.2.1:5"), trusted("192.0.2.1:5"));
    let own = "for=192.0.2.1;host=\"example.com:8080\";proto=http";
    for (hop, forms, expected) in [
        (stranger, Forms::Rfc7239, [vec![own], vec![], vec![]]),
        (stranger, Forms::X, [vec![], vec!["192.0.2.1"], vec![]]),
        (stranger, Forms::None, [vec![], vec![], vec![]]),
        (proxy, Forms::Rfc7239, [vec!["for=203.0.113.11", own], vec![], vec![]]),
        (proxy, Forms::X, [vec![], vec!["203.0.113.9, 203.0.113.10, 203.0.113.11, 192.0.2.1"], vec!["shop.example"]]),
        (proxy, Forms::None, [vec![], vec![], vec![]]),
    ] {
        assert_eq!(told(hop, forms, names), expected, "{forms:?}");
    }
    let certificate = told(proxy, Forms::None, ["x-forwarded-client-cert", "x-real-ip", "x_forwarded_for"]);
    assert_eq!(certificate, [vec!["URI=spiffe://admin"], vec!["203.0.113.9"], vec![]], "no form of Forwarded");
}

#[test]
fn what_a_trusted_sender_said_in_the_older_form_only_is_said_anew() {
    let said = "203.0.113.9,2001:db8::7, ,, [2001:db8::8]:443, 203.0.113.10:80 ,_hidden, \"";
    let request = || origin_form().header("x-forwarded-for", said).body(()).unwrap();
    let hop = Hop { forms: Forms::Rfc7239, ..trusted("[2001:db8::1]:5") };
    let expected = [
        "for=203.0.113.9, for=\"[2001:db8::7]\", for=\"[2001:db8::8]\", for=203.0.113.10, for=unknown, for=unknown",
        "for=\"[2001:db8::1]\";host=\"example.com:8080\";proto=http",
    ];
    assert_eq!(values(&forwarded_request(request(), &hop), "forwarded"), expected);
    let stranger = Hop { trust: tests::hop("192.0.2.1:5").trust, ..hop };
    assert_eq!(values(&forwarded_request(request(), &stranger), "forwarded"), expected[1..]);
    // A long list, as a client behind a trusted proxy may send, becomes no larger one.
    for (said, kept) in [(",".repeat(60_000), 0), ("x,".repeat(30_000), 64)] {
        let head = forwarded_request(origin_form().header("x-forwarded-for", said).body(()).unwrap(), &hop);
        let told = values(&head, "forwarded");
        assert_eq!(told.iter().map(|value| value.matches("for=unknown").count()).sum::<usize>(), kept);
        assert!(told.len() <= 2 && told.iter().all(|value| value.len() < 1_000));
    }
}

#[test]
fn a_trusted_sender_is_not_believed_in_names_that_only_its_clients_write() {
    let request = origin_form().header("x_forwarded_for", "6.6.6.6").header("X-Forwarded_Proto", "https");
    let request = request.header("x-forwarded-for", "203.0.113.9").header("x_other", "kept").body(()).unwrap();
    let head = forwarded_request(request, &trusted("192.0.2.1:5"));
    for name in ["x_forwarded_for", "x-forwarded_proto"] {
        assert_eq!(values(&head, name), [""; 0], "{name}");
    }
    assert_eq!(values(&head, "x-forwarded-for"), ["203.0.113.9, 192.0.2.1"]);
    assert_eq!(values(&head, "x_other"), ["kept"]);
}

/// What a target is told in both forms of what a trusted sender says in these fields.
fn told_in_both(fields: &[(&str, &str)]) -> [String; 3] {
    let mut request = origin_form();
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let head = forwarded_request(request.body(()).unwrap(), &trusted("192.0.2.1:5"));
    ["forwarded", "x-forwarded-for", "x-forwarded-proto"].map(|name| values(&head, name).join(", "))
}

#[test]
fn the_two_forms_say_the_same_whatever_a_trusted_sender_wrote() {
    const OWN: &str = "for=192.0.2.1;host=\"example.com:8080\";proto=http";
    let told = |forwarded: &str, x: &str, proto: &str| {
        [format!("{forwarded}, {OWN}"), format!("{x}, 192.0.2.1"), proto.to_owned()]
    };
    // In one form only: it is said in the other one, too.
    assert_eq!(
        told_in_both(&[("x-forwarded-for", "203.0.113.9, 2001:db8::7"), ("x-forwarded-proto", "https")]),
        told("for=203.0.113.9, for=\"[2001:db8::7]\"", "203.0.113.9, 2001:db8::7", "https")
    );
    assert_eq!(
        told_in_both(&[
            ("forwarded", "for=203.0.113.9;proto=HTTPS, for=\"[2001:db8::7]:80\";proto=http"),
            ("forwarded", "for=_a")
        ]),
        told(
            "for=203.0.113.9;proto=HTTPS, for=\"[2001:db8::7]:80\";proto=http, for=_a",
            "203.0.113.9, 2001:db8::7, unknown",
            "https"
        )
    );
    assert_eq!(told_in_both(&[("forwarded", "proto=gopher;for=203.0.113.9")])[1..], ["203.0.113.9, 192.0.2.1", "http"]);
    // In both, and alike as far as both go: the one may know more.
    assert_eq!(
        told_in_both(&[("forwarded", "for=203.0.113.9"), ("x-forwarded-for", "198.51.100.7, 203.0.113.9")]),
        told("for=203.0.113.9", "198.51.100.7, 203.0.113.9", "http")
    );
    // In both, and differently: a client wrote the one, and nobody knows which.
    for forwarded in ["for=10.0.0.5", "for=203.0.113.9, for=10.0.0.5", "for=unknown", "for=\"203.0.113.9"] {
        assert_eq!(
            told_in_both(&[("forwarded", forwarded), ("x-forwarded-for", "203.0.113.9")]),
            told("for=unknown", "unknown", "http"),
            "{forwarded}"
        );
    }
    // A client that wrote the address of a proxy behind which it is would be that proxy to whoever reads the one form only.
    assert_eq!(
        told_in_both(&[("forwarded", "for=10.0.0.5"), ("x-forwarded-for", "203.0.113.9, 10.0.0.5")]),
        told("for=unknown", "unknown", "http")
    );
    assert_eq!(
        told_in_both(&[("forwarded", "for=203.0.113.9, for=10.0.0.5"), ("x-forwarded-for", "10.0.0.5")]),
        told("for=unknown", "unknown", "http")
    );
    // A long list becomes no larger one.
    for said in ["for=x,".repeat(10_000), ",".repeat(60_000)] {
        let [_, x, _] = told_in_both(&[("forwarded", &said)]);
        assert!(x.len() < 1_000, "{}", x.len());
    }
}

#[test]
fn what_a_stranger_says_in_either_form_is_said_in_none() {
    for name in ["forwarded", "x-forwarded-for"] {
        let request = origin_form().header(name, "for=203.0.113.9").body(()).unwrap();
        let head = forwarded_request(request, &hop("192.0.2.1:5"));
        assert_eq!(values(&head, "x-forwarded-for"), ["192.0.2.1"]);
        assert_eq!(values(&head, "forwarded"), ["for=192.0.2.1;host=\"example.com:8080\";proto=http"]);
    }
}
