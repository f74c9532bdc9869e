//! Why settings cannot be put to work.

use crate::egress;
use crate::fleet::hop::HopError;
use crate::initiator;
use crate::initiator::serve::ServiceError;
use crate::policy::RuleError;
use crate::responder;
use crate::tls::TlsError;
use crate::tls::secret::SecretError;

/// Why a configuration could not be put to work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// A certificate, key, CA or CRL file.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A token that no HELLO carries; no file says one.
    #[error("initiator.token: expected 1 to 8192 bytes")]
    Token,
    /// The rules of admission.
    #[error("responder: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Rules(Vec<RuleError>),
    /// The responder.
    #[error(transparent)]
    Responder(responder::BuildError),
    /// The terms of a responder that runs.
    #[error("responder")]
    ResponderTerms(#[from] responder::UpdateError),
    /// Another address of a responder that runs.
    #[error("responder.listen")]
    Listen(#[from] responder::ListenError),
    /// The initiator.
    #[error(transparent)]
    Initiator(#[from] initiator::BuildError),
    /// The terms of an initiator that runs.
    #[error("initiator")]
    InitiatorTerms(#[from] initiator::UpdateError),
    /// A responder without an address; no checked configuration has one.
    #[error("responder.listen: expected quic, tcp or both")]
    Nowhere,
    /// The way between the responders of a fleet.
    #[error("fleet.hop")]
    Hop(#[from] HopError),
    /// The services.
    #[error(transparent)]
    Services(#[from] ServiceError),
    /// The persisted keys.
    #[error("responder.state_dir")]
    Keys(#[from] SecretError),
    /// The admin listener, or the one for metrics.
    #[error("{key}: cannot listen on {address}")]
    Admin {
        /// Which one.
        key: &'static str,
        /// What was asked for.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// An egress listener.
    #[error(transparent)]
    Egress(#[from] egress::BuildError),
}

impl From<responder::BuildError> for AppError {
    fn from(error: responder::BuildError) -> Self {
        match error {
            responder::BuildError::Rules(errors) => Self::Rules(errors),
            error => Self::Responder(error),
        }
    }
}
