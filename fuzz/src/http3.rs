//! The watchers below HTTP/3.

use adit::message::h3::control;
use adit::message::h3::early::last_request;
use adit::message::h3::request::{Fault, Head, Limits, Watcher};
use adit::message::h3::section::{self, Rules};
use bytes::Bytes;

const LIMITS: Limits = Limits { section_bytes: 256, fields: 8 };
/// Type and length of a frame as the watchers write it.
const HEADER: usize = 5;

/// What goes on of the stream of a request does not depend on how it is split, and what goes on is what a strict reader takes:
/// HEADERS first, DATA with as many bytes as it says, HEADERS again at most once; or one frame that makes it end the
/// connection. The first byte says how the rest is split.
pub fn http3_request(data: &[u8]) {
    let Some((&step, bytes)) = data.split_first() else { return };
    let whole = request(bytes, bytes.len().max(1));
    assert_eq!(whole, request(bytes, usize::from(step).max(1)), "the split changes what goes on");
    // Without `:protocol`, which its reader does not see, an extended CONNECT is none.
    if let Some(Head::Good { protocol: None }) = &whole.head {
        let section = &whole.passed[HEADER..HEADER + length(&whole.passed)];
        let judged = section::judge(section, Rules { is_head: true, max_fields: LIMITS.fields });
        assert!(matches!(judged, Ok(Ok(judged)) if judged.cuts.is_empty()), "what goes on breaks no rule");
    }
    check_frames(&whole.passed);
}

/// The same for a stream of one direction: what goes on of a control stream are whole frames that it may have.
pub fn http3_control(data: &[u8]) {
    let Some((&step, bytes)) = data.split_first() else { return };
    let whole = one_way(bytes, bytes.len().max(1));
    assert_eq!(whole, one_way(bytes, usize::from(step).max(1)), "the split changes what goes on");
    let (passed, _, cost) = &whole;
    assert!(passed.len() <= bytes.len() + HEADER * (*cost as usize + 1), "no more than was sent");
}

/// Frames of a packet of early data: what another frame in front is about is not forgotten, and PADDING is about nothing.
pub fn http3_early(data: &[u8]) {
    let last = last_request(data);
    assert!(last.is_none_or(|last| last == u64::MAX || last % 4 == 0), "the id of a request");
    let with = |front: &[u8]| last_request(&[front, data].concat());
    assert_eq!(with(&[0, 1, 0]), last, "PADDING and PING");
    // STOP_SENDING of request 16, and of a stream that is none.
    assert_eq!(with(&[5, 16, 0]), last.max(Some(16)));
    assert_eq!(with(&[5, 18, 0]), last);
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    passed: Vec<u8>,
    head: Option<Head>,
    end: Result<(), Fault>,
}

fn request(bytes: &[u8], step: usize) -> Seen {
    let (mut watcher, mut passed) = (Watcher::new(LIMITS), Vec::new());
    let mut pushed = Ok(());
    for piece in bytes.chunks(step) {
        pushed = watcher.push(Bytes::copy_from_slice(piece));
        passed.extend(std::iter::from_fn(|| watcher.pop()).flatten());
        assert!(watcher.held() <= LIMITS.section_bytes, "bounded");
        if pushed.is_err() {
            break;
        }
    }
    let end = pushed.and_then(|()| watcher.finish());
    Seen { passed, head: watcher.take_head(), end }
}

fn one_way(bytes: &[u8], step: usize) -> (Vec<u8>, Result<(), control::Fault>, u32) {
    let (mut watcher, mut passed, mut cost) = (control::Watcher::default(), Vec::new(), 0);
    let pushed = bytes.chunks(step).try_for_each(|piece| {
        let pushed = watcher.push(Bytes::copy_from_slice(piece));
        passed.extend(std::iter::from_fn(|| watcher.pop()).flatten());
        cost += watcher.take_cost();
        pushed
    });
    (passed, pushed, cost)
}

/// The length in the header of a frame that the watcher wrote.
fn length(frame: &[u8]) -> usize {
    u32::from_be_bytes([frame[1] & 0x3f, frame[2], frame[3], frame[4]]) as usize
}

fn check_frames(mut passed: &[u8]) {
    let mut sections = 0;
    while let Some(&kind) = passed.first() {
        if passed == [6, 0] {
            return;
        }
        if kind == 1 {
            sections += 1;
            assert!(sections <= 2, "a head and trailers");
            let (section, rest) = passed[HEADER..].split_at(length(passed));
            let judged = section::judge(section, Rules { is_head: sections == 1, max_fields: LIMITS.fields });
            // A head without its `:protocol` breaks a rule, but is read like any other.
            assert!(judged.is_ok_and(|judged| judged.is_ok() || sections == 1), "nobody has judged it");
            passed = rest;
            continue;
        }
        assert_eq!(sections, 1, "DATA between them");
        // As the peer wrote it: the type may be longer than it need be.
        let (kind, used) = integer(passed);
        let (length, more) = integer(&passed[used..]);
        assert!(kind == 0 && length > 0);
        let left = passed.len() - used - more;
        passed = &passed[used + more + left.min(length)..];
    }
}

fn integer(bytes: &[u8]) -> (usize, usize) {
    let length = 1 << (bytes[0] >> 6);
    let value = bytes[1..length].iter().fold(u64::from(bytes[0] & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    (usize::try_from(value).unwrap_or(usize::MAX), length)
}
