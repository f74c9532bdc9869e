//! The connections to a target that speaks HTTP/2: one, and a few more while it takes no more streams. One is made once for
//! all who wait for it, who share its failure too, and given up when it is dead. One that says that it ends (GOAWAY) gets no
//! new request, and what runs on it goes on.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::PingPong;
use h2::client::{Builder, Connection, SendRequest};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::liveness::{Heard, Life, OpenStream};
use crate::message::failure::{Cause, Failure};
use crate::message::h2::guard::{Guard, Role};
use crate::message::h2::small::UNCHARGED;
use crate::net::{Cork, Corked, Guarded, Paced};
use crate::targets::connect::{Dialer, Socket};
use crate::targets::settings::{CONNECTION_WAIT, TargetSettings};

/// What one response may have under way: enough for 100 MiB/s at a millisecond, and no more than a tunnel's stream.
const STREAM_WINDOW: u32 = 1 << 20;
/// What all responses together may have under way.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// How many streams that were given up are remembered, and for how long, so that what is still under way on them is dropped
/// quietly: a tunnel may cancel all of its requests at once.
const REMEMBERED_RESETS: usize = 8192;
const RESET_MEMORY: Duration = Duration::from_secs(30);

/// How long the end of a head may take that has begun: nothing else comes on the connection meanwhile.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);

/// The most connections to one target. Another one is made only while those that are there take no more streams.
const MOST_CONNECTIONS: usize = 8;
/// How often the first of those who wait for a stream looks whether a target allows more: its SETTINGS wake nobody.
const ROOM_LOOK: Duration = Duration::from_millis(10);
/// When a client that found no stream should come again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How many connections in a row may say that they end before they took a request.
const MOST_ENDED: u32 = 3;

/// The connections to one target, now and after they were replaced.
pub(super) struct Shared(Arc<Inner>);

struct Inner {
    dialer: Dialer,
    settings: TargetSettings,
    state: Mutex<State>,
    /// Wakes one of those who wait when there may be room.
    freed: Arc<Notify>,
    /// How many wait because all is full, whom nobody who comes later passes by, and the turn of the first of them.
    queued: AtomicU32,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// The oldest first: it gets what it takes, so that what a crowd needed ends when the crowd has gone.
    made: Vec<Handle>,
    /// Somebody makes one; all who need it wait for what comes of it.
    making: Option<Outcome>,
    /// When one could not be made that last was.
    failed: Option<Instant>,
}

/// What HTTP/2 reads from and writes to.
type Stream = Guarded<Paced<Heard<Socket>>>;

type Outcome = watch::Receiver<Option<Result<(), Failure>>>;

/// A connection.
#[derive(Clone)]
struct Handle {
    sender: SendRequest<Bytes>,
    life: Arc<Life>,
    since: Instant,
}

/// What there is for one more exchange.
enum Found {
    Stream(Handle, OpenStream),
    /// A connection that is being made; the second: it is the only one.
    Soon(Outcome, bool),
    /// As many connections as there may be now, and no stream on any.
    Full,
}

impl Handle {
    /// One more stream, if the target takes it. HTTP/2 itself would take any number of requests, and keep those for which there
    /// is no stream.
    fn open(&self) -> Option<OpenStream> {
        OpenStream::take(&self.life, self.sender.current_max_send_streams())
    }

    /// Whether it may soon say how many streams it takes: until then HTTP/2 reckons with a hundred.
    fn is_new(&self) -> bool {
        !self.life.is_heard() && self.since.elapsed() < SETTINGS_TIMEOUT
    }
}

impl State {
    /// Forgets what a crowd has left behind.
    fn prune(&mut self) {
        let mut first = true;
        self.made.retain(|handle| std::mem::take(&mut first) || !handle.life.is_unused());
    }
}

