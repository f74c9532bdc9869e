//! A UDP relay that looks like a NAT: each sender gets a port of its own towards the other side.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::delay::{self, Receiver, Sender};
use super::{Impairment, Lane};

/// Room for the largest datagram.
const LARGEST: usize = 65_536;

/// Sits in front of `target`; senders talk to [`UdpLink::address`]. Gone when dropped.
pub(crate) struct UdpLink {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    front: UdpSocket,
    target: SocketAddr,
    up: Mutex<Lane>,
    down: Mutex<Lane>,
    /// The way out of each sender. Forgetting one is what a NAT does when it rebinds.
    ways: Mutex<HashMap<SocketAddr, Way>>,
    /// Bytes of the first datagram that the target sent; 0 before.
    first_answer: AtomicUsize,
}

struct Way {
    outside: Arc<UdpSocket>,
    /// Ends with the way.
    _answers: JoinSet<()>,
}

type Packet = (SocketAddr, Vec<u8>);

impl UdpLink {
    /// Both directions behave as `impairment` says, each with its own random numbers from `seed`.
    pub(crate) async fn new(target: SocketAddr, impairment: Impairment, seed: u64) -> io::Result<Self> {
        Self::at((Ipv4Addr::LOCALHOST, 0).into(), target, impairment, seed).await
    }

    /// The same, on this address.
    pub(crate) async fn at(at: SocketAddr, target: SocketAddr, impairment: Impairment, seed: u64) -> io::Result<Self> {
        let front = UdpSocket::bind(at).await?;
        let address = front.local_addr()?;
        let shared = Arc::new(Shared {
            front,
            target,
            up: Mutex::new(Lane::new(impairment, seed)),
            down: Mutex::new(Lane::new(impairment, !seed)),
            ways: Mutex::default(),
            first_answer: AtomicUsize::new(0),
        });
        let (up_in, up_out) = delay::line();
        let (down_in, down_out) = delay::line();
        let mut tasks = JoinSet::new();
        tasks.spawn(take_in(Arc::clone(&shared), up_in));
        tasks.spawn(send_on(Arc::clone(&shared), up_out, down_in));
        tasks.spawn(send_back(Arc::clone(&shared), down_out));
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// Where senders reach the target through this link.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How long the first datagram was that the target sent, bytes; 0 before.
    pub(crate) fn first_answer(&self) -> usize {
        self.shared.first_answer.load(Ordering::Relaxed)
    }

    /// From now on the link behaves like this.
    pub(crate) fn impair(&self, impairment: Impairment) {
        self.shared.up.lock().unwrap().impairment = impairment;
        self.shared.down.lock().unwrap().impairment = impairment;
    }

    /// Loses everything in both directions while on.
    pub(crate) fn blackout(&self, on: bool) {
        self.blackout_up(on);
        self.shared.down.lock().unwrap().blackout = on;
    }

    /// Loses only what goes towards the target.
    pub(crate) fn blackout_up(&self, on: bool) {
        self.shared.up.lock().unwrap().blackout = on;
    }

    /// The target sees every sender from a new port; what it sends to the old ones is lost.
    pub(crate) fn rebind(&self) {
        self.shared.ways.lock().unwrap().clear();
    }
}

async fn take_in(shared: Arc<Shared>, line: Sender<Packet>) {
    let mut buffer = vec![0; LARGEST];
    loop {
        // An error here reports an earlier datagram that nobody took: not the end of the relay.
        let Ok((length, from)) = shared.front.recv_from(&mut buffer).await else { continue };
        let arrival = shared.up.lock().unwrap().arrival(Instant::now(), length);
        if let Some(due) = arrival {
            line.send(due, (from, buffer[..length].to_vec()));
        }
    }
}

async fn send_on(shared: Arc<Shared>, mut line: Receiver<Packet>, answers: Sender<Packet>) {
    while let Some((from, packet)) = line.next().await {
        let known = shared.ways.lock().unwrap().get(&from).map(|way| Arc::clone(&way.outside));
        let outside = match known {
            Some(outside) => outside,
            None => open_way(&shared, from, answers.clone()).await,
        };
        let _ = outside.send(&packet).await;
    }
}

async fn open_way(shared: &Arc<Shared>, from: SocketAddr, answers: Sender<Packet>) -> Arc<UdpSocket> {
    let outside = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
    outside.connect(shared.target).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(take_answers(Arc::clone(shared), Arc::clone(&outside), from, answers));
    let way = Way { outside: Arc::clone(&outside), _answers: tasks };
    shared.ways.lock().unwrap().insert(from, way);
    outside
}

async fn take_answers(shared: Arc<Shared>, outside: Arc<UdpSocket>, to: SocketAddr, line: Sender<Packet>) {
    let mut buffer = vec![0; LARGEST];
    loop {
        match outside.recv(&mut buffer).await {
            Ok(length) => {
                let _ = shared.first_answer.compare_exchange(0, length, Ordering::Relaxed, Ordering::Relaxed);
                let arrival = shared.down.lock().unwrap().arrival(Instant::now(), length);
                if let Some(due) = arrival {
                    line.send(due, (to, buffer[..length].to_vec()));
                }
            }
            // Nobody listens at the target right now: it may come back.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(_) => return,
        }
    }
}

async fn send_back(shared: Arc<Shared>, mut line: Receiver<Packet>) {
    while let Some((to, packet)) = line.next().await {
        let _ = shared.front.send_to(&packet, to).await;
    }
}
