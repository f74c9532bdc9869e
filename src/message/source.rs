//! Where a request comes from, by the word of those who have handed it on: what stands in `Forwarded` (RFC 7239) and in
//! `X-Forwarded-For`, read from its end, since whoever hands a request on writes behind what was there.

use std::net::IpAddr;

use http::HeaderMap;

use crate::message::forward::Forms;
use crate::message::named::{Said, client, in_forwarded, in_x_forwarded_for};
use crate::message::trust::Trust;

/// Who sent a request that came from `remote`: that one, or whom it names if it is trusted, or whom that one names who is trusted
/// as well, and so on. Of the forms those count that a target is told by; where both do, and both are there, they must agree.
///
/// `None`: a trusted sender does not say it, or says it in two ways. Nothing is known then.
pub fn of_request(fields: &HeaderMap, remote: IpAddr, trust: &Trust, forms: Forms) -> Option<IpAddr> {
    if !trust.covers(remote) {
        return Some(remote);
    }
    let forwarded = || client(in_forwarded(fields), trust);
    let x = || client(in_x_forwarded_for(fields), trust);
    let said = match forms {
        Forms::X => x(),
        // Who writes the older form alone is told from who writes the other one by that it is not there.
        Forms::Rfc7239 => match forwarded() {
            Said::Nothing => x(),
            said => said,
        },
        Forms::Both | Forms::None => match (forwarded(), x()) {
            (Said::Nothing, said) | (said, Said::Nothing) => said,
            (one, other) if one == other => one,
            _ => Said::Unclear,
        },
    };
    match said {
        Said::Nothing => Some(remote),
        Said::By(client) => Some(client),
        Said::Unclear => None,
    }
}

/// Who stands last in `Forwarded`, or where that is not there or does not count in `X-Forwarded-For`. `None`: nobody that can be
/// read.
pub fn last(fields: &HeaderMap, is_forwarded_counted: bool) -> Option<IpAddr> {
    match in_forwarded(fields).next() {
        Some(last) if is_forwarded_counted => last,
        _ => in_x_forwarded_for(fields).next()?,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn fields(all: &[(&str, &str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in all {
            fields.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        fields
    }

    fn of(all: &[(&str, &str)], forms: Forms) -> Option<String> {
        let trust = Trust::new(vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()]);
        of_request(&fields(all), "10.0.0.1".parse().unwrap(), &trust, forms).map(|client| client.to_string())
    }

    #[test]
    fn whom_a_trusted_sender_names_is_the_client_and_whom_that_one_names_who_is_trusted_too() {
        for (said, client) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7, 10.0.0.9", "192.0.2.7"),
            ("6.6.6.6, 192.0.2.7, 10.0.0.9", "192.0.2.7"),
            ("6.6.6.6,192.0.2.7:4711", "192.0.2.7"),
            ("10.0.0.5, 10.0.0.9", "10.0.0.5"),
            ("[2001:db8::1]:5, 10.0.0.9", "2001:db8::1"),
            ("2001:db9::1, 2001:db8::1", "2001:db9::1"),
        ] {
            assert_eq!(of(&[("x-forwarded-for", said)], Forms::Both).as_deref(), Some(client), "{said}");
        }
        let lines = [("x-forwarded-for", "6.6.6.6, 192.0.2.7"), ("x-forwarded-for", "10.0.0.9")];
        assert_eq!(of(&lines, Forms::X).as_deref(), Some("192.0.2.7"));
        let forwarded = [("forwarded", "for=6.6.6.6, for=\"[2001:db9::1]:80\";proto=https, for=10.0.0.9;by=10.0.0.1")];
        assert_eq!(of(&forwarded, Forms::Both).as_deref(), Some("2001:db9::1"));
        assert_eq!(of(&[], Forms::Both).as_deref(), Some("10.0.0.1"), "it is the client itself");
    }

    #[test]
    fn nobody_else_is_believed() {
        let said = fields(&[("x-forwarded-for", "10.0.0.5"), ("forwarded", "for=10.0.0.5")]);
        let remote = "192.0.2.7".parse().unwrap();
        for trust in [Trust::default(), Trust::new(vec!["10.0.0.0/8".parse().unwrap()])] {
            assert_eq!(of_request(&said, remote, &trust, Forms::Both), Some(remote));
        }
    }

    #[test]
    fn what_is_unclear_or_said_in_two_ways_is_not_known() {
        for said in ["unknown", "192.0.2.7, _hidden", "192.0.2.7,", ""] {
            assert_eq!(of(&[("x-forwarded-for", said)], Forms::Both), None, "{said:?}");
        }
        for said in ["for=unknown", "proto=https", "for=\"192.0.2.7", "for=192.0.2.7, for=\"10.0.0.9"] {
            assert_eq!(of(&[("forwarded", said)], Forms::Both), None, "{said:?}");
        }
        // A client wrote the one, and its proxy the other: nobody knows which.
        let both = [("forwarded", "for=10.0.0.5"), ("x-forwarded-for", "192.0.2.7")];
        assert_eq!(of(&both, Forms::Both), None);
        assert_eq!(of(&both, Forms::X).as_deref(), Some("192.0.2.7"));
        assert_eq!(of(&both, Forms::Rfc7239).as_deref(), Some("10.0.0.5"));
        let same = [("forwarded", "for=192.0.2.7"), ("x-forwarded-for", "192.0.2.7")];
        assert_eq!(of(&same, Forms::None).as_deref(), Some("192.0.2.7"));
        assert_eq!(of(&same[1..], Forms::Rfc7239).as_deref(), Some("192.0.2.7"), "it is said anew");
    }
}
