//! What the TCP connection of a tunnel asks of the kernel.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tracing::info;

use super::no_delay;

/// Bytes that may wait in the kernel before they are sent (TCP_NOTSENT_LOWAT). What waits above it can still be overtaken:
/// small requests beside bulk are 30 to 75 % faster than with the megabytes that the kernel would take.
const UNSENT_BYTES: u32 = 64 * 1024;

/// The same for a client of the egress. The kernel would take megabytes for a client that reads nothing, and each answer that
/// it takes whole looks like one that was taken.
const UNSENT_BYTES_OF_CLIENT: u32 = 128 * 1024;

/// What to ask for one connection.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// How long bytes may stay unacknowledged before the kernel ends the connection (TCP_USER_TIMEOUT), instead of the
    /// quarter of an hour that it would try.
    pub user_timeout: Duration,
    /// The congestion control, by the kernel's name (TCP_CONGESTION). Where it cannot be had the kernel's own default stays,
    /// and the log says so once.
    pub congestion: &'static str,
}

/// What every tunnel's TCP connection gets: small writes go out at once, and what [`Tuning`] asks for.
///
/// An error means that the connection is gone already, which the first read tells better, or that the system does not have
/// the option: then the tunnel works as well as TCP does there.
pub fn tune_tcp(stream: &TcpStream, tuning: &Tuning) {
    no_delay(stream);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let socket = SockRef::from(stream);
        let _ = socket.set_tcp_user_timeout(Some(tuning.user_timeout));
        let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
        if let Err(error) = socket.set_tcp_congestion(tuning.congestion.as_bytes())
            && is_refusal(&error)
            && is_news(tuning.congestion)
        {
            let kept = socket.tcp_congestion().unwrap_or_default();
            let kept = String::from_utf8_lossy(&kept);
            info!(
                asked = tuning.congestion,
                kept = kept.trim_end_matches('\0'),
                %error,
                "the kernel does not give this congestion control to tunnels over TCP; for bbr load the module tcp_bbr and \
                 name it in net.ipv4.tcp_allowed_congestion_control"
            );
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (tuning, UNSENT_BYTES);
}

/// What every client's TCP connection gets: small writes go out at once, and what cannot be sent yet waits here rather than
/// in the kernel. Errors mean what they mean in [`tune_tcp`].
pub fn tune_client(stream: &TcpStream) {
    no_delay(stream);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES_OF_CLIENT);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = UNSENT_BYTES_OF_CLIENT;
}

/// Whether it is the kernel that does not have it, or not for this process, rather than a connection that is gone.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

/// Whether this is the first time in the process that it could not be had.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_news(congestion: &'static str) -> bool {
    static SAID: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(congestion)
}

/// Connects. `segment` bounds what a segment carries in either direction, bytes (TCP_MAXSEG): the peer hears it in the SYN.
///
/// # Errors
/// What the system says.
///
/// # Cancel safety
/// Dropping the future abandons the connection.
pub async fn connect_tcp(address: SocketAddr, segment: Option<u32>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    #[cfg(unix)]
    if let Some(segment) = segment {
        SockRef::from(&socket).set_tcp_mss(segment)?;
    }
    #[cfg(not(unix))]
    let _ = segment;
    socket.connect(address).await
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    fn tuning(congestion: &'static str) -> Tuning {
        Tuning { user_timeout: Duration::from_secs(7), congestion }
    }

    async fn pair(segment: Option<u32>) -> (TcpStream, TcpStream) {
        let listener = crate::net::bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let (accepted, connected) =
            tokio::join!(listener.accept(), connect_tcp(listener.local_addr().unwrap(), segment));
        (accepted.unwrap().0, connected.unwrap())
    }

    #[tokio::test]
    async fn a_connection_gets_what_it_asks_for() {
        let (accepted, connected) = pair(None).await;
        for stream in [&accepted, &connected] {
            tune_tcp(stream, &tuning("reno"));
            let socket = SockRef::from(stream);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
            assert!(socket.tcp_congestion().unwrap().starts_with(b"reno"));
            assert!(stream.nodelay().unwrap());
        }
    }

    #[tokio::test]
    async fn what_the_kernel_does_not_have_is_done_without_and_said_once() {
        let (_accepted, connected) = pair(None).await;
        let before = SockRef::from(&connected).tcp_congestion().unwrap();
        tune_tcp(&connected, &tuning("no-such-thing"));
        assert_eq!(SockRef::from(&connected).tcp_congestion().unwrap(), before);
        assert!(!is_news("no-such-thing"));
    }

    #[tokio::test]
    async fn a_bound_on_segments_holds_in_both_directions() {
        let (accepted, connected) = pair(Some(1140)).await;
        for stream in [&accepted, &connected] {
            assert!(SockRef::from(stream).tcp_mss().unwrap() <= 1140);
        }
    }
}
