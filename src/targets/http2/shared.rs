//! The one connection to a target that speaks HTTP/2. It is made once for all who wait for it, who share its failure too,
//! and given up when it is dead.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::PingPong;
use h2::client::{Builder, Connection, SendRequest};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::liveness::{Heard, Life, OpenStream};
use crate::message::failure::{Cause, Failure};
use crate::message::h2::guard::{Guard, Role};
use crate::net::{Cork, Corked, Guarded, Paced};
use crate::targets::connect::{Dialer, Socket};
use crate::targets::settings::TargetSettings;

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

/// The connection to one target, now and after it was replaced.
pub(super) struct Shared(Arc<Inner>);

struct Inner {
    dialer: Dialer,
    settings: TargetSettings,
    state: Mutex<State>,
}

enum State {
    None,
    /// Somebody makes one; all who need it wait for what comes of it.
    Making(Outcome),
    Made(Handle),
}

/// What HTTP/2 reads from and writes to.
type Stream = Guarded<Paced<Heard<Socket>>>;

type Outcome = watch::Receiver<Option<Result<Handle, Failure>>>;

/// A connection.
#[derive(Clone)]
pub(super) struct Handle {
    sender: SendRequest<Bytes>,
    life: Arc<Life>,
}

impl Handle {
    /// The way in, once the target takes one more stream, and what counts the stream. HTTP/2 itself would take any number
    /// of requests, and keep those for which there is no stream.
    pub(super) async fn ready(self) -> Result<(SendRequest<Bytes>, OpenStream), h2::Error> {
        let Self { sender, life } = self;
        let open = OpenStream::new(life, || sender.current_max_send_streams()).await;
        Ok((sender.ready().await?, open))
    }

    /// What TLS found wrong with the connection, if it did.
    pub(super) fn insecure(&self) -> Option<&Failure> {
        self.life.insecure()
    }
}

impl Shared {
    pub(super) fn new(dialer: Dialer, settings: TargetSettings) -> Self {
        Self(Arc::new(Inner { dialer, settings, state: Mutex::new(State::None) }))
    }

    /// Makes a connection beside the shared one, and lets go of it again.
    pub(super) async fn reach(&self) -> Result<(), Failure> {
        self.0.dialer.connect().await.map(drop)
    }

    /// The most bytes in a response's trailers.
    pub(super) fn head_bytes(&self) -> usize {
        self.0.settings.head_bytes
    }

    /// The connection in use; a new one if there is none or it is the one that has `ended`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the others who wait get the connection all the same.
    pub(super) async fn get(&self, ended: Option<&Handle>) -> Result<Handle, Failure> {
        let mut outcome = match self.present(ended) {
            Ok(handle) => return Ok(handle),
            Err(outcome) => outcome,
        };
        match outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
            Ok(Some(made)) => made,
            _ => Err(Failure::new(Cause::Internal, "nobody makes the connection to the target any more")),
        }
    }

    fn present(&self, ended: Option<&Handle>) -> Result<Handle, Outcome> {
        let is_of_use = |handle: &Handle| {
            let is_ended = ended.is_some_and(|ended| Arc::ptr_eq(&ended.life, &handle.life));
            !is_ended && !handle.life.is_over()
        };
        let mut state = self.0.state();
        match &*state {
            State::Made(handle) if is_of_use(handle) => Ok(handle.clone()),
            State::Making(outcome) => Err(outcome.clone()),
            State::Made(_) | State::None => {
                let outcome = self.0.begin();
                *state = State::Making(outcome.clone());
                Err(outcome)
            }
        }
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
    /// Plain data: a panic elsewhere cannot leave it half-changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a connection, in a task of its own: whoever asked first may go away.
    fn begin(self: &Arc<Self>) -> Outcome {
        let (tell, outcome) = watch::channel(None);
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let made = inner.connect().await;
            *inner.state() = match &made {
                Ok(handle) => State::Made(handle.clone()),
                Err(_) => State::None,
            };
            tell.send_replace(Some(made));
        });
        outcome
    }

    async fn connect(&self) -> Result<Handle, Failure> {
        let socket = self.dialer.connect().await?;
        let life = Arc::new(Life::default());
        let guard = Guard::new(Role::Client, self.settings.head_bytes);
        let paced = Paced::at_client(Heard::new(socket, Arc::clone(&life)));
        let (socket, cork) = Corked::new(Guarded::new(paced, guard, HEAD_PATIENCE));
        let made = builder(&self.settings).handshake(socket).await;
        let (sender, connection) = made.map_err(|error| Failure::new(Cause::TargetClosed, error.to_string()))?;
        tokio::spawn(drive(connection, cork, Arc::clone(&life)));
        Ok(Handle { sender, life })
    }
}

fn builder(settings: &TargetSettings) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
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
    life.end();
}
