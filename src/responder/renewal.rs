//! A live tunnel shows another credential: what it proves, and what becomes of it. spec: CT-55

use rustls::pki_types::CertificateDer;
use tracing::{info, warn};

use crate::policy::refuse;
use crate::protocol::code::RefusalCode;
use crate::protocol::handshake::Refusal;
use crate::protocol::reauth::{ProvenChain, Reauth, Reauthed, signed_text};
use crate::responder::admission::Shown;
use crate::responder::shared::Shared;
use crate::responder::standing::Standing;
use crate::tls::{self, Summary};
use crate::transport::Tunnel;

/// Decides about it, and says so to the initiator. Refused, the tunnel rests on what it showed before.
pub(super) fn renew(shared: &Shared, tunnel: &Tunnel, standing: &mut Standing, reauth: Reauth) {
    let number = reauth.number;
    let (has_token, has_certificate) = (reauth.token.is_some(), reauth.certificate.is_some());
    let decided = shown(tunnel, reauth).and_then(|shown| {
        let terms = shared.admission.renew(tunnel.id(), &shown)?;
        let certificate = shown.chain.as_ref().and_then(|chain| chain.first()).and_then(|own| Summary::of(own).ok());
        if let Some(chain) = shown.chain {
            standing.rest_on(chain, &terms);
        }
        let certificate = certificate.map(|summary| summary.to_string());
        info!(tunnel = %tunnel.id(), token = has_token, certificate, "the tunnel rests on another credential from now on");
        Ok(())
    });
    let refusal = decided.err();
    if let Some(refusal) = &refusal {
        shared.metrics.refused(refusal.code);
        let (code, reason) = (refusal.code.number(), &refusal.reason);
        warn!(
            tunnel = %tunnel.id(), code, reason, token = has_token, certificate = has_certificate,
            "another credential is refused: the tunnel rests on the former one"
        );
    }
    tunnel.answer(Reauthed { number, refusal });
}

/// What is shown, if the key of the certificate is proven to be at hand at the other end of this very connection. spec: CT-54
fn shown(tunnel: &Tunnel, Reauth { number, token, certificate }: Reauth) -> Result<Shown, Refusal> {
    let Some(ProvenChain { chain, scheme, signature }) = certificate else { return Ok(Shown { chain: None, token }) };
    let unproven = |reason: String| refuse(RefusalCode::Unauthenticated, reason);
    let binding =
        tunnel.binding().ok_or_else(|| unproven("no certificate can be proven on this connection".to_owned()))?;
    let text = signed_text(&binding, number, &chain);
    let chain: Vec<_> = chain.into_iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    let own = chain.first().ok_or_else(|| unproven("no certificate was shown".to_owned()))?;
    tls::verify_signature(own, (scheme, &signature), &text).map_err(|error| unproven(error.to_string()))?;
    Ok(Shown { chain: Some(chain), token })
}
