//! A target of datagrams at the site, and a source at the cloud.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::eventually::eventually;

/// What it got: from where, and what.
type Seen = Arc<Mutex<Vec<(SocketAddr, Vec<u8>)>>>;

/// A target whose answers a test decides.
pub(crate) struct Peer {
    address: SocketAddr,
    socket: Arc<UdpSocket>,
    seen: Seen,
    task: JoinHandle<()>,
}

impl Peer {
    /// Sends everything back.
    pub(crate) async fn echo() -> Self {
        Self::answering(|datagram| vec![datagram.to_vec()]).await
    }

    /// Says nothing.
    pub(crate) async fn silent() -> Self {
        Self::answering(|_| Vec::new()).await
    }

    pub(crate) async fn answering(answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), answer).await
    }

    /// One at this address: where that of another one was, whoever was given its port meanwhile, by chance, is waited for.
    pub(crate) async fn at(address: SocketAddr, answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let free = async || UdpSocket::bind(address).await.ok();
        let socket = Arc::new(eventually("that the address is free", free).await);
        let (address, seen) = (socket.local_addr().unwrap(), Seen::default());
        let (noted, own) = (Arc::clone(&seen), Arc::clone(&socket));
        let task = tokio::spawn(async move {
            let mut room = vec![0; 65_536];
            loop {
                // Nobody listens at a source any more: that is no end of a target.
                let Ok((length, from)) = own.recv_from(&mut room).await else { continue };
                noted.lock().unwrap().push((from, room[..length].to_vec()));
                for answer in answer(&room[..length]) {
                    let _ = own.send_to(&answer, from).await;
                }
            }
        });
        Self { address, socket, seen, task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn seen(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        self.seen.lock().unwrap().clone()
    }

    /// Sends a datagram that nobody asked for.
    pub(crate) async fn send(&self, to: SocketAddr, datagram: &[u8]) {
        self.socket.send_to(datagram, to).await.unwrap();
    }

    /// Waits until it has got this.
    pub(crate) async fn got(&self, datagram: &[u8]) -> SocketAddr {
        let find = async || self.seen().iter().find(|(_, seen)| seen == datagram).map(|(from, _)| *from);
        eventually("a datagram at the target", find).await
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A source of datagrams.
pub(crate) struct Client {
    socket: UdpSocket,
    /// What it has sent and nobody has sent back yet.
    unanswered: Mutex<Vec<Vec<u8>>>,
}

impl Client {
    pub(crate) async fn new(listener: SocketAddr) -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into(), listener).await
    }

    /// One with this address.
    pub(crate) async fn at(address: IpAddr, listener: SocketAddr) -> Self {
        let socket = UdpSocket::bind((address, 0)).await.unwrap();
        socket.connect(listener).await.unwrap();
        Self { socket, unanswered: Mutex::default() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    pub(crate) async fn send(&self, datagram: &[u8]) {
        self.unanswered.lock().unwrap().push(datagram.to_vec());
        self.socket.send(datagram).await.unwrap();
    }

    /// Notes that this has come, which may be what was sent.
    fn came(&self, datagram: &[u8]) {
        let mut unanswered = self.unanswered.lock().unwrap();
        if let Some(at) = unanswered.iter().position(|sent| sent == datagram) {
            unanswered.swap_remove(at);
        }
    }

    /// The next datagram, if one comes in this time.
    pub(crate) async fn recv_within(&self, limit: Duration) -> Option<Vec<u8>> {
        let mut room = vec![0; 65_536];
        let length = timeout(limit, self.socket.recv(&mut room)).await.ok()?.ok()?;
        room.truncate(length);
        self.came(&room);
        Some(room)
    }

    /// What has come already.
    pub(crate) fn waiting(&self) -> Vec<Vec<u8>> {
        let mut room = vec![0; 65_536];
        let come = std::iter::from_fn(|| self.socket.try_recv(&mut room).ok().map(|length| room[..length].to_vec()));
        come.inspect(|datagram| self.came(datagram)).collect()
    }
}

/// Sends a datagram, again where it was lost, until there is an answer. What comes back only now of that which was sent before is
/// none: on a machine with much to do, an answer may be late and not lost.
pub(crate) async fn ask(client: &Client, datagram: &[u8]) -> Vec<u8> {
    client.waiting();
    let late = client.unanswered.lock().unwrap().clone();
    eventually("an answer to a datagram", async || {
        client.send(datagram).await;
        loop {
            let answer = client.recv_within(Duration::from_secs(2)).await?;
            if answer == datagram || !late.contains(&answer) {
                return Some(answer);
            }
        }
    })
    .await
}
