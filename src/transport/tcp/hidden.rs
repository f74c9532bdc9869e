//! TLS configurations inside structs that are logged.

use std::fmt;
use std::sync::Arc;

/// A rustls configuration that shows nothing of itself in logs.
#[derive(Clone)]
pub(super) struct Hidden<T>(pub(super) Arc<T>);

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(TLS)")
    }
}
