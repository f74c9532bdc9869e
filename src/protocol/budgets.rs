//! Every budget: what one party may hold of what others need, for how long, and what gives way. The table with the
//! reasons stands in `proto-spec/7-security.md`, section "Budgets". Sizes are bytes.
//!
//! A budget is a number here, a row there, a place in the code that enforces it and a counter that shows it.

mod handshakes;

use std::time::Duration;

pub use handshakes::{
    BUSY_RETRY_AFTER, CLIENT_HELLO_TIMEOUT, DEFAULT_MAX_HANDSHAKES, EVICTION_INTERVAL, HANDSHAKE_GRACE,
    HandshakeBudgets, StageBudget,
};

/// Bytes that a peer may have under way on one stream. With loss, more than about 2.4 MB makes quinn give up the
/// connection ("too many gaps"). spec: SE-9
pub const STREAM_WINDOW: u32 = 2 << 20;
/// Bytes that a peer may have under way on one tunnel beside what held-back streams hold. spec: SE-9
pub const TUNNEL_WINDOW: u32 = 16 << 20;
/// Bytes that held-back streams of one tunnel may hold whose readers are not steady: the credit grows for so many, and
/// beyond them those that stand still are ended. 20 streams without a declared length. spec: SE-9, SE-11
pub const HELD_BYTES: u64 = 20 * STREAM_WINDOW as u64;
/// Bytes that all held-back streams of one tunnel may hold, steady readers included: the most that its credit grows for.
/// spec: SE-9
pub const COVERED_BYTES: u64 = 128 * STREAM_WINDOW as u64;
/// Bytes that streams of one tunnel may hold of which this end itself keeps something waiting for a rate: as long, their
/// readers count as steady. 64 streams without a declared length. spec: SE-11
pub const DEFERRED_BYTES: u64 = 64 * STREAM_WINDOW as u64;
/// As [`DEFERRED_BYTES`], of all tunnels of a process. spec: SE-11
pub const DEFERRED_BYTES_OF_PROCESS: u64 = 256 * STREAM_WINDOW as u64;
/// As [`HELD_BYTES`], of all tunnels of a process. spec: SE-11
pub const HELD_BYTES_OF_PROCESS: u64 = 256 * STREAM_WINDOW as u64;
/// How long a stream whose reader is not steady may stand still before it can be ended for the sake of others. spec: SE-11
pub const HELD_GRACE: Duration = Duration::from_millis(300);
/// How long one that does not stand still may take less than [`FAIR_RATE`]. spec: SE-11
pub const SLOW_GRACE: Duration = Duration::from_secs(2);
/// In so many looks at least: a process that was stopped for a while has not waited for anybody.
pub const HELD_LOOKS: u32 = 5;
/// How long one may stand still whose reader was steady: what a socket takes at once lasts a slow client for seconds.
/// spec: SE-11
pub const STEADY_GRACE: Duration = Duration::from_secs(10);
/// Bytes a second that a steady reader takes. spec: SE-11
pub const FAIR_RATE: u64 = 16 << 10;
/// Bytes a second that the reader of a stream takes at least over [`HTTP_PATIENCE`] or [`RAW_PATIENCE`]. spec: SE-12
pub const LEAST_RATE: u64 = 1 << 10;
/// How long the reader of a message body may take less than [`LEAST_RATE`]. spec: SE-12
pub const HTTP_PATIENCE: Duration = Duration::from_secs(60);
/// How long the reader of a raw stream may take less than [`LEAST_RATE`]: what speaks there may have reasons of its own
/// to pause. spec: SE-12
pub const RAW_PATIENCE: Duration = Duration::from_secs(300);
/// A body that its head declares no longer than this is not watched: [`TUNNEL_WINDOW`] has room for all streams of a
/// tunnel that hold as much.
pub const UNWATCHED_BODY: u64 = 4 << 10;

