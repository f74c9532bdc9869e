//! What an exchange holds of whoever has its target.

use std::any::Any;
use std::sync::Arc;

/// Held, and given back by dropping it, as long as anything of an exchange is under way at its target.
pub(crate) type Held = Arc<dyn Any + Send + Sync>;