impl Shared {
    pub(super) fn new(dialer: Dialer, settings: TargetSettings) -> Self {
        let (state, freed, queued, turn) = Default::default();
        Self(Arc::new(Inner { dialer, settings, state, freed, queued, turn }))
    }

    /// Makes a connection beside the shared ones, and lets go of it again.
    pub(super) async fn reach(&self) -> Result<(), Failure> {
        self.0.dialer.connect().await.map(drop)
    }

    /// The most bytes in a response's trailers.
    pub(super) fn head_bytes(&self) -> usize {
        self.0.settings.head_bytes
    }

    /// A way in whose connection takes one more stream, and what counts the stream. A connection that has said that it ends
    /// takes none. Where there are as many connections as there may be, and all are full, a stream is waited for up to
    /// [`CONNECTION_WAIT`].
    ///
    /// # Errors
    ///
    /// No connection could be made, or there was no room.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the others who wait get the connection all the same.
    pub(super) async fn open(&self) -> Result<(SendRequest<Bytes>, OpenStream), Failure> {
        let inner = &self.0;
        let mut ended = 0;
        loop {
            let (handle, open) = match inner.find(inner.queued.load(Ordering::Acquire) == 0) {
                Found::Stream(handle, open) => (handle, open),
                Found::Soon(outcome, true) => {
                    made(outcome).await?;
                    continue;
                }
                // Boxed: it is rare, and in the way of every exchange.
                Found::Soon(_, false) | Found::Full => Box::pin(inner.queue()).await?,
            };
            let Handle { sender, life, .. } = handle;
            match sender.ready().await {
                Ok(sender) => return Ok((sender, open)),
                Err(error) => {
                    life.leave();
                    drop(open);
                    ended += 1;
                    if let Some(failure) = life.insecure() {
                        return Err(failure.clone());
                    }
                    if ended > MOST_ENDED {
                        return Err(Failure::new(Cause::TargetClosed, error.to_string()));
                    }
                }
            }
        }
    }
}

/// One who waits.
struct Queued<'a>(&'a AtomicU32);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Inner {
    /// Plain data: a panic elsewhere cannot leave it half-changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `may_take`: nobody came before who waits.
    fn find(self: &Arc<Self>, may_take: bool) -> Found {
        let mut state = self.state();
        // What takes no more ends with its last stream.
        state.made.retain(|handle| !handle.life.is_leaving());
        if may_take && let Some((handle, open)) = state.made.iter().find_map(|handle| Some((handle, handle.open()?))) {
            let handle = handle.clone();
            // Who waits takes what another one has just left.
            if self.queued.load(Ordering::Acquire) == 0 {
                state.prune();
            }
            return Found::Stream(handle, open);
        }
        let is_alone = state.made.is_empty();
        if let Some(outcome) = &state.making {
            return Found::Soon(outcome.clone(), is_alone);
        }
        let failed_just_now = state.failed.is_some_and(|failed| failed.elapsed() < CONNECTION_WAIT);
        let may_have_room = state.made.last().is_some_and(Handle::is_new);
        if !is_alone && (state.made.len() >= MOST_CONNECTIONS || failed_just_now || may_have_room) {
            return Found::Full;
        }
        let outcome = self.begin();
        state.making = Some(outcome.clone());
        Found::Soon(outcome, is_alone)
    }

    /// Waits in turn for a stream, but not for long.
    async fn queue(self: &Arc<Self>) -> Result<(Handle, OpenStream), Failure> {
        self.queued.fetch_add(1, Ordering::AcqRel);
        let _queued = Queued(&self.queued);
        let until = Instant::now() + CONNECTION_WAIT;
        let full = || {
            let details =
                format!("the target takes no more requests at once, and none of those ended for {CONNECTION_WAIT:?}");
            Failure::new(Cause::ServiceFull, details).retry_after(RETRY_AFTER)
        };
        let _turn = timeout_at(until, self.turn.lock()).await.map_err(|_| full())?;
        while Instant::now() < until {
            let look = timeout_at(until.min(Instant::now() + ROOM_LOOK), self.freed.notified());
            match self.find(true) {
                Found::Stream(handle, open) => return Ok((handle, open)),
                Found::Soon(outcome, is_alone) => tokio::select! {
                    made = made(outcome) => if is_alone { made? },
                    _ = look => {}
                },
                Found::Full => {
                    let _ = look.await;
                }
            }
        }
        Err(full())
    }
}

