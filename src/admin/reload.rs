//! What comes of a request to read the settings again.

use std::pin::Pin;

use http::StatusCode;

use crate::config::Difference;

/// A reload under way. Dropping it may undo nothing and must leave nothing half done.
pub type Reloading = Pin<Box<dyn Future<Output = Result<Difference, ReloadFault>> + Send>>;

/// Why the settings are what they were.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadFault {
    /// What the source says is wrong, or cannot be put in force: every reason, one a line.
    #[error("{0}")]
    Refused(String),
    /// The settings came from a program, which alone can change them.
    #[error("there is no file to read again: the settings came from a program")]
    NoSource,
    /// The process has not begun yet, or ends.
    #[error("the process drains, or has just started; its settings stay as they are")]
    NotNow,
}

impl ReloadFault {
    /// What whoever asked is answered.
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NoSource => StatusCode::CONFLICT,
            Self::NotNow => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
