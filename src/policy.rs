//! Who may open a tunnel: a claim, what was proven, and the rules in; [`Admitted`] or a numbered refusal out.
//!
//! Row 4: pure. No I/O, no clock, no state, so a reload can ask again for every live tunnel. Every rule that is
//! configured must hold, and at least one of them must prove the whole claim; [`Rules::new`] refuses rules under which
//! none would. A proof that is missing, empty or ambiguous never admits.
//!
//! A lying peer gains nothing here: a claim is compared with what its credential says, byte for byte, and identity
//! templates are such that no two claims have the same proof (see [`IdentityTemplate`]).

use std::fmt;
use std::sync::Arc;

use crate::id::{Claim, Issued, PeerIdentity, Place, SpkiPin};
use crate::protocol::code::RefusalCode;
use crate::protocol::handshake::{Refusal, Token};

mod identity;
mod quota;
mod rule;
mod secret;
pub mod traffic;

pub use crate::protocol::limits::MAX_REASON_BYTES;
pub use identity::{IdentityTemplate, IdentityTemplateError, San};
pub use quota::{Counts, QuotaExceeded, QuotaScope, Quotas};
pub use rule::{NodeRule, RuleError, RuleSettings, Rules};
pub use secret::{MAX_SECRET_BYTES, MIN_SECRET_BYTES, Secret};

/// A claim that the rules accepted. Only [`authorize`] makes one, and the registry takes nothing else.
#[derive(Debug)]
#[must_use = "an admitted claim is not registered yet"]
pub struct Admitted {
    place: Place,
    proof: Arc<Proof>,
    quotas: Quotas,
    generation: u64,
}

/// What a peer showed when it was admitted: enough to ask again under other rules. Shown to nobody; `Debug` hides the
/// token.
#[derive(Debug)]
pub struct Proof {
    identity: PeerIdentity,
    token: Option<Token>,
    /// A name in the certificate proved the claim.
    is_named: bool,
}

impl Proof {
    /// Asks again whether the claim at `place` is admitted, now under `rules`.
    ///
    /// # Errors
    /// As for [`authorize`].
    pub fn authorize(&self, place: Place, rules: &Rules) -> Result<Admitted, Refusal> {
        authorize(place, &self.identity, self.token.as_deref(), rules)
    }

    /// Asks whether the claim at `place` is admitted with another identity or token in the place of those that were shown.
    /// spec: CT-55
    ///
    /// # Errors
    /// As for [`authorize`].
    pub fn authorize_with(
        &self,
        (identity, token): (Option<&PeerIdentity>, Option<&Token>),
        place: Place,
        rules: &Rules,
    ) -> Result<Admitted, Refusal> {
        let token = token.or(self.token.as_ref()).map(|token| &**token);
        authorize(place, identity.unwrap_or(&self.identity), token, rules)
    }

    /// The key that was proven.
    pub fn key(&self) -> Option<SpkiPin> {
        self.identity.key
    }

    /// What the certificate has over others, if a name in it proved the claim. spec: HS-14
    pub fn issued(&self) -> Option<Issued> {
        self.identity.issued.filter(|_| self.is_named)
    }
}

impl Admitted {
    /// The claim, and which of the node's tunnels this is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The key that the peer proved to hold; `None` when the rules ask for no certificate and it showed none.
    pub fn key(&self) -> Option<SpkiPin> {
        self.proof.key()
    }

    /// What was shown for it.
    pub fn proof(&self) -> &Arc<Proof> {
        &self.proof
    }

    /// Whether it may take the place of a tunnel with another key that nobody hears: its certificate proves the claim by its
    /// names, and is a later one of the same authority. spec: HS-14
    pub fn renews(&self, older: &Proof) -> bool {
        let issued = (self.proof.identity.issued, older.identity.issued);
        self.proof.is_named && matches!(issued, (Some(new), Some(old)) if new.renews(&old))
    }

    /// The generation of the rules that admitted it, see [`Rules::generation`].
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The quotas under which it was admitted.
    pub fn quotas(&self) -> Quotas {
        self.quotas
    }
}

