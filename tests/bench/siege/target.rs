//! The service behind the tunnel, and what it does wrong on demand.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use crate::support::http1::RawHttp;
use crate::thread::on_own_thread;

/// What `/big` sends.
const BIG: usize = 64 << 20;
const PIECE: [u8; 16 << 10] = [b'x'; 16 << 10];

/// Listens until the process ends.
///
/// `/ok` is answered at once, `/big` with 64 MiB, `/interim` with 100 after 100 for ever; of a body for `/hold` nothing is
/// read, one for anything else is read to its end.
pub(crate) fn start() -> SocketAddr {
    on_own_thread("target", async |started| {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        started.send(listener.local_addr().unwrap()).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            // A client that goes away ends its own connection only.
            tokio::spawn(async { drop(serve(stream).await) });
        }
    })
}

async fn serve(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut peer = RawHttp::over(stream);
    loop {
        let (path, length) = request(&mut peer).await?;
        match path.as_str() {
            "/big" => big(&mut peer).await?,
            "/interim" => loop {
                peer.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            },
            "/hold" => std::future::pending().await,
            _ => {
                peer.exactly(length).await?;
                peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
            }
        }
    }
}

/// The path of the next request, and the length of its body.
async fn request(peer: &mut RawHttp<TcpStream>) -> std::io::Result<(String, usize)> {
    let lines = peer.lines_until_empty().await?.to_ascii_lowercase();
    let path = lines.split(' ').nth(1).unwrap_or_default().to_owned();
    let length = lines.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Ok((path, length.unwrap_or_default()))
}

async fn big(peer: &mut RawHttp<TcpStream>) -> std::io::Result<()> {
    peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n").as_bytes()).await?;
    for _ in 0..BIG / PIECE.len() {
        peer.send(&PIECE).await?;
    }
    Ok(())
}
