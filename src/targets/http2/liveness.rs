//! Whether a target's connection still lives: one that froze would take requests for ever and answer none.
//!
//! PING is sent only where something is owed and nothing was heard, and ever more rarely while nothing but PONG comes:
//! servers take pings without need for an attack (gRPC's allow two that come too early).

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::message::failure::Failure;
use crate::message::h2::small::SmallFrames;
use crate::net::forward_writes;
use crate::protocol::goaway::GoawayWatch;
use crate::targets::tls;

/// Silence after which a target that owes something is asked for the first time; how often that is looked at.
const STEP: Duration = Duration::from_secs(3);
/// How much longer the next silence may last when a target answered PING and said nothing else.
const FACTOR: u32 = 4;
/// The longest silence without a PING while something is owed.
const LONGEST: Duration = Duration::from_secs(320);
/// How long PONG may take.
const PONG_TIMEOUT: Duration = Duration::from_secs(5);

/// What is known of the life of one connection.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// Bytes that came from the target.
    heard: AtomicU64,
    /// Requests that were sent.
    asked: AtomicU64,
    /// Streams that are open, and what wakes one of those who wait until there are fewer.
    open: AtomicU32,
    freed: Arc<Notify>,
    /// It takes no more requests: the target has said so, or it has ended.
    leaving: AtomicBool,
    /// What comes in small frames.
    small_frames: Arc<SmallFrames>,
    /// What TLS found wrong: what HTTP/2 says of it later is a text without a cause.
    insecure: OnceLock<Failure>,
}

impl Life {
    /// Of a connection that wakes one who waits there when it may have room, or has none ever more.
    pub(super) fn new(freed: Arc<Notify>) -> Self {
        Self { freed, ..Self::default() }
    }

    /// Whether the connection takes no more requests.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Whether anything was heard of the target on it.
    pub(super) fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed) > 0
    }

    /// Whether it was used, and is not now.
    pub(super) fn is_unused(&self) -> bool {
        self.asked.load(Ordering::Relaxed) > 0 && self.open.load(Ordering::Acquire) == 0
    }

    /// What the readers of its streams and the guard below HTTP/2 know of small frames.
    pub(super) const fn small_frames(&self) -> &Arc<SmallFrames> {
        &self.small_frames
    }

    /// What TLS found wrong with the connection, if it did.
    pub(super) fn insecure(&self) -> Option<&Failure> {
        self.insecure.get()
    }

    /// The connection takes no more requests.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        self.freed.notify_one();
    }

    /// Returns when the target is dead.
    pub(super) async fn watch(&self, pings: Option<PingPong>) {
        let Some(mut pings) = pings else { return std::future::pending().await };
        let mut silence = Silence::default();
        loop {
            sleep(STEP).await;
            if !silence.look(self.seen()) {
                continue;
            }
            match timeout(PONG_TIMEOUT, pings.ping(Ping::opaque())).await {
                Ok(Ok(_)) => silence.answered(self.seen()),
                // An error is the connection's own, which ends by itself.
                Ok(Err(_)) => return std::future::pending().await,
                Err(_) => return,
            }
        }
    }

    fn seen(&self) -> Seen {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Seen { heard: of(&self.heard), asked: of(&self.asked), open: self.open.load(Ordering::Relaxed) }
    }
}

/// A look at a connection.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    heard: u64,
    asked: u64,
    open: u32,
}

/// How long a target has said nothing that it owes. A machine without I/O.
#[derive(Debug)]
struct Silence {
    heard: u64,
    asked: u64,
    /// Something was asked since something was heard.
    owes: bool,
    lasts: Duration,
    allowed: Duration,
}

impl Default for Silence {
    fn default() -> Self {
        Self { heard: 0, asked: 0, owes: false, lasts: Duration::ZERO, allowed: STEP }
    }
}

impl Silence {
    /// Called each [`STEP`]: whether it is time for a PING.
    fn look(&mut self, seen: Seen) -> bool {
        if seen.heard != self.heard {
            *self = Self { heard: seen.heard, asked: seen.asked, ..Self::default() };
            return false;
        }
        if seen.asked != self.asked {
            (self.asked, self.owes, self.allowed) = (seen.asked, true, STEP);
        }
        if seen.open == 0 && !self.owes {
            self.lasts = Duration::ZERO;
            return false;
        }
        self.lasts += STEP;
        self.lasts >= self.allowed
    }

    /// PONG came, which is in `seen` as something heard.
    fn answered(&mut self, seen: Seen) {
        let allowed = (self.allowed * FACTOR).min(LONGEST);
        *self = Self { heard: seen.heard, allowed, ..std::mem::take(self) };
        (self.lasts, self.owes) = (Duration::ZERO, false);
    }
}

/// A stream that is open while this lives.
#[derive(Debug)]
pub(in crate::targets) struct OpenStream(Arc<Life>);

impl OpenStream {
    /// Whether anything was heard of the target on this connection.
    pub(super) fn is_heard(&self) -> bool {
        self.0.is_heard()
    }

    /// What the readers of the connection's streams and the guard below HTTP/2 know of small frames.
    pub(super) fn small_frames(&self) -> &Arc<SmallFrames> {
        self.0.small_frames()
    }

