//! TLS: credentials, who is trusted, and the rustls configurations of every listener and dialer.
//!
//! Row 6: proves who a peer is and hands the proof on as [`PeerIdentity`](crate::id::PeerIdentity). It never decides
//! who may connect (policy does), never opens a socket, and keeps nothing global: every configuration is a value
//! built from values, so new credentials, roots and CRLs take effect by building again and handing over the result.
//!
//! # What is verified
//!
//! * **The responder, by the initiator.** The name verified is the host of the configured tunnel address: the DNS
//!   name or IP address the operator wrote, never an address that DNS answered. [`server_name`] turns it into what
//!   rustls and quinn want. It must be among the certificate's DNS or IP subject alternative names (the common name
//!   is not looked at), the chain must end at a configured root whose own dates hold, and no certificate in it may be
//!   revoked.
//! * **A target, by the initiator.** As the responder, by the rules of its service; an explicit setting takes any.
//! * **A sibling of a fleet, by another.** The chain both ways; whoever asks compares the names with the sibling's own.
//! * **The initiator, by the responder.** The chain, as above. Names are read with [`peer_identity`] and compared
//!   with the claim by policy.
//! * **Pins** are hashes of the peer's own public key ([`spki_pin`]; never of an issuer's). They restrict: chain *and*
//!   pin must hold. Without any root they are the whole proof (*pin-only*): possession of a pinned key suffices, and
//!   names, dates and signatures of the certificate are not looked at. That is how a self-signed certificate is used.
//! * **CRLs.** Once one is configured, every certificate below the root must be covered by one: a status that is not
//!   known is refused. With several roots each has its own, told apart by their signatures. A CRL past its next-update date still counts, because a late CRL must not cut off a fleet.
//!
//! # What is never done
//!
//! Tunnels speak TLS 1.3 only. Nothing is resumed and no early data is taken: a resumed session would restore an
//! identity without looking at the chain, the CRL and the pins again. The one exception is an egress listener that
//! asks nobody for a certificate, where there is no identity to restore; over QUIC it may take early data, too, if it is told
//! so ([`with_early_data`]). The provider is aws-lc-rs, passed
//! explicitly, with the hybrid X25519MLKEM768 key exchange first.
//!
//! A peer's certificate that is not accepted is reported as a [`Rejection`]: which certificate, what is wrong with
//! it, what was expected. Over QUIC its text also reaches the peer (as the reason of the close); over TCP the peer
//! sees the alert `certificate_unknown` only.

mod certificate;
mod error;
mod examine;
mod judge;
mod lists;
pub mod pki;
mod possession;
mod provider;
mod reject;
mod roots;
pub mod secret;
mod settings;
mod store;
mod trust;
mod verify;

pub use certificate::{Summary, Utc, peer_identity, spki_pin};
pub use error::TlsError;
pub use examine::{examine, names, next_update, valid_until};
pub use judge::{ClientJudge, InitiatorJudge, ResponderJudge, SiblingJudge};
pub use lists::without_list;
pub use possession::{signature_schemes, verify_signature};
pub use provider::provider;
pub use reject::{Fault, Peer, Rejection};
pub use settings::{
    ClientCertificates, EgressTls, InitiatorTls, ResponderTls, SiblingTls, TargetTls, egress_config,
    envoy_client_config, envoy_inner_config, envoy_responder_config, http3_config, initiator_config, responder_config,
    server_name, sibling_client_config, sibling_server_config, target_config, with_early_data,
};
pub use store::{Credentials, load_crls, load_roots, parse_crls, parse_roots};
pub use trust::Trust;

#[cfg(test)]
mod tests;
