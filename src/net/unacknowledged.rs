//! What the system still holds of a connection: bytes that were written, and that the other end has not acknowledged. A reset
//! throws them away, so whoever has to reset a connection behind its last bytes waits until there are none.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// The system does not say when bytes are acknowledged, it has to be asked: so soon at first, and then less and less often.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// How long is waited for an other end that takes what was written.
#[derive(Debug, Clone, Copy)]
pub struct Grace {
    /// So long for one that takes nothing.
    pub patience: Duration,
    /// Bytes a second by which that is renewed: whoever takes less has to be done after some time. 0: by any byte.
    pub rate: u64,
}

/// A wait for an other end that has to acknowledge what was written.
pub type Acknowledged = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Waits until the other end has acknowledged everything that was written, is gone, or takes too little. `None`: there is
/// nothing to wait for, since closing this connection does not reset it, or everything is acknowledged. The same where the
/// system cannot be asked: Linux alone can, through netlink (sock_diag(7)).
///
/// # Cancel safety
/// Cancel safe. The stream is not borrowed.
pub fn acknowledged(stream: &TcpStream, grace: Grace) -> Option<Acknowledged> {
    if SockRef::from(stream).linger().is_ok_and(|linger| linger.is_none()) {
        return None;
    }
    let asked = system::Asked::of(stream).and_then(|asked| asked.bytes().map(|held| (asked, held)));
    match asked {
        Ok((_, 0)) => None,
        Ok((asked, _)) => Some(Box::pin(async move { wait(|| asked.bytes(), grace).await })),
        Err(error) => {
            unknown(&error);
            None
        }
    }
}

fn unknown(error: &io::Error) {
    tracing::debug!(%error, "what the system still holds of a connection that is reset is not known");
}

