use super::*;

const HEAD: Rules = Rules { is_head: true, max_fields: 4 };
const TRAILERS: Rules = Rules { is_head: false, max_fields: 4 };

/// A section that spells everything out.
fn section(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut section = vec![0, 0];
    for (name, value) in lines {
        put(&mut section, 0x20, 3, name);
        put(&mut section, 0x00, 7, value);
    }
    section
}

fn put(section: &mut Vec<u8>, first: u8, prefix: u32, text: &str) {
    let full = (1usize << prefix) - 1;
    match text.len() {
        length if length < full => section.push(first | length as u8),
        length => {
            section.push(first | full as u8);
            let mut rest = length - full;
            while rest >= 0x80 {
                section.push((rest & 0x7f) as u8 | 0x80);
                rest >>= 7;
            }
            section.push(rest as u8);
        }
    }
    section.extend_from_slice(text.as_bytes());
}

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "https"), (":authority", "a.example"), (":path", "/x")];

fn with(more: &[(&str, &str)]) -> Vec<u8> {
    section(&[&GET, more].concat())
}

fn judged(section: &[u8]) -> Result<Judged, Violation> {
    judge(section, HEAD).unwrap().map_err(|refused| refused.violation)
}

#[test]
fn of_a_section_that_is_refused_it_is_known_whether_it_is_a_call() {
    let of = |kind: &str| judge(&with(&[("content-type", kind), ("Bad", "1")]), HEAD).unwrap().unwrap_err();
    for (kind, is_call) in [("application/grpc+proto", true), ("application/grpc-web", false), ("text/plain", false)] {
        assert_eq!(of(kind), Refused { violation: Violation::Syntax, is_call }, "{kind}");
    }
    // Its name from the static table, behind what is refused.
    let named = [&[0, 0, 0xd1, 0xd1, 0x5f, 29, 16][..], b"application/grpc"].concat();
    assert!(judge(&named, HEAD).unwrap().unwrap_err().is_call);
}

#[test]
fn a_plain_request_goes_on_as_it_is() {
    for section in [with(&[]), with(&[("accept", "*/*"), ("cookie", "a"), ("cookie", "b")])] {
        assert_eq!(judged(&section), Ok(Judged::default()));
    }
    // GET, https, / by index, and :authority with the name of a static entry.
    let indexed = [0, 0, 0xd1, 0xd7, 0xc1, 0x50, 1, b'a'];
    assert_eq!(judged(&indexed), Ok(Judged::default()));
}

#[test]
fn pseudo_fields_are_known_complete_in_front_and_once() {
    for more in [
        (":method", "GET"),
        (":authority", "a.example"),
        (":path", "/"),
        (":scheme", "https"),
        (":status", "200"),
        (":x", "1"),
        (":protocol", "websocket"),
    ] {
        assert_eq!(judged(&with(&[more])), Err(Violation::Syntax), "{more:?}");
    }
    let late = section(&[GET[0], GET[1], GET[2], ("a", "b"), GET[3]]);
    assert_eq!(judged(&late), Err(Violation::Syntax));
    for missing in [0, 1, 3] {
        let mut lines = GET.to_vec();
        lines.remove(missing);
        assert_eq!(judged(&section(&lines)), Err(Violation::Syntax), "{missing}");
    }
    // :status 200 and 421 of the static table.
    for index in [0xd9, 0xff] {
        let mut bytes = with(&[]);
        bytes.extend_from_slice(&[index, 1][..if index == 0xff { 2 } else { 1 }]);
        assert_eq!(judged(&bytes), Err(Violation::Syntax));
    }
}

#[test]
fn a_path_has_no_fragment() {
    for path in ["/raw/a?q#x", "/#", "#", "/a%23#?q"] {
        let lines = section(&[GET[0], GET[1], GET[2], (":path", path)]);
        assert_eq!(judged(&lines), Err(Violation::Target), "{path}");
    }
    assert_eq!(judged(&section(&[GET[0], GET[1], GET[2], (":path", "/a%23?q")])), Ok(Judged::default()));
}

#[test]
fn names_are_lower_case_tokens() {
    for name in ["X-A", "a b", "", "a:", "\u{7f}"] {
        assert_eq!(judged(&with(&[(name, "1")])), Err(Violation::Syntax), "{name:?}");
    }
}

