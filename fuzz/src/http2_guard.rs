//! The guard below HTTP/2 connections.

use adit::message::h2::guard::{Guard, Passed, Role, most_instead};

/// The SETTINGS_MAX_HEADER_LIST_SIZE that the reader announced.
const MAX_LIST: usize = 1024;

/// What goes on to the reader does not depend on how the bytes are split, and whatever is held back is shown again: in the
/// end nothing is lost. Frames that are no heads go on as they came. What stands in the place of others is not much longer.
///
/// The first byte chooses: bit 0 who reads, the others how the rest is split.
pub fn http2_guard(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let role = if choice & 1 == 0 { Role::Client } else { Role::Server };
    let whole = pass(role, bytes, bytes.len().max(1));
    let split = pass(role, bytes, usize::from(choice >> 1).max(1));
    assert_eq!(whole, split, "the split changes what goes on");
    if whole.replaced == 0 && whole.left_out == 0 {
        assert_eq!(whole.passed, bytes, "what is not malformed goes on as it came");
    }
}

/// What went on, what was in the hands of the guard when the bytes ended included.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    passed: Vec<u8>,
    replaced: u64,
    /// Bytes of DATA frames with nothing in them.
    left_out: usize,
}

fn pass(role: Role, bytes: &[u8], step: usize) -> Seen {
    let (mut guard, mut passed, mut held, mut left_out) = (Guard::new(role, MAX_LIST), Vec::new(), Vec::new(), 0);
    for piece in bytes.chunks(step) {
        held.extend_from_slice(piece);
        loop {
            match guard.pass(&held) {
                Passed::Bytes(front) => {
                    passed.extend(held.drain(..front));
                    break;
                }
                Passed::Instead { front, bytes, instead, .. } => {
                    passed.extend(held.drain(..front));
                    held.drain(..bytes);
                    assert!(instead.len() <= most_instead(bytes), "{} bytes for {bytes}", instead.len());
                    passed.extend(instead);
                }
                Passed::Joined { front, bytes, instead } => {
                    passed.extend(held.drain(..front));
                    assert!(instead.is_empty(), "nobody has asked for that");
                    left_out += bytes;
                    held.drain(..bytes);
                }
            }
        }
    }
    passed.extend(held);
    Seen { passed, replaced: guard.malformed(), left_out }
}
