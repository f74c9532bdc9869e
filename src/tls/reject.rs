//! Why a peer's certificate was not accepted, in words that say which certificate, what was seen and what was expected.

use std::fmt;

use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;

use crate::id::SpkiPin;
use crate::tls::certificate::{Summary, Utc, hosts, shown};

/// How many names or pins a text lists before it says "and N more".
const MAX_LISTED: usize = 3;

/// How rustls prints the cause of a verification that a verifier of its user refused.
const WRAPPER: (&str, &str) = ("Other(OtherError(", "))");

/// How rustls says that a client that has to show a certificate showed none.
const NONE_SHOWN: &str = "peer sent no certificates";

/// Whose certificate it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A responder's, seen by an initiator.
    Responder,
    /// An initiator's, seen by a responder.
    Initiator,
    /// That of an HTTP client of an egress listener.
    Client,
    /// A target's, seen by an initiator.
    Target,
    /// Another responder's of the same fleet.
    Sibling,
}

impl Peer {
    /// The word in texts.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Responder => "responder",
            Self::Initiator => "initiator",
            Self::Client => "client",
            Self::Target => "target",
            Self::Sibling => "sibling",
        }
    }
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Its time is over.
    Expired {
        /// The clock of this end.
        now: OffsetDateTime,
    },
    /// Its time has not begun.
    NotYetValid {
        /// The clock of this end.
        now: OffsetDateTime,
    },
    /// The configured root that vouches for it has ended.
    RootExpired {
        /// The root.
        root: Box<Summary>,
        /// The clock of this end.
        now: OffsetDateTime,
    },
    /// The time of the configured root that vouches for it has not begun.
    RootNotYetValid {
        /// The root.
        root: Box<Summary>,
        /// The clock of this end.
        now: OffsetDateTime,
    },
    /// No configured root vouches for it.
    Untrusted {
        /// Subjects of the configured roots.
        roots: Vec<String>,
    },
    /// A configured CRL lists it, or one of its issuers.
    Revoked,
    /// CRLs are configured, but none speaks about it.
    RevocationUnknown,
    /// It is not for the name that was dialled.
    WrongName {
        /// The name that was dialled.
        expected: String,
        /// The names it is for.
        presented: Vec<String>,
    },
    /// Its key is not a pinned one.
    WrongPin {
        /// The pins that would be accepted.
        expected: Vec<SpkiPin>,
    },
    /// Its extended key usage does not allow this role.
    WrongPurpose,
    /// Anything else, as rustls says it.
    Other(String),
}

impl Fault {
    /// The metric label and the word in logs.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::RootExpired { .. } => "root_expired",
            Self::RootNotYetValid { .. } => "root_not_yet_valid",
            Self::Untrusted { .. } => "untrusted",
            Self::Revoked => "revoked",
            Self::RevocationUnknown => "revocation_unknown",
            Self::WrongName { .. } => "wrong_name",
            Self::WrongPin { .. } => "wrong_pin",
            Self::WrongPurpose => "wrong_purpose",
            Self::Other(_) => "other",
        }
    }
}

/// A peer's certificate that was not accepted. Travels inside the `rustls::Error`; [`Rejection::find`] gets it back.
#[derive(Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Whose it is.
    pub peer: Peer,
    /// The certificate at fault; `None` if it could not be read.
    pub certificate: Option<Summary>,
    /// What is wrong with it.
    pub fault: Fault,
}

impl std::error::Error for Rejection {}

impl Rejection {
    /// The rejection that `error` carries, if it carries one. Does not survive quinn, which keeps the text only.
    pub fn find(error: &rustls::Error) -> Option<&Self> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
            _ => None,
        }
    }

    /// The words of a rejection without what rustls and quinn put around them; other texts unchanged. For the text of
    /// a QUIC error, on either side.
    pub fn plain(text: &str) -> &str {
        text.split_once(WRAPPER.0).and_then(|(_, rest)| rest.strip_suffix(WRAPPER.1)).unwrap_or(text)
    }

    /// Why a client is not let in, from the text of the error with which its handshake failed, of TLS or of QUIC: the words of a
    /// rejection, or that it showed nothing. `None`: it failed otherwise.
    pub fn of_client(text: &str) -> Option<&str> {
        let words = Self::plain(text);
        if words.len() < text.len() {
            return Some(words);
        }
        text.contains(NONE_SHOWN).then_some("it showed no certificate, and one is asked for")
    }

    /// A key that is not among the pins.
    pub(super) fn pin(peer: Peer, certificate: &CertificateDer<'_>, expected: &[SpkiPin]) -> Self {
        Self {
            peer,
            certificate: Summary::of(certificate).ok(),
            fault: Fault::WrongPin { expected: expected.to_vec() },
        }
    }

    /// Puts what rustls found into words. `chain` is what the peer showed, its own certificate first.
    pub(super) fn chain(peer: Peer, chain: &[&CertificateDer<'_>], roots: &[String], error: &rustls::Error) -> Self {
        use CertificateError as E;
        let names = || chain.first().map(|own| hosts(own)).unwrap_or_default();
        let shown_by_peer: Vec<Summary> = chain.iter().filter_map(|der| Summary::of(der).ok()).collect();
        let untrusted = || Fault::Untrusted { roots: roots.to_vec() };
        let mut at_fault = shown_by_peer.first();
        let fault = match error {
            rustls::Error::InvalidCertificate(E::ExpiredContext { time, not_after }) => {
                at_fault = shown_by_peer.iter().find(|c| c.not_after == moment(*not_after)).or(at_fault);
                Fault::Expired { now: moment(*time) }
            }
            rustls::Error::InvalidCertificate(E::NotValidYetContext { time, not_before }) => {
                at_fault = shown_by_peer.iter().find(|c| c.not_before == moment(*not_before)).or(at_fault);
                Fault::NotYetValid { now: moment(*time) }
            }
            rustls::Error::InvalidCertificate(E::UnknownIssuer | E::BadSignature) => untrusted(),
            rustls::Error::InvalidCertificate(E::Revoked) => Fault::Revoked,
            rustls::Error::InvalidCertificate(E::UnknownRevocationStatus) => Fault::RevocationUnknown,
            rustls::Error::InvalidCertificate(E::NotValidForNameContext { expected, .. }) => {
                Fault::WrongName { expected: expected.to_str().into_owned(), presented: names() }
            }
            rustls::Error::InvalidCertificate(E::InvalidPurpose | E::InvalidPurposeContext { .. }) => {
                Fault::WrongPurpose
            }
            other => Fault::Other(shown(&other.to_string())),
        };
        Self { peer, certificate: at_fault.cloned(), fault }
    }

    fn issuer(&self) -> &str {
        self.certificate.as_ref().map_or("unknown", |certificate| &certificate.issuer)
    }
}

