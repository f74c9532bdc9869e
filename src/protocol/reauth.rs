//! REAUTH and REAUTHED: a live tunnel is shown another credential, and what becomes of that. spec: CT-32, CT-54 to CT-57
//!
//! A certificate is proven by a signature of its key over what only the two ends of this very connection know, so that it is worth
//! nothing in any other.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::protocol::code::RefusalCode;
use crate::protocol::handshake::{Refusal, Token};
use crate::protocol::limits;
use crate::protocol::varint;
use crate::protocol::wire::{Cursor, Fields, Malformed, printable, put_field, put_sized, text, unknown_field, whole};

/// The label under which TLS exports what a signature is bound to; its context is empty. RFC 8446 section 7.5, spec: CT-54
pub const EXPORTER_LABEL: &[u8] = b"EXPERIMENTAL adit/1 reauth";
/// What tells the signature from any other of the same key. spec: CT-54
pub const SIGNATURE_CONTEXT: &[u8] = b"adit/1, REAUTH of an initiator";
/// How many spaces stand in front, as in TLS. RFC 8446 section 4.4.3
const PADDING: usize = 64;

/// What TLS exports of one connection under [`EXPORTER_LABEL`]: the same at both ends, and of no other connection. spec: CT-54
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Binding(pub [u8; 32]);

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Binding")
    }
}

/// Initiator: another credential. spec: CT-32
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reauth {
    /// Rises from one to the next of a tunnel.
    pub number: u64,
    /// Takes the place of the token that was shown last.
    pub token: Option<Token>,
    /// Takes the place of the certificate that was shown last.
    pub certificate: Option<ProvenChain>,
}

/// A certificate chain, and the proof that its first key is at hand. spec: CT-54
#[derive(Clone, PartialEq, Eq)]
pub struct ProvenChain {
    /// DER, its owner's certificate first; 1 to 16, none of them empty.
    pub chain: Vec<Bytes>,
    /// How it was signed: a number of TLS' SignatureScheme.
    pub scheme: u16,
    /// The signature over [`signed_text`]; at least a byte.
    pub signature: Bytes,
}

/// Responder: what becomes of a REAUTH, and of those before it. spec: CT-56
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reauthed {
    /// That of the REAUTH.
    pub number: u64,
    /// Why it does not count; `None` if it does. Without a retry-after.
    pub refusal: Option<Refusal>,
}

impl fmt::Debug for ProvenChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvenChain({} certificates, scheme {:#06x})", self.chain.len(), self.scheme)
    }
}

/// The bytes that the key of the first certificate signs. spec: CT-54
pub fn signed_text(binding: &Binding, number: u64, chain: &[impl AsRef<[u8]>]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_bytes(b' ', PADDING);
    out.put_slice(SIGNATURE_CONTEXT);
    out.put_u8(0);
    out.put_slice(&binding.0);
    out.put_u64(number);
    put_chain(&mut out, chain);
    out.freeze()
}

fn put_chain(out: &mut BytesMut, chain: &[impl AsRef<[u8]>]) {
    chain.iter().for_each(|certificate| put_sized(out, certificate.as_ref()));
}

/// The ids of REAUTH's fields.
mod shown {
    pub(super) const NUMBER: u64 = 1;
    pub(super) const TOKEN: u64 = 2;
    pub(super) const CERTIFICATES: u64 = 3;
    pub(super) const SIGNATURE: u64 = 5;
}

/// The ids of REAUTHED's fields.
mod answered {
    pub(super) const NUMBER: u64 = 1;
    pub(super) const REFUSAL: u64 = 3;
    pub(super) const REASON: u64 = 5;
}

impl Reauth {
    /// The ids of the fields, by name.
    pub const FIELDS: [(&str, u64); 4] = [
        ("number", shown::NUMBER),
        ("token", shown::TOKEN),
        ("certificates", shown::CERTIFICATES),
        ("signature", shown::SIGNATURE),
    ];

    /// Appends the payload of a REAUTH frame.
    pub fn encode(&self, out: &mut BytesMut) {
        put_field(out, shown::NUMBER, |out| varint::encode(out, self.number));
        if let Some(token) = &self.token {
            put_field(out, shown::TOKEN, |out| out.put_slice(token));
        }
        if let Some(ProvenChain { chain, scheme, signature }) = &self.certificate {
            put_field(out, shown::CERTIFICATES, |out| put_chain(out, chain));
            put_field(out, shown::SIGNATURE, |out| {
                varint::encode(out, (*scheme).into());
                out.put_slice(signature);
            });
        }
    }

    /// Whether it fits a frame.
    pub fn fits(&self) -> bool {
        let mut payload = BytesMut::new();
        self.encode(&mut payload);
        payload.len() <= limits::MAX_CONTROL_PAYLOAD
    }

    /// Reads the payload of a REAUTH frame. spec: CT-32
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(payload);
        let (mut number, mut token, mut chain, mut signature) = (None, None, None, None);
        while let Some((id, value)) = fields.next()? {
            match id {
                shown::NUMBER => number = Some(whole(value, Cursor::varint)?),
                shown::TOKEN => token = Some(Token::decode(value)?),
                shown::CERTIFICATES => chain = Some(read_chain(value)?),
                shown::SIGNATURE => signature = Some(read_signature(value)?),
                other => unknown_field(other)?,
            }
        }
        let certificate = match (chain, signature) {
            (Some(chain), Some((scheme, signature))) => Some(ProvenChain { chain, scheme, signature }),
            (Some(_), None) => return Err(Malformed::Missing("signature")),
            (None, Some(_)) => return Err(Malformed::Missing("certificates")),
            (None, None) => None,
        };
        if token.is_none() && certificate.is_none() {
            return Err(Malformed::Missing("credential"));
        }
        Ok(Self { number: number.ok_or(Malformed::Missing("number"))?, token, certificate })
    }
}