async fn wait(held: impl Fn() -> io::Result<u64>, grace: Grace) {
    let (mut pause, mut last) = (FIRST_LOOK, None);
    let mut ends = Instant::now() + grace.patience;
    loop {
        let held = match held() {
            Ok(0) => return,
            Ok(held) => held,
            Err(error) => return unknown(&error),
        };
        let now = Instant::now();
        let taken = last.map_or(0, |last: u64| last.saturating_sub(held));
        last = Some(held);
        ends = (now + grace.patience).min(ends + grace.earned(taken));
        if ends <= now {
            return;
        }
        sleep(pause.min(ends - now)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl Grace {
    fn earned(self, bytes: u64) -> Duration {
        match (bytes, self.rate) {
            (0, _) => Duration::ZERO,
            (_, 0) => self.patience,
            (bytes, rate) => Duration::from_millis(bytes.saturating_mul(1000) / rate),
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::net::{IpAddr, SocketAddr};

    use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
    use rustix::net::sockopt::socket_cookie;
    use rustix::net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto, socket_with,
    };
    use tokio::net::TcpStream;

    /// SOCK_DIAG_BY_FAMILY, sock_diag(7).
    const BY_FAMILY: u16 = 20;
    /// NLMSG_ERROR, netlink(7).
    const ERROR: u16 = 2;
    /// NLM_F_REQUEST.
    const REQUEST: u16 = 1;
    /// A socket in whatever state.
    const ANY_STATE: u32 = u32::MAX;
    /// `nlmsghdr`.
    const HEADER: usize = 16;
    /// `inet_diag_req_v2`.
    const QUESTION: usize = 56;
    /// In `inet_diag_msg`: where the bytes stand that were written and not acknowledged.
    const WRITE_QUEUE: usize = HEADER + 60;
    /// Room for an answer, which is short where no more is asked for.
    const ROOM: usize = 1024;

    /// A question about one connection.
    pub(super) struct Asked([u8; HEADER + QUESTION]);

    impl Asked {
        pub(super) fn of(stream: &TcpStream) -> io::Result<Self> {
            let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
            // Told apart from another one with the same addresses, once this one is gone.
            let cookie = socket_cookie(stream)?;
            let addresses = (local.ip().to_canonical(), peer.ip().to_canonical());
            let family = if addresses.1.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let mut message = Vec::with_capacity(HEADER + QUESTION);
            message.extend(((HEADER + QUESTION) as u32).to_ne_bytes());
            message.extend(BY_FAMILY.to_ne_bytes());
            message.extend(REQUEST.to_ne_bytes());
            // A sequence number, and the sender, which the kernel fills in.
            message.extend([0; 8]);
            // Family, protocol, nothing beyond the message itself, padding.
            message.extend([family.as_raw() as u8, ipproto::TCP.as_raw().get() as u8, 0, 0]);
            message.extend(ANY_STATE.to_ne_bytes());
            message.extend(local.port().to_be_bytes());
            message.extend(peer.port().to_be_bytes());
            message.extend(octets(addresses.0));
            message.extend(octets(addresses.1));
            message.extend(interface(peer).to_ne_bytes());
            message.extend((cookie as u32).to_ne_bytes());
            message.extend(((cookie >> 32) as u32).to_ne_bytes());
            let message = message.try_into().map_err(|_| io::Error::other("a question of another length"))?;
            Ok(Self(message))
        }

        /// How many bytes there are; none of a connection that is gone.
        pub(super) fn bytes(&self) -> io::Result<u64> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(SOCK_DIAG))?;
            sendto(&socket, &self.0, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
            let mut answer = [0; ROOM];
            // The kernel has answered before it returned.
            let (_, length) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
            read(&answer[..length])
        }
    }

    fn read(answer: &[u8]) -> io::Result<u64> {
        let field = |at: usize| answer.get(at..)?.first_chunk::<4>().copied();
        let kind = answer.get(4..).and_then(|rest| rest.first_chunk::<2>()).map(|kind| u16::from_ne_bytes(*kind));
        let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
        match kind {
            Some(BY_FAMILY) => field(WRITE_QUEUE).map(|held| u32::from_ne_bytes(held).into()).ok_or_else(short),
            Some(ERROR) => {
                let code = field(HEADER).map(i32::from_ne_bytes).ok_or_else(short)?;
                let error = io::Error::from_raw_os_error(-code);
                let is_gone = [rustix::io::Errno::NOENT, rustix::io::Errno::STALE];
                if is_gone.iter().any(|gone| gone.raw_os_error() == -code) { Ok(0) } else { Err(error) }
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn octets(address: IpAddr) -> [u8; 16] {
        match address {
            IpAddr::V4(address) => {
                let mut octets = [0; 16];
                octets[..4].copy_from_slice(&address.octets());
                octets
            }
            IpAddr::V6(address) => address.octets(),
        }
    }

    /// Where the addresses are those of a link, which link.
    fn interface(peer: SocketAddr) -> u32 {
        match peer {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(peer) => peer.scope_id(),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;

    use tokio::net::TcpStream;

    pub(super) struct Asked;

    impl Asked {
        pub(super) fn of(_: &TcpStream) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(super) fn bytes(&self) -> io::Result<u64> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const PATIENT: Grace = Grace { patience: Duration::from_secs(300), rate: 0 };

    /// What was looked at, after how long it was given up, and what was left.
    async fn waits(grace: Grace, held: impl Fn(Duration) -> u64) -> Duration {
        let began = Instant::now();
        wait(|| Ok(held(began.elapsed())), grace).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_what_was_written_is_waited_for_and_who_takes_nothing_is_not_for_long() {
        assert_eq!(waits(PATIENT, |_| 0).await, Duration::ZERO);
        assert_eq!(waits(PATIENT, |_| 7).await, PATIENT.patience);
        let slow = |elapsed: Duration| 1_000_u64.saturating_sub(elapsed.as_secs());
        let until = waits(PATIENT, slow).await;
        assert!((1_000..1_001).contains(&until.as_secs()), "{until:?}");
        let paced = Grace { rate: 2, ..PATIENT };
        let until = waits(paced, slow).await;
        assert!((590..610).contains(&until.as_secs()), "half of what it should take, so half of the time: {until:?}");
        let asked = Cell::new(0);
        wait(|| Err(asked.replace(1)).map_err(|_| io::ErrorKind::PermissionDenied.into()), PATIENT).await;
        assert_eq!(asked.get(), 1);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_system_says_what_is_not_acknowledged_also_of_mapped_addresses() {
        use tokio::io::AsyncReadExt as _;

        for bound in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            // A system without IPv6 has nothing to say of it.
            let Ok(listener) = crate::net::bind_tcp(bound.parse().unwrap()) else { continue };
            let mut to = listener.local_addr().unwrap();
            if to.ip().is_unspecified() {
                to.set_ip([127, 0, 0, 1].into());
            }
            let (client, accepted) = tokio::join!(TcpStream::connect(to), listener.accept());
            let (mut client, (stream, _)) = (client.unwrap(), accepted.unwrap());
            let asked = system::Asked::of(&stream).unwrap();
            assert_eq!(asked.bytes().unwrap(), 0, "{bound}");
            let (piece, mut written) = (vec![7; 1 << 20], 0);
            loop {
                stream.writable().await.unwrap();
                match stream.try_write(&piece) {
                    Ok(length) => written += length as u64,
                    Err(_) => break,
                }
            }
            let held = asked.bytes().unwrap();
            assert!((1..=written).contains(&held), "{bound}: {held} of {written}");
            assert!(acknowledged(&stream, PATIENT).is_none(), "{bound}: closing it loses nothing");
            stream.set_zero_linger().unwrap();
            let mut left = written;
            let mut room = vec![0; 1 << 20];
            let waits = acknowledged(&stream, PATIENT).unwrap();
            let reads = async {
                while left > 0 {
                    left -= client.read(&mut room).await.unwrap() as u64;
                }
            };
            tokio::join!(waits, reads);
            assert_eq!(asked.bytes().unwrap(), 0, "{bound}: acknowledged");
            assert!(acknowledged(&stream, PATIENT).is_none());
            drop(stream);
            assert_eq!(asked.bytes().unwrap(), 0, "{bound}: gone, and somebody listens there");
        }
    }
}