/// Waits for a connection that is being made.
async fn made(mut outcome: Outcome) -> Result<(), Failure> {
    match outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
        Ok(Some(made)) => made,
        _ => Err(Failure::new(Cause::Internal, "nobody makes the connection to the target any more")),
    }
}

/// How long a target may take to say what its HTTP/2 can, and how often that is looked at.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(1);
const SETTINGS_INTERVAL: Duration = Duration::from_millis(5);

impl Shared {
    /// Whether the target takes an extended CONNECT. Nothing is known of that before its SETTINGS. RFC 8441 section 3
    pub(super) async fn check_switches(&self, sender: &SendRequest<Bytes>, open: &OpenStream) -> Result<(), Failure> {
        let enabled = async {
            while !sender.is_extended_connect_protocol_enabled() {
                // Its SETTINGS are the first that is heard of it.
                let is_heard = open.is_heard();
                sleep(SETTINGS_INTERVAL).await;
                if is_heard {
                    return;
                }
            }
        };
        // Late is as good as never.
        let _ = timeout(SETTINGS_TIMEOUT, enabled).await;
        match sender.is_extended_connect_protocol_enabled() {
            true => Ok(()),
            false => Err(Failure::new(Cause::UpgradeRefused, "the target's HTTP/2 takes no extended CONNECT")),
        }
    }
}

impl Inner {
    /// Makes a connection, in a task of its own: whoever asked first may go away.
    fn begin(self: &Arc<Self>) -> Outcome {
        let (tell, outcome) = watch::channel(None);
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let made = inner.connect().await;
            let told = {
                let mut state = inner.state();
                state.making = None;
                state.failed = made.is_err().then(Instant::now);
                made.map(|handle| state.made.push(handle))
            };
            tell.send_replace(Some(told));
        });
        outcome
    }

    async fn connect(&self) -> Result<Handle, Failure> {
        let socket = self.dialer.connect().await?;
        let life = Arc::new(Life::new(Arc::clone(&self.freed)));
        let guard = Guard::new(Role::Client, self.settings.head_bytes).joining(life.small_frames());
        let paced = Paced::at_client(Heard::new(socket, Arc::clone(&life)));
        let (socket, cork) = Corked::new(Guarded::new(paced, guard, HEAD_PATIENCE));
        let made = builder(&self.settings).handshake(socket).await;
        let (sender, connection) = made.map_err(|error| Failure::new(Cause::TargetClosed, error.to_string()))?;
        tokio::spawn(drive(connection, cork, Arc::clone(&life)));
        Ok(Handle { sender, life, since: Instant::now() })
    }
}

fn builder(settings: &TargetSettings) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(UNCHARGED)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .reset_stream_duration(RESET_MEMORY)
        // Not counted over the life of the connection: see `FrameRate` for what bounds them.
        .max_local_error_reset_streams(None)
        .max_header_list_size(u32::try_from(settings.head_bytes).unwrap_or(u32::MAX));
    builder
}

/// Ends by itself with the last handle and the last stream, or when the target is dead; its errors reach whoever holds a
/// stream.
async fn drive(mut connection: Connection<Corked<Stream>>, cork: Cork<Stream>, life: Arc<Life>) {
    let pings: Option<PingPong> = connection.ping_pong();
    tokio::select! {
        _ = cork.run(connection) => {}
        () = life.watch(pings) => tracing::debug!("a target leaves PING unanswered; its connection is given up"),
    }
    life.leave();
}