/// Decides whether a claim is admitted under `rules`, given what TLS proved and the token of HELLO, if any.
///
/// Refuses with 401 when a credential that the rules ask for is missing or a token is wrong, with 403 when the
/// credential belongs to another identity or is not admitted. The answer depends on the arguments alone: after rules
/// were replaced, ask again with the [`Proof`] of each tunnel of the registry's snapshot. The registry refuses one that was
/// admitted before and comes after.
pub fn authorize(
    place: Place,
    identity: &PeerIdentity,
    token: Option<&[u8]>,
    rules: &Rules,
) -> Result<Admitted, Refusal> {
    check_fixed(&place.claim, rules)?;
    check_identity(&place.claim, identity, rules)?;
    check_pins(identity, rules)?;
    check_node(&place.claim, identity, token, rules)?;
    let is_named = rules.identity.is_some();
    let proof = Proof { identity: identity.clone(), token: token.and_then(Token::new), is_named };
    Ok(Admitted { place, proof: Arc::new(proof), quotas: rules.quotas, generation: rules.generation })
}

/// A refusal whose reason fits its bound; longer ones are cut.
pub(crate) fn refuse(code: RefusalCode, mut reason: String) -> Refusal {
    reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
    Refusal { code, reason, retry_after: None }
}

fn forbidden(reason: String) -> Refusal {
    refuse(RefusalCode::Forbidden, reason)
}

fn unauthenticated(reason: &str) -> Refusal {
    refuse(RefusalCode::Unauthenticated, reason.to_owned())
}

fn check_fixed(claim: &Claim, rules: &Rules) -> Result<(), Refusal> {
    if rules.tenant.as_ref().is_some_and(|tenant| *tenant != claim.tenant) {
        return Err(forbidden(format!("tenant {} is not admitted by this responder", claim.tenant)));
    }
    if rules.cluster.as_ref().is_some_and(|cluster| *cluster != claim.cluster) {
        return Err(forbidden(format!("cluster {} is not admitted by this responder", claim.cluster)));
    }
    Ok(())
}

/// The certificate must carry the name that the template gives this claim.
fn check_identity(claim: &Claim, identity: &PeerIdentity, rules: &Rules) -> Result<(), Refusal> {
    let Some(template) = &rules.identity else { return Ok(()) };
    require_certificate(identity)?;
    let Some(expected) = template.render(claim) else {
        return Err(forbidden(format!("no certificate can prove {claim} here: its ids do not fit a DNS name")));
    };
    let found = match expected {
        San::Uri(_) => &identity.uri_sans,
        San::Dns(_) => &identity.dns_sans,
    };
    if found.iter().any(|san| san == expected.name()) {
        return Ok(());
    }
    Err(forbidden(format!("the certificate does not prove {claim}: expected {expected}, found {}", Names(found))))
}

/// The key must be among those that may connect at all.
fn check_pins(identity: &PeerIdentity, rules: &Rules) -> Result<(), Refusal> {
    match rules.pins.as_slice() {
        [] => Ok(()),
        pins => require_pin(identity, pins),
    }
}

/// What is said about this very node must hold; without a template, something must be said about it.
fn check_node(claim: &Claim, identity: &PeerIdentity, token: Option<&[u8]>, rules: &Rules) -> Result<(), Refusal> {
    let Some(rule) = rules.node(claim) else {
        return match rules.identity.is_some() || rules.insecure_accept_any {
            true => Ok(()),
            false => Err(forbidden(format!("no rule admits {claim}; a pin or token for it is needed"))),
        };
    };
    if rule.claim.cluster != claim.cluster {
        return Err(forbidden(format!("node {} does not belong to cluster {}", claim.node, claim.cluster)));
    }
    if !rule.pins.is_empty() {
        require_pin(identity, &rule.pins)?;
    }
    match (&rule.token, token) {
        (None, _) => Ok(()),
        (Some(secret), Some(token)) if secret.equals(token) => Ok(()),
        (Some(_), Some(_)) => Err(unauthenticated("the token is not the one of this node")),
        (Some(_), None) => Err(unauthenticated("this node needs a token")),
    }
}

fn require_certificate(identity: &PeerIdentity) -> Result<SpkiPin, Refusal> {
    identity.key.ok_or_else(|| unauthenticated("a client certificate is needed, and none was shown"))
}

fn require_pin(identity: &PeerIdentity, pins: &[SpkiPin]) -> Result<(), Refusal> {
    let key = require_certificate(identity)?;
    match pins.contains(&key) {
        true => Ok(()),
        false => Err(forbidden(format!("the certificate's key {key} is not pinned here"))),
    }
}

/// The peer's names in a reason: escaped, since the peer chose them, and only the first few.
struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("none"),
            [only] => write!(f, "{only:?}"),
            [first, rest @ ..] => write!(f, "{first:?} and {} more", rest.len()),
        }
    }
}

#[cfg(test)]
mod tests;