fn read_chain(value: &[u8]) -> Result<Vec<Bytes>, Malformed> {
    let (mut cursor, mut chain) = (Cursor::new(value), Vec::new());
    while !cursor.is_empty() {
        let certificate = cursor.sized()?;
        if certificate.is_empty() || chain.len() == limits::MAX_CERTIFICATES {
            return Err(Malformed::Invalid("certificate list"));
        }
        chain.push(Bytes::copy_from_slice(certificate));
    }
    if chain.is_empty() { Err(Malformed::Invalid("certificate list")) } else { Ok(chain) }
}

fn read_signature(value: &[u8]) -> Result<(u16, Bytes), Malformed> {
    let mut cursor = Cursor::new(value);
    let scheme = u16::try_from(cursor.varint()?).map_err(|_| Malformed::Invalid("signature scheme"))?;
    let signature = cursor.bytes(cursor.len())?;
    if signature.is_empty() {
        Err(Malformed::Invalid("signature"))
    } else {
        Ok((scheme, Bytes::copy_from_slice(signature)))
    }
}

impl Reauthed {
    /// The ids of the fields, by name.
    pub const FIELDS: [(&str, u64); 3] =
        [("number", answered::NUMBER), ("refusal", answered::REFUSAL), ("reason", answered::REASON)];

    /// Appends the payload of a REAUTHED frame.
    pub fn encode(&self, out: &mut BytesMut) {
        put_field(out, answered::NUMBER, |out| varint::encode(out, self.number));
        if let Some(Refusal { code, reason, .. }) = &self.refusal {
            put_field(out, answered::REFUSAL, |out| varint::encode(out, code.number().into()));
            let reason = printable(reason, limits::MAX_REASON_BYTES);
            put_field(out, answered::REASON, |out| out.put_slice(reason.as_bytes()));
        }
    }

    /// Reads the payload of a REAUTHED frame. spec: CT-56
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(payload);
        let (mut number, mut code, mut reason) = (None, None, None);
        while let Some((id, value)) = fields.next()? {
            match id {
                answered::NUMBER => number = Some(whole(value, Cursor::varint)?),
                answered::REFUSAL => {
                    let number = whole(value, Cursor::varint)?;
                    code = Some(RefusalCode::nearest(number).ok_or(Malformed::Invalid("refusal"))?);
                }
                answered::REASON => reason = Some(text(value, limits::MAX_REASON_BYTES, "reason")?),
                other => unknown_field(other)?,
            }
        }
        let refusal = match (code, reason) {
            (Some(code), Some(reason)) => Some(Refusal { code, reason, retry_after: None }),
            (Some(_), None) => return Err(Malformed::Missing("reason")),
            (None, Some(_)) => return Err(Malformed::Missing("refusal")),
            (None, None) => None,
        };
        Ok(Self { number: number.ok_or(Malformed::Missing("number"))?, refusal })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    // spec: CT-54
    #[test]
    fn what_is_signed_is_told_apart_by_connection_number_and_chain() {
        let (binding, chain) = (Binding([7; 32]), [[0xaa_u8, 0xbb].to_vec(), [0xcc].to_vec()]);
        let mut expected = vec![b' '; 64];
        expected.extend(b"adit/1, REAUTH of an initiator\0");
        expected.extend([7; 32]);
        expected.extend([0, 0, 0, 0, 0, 0, 1, 2]);
        expected.extend([2, 0xaa, 0xbb, 1, 0xcc]);
        assert_eq!(signed_text(&binding, 0x0102, &chain), expected);
        for other in [
            signed_text(&Binding([8; 32]), 0x0102, &chain),
            signed_text(&binding, 0x0103, &chain),
            signed_text(&binding, 0x0102, &chain[..1]),
        ] {
            assert_ne!(other, expected);
        }
        assert_eq!(format!("{binding:?}"), "Binding");
    }

    prop_compose! {
        fn proven()(
            chain in vec(vec(any::<u8>(), 1..200), 1..5),
            scheme: u16,
            signature in vec(any::<u8>(), 1..100),
        ) -> ProvenChain {
            ProvenChain { chain: chain.into_iter().map(Bytes::from).collect(), scheme, signature: signature.into() }
        }
    }

    proptest! {
        // spec: CT-32
        #[test]
        fn a_reauth_round_trips(
            number in 0..=varint::MAX,
            token in proptest::option::of(vec(any::<u8>(), 1..100)),
            certificate in proptest::option::of(proven()),
        ) {
            let token = token.and_then(Token::new);
            let shows = token.is_some() || certificate.is_some();
            let reauth = Reauth { number, token, certificate };
            let mut out = BytesMut::new();
            reauth.encode(&mut out);
            let expected = if shows { Ok(reauth) } else { Err(Malformed::Missing("credential")) };
            prop_assert_eq!(Reauth::decode(&out), expected);
        }

        // spec: CT-56
        #[test]
        fn a_reauthed_round_trips(
            number in 0..=varint::MAX,
            refusal in proptest::option::of((0..RefusalCode::ALL.len(), "\\PC{0,100}")),
        ) {
            let refusal = refusal.map(|(code, reason)| Refusal { code: RefusalCode::ALL[code], reason, retry_after: None });
            let reauthed = Reauthed { number, refusal };
            let mut out = BytesMut::new();
            reauthed.encode(&mut out);
            prop_assert_eq!(Reauthed::decode(&out), Ok(reauthed));
        }
    }
}
