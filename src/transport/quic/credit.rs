//! How much a QUIC connection may have under way.

use quinn::VarInt;

use crate::transport::credit::{Lend, with_held};

/// The receive credit of a connection, bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credit(pub(super) u32);

impl Credit {
    /// Lends a connection what its held-back streams hold. spec: SE-9
    ///
    /// quinn tells of credit only when an eighth of the window has gathered, which of a large window would be more than its
    /// free part; a window that grows is told at once, so each look makes it a byte larger.
    pub(super) fn lend(self, quic: quinn::Connection) -> Lend {
        let (mut lent, mut looks) = (0, 0);
        Box::new(move |bytes| {
            looks = if bytes == lent { looks + 1 } else { 0 };
            lent = bytes;
            let window = with_held(self.0, bytes).saturating_add(looks);
            quic.set_receive_window(VarInt::from_u32(window));
        })
    }
}
