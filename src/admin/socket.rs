//! The two kinds of socket that the admin listener uses, behind one face.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::AdminAddress;

/// A byte stream of either kind.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A bound admin listener. Dropping it removes a Unix socket's file.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: AdminAddress,
    read_only: bool,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Binds; must be called within a Tokio runtime. A Unix socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// The address is taken, or not ours to bind.
    pub async fn bind(address: &AdminAddress) -> io::Result<Self> {
        match address {
            AdminAddress::Tcp(address) => Self::bind_tcp(*address).await,
            AdminAddress::Unix(path) => Self::bind_unix(path).await,
        }
    }

    /// Answers for metrics and health only.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Whether it answers for metrics and health only.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Where it is bound; port 0 has become a port.
    pub fn address(&self) -> &AdminAddress {
        &self.address
    }

    async fn bind_tcp(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = AdminAddress::Tcp(listener.local_addr()?);
        Ok(Self { socket: Socket::Tcp(listener), address, read_only: false })
    }

    async fn bind_unix(path: &Path) -> io::Result<Self> {
        if UnixStream::connect(path).await.is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{} is in use", path.display())));
        }
        if path.symlink_metadata().is_ok_and(|found| !is_socket(&found)) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is not a socket", path.display())));
        }
        let listener = bind_private(path)?;
        Ok(Self { socket: Socket::Unix(listener), address: AdminAddress::Unix(path.to_owned()), read_only: false })
    }

    /// Cancel safety: a connection is either returned or stays in the backlog.
    pub(super) async fn accept(&self) -> io::Result<Box<dyn Io>> {
        match &self.socket {
            Socket::Tcp(listener) => Ok(Box::new(listener.accept().await?.0)),
            Socket::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let AdminAddress::Unix(path) = &self.address {
            // Nothing to do about a failure, and the next start replaces the file.
            let _ = fs::remove_file(path);
        }
    }
}

/// Connects as a client.
pub(super) async fn connect(address: &AdminAddress) -> io::Result<Box<dyn Io>> {
    match address {
        AdminAddress::Tcp(address) => Ok(Box::new(TcpStream::connect(address).await?)),
        AdminAddress::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
    }
}

fn is_socket(found: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    found.file_type().is_socket()
}

/// Binds in a directory that only we can enter, then moves the socket to its place: at no time is there a socket that
/// others could open.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let nursery = Nursery::create(path)?;
    let nascent = nursery.0.join("s");
    let listener = UnixListener::bind(&nascent)?;
    fs::set_permissions(&nascent, Permissions::from_mode(0o600))?;
    fs::rename(&nascent, path)?;
    Ok(listener)
}

/// A private directory beside the socket, gone at the end.
struct Nursery(PathBuf);

impl Nursery {
    fn create(beside: &Path) -> io::Result<Self> {
        let mut name = beside.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        let path = beside.with_file_name(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