#[test]
fn host_and_authority_agree_or_one_is_there() {
    let same = with(&[("host", "A.example:443"), ("x", "y")]);
    let judged_same = judged(&same).unwrap();
    assert_eq!(judged_same.cut(&same), with(&[("x", "y")]));
    assert_eq!(judged(&with(&[("host", "b.example")])), Err(Violation::HostMismatch));
    assert_eq!(judged(&with(&[("host", "a.example"), ("host", "a.example")])), Err(Violation::DuplicateHost));
    let only_host = section(&[GET[0], GET[1], GET[3], ("host", "a.example")]);
    assert_eq!(judged(&only_host), Ok(Judged::default()));
    assert_eq!(judged(&section(&[GET[0], GET[1], GET[3]])), Err(Violation::MissingHost));
    for bad in ["", "u@a", "a b"] {
        let named = section(&[GET[0], GET[1], (":authority", bad), GET[3]]);
        assert_eq!(judged(&named), Err(Violation::BadHost), "{bad:?}");
    }
}

#[test]
fn connect_has_an_authority_and_only_with_a_protocol_the_rest() {
    let connect = (":method", "CONNECT");
    assert_eq!(judged(&section(&[connect, GET[2]])), Ok(Judged::default()));
    assert_eq!(judged(&section(&[connect, GET[1], GET[2], GET[3]])), Err(Violation::Syntax));
    let protocol = (":protocol", "websocket");
    let extended = section(&[connect, protocol, GET[1], GET[2], GET[3]]);
    let found = judged(&extended).unwrap();
    assert_eq!(found.protocol.as_deref(), Some(&b"websocket"[..]));
    assert_eq!(found.cut(&extended), section(&[connect, GET[1], GET[2], GET[3]]));
    assert_eq!(judged(&section(&[connect, protocol, GET[2]])), Err(Violation::Syntax));
    let long = "x".repeat(65);
    let long = section(&[connect, (":protocol", &long), GET[1], GET[2], GET[3]]);
    assert_eq!(judged(&long), Err(Violation::Upgrade), "as over HTTP/2");
}

#[test]
fn fields_are_counted_whatever_they_cost_on_the_wire() {
    let mut bomb = with(&[]);
    bomb.extend_from_slice(&[0xc2; 5]);
    assert_eq!(judged(&bomb), Err(Violation::TooManyFields));
}

#[test]
fn trailers_are_fields_only() {
    let judged =
        |lines: &[(&str, &str)]| judge(&section(lines), TRAILERS).unwrap().map_err(|refused| refused.violation);
    assert_eq!(judged(&[("grpc-status", "0")]), Ok(Judged::default()));
    for bad in [":path", ":x", "X", ":status"] {
        assert_eq!(judged(&[("a", "b"), (bad, "1")]), Err(Violation::Trailers), "{bad}");
    }
}

#[test]
fn what_is_no_section_or_needs_a_dynamic_table_is_broken() {
    let whole = with(&[("accept", "*/*")]);
    for end in 0..whole.len() {
        // Cut between two lines it is a shorter section.
        assert!(judge(&whole[..end], HEAD) != Ok(Ok(Judged::default())) || end > 30, "{end}");
    }
    for broken in [&[1, 0][..], &[0, 0, 0x80], &[0, 0, 0x10], &[0, 0, 0x40, 0], &[0, 0, 0xff, 0x24], &[0, 0, 0x28, 0]] {
        let empty_name = broken == [0, 0, 0x28, 0];
        assert_eq!(judge(broken, HEAD).is_err(), !empty_name, "{broken:?}");
    }
}

#[test]
fn huffman_codes_are_read() {
    // :authority "www.example.com", RFC 7541 C.4.1.
    let coded = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
    let mut named = vec![0, 0, 0xd1, 0xd7, 0xc1, 0x50, 0x80 | coded.len() as u8];
    named.extend_from_slice(&coded);
    put(&mut named, 0x20, 3, "host");
    put(&mut named, 0, 7, "www.example.com");
    assert_eq!(judged(&named).unwrap().cuts.len(), 1);
}
