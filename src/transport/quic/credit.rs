//! How much a QUIC connection may have under way.

use quinn::VarInt;

use crate::transport::credit::{Lend, with_held};

/// The receive credit of a connection, bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credit(pub(super) u32);

impl Credit {
    /// Lends a connection what its held-back streams hold. spec: SE-9
    pub(super) fn lend(self, quic: quinn::Connection) -> Lend {
        let mut lent = Lent::default();
        Box::new(move |bytes| quic.set_receive_window(VarInt::from_u32(lent.window(self, bytes))))
    }
}

/// What a connection was lent so far.
///
/// It is not taken back. A window that grows is credit at once in quinn, one that shrinks a debt that only what is read pays;
/// what grows again does not count the debt. So a window that follows the held-back streams up and down gives the peer as
/// much again each time.
#[derive(Debug, Default)]
struct Lent {
    /// The most bytes that streams held back at once.
    most: u64,
    looks: u32,
}

impl Lent {
    /// The window while held-back streams hold so many bytes.
    ///
    /// quinn tells of credit only when an eighth of the window has gathered, which of a large window would be more than its
    /// free part; a window that grows is told at once, so each look makes it a byte larger.
    fn window(&mut self, Credit(connection): Credit, bytes: u64) -> u32 {
        self.most = self.most.max(bytes);
        self.looks = self.looks.saturating_add(1);
        with_held(connection, self.most).saturating_add(self.looks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::budgets::{COVERED_BYTES, TUNNEL_WINDOW};

    // spec: SE-9
    #[test]
    fn streams_that_are_held_back_again_and_again_are_lent_for_once() {
        let (credit, mut lent) = (Credit(TUNNEL_WINDOW), Lent::default());
        let (mut window, mut given) = (TUNNEL_WINDOW, u64::from(TUNNEL_WINDOW));
        for look in 0..10_000 {
            let next = lent.window(credit, if look % 2 == 0 { COVERED_BYTES } else { 0 });
            assert!(next > window, "told at once");
            // What quinn gives, whatever is read.
            given += u64::from(next - window);
            window = next;
        }
        assert_eq!(given, u64::from(TUNNEL_WINDOW) + COVERED_BYTES + 10_000);
    }
}