impl From<Rejection> for rustls::Error {
    fn from(rejection: Rejection) -> Self {
        Self::InvalidCertificate(CertificateError::Other(rustls::OtherError(std::sync::Arc::new(rejection))))
    }
}

/// The same words: rustls, and quinn after it, print the cause of a failed verification with `Debug`.
impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {}'s certificate ", self.peer.label())?;
        match &self.certificate {
            Some(certificate) => write!(f, "{certificate} ")?,
            None => f.write_str("(unreadable) ")?,
        }
        match &self.fault {
            Fault::Expired { now } => self.write_dates(f, "has expired", *now),
            Fault::NotYetValid { now } => self.write_dates(f, "is not valid yet", *now),
            Fault::RootExpired { root, now } => write_root(f, root, "which has expired", *now),
            Fault::RootNotYetValid { root, now } => write_root(f, root, "which is not valid yet", *now),
            Fault::Untrusted { roots } => self.write_untrusted(f, roots),
            Fault::Revoked => f.write_str("or one of its issuers is revoked by a configured CRL; issue a new one"),
            Fault::RevocationUnknown => write!(
                f,
                "is covered by no configured CRL; expected one of issuer \"{}\" and of every issuer above it",
                self.issuer()
            ),
            Fault::WrongName { expected, presented } => {
                write!(f, "is not for the name dialled, \"{expected}\"; it is for {}", Listed(presented))
            }
            Fault::WrongPin { expected } => write!(f, "has a key that is not pinned; expected {}", Listed(expected)),
            Fault::WrongPurpose => write!(
                f,
                "may not be used by this role; expected extended key usage {} or none",
                match self.peer {
                    Peer::Responder | Peer::Target => "serverAuth",
                    Peer::Initiator | Peer::Client => "clientAuth",
                    Peer::Sibling => "serverAuth and clientAuth",
                }
            ),
            Fault::Other(reason) => write!(f, "is not acceptable: {reason}"),
        }
    }
}

impl Rejection {
    fn write_dates(&self, f: &mut fmt::Formatter<'_>, what: &str, now: OffsetDateTime) -> fmt::Result {
        f.write_str(what)?;
        if let Some(certificate) = &self.certificate {
            write!(f, ": {}", Dates(certificate))?;
        }
        write!(f, ", and the clock here says {}; renew it, or correct the clock", Utc(now))
    }

    fn write_untrusted(&self, f: &mut fmt::Formatter<'_>, roots: &[String]) -> fmt::Result {
        let issuer = self.issuer();
        write!(f, "is not signed by a trusted CA: its issuer is \"{issuer}\", ")?;
        if roots.iter().any(|root| root == issuer) {
            f.write_str("and the trusted CA of that name has another key")
        } else {
            write!(f, "trusted here is {}", Listed(roots))
        }
    }
}

fn write_root(f: &mut fmt::Formatter<'_>, root: &Summary, what: &str, now: OffsetDateTime) -> fmt::Result {
    write!(f, "is signed by the trusted CA \"{}\", {what}: {}, ", root.subject, Dates(root))?;
    write!(f, "and the clock here says {}; replace the CA on both sides, or correct the clock", Utc(now))
}

/// From when to when a certificate is valid.
struct Dates<'a>(&'a Summary);

impl fmt::Display for Dates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "valid from {} to {}", Utc(self.0.not_before), Utc(self.0.not_after))
    }
}

struct Listed<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (index, item) in self.0.iter().take(MAX_LISTED).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}\"{item}\"")?;
        }
        match self.0.len().saturating_sub(MAX_LISTED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

pub(super) fn moment(time: UnixTime) -> OffsetDateTime {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
