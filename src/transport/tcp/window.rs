//! The window of an HTTP/2 connection, moved from outside the task that owns the connection. spec: SE-9

use std::future::pending;

use bytes::Bytes;
use h2::client;
use tokio::sync::watch;

use crate::net::{Cork, Corked};
use crate::transport::credit::{Lend, with_held};
use crate::transport::tcp::settings::{Http2Wire, TcpSettings};

/// The largest window of HTTP/2. RFC 9113 section 6.9.1
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Tells the owner of a connection what its window is to be.
#[derive(Debug, Clone)]
pub(super) struct Window {
    sizes: watch::Sender<u32>,
    connection: u32,
}

/// What the owner of the connection hears.
#[derive(Debug)]
pub(super) struct Wanted(watch::Receiver<u32>);

impl Window {
    pub(super) fn new(settings: &TcpSettings) -> (Self, Wanted) {
        let (sizes, wanted) = watch::channel(settings.connection_window);
        (Self { sizes, connection: settings.connection_window }, Wanted(wanted))
    }

    /// Lends the connection what its held-back streams hold.
    pub(super) fn lend(&self) -> Lend {
        let Self { sizes, connection } = self.clone();
        Box::new(move |bytes| {
            let size = with_held(connection, bytes).min(MAX_WINDOW);
            sizes.send_if_modified(|current| std::mem::replace(current, size) != size);
        })
    }
}

impl Wanted {
    /// The next size that differs. Cancel safe.
    pub(super) async fn changed(&mut self) -> u32 {
        match self.0.changed().await {
            Ok(()) => *self.0.borrow_and_update(),
            Err(_) => pending().await,
        }
    }
}

/// Drives a connection to its end.
pub(super) async fn drive(
    mut connection: client::Connection<Corked<Http2Wire>, Bytes>,
    cork: Cork<Http2Wire>,
    mut wanted: Wanted,
) -> Result<(), h2::Error> {
    loop {
        tokio::select! {
            // A connection that is busy uses up its turn: what comes behind it would wait until it is not.
            biased;
            size = wanted.changed() => connection.set_target_window_size(size),
            ended = cork.run(&mut connection) => return ended,
        }
    }
}
