//! A body over HTTP/2 whose end comes in small frames, more of them than fit into any way that its reader holds back.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::SendStream;

/// Bytes that may come first, in large frames: they fill a part of the way quickly.
pub(crate) const LARGE: usize = 2 << 20;
/// Bytes that come in small frames.
pub(crate) const SMALL: usize = 6 << 20;
/// Bytes of a small frame.
const FRAME: usize = 16;

/// Sends so much in large frames, and the rest as the other end takes it, and counts what went in small frames. An error: the
/// stream was reset, or the connection ended.
pub(crate) async fn trickle(
    mut stream: SendStream<Bytes>,
    large: usize,
    trickled: &AtomicUsize,
) -> Result<(), h2::Error> {
    let mut sent = 0;
    while sent < large + SMALL {
        stream.reserve_capacity(FRAME.max(large.saturating_sub(sent)));
        let granted = match stream.capacity() {
            0 => poll_fn(|cx| stream.poll_capacity(cx)).await.expect("it was not ended")?,
            granted => granted,
        };
        let is_small = sent >= large;
        let length = granted.min(if is_small { FRAME } else { large - sent });
        if length == 0 {
            continue;
        }
        let piece: Vec<u8> = (sent..sent + length).map(byte).collect();
        sent += length;
        if is_small {
            trickled.fetch_add(length, Ordering::Relaxed);
        }
        stream.send_data(piece.into(), sent == large + SMALL)?;
    }
    Ok(())
}

/// Whether it came whole, and in order.
pub(crate) fn is_all(bytes: &[u8]) -> bool {
    bytes.len() == LARGE + SMALL && bytes.iter().enumerate().all(|(at, byte)| *byte == self::byte(at))
}

/// The byte that stands there.
const fn byte(at: usize) -> u8 {
    (at / 5) as u8
}
