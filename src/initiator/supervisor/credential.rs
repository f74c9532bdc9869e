//! What one connection shows its responder, and how that becomes something else while it is up. spec: CT-57

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::initiator::snapshot::Prepared;
use crate::protocol::handshake::Token;
use crate::protocol::reauth::{ProvenChain, Reauth, Reauthed, signed_text};
use crate::tls::{Credentials, InitiatorTls};
use crate::transport::Tunnel;

/// How long an answer may take. spec: CT-57
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon something may be shown again on one tunnel. spec: SE-14
const SHOW_INTERVAL: Duration = Duration::from_millis(250);

/// A certificate and a token.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) tls: Arc<InitiatorTls>,
    pub(super) token: Option<Token>,
}

/// What a connection shows, and whom it was dialled with trust in.
#[derive(Debug)]
pub(super) struct Credential {
    shown: Shown,
    /// Since when the responders are trusted among which its own was found.
    pub(super) trusts: u64,
    /// Since when its own is found not to be among those that are trusted. spec: SE-43
    pub(super) distrusted_at: Option<Instant>,
    /// How the responder takes signatures, if it takes any credential.
    pub(super) schemes: Option<Vec<u16>>,
    /// The number of the latest that was shown after HELLO.
    number: u64,
    /// Not before this is another one shown.
    next_at: Option<Instant>,
    /// What waits for its answer.
    waits: Option<Waits>,
}

#[derive(Debug)]
struct Waits {
    number: u64,
    shown: Shown,
    until: Instant,
}

/// What is to be done about one tunnel.
pub(super) enum Step {
    /// It follows.
    Done,
    /// Look again then.
    Later(Instant),
    /// It cannot follow, for this reason.
    Outdated(&'static str),
}

impl Shown {
    pub(super) fn credentials(&self) -> Option<&Credentials> {
        self.tls.credentials.as_ref()
    }

    fn is_like(&self, other: &Self) -> bool {
        self.token == other.token && (Arc::ptr_eq(&self.tls, &other.tls) || self.credentials() == other.credentials())
    }
}

impl Credential {
    /// That of a connection that is dialled so.
    pub(super) fn dialled(prepared: &Prepared) -> Self {
        Self {
            shown: Shown { tls: Arc::clone(&prepared.tls), token: None },
            trusts: prepared.standing.trusts,
            distrusted_at: None,
            schemes: None,
            number: 0,
            next_at: None,
            waits: None,
        }
    }

    /// HELLO has this token.
    pub(super) fn claimed(&mut self, token: Option<Token>) {
        self.shown.token = token;
    }

    /// Shows what is wanted, unless it is shown already.
    pub(super) fn show(&mut self, wanted: &Shown, tunnel: &Tunnel, now: Instant) -> Step {
        if let Some(waits) = &self.waits {
            return if now < waits.until {
                Step::Later(waits.until)
            } else {
                Step::Outdated("the responder does not answer")
            };
        }
        if self.shown.is_like(wanted) {
            return Step::Done;
        }
        if let Some(at) = self.next_at.filter(|at| *at > now) {
            return Step::Later(at);
        }
        let number = self.number + 1;
        let Some(reauth) = self.reauth(number, wanted, tunnel) else {
            return Step::Outdated("it cannot be shown on this tunnel");
        };
        self.next_at = Some(now + SHOW_INTERVAL);
        if !tunnel.reauth(reauth) {
            return Step::Later(now + SHOW_INTERVAL);
        }
        self.number = number;
        let until = now + ANSWER_TIMEOUT;
        self.waits = Some(Waits { number, shown: wanted.clone(), until });
        Step::Later(until)
    }

    /// What an answer was about; `None` if it is late.
    pub(super) fn answered(&mut self, reauthed: &Reauthed) -> Option<Shown> {
        let waits = self.waits.take_if(|waits| waits.number <= reauthed.number)?;
        if reauthed.refusal.is_none() {
            self.shown = waits.shown.clone();
        }
        Some(waits.shown)
    }

    /// What leads from what is shown to what is wanted; `None` where nothing does: a credential cannot be taken back.
    fn reauth(&self, number: u64, wanted: &Shown, tunnel: &Tunnel) -> Option<Reauth> {
        let schemes = self.schemes.as_ref()?;
        let token = if wanted.token == self.shown.token { None } else { Some(wanted.token.clone()?) };
        let certificate = match wanted.credentials() {
            same if same == self.shown.credentials() => None,
            other => Some(proof(number, other?, tunnel, schemes)?),
        };
        Some(Reauth { number, token, certificate }).filter(Reauth::fits)
    }
}

/// Proves to this tunnel's responder that the key is at hand. spec: CT-54
fn proof(number: u64, credentials: &Credentials, tunnel: &Tunnel, schemes: &[u16]) -> Option<ProvenChain> {
    let chain: Vec<_> = credentials.chain().iter().map(|der| Bytes::copy_from_slice(der)).collect();
    let (scheme, signature) = credentials.sign(&signed_text(&tunnel.binding()?, number, &chain), schemes)?;
    Some(ProvenChain { chain, scheme, signature: signature.into() })
}
