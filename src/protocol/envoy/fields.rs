//! The fields of a head that has been parsed, and how they frame what follows it.

/// The fields of one head, in their order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'h>(pub(super) &'h [httparse::Header<'h>]);

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Nothing says.
    Unstated,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

impl<'h> Fields<'h> {
    /// Every value of `name`, without the space around it.
    pub(super) fn all(self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        let named = move |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
        self.0.iter().filter(named).map(|field| field.value.trim_ascii())
    }

    /// The first value of `name`: the one that counts for Envoy.
    pub(super) fn first(self, name: &str) -> Option<&'h [u8]> {
        self.all(name).next()
    }

    /// Whether two fields of this name say different things.
    pub(super) fn contradict(self, name: &str) -> bool {
        let mut values = self.all(name);
        values.next().is_some_and(|first| values.any(|value| value != first))
    }

    /// How the body is framed; `None` if that is not certain, which is where two readers come to differ. spec: EV-10
    pub(super) fn framing(self) -> Option<Framing> {
        let (mut lengths, mut codings) = (self.all("content-length"), self.all("transfer-encoding"));
        let framing = match (lengths.next(), codings.next()) {
            (None, None) => Framing::Unstated,
            (Some(length), None) => Framing::Length(number(length)?),
            (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
            _ => return None,
        };
        (lengths.next().is_none() && codings.next().is_none()).then_some(framing)
    }
}

/// A decimal number, digits only; one beyond 64 bits counts as the largest.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(text.iter().fold(0, add))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(fields: &[(&str, &str)]) -> Option<Framing> {
        let lines: Vec<_> =
            fields.iter().map(|(name, value)| httparse::Header { name, value: value.as_bytes() }).collect();
        Fields(&lines).framing()
    }

    // spec: EV-10
    #[test]
    fn a_body_is_framed_in_one_way_or_not_at_all() {
        assert_eq!(framing(&[]), Some(Framing::Unstated));
        assert_eq!(framing(&[("Content-Length", "12")]), Some(Framing::Length(12)));
        assert_eq!(framing(&[("content-length", "99999999999999999999999")]), Some(Framing::Length(u64::MAX)));
        assert_eq!(framing(&[("transfer-encoding", " Chunked")]), Some(Framing::Chunked));
        for doubtful in [
            &[("content-length", "0"), ("content-length", "0")][..],
            &[("content-length", "0"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("content-length", "-1")],
            &[("content-length", "")],
            &[("content-length", "0x0")],
        ] {
            assert_eq!(framing(doubtful), None, "{doubtful:?}");
        }
    }
}
