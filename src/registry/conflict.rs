//! Why an admitted tunnel is not registered.

use std::time::Duration;

use crate::policy::{MAX_REASON_BYTES, QuotaExceeded};
use crate::protocol::code::RefusalCode;
use crate::protocol::handshake::Refusal;

/// By then a tunnel that was asked for a sign of life is suspect, if it owes one. spec: CT-42
const OLDER_KEY_RETRY_AFTER: Duration = Duration::from_millis(3500);

/// The claim is proven, but the name or the place is taken by something that it must not replace. Always 409.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Conflict {
    /// Node and cluster of the claim are the same name.
    #[error("node and cluster have the same name; a name is one or the other within its tenant")]
    SameName,
    /// The claimed node is the name of a live cluster.
    #[error("the node's name is the name of a live cluster; rename the node")]
    NodeIsCluster,
    /// The claimed cluster is the name of a live node.
    #[error("the cluster's name is the name of a live node; rename the cluster")]
    ClusterIsNode,
    /// The node is live with another key.
    #[error("the node is connected with another key; stop the other one, or give this one its own name")]
    OtherKey,
    /// The node is live with the key of an older certificate, which gives way once it is not heard.
    #[error("the node is connected with an older certificate, which is asked whether it still lives; come back soon")]
    OlderKey,
    /// The instance is live in another cluster.
    #[error("this instance of the node is connected as a member of another cluster; restart it to move")]
    OtherCluster,
    /// The slot has a tunnel of the same or a higher generation.
    #[error("the slot has a tunnel of the same or a later generation")]
    StaleGeneration,
    /// A newer instance took this one's place.
    #[error("a newer instance of the node took this one's place; two processes have the same name")]
    RetiredInstance,
}

/// Why a tunnel was not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// The name or the place is taken.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// There are too many tunnels.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
    /// The rules changed since it was admitted; policy must be asked again.
    #[error("the rules changed since this tunnel was admitted")]
    Outdated,
    /// A mistake of the caller: the tunnel id is in use.
    #[error("the tunnel id is in use")]
    DuplicateId,
}

impl InsertError {
    /// What the initiator is told: 409, 429 with a retry-after, or 503.
    pub fn refusal(&self) -> Refusal {
        let mut retry_after = None;
        let code = match self {
            Self::Quota(exceeded) => return exceeded.refusal(),
            Self::Conflict(Conflict::OlderKey) => {
                retry_after = Some(OLDER_KEY_RETRY_AFTER);
                RefusalCode::Conflict
            }
            Self::Conflict(_) => RefusalCode::Conflict,
            Self::DuplicateId | Self::Outdated => RefusalCode::Unavailable,
        };
        let reason = self.to_string();
        debug_assert!(reason.len() <= MAX_REASON_BYTES, "these texts are fixed and short");
        Refusal { code, reason, retry_after }
    }
}