    /// One more, if no more than `most` are open then.
    pub(super) fn take(life: &Arc<Life>, most: usize) -> Option<Self> {
        let more = |open: u32| ((open as usize) < most).then_some(open + 1);
        life.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        life.asked.fetch_add(1, Ordering::Relaxed);
        Some(Self(Arc::clone(life)))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
    }
}

impl OpenStream {
    /// What TLS found wrong with the connection, if it did.
    pub(super) fn insecure(&self) -> Option<&Failure> {
        self.0.insecure()
    }
}

/// Counts what a target says, and notes when it says that the connection ends: HTTP/2 tells that only those who ask for a
/// stream later, and not those who wait for one.
#[derive(Debug)]
pub(super) struct Heard<T> {
    io: T,
    life: Arc<Life>,
    goaway: GoawayWatch,
}

impl<T> Heard<T> {
    pub(super) fn new(io: T, life: Arc<Life>) -> Self {
        Self { io, life, goaway: GoawayWatch::of_server() }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Heard<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        if let Err(error) = ready!(Pin::new(&mut self.io).poll_read(cx, into)) {
            if let Some(failure) = tls::failure(&error) {
                let _ = self.life.insecure.set(failure);
            }
            return Poll::Ready(Err(error));
        }
        let read = into.filled().len() - before;
        self.life.heard.fetch_add(read as u64, Ordering::Relaxed);
        if !self.life.is_leaving() && self.goaway.see(&into.filled()[before..]) {
            self.life.leave();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Heard<T> {
    forward_writes!(self => io);
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use bytes::Bytes;
    use tokio::io::DuplexStream;
    use tokio::time::Instant;

    use super::*;

    const ONE_OPEN: Seen = Seen { heard: 1, asked: 1, open: 1 };

    /// The looks at which a target is asked that answers each time and says nothing else.
    fn asked_at(looks: u32, mut seen: impl FnMut(u32) -> Seen) -> Vec<u32> {
        let (mut silence, mut pongs) = (Silence::default(), 0);
        let mut with_pongs = |look, pongs| {
            let seen = seen(look);
            Seen { heard: seen.heard + pongs, ..seen }
        };
        let mut asked = Vec::new();
        for look in 0..looks {
            if silence.look(with_pongs(look, pongs)) {
                asked.push(look);
                pongs += 1;
                silence.answered(with_pongs(look, pongs));
            }
        }
        asked
    }

    #[test]
    fn a_silent_target_is_asked_soon_and_ever_more_rarely_while_it_answers() {
        let asked = asked_at(400, |_| ONE_OPEN);
        assert_eq!(asked[..3], [1, 5, 21]);
        assert!(asked.windows(2).all(|two| (two[1] - two[0]) * 3 <= 323), "{asked:?}");
        let early = asked.windows(2).filter(|two| (two[1] - two[0]) * 3 < 300).count();
        assert!(early <= 3, "few come within the five minutes that gRPC allows: {asked:?}");
    }

    #[test]
    fn a_target_that_owes_nothing_or_speaks_is_left_alone() {
        assert!(asked_at(1000, |_| Seen { open: 0, asked: 0, heard: 7 }).is_empty());
        assert!(asked_at(1000, |look| Seen { heard: u64::from(look) + 1, ..ONE_OPEN }).is_empty());
    }

    #[test]
    fn requests_that_come_and_go_unanswered_do_not_hide_a_silence() {
        let asked = asked_at(10, |look| Seen { asked: u64::from(look), open: 0, heard: 7 });
        assert!(asked.len() >= 5, "{asked:?}");
    }

    /// Both ends of a connection, with a stream open that the server owes an answer.
    async fn connection() -> (Arc<Life>, impl Future<Output = ()>, h2::server::Connection<DuplexStream, Bytes>) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let life = Arc::<Life>::default();
        let ours = h2::client::handshake(Heard::new(ours, Arc::clone(&life)));
        let (ours, theirs) = tokio::join!(ours, h2::server::handshake(theirs));
        let (mut sender, mut connection) = ours.unwrap();
        let pings = connection.ping_pong();
        let watched = Arc::clone(&life);
        let watch = async move {
            let open = OpenStream::take(&watched, 1);
            let stream = (open, sender.send_request(http::Request::new(()), true));
            tokio::select! {
                _ = connection => panic!("the connection ended"),
                () = watched.watch(pings) => drop(stream),
            }
        };
        (life, watch, theirs.unwrap())
    }

    #[test]
    fn as_many_streams_are_open_as_the_target_takes() {
        let life = Arc::<Life>::default();
        let first = OpenStream::take(&life, 1);
        assert!(first.is_some() && OpenStream::take(&life, 1).is_none());
        assert!(OpenStream::take(&life, 2).is_some(), "it allows more");
        drop(first);
        assert!(life.is_unused() && OpenStream::take(&life, 1).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_froze_is_dead_after_a_silence_and_an_unanswered_ping() {
        let (_life, watch, _frozen) = connection().await;
        let began = Instant::now();
        watch.await;
        assert!(began.elapsed() <= (STEP + PONG_TIMEOUT) * 2, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_thinks_for_an_hour_lives() {
        let (_life, watch, mut thinking) = connection().await;
        tokio::spawn(async move { while thinking.accept().await.is_some() {} });
        assert!(timeout(Duration::from_secs(3600), watch).await.is_err());
    }
}