/// Bytes of request heads that an initiator holds for one tunnel, each with [`FIELD_COST`] for each of its fields: those
/// that are not whole, and those whose answer has not begun. spec: SE-15
pub const HEADS_OF_TUNNEL: u64 = 12 << 20;
/// What a field costs beside its bytes, in a table of fields. spec: SE-15
pub const FIELD_COST: usize = 128;
/// Exchanges that a new tunnel may make its initiator begin at once. spec: SE-16
pub const ASKED_AT_ONCE: u32 = 256;
/// The most that begin at once on one whose answers are taken: all that it may have. spec: SE-16
pub const ASKED_AT_MOST: u32 = 4_096;
/// How soon another exchange begins although no answer was taken. spec: SE-16
pub const ASKED_EVERY: Duration = Duration::from_millis(2);
/// Answers of which nothing is taken, beyond which none begins by time alone. spec: SE-16
pub const UNTAKEN_ANSWERS: u32 = 256;
/// By how much more a connection between siblings carries than a tunnel: it leads to many nodes, and the part of one of them
/// should be more than what a tunnel of it takes. So many times the streams, the flows, the bytes of heads, and the exchanges that
/// begin. spec: FL-53
pub const SIBLING_FACTOR: u32 = 16;
/// Streams that a connection between siblings carries at once: [`SIBLING_FACTOR`] times those of a tunnel. spec: FL-53
pub const SIBLING_STREAMS: u32 = SIBLING_FACTOR * 4_096;
/// Flows that it carries at once, likewise. spec: FL-53
pub const SIBLING_FLOWS: u32 = SIBLING_FACTOR * 1_024;
/// The part of what is free of these that one node or cluster there may have: one that hangs has a ninth of all, eight of them half.
/// spec: FL-53
pub const PART_OF_SIBLING: u32 = 8;
/// Exchanges under way on a tunnel from which on heads are copied out of the memory that they were received in, all of
/// which they keep. spec: SE-15
pub const HEADS_IN_PLACE: u32 = 256;
/// Bytes of bodies and raw streams that wait in HTTP/2 to be written on one tunnel over TCP: twice as many for pieces of at
/// most 16 KiB, three times for those of at most 1 KiB. spec: SE-17
pub const UNWRITTEN_BYTES: usize = 2 << 20;

/// Control frames that an HTTP/2 peer may send at once: all that are neither DATA with bytes nor HEADERS. spec: SE-13
pub const CONTROL_FRAME_BURST: u32 = 10_000;
/// Control frames a second that it may send for nothing. spec: SE-13
pub const CONTROL_FRAMES_PER_SECOND: u32 = 500;
/// Control frames that it may send for each HEADERS frame of either end, and for each DATA frame sent to it: a stream is
/// reset once, and what was read is announced for the stream and the connection. spec: SE-13
pub const CONTROL_FRAMES_PER_MESSAGE_FRAME: u32 = 4;
/// A DATA frame with padding that may carry little, bytes: less than 256 of them need not be padding. spec: SE-13
pub const PADDED_BYTES: u32 = 512;
/// Such frames that do not end their message that an HTTP/2 peer may send at once. spec: SE-13
pub const PADDED_FRAME_BURST: u32 = 1_024;
/// Such frames a second that it may send for longer. spec: SE-13
pub const PADDED_FRAMES_PER_SECOND: u32 = 64;
/// Frames that an HTTP/2 peer may send while it takes nothing of what is written to it: each of them may need an answer
/// that has to be kept. spec: SE-13
pub const FRAMES_BEHIND: u32 = 32_768;
/// The shortest such answer, bytes: RST_STREAM. As many as are taken pay for one frame. spec: SE-13
pub const ANSWER_BYTES: usize = 13;
/// LIMITS, SERVICES, HEALTH and REAUTH frames that a peer may send at once on the control stream. spec: SE-14
pub const CHANGE_BURST: u32 = 64;
/// LIMITS, SERVICES, HEALTH and REAUTH frames a second that it may send for longer. spec: SE-14
pub const CHANGES_PER_SECOND: u32 = 4;
/// Other frames, known and skipped, that a peer may send at once on the control stream. spec: SE-14
pub const FRAME_BURST: u32 = 4_096;
/// Other frames a second that it may send for longer. spec: SE-14
pub const FRAMES_PER_SECOND: u32 = 256;
