//! What we demand of a request beyond Envoy's checks. Nothing here is Envoy's. spec: EV-12, EV-13, EV-19

use crate::id::{Claim, ClusterId, IdError, NodeId, TenantId};
use crate::protocol::envoy::fields::Fields;
use crate::protocol::envoy::names;
use crate::protocol::envoy::rejection::Rejection;
use crate::protocol::handshake::Token;

/// Fields that decide who the initiator is, or whether it is admitted.
const DECISIVE: [&str; 5] = [names::NODE, names::CLUSTER, names::TENANT, names::UPSTREAM_CLUSTER, "authorization"];

/// The claim, if it is one that could be registered, and the token that comes with it.
pub(super) fn read(fields: Fields<'_>) -> Result<(Claim, Option<Token>), Rejection> {
    if let Some(name) = DECISIVE.into_iter().find(|name| fields.contradict(name)) {
        return Err(Rejection::Contradiction(name));
    }
    let claim = Claim {
        tenant: identifier(fields, names::TENANT, "tenant", TenantId::new)?,
        cluster: identifier(fields, names::CLUSTER, "cluster", ClusterId::new)?,
        node: identifier(fields, names::NODE, "node", NodeId::new)?,
    };
    Ok((claim, fields.first("authorization").and_then(bearer)))
}

fn identifier<T>(
    fields: Fields<'_>,
    name: &str,
    what: &'static str,
    new: impl FnOnce(&str) -> Result<T, IdError>,
) -> Result<T, Rejection> {
    let value = fields.first(name).ok_or(Rejection::MissingIds)?;
    let problem = match std::str::from_utf8(value) {
        Ok(text) => match new(text) {
            Ok(id) => return Ok(id),
            Err(error) => error.to_string(),
        },
        Err(_) => "is not UTF-8".to_owned(),
    };
    Err(Rejection::Identifier { what, problem })
}

/// The token of `Bearer <token>` (RFC 6750 section 2.1); other schemes are none of ours.
fn bearer(value: &[u8]) -> Option<Token> {
    let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
    if scheme.eq_ignore_ascii_case(b"bearer ") { Token::new(token.trim_ascii()) } else { None }
}
