//! Every budget: what one party may hold of what others need, for how long, and what gives way. The table with the
//! reasons stands in `proto-spec/7-security.md`.

mod handshakes;

pub use handshakes::{
    BUSY_RETRY_AFTER, CLIENT_HELLO_TIMEOUT, DEFAULT_MAX_HANDSHAKES, HANDSHAKE_GRACE, HandshakeBudgets, StageBudget,
};
