//! Telling the service manager how the process stands: `sd_notify(3)` of systemd, which other managers speak, too.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Names the socket of the manager; without it nobody wants to be told.
pub const NOTIFY_VARIABLE: &str = "NOTIFY_SOCKET";

/// How the process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// Everything is bound and runs. A tunnel is not waited for: a site whose responder is away has started all the same.
    Ready,
    /// It reads its settings again; [`Stand::Ready`] follows, whatever comes of it.
    Reloading,
    /// It drains, for so long at most; the manager waits that long before it kills.
    Stopping(Duration),
}

impl Stand {
    fn message(self) -> String {
        match self {
            Self::Ready => "READY=1\nSTATUS=running\n".to_owned(),
            Self::Reloading => {
                // The manager tells by the time whether it had asked before.
                let now = clock_gettime(ClockId::Monotonic);
                let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000);
                format!("RELOADING=1\nSTATUS=reloading\nMONOTONIC_USEC={micros}\n")
            }
            Self::Stopping(limit) => {
                // What follows the deadline has its own short limits.
                let micros = limit.saturating_add(Duration::from_secs(5)).as_micros();
                format!("STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC={micros}\n")
            }
        }
    }
}

/// Tells the manager, if there is one ([`NOTIFY_VARIABLE`]).
///
/// # Errors
/// The socket takes nothing; the process runs on all the same.
pub fn notify(stand: Stand) -> io::Result<()> {
    match std::env::var_os(NOTIFY_VARIABLE).filter(|name| !name.is_empty()) {
        Some(name) => send(&name, &stand.message()),
        None => Ok(()),
    }
}

fn send(name: &OsStr, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read keeps nobody waiting.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message.as_bytes(), &address(name)?).map(drop)
}

/// A path, or behind `@` a name of the abstract namespace.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name),
        #[cfg(not(target_os = "linux"))]
        Some(_) => Err(io::ErrorKind::Unsupported.into()),
        None => SocketAddr::from_pathname(OsString::from(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_is_told_at_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), &Stand::Ready.message()).unwrap();
        assert!(received(&manager).lines().any(|line| line == "READY=1"));
        send(path.as_os_str(), &Stand::Reloading.message()).unwrap();
        let reloading = received(&manager);
        assert!(reloading.contains("RELOADING=1\n"), "{reloading}");
        let micros = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0);
        send(path.as_os_str(), &Stand::Stopping(Duration::from_secs(30)).message()).unwrap();
        let stopping = received(&manager);
        assert!(stopping.contains("STOPPING=1\n") && stopping.contains("EXTEND_TIMEOUT_USEC=35000000\n"), "{stopping}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_manager_is_told_in_the_abstract_namespace() {
        let name = format!("adit-notify-{}", std::process::id());
        let address = address(OsStr::new(&format!("@{name}"))).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), "READY=1").unwrap();
        assert_eq!(received(&manager), "READY=1");
    }

    #[test]
    fn a_manager_that_is_gone_is_an_error_and_nothing_more() {
        assert!(send(OsStr::new("/nowhere/notify"), "READY=1").is_err());
    }
}
