//! A TCP relay. Loss costs time instead of bytes; a blackout holds bytes; a cut resets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::delay::{self, Receiver, Sender};
use super::{Impairment, Lane};

/// Bytes that share one fate, about what a segment carries.
const SEGMENT: usize = 1400;

/// Sits in front of `target`; connections go to [`TcpLink::address`]. Gone when dropped, and so are they.
pub(crate) struct TcpLink {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    target: SocketAddr,
    seed: u64,
    impairment: Mutex<Impairment>,
    blackout: watch::Sender<bool>,
    cut: watch::Sender<()>,
}

impl TcpLink {
    /// Each connection draws its random numbers from `seed`.
    pub(crate) async fn new(target: SocketAddr, impairment: Impairment, seed: u64) -> io::Result<Self> {
        Self::at((Ipv4Addr::LOCALHOST, 0).into(), target, impairment, seed).await
    }

    /// The same, on this address.
    pub(crate) async fn at(at: SocketAddr, target: SocketAddr, impairment: Impairment, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(at).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            seed,
            impairment: Mutex::new(impairment),
            blackout: watch::Sender::new(false),
            cut: watch::Sender::new(()),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(Arc::clone(&shared), listener));
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// Where connections reach the target through this link.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections behave like this.
    pub(crate) fn impair(&self, impairment: Impairment) {
        *self.shared.impairment.lock().unwrap() = impairment;
    }

    /// Holds everything in both directions while on; bytes arrive when it ends.
    pub(crate) fn blackout(&self, on: bool) {
        self.shared.blackout.send_replace(on);
    }

    /// Resets every connection, towards both sides.
    pub(crate) fn cut(&self) {
        self.shared.cut.send_replace(());
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    while let Ok((near, _)) = listener.accept().await {
        number += 2;
        connections.spawn(relay(Arc::clone(&shared), near, shared.seed.wrapping_add(number)));
    }
}

/// Both directions of one connection, until both have ended or it is cut.
async fn relay(shared: Arc<Shared>, mut near: TcpStream, seed: u64) {
    let Ok(mut far) = TcpStream::connect(shared.target).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let impairment = *shared.impairment.lock().unwrap();
    let mut cut = shared.cut.subscribe();
    let (near_read, near_write) = near.split();
    let (far_read, far_write) = far.split();
    tokio::select! {
        _ = cut.changed() => {}
        _ = async {
            tokio::join!(
                carry(Lane::new(impairment, seed), near_read, far_write, shared.blackout.subscribe()),
                carry(Lane::new(impairment, seed + 1), far_read, near_write, shared.blackout.subscribe()),
            )
        } => return,
    }
    // A cut must look like one, not like an orderly end.
    let _ = (near.set_zero_linger(), far.set_zero_linger());
}

async fn carry(lane: Lane, from: ReadHalf<'_>, to: WriteHalf<'_>, blackout: watch::Receiver<bool>) {
    let (sender, receiver) = delay::line();
    tokio::join!(take_in(lane, from, sender), give_out(receiver, to, blackout));
}

async fn take_in(mut lane: Lane, mut from: ReadHalf<'_>, line: Sender<Vec<u8>>) {
    let mut buffer = [0; SEGMENT];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let due = lane.stream_arrival(Instant::now(), length);
        line.send(due, buffer[..length].to_vec());
    }
}

async fn give_out(mut line: Receiver<Vec<u8>>, mut to: WriteHalf<'_>, mut blackout: watch::Receiver<bool>) {
    while let Some(segment) = line.next().await {
        if blackout.wait_for(|on| !on).await.is_err() || to.write_all(&segment).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
