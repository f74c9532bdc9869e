//! Bodies of any size that nobody has to hold: any piece can be made anywhere, and no two are alike.

use aws_lc_rs::digest::{Context, Digest, SHA256};

/// Made, hashed and written at once.
pub(crate) const PIECE: usize = 256 * 1024;

/// An endless body; each seed has its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content {
    pub(crate) seed: u64,
}

impl Content {
    /// Writes what stands `at` bytes in, which must be a multiple of 8.
    pub(crate) fn fill(self, at: u64, piece: &mut [u8]) {
        assert_eq!(at % 8, 0, "content is made in words");
        let start = mixed(self.seed).wrapping_add(at / 8);
        for (word, bytes) in piece.chunks_mut(8).enumerate() {
            bytes.copy_from_slice(&mixed(start.wrapping_add(word as u64)).to_le_bytes()[..bytes.len()]);
        }
    }

    pub(crate) fn bytes(self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.fill(0, &mut bytes);
        bytes
    }
}

/// SplitMix64: every bit of the result depends on every bit of the number.
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// SHA-256 of a body that goes by.
pub(crate) struct Hasher(Context);

impl Hasher {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// In hexadecimal.
    pub(crate) fn sum(self) -> String {
        let digest: Digest = self.0.finish();
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
