//! What an exchange over HTTP/1.1 takes: the size of its futures, and how often memory is asked for.

use std::io::{Read, Write};
use std::net::TcpListener;

use allocation_counter::measure;
use http_body_util::{BodyExt, Empty};

use super::*;

/// The most bytes of a future or body of an exchange.
const MAX_SIZE: usize = 1536;
/// The most allocations of an exchange on a connection that waited, request and response included.
const MAX_ALLOCATIONS: u64 = 6;

fn client(address: std::net::SocketAddr) -> TargetClient {
    TargetClient::new(&Target::parse(&format!("http://{address}")).unwrap(), TargetSettings::default()).unwrap()
}

fn get() -> Request<Empty<Bytes>> {
    Request::get("/").header("accept", "*/*").body(Empty::new()).unwrap()
}

#[test]
fn an_exchange_and_its_body_are_small() {
    let client = client("127.0.0.1:80".parse().unwrap());
    let exchange = size_of_val(&client.exchange(get()));
    let body = size_of::<TargetBody>();
    assert!(exchange <= MAX_SIZE && body <= MAX_SIZE, "exchange {exchange}, body {body}");
}

/// Answers on a thread of its own, so that what it allocates is not counted here.
fn origin() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        while stream.read(&mut request).unwrap() > 0 {
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ndate: Sun, 29 Nov 2026 07:00:00 GMT\r\n";
            stream.write_all(format!("{answer}content-length: 5\r\n\r\nhello").as_bytes()).unwrap();
        }
    });
    address
}

#[test]
fn an_exchange_on_a_waiting_connection_allocates_little() {
    const ROUNDS: u64 = 200;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = client(origin());
    let exchange = async || {
        let response = client.exchange(get()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    };
    runtime.block_on(exchange());
    let run = || (0..ROUNDS).for_each(|_| runtime.block_on(exchange()));
    let requests = measure(|| (0..ROUNDS).for_each(|_| drop(get())));
    let all = measure(run);
    let each = (all.count_total - requests.count_total) as f64 / ROUNDS as f64;
    println!("{each} allocations for an exchange, {} bytes", (all.bytes_total - requests.bytes_total) / ROUNDS);
    assert!(each <= MAX_ALLOCATIONS as f64, "{each} allocations");
}
