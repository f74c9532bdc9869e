//! One connection to a name with several addresses: each gets a head start before the next one is tried beside it, and the
//! first that answers is taken. RFC 8305

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long an address is alone before the next one is tried beside it. RFC 8305 section 8
const HEAD_START: Duration = Duration::from_millis(250);

/// In the order in which they are tried: `first`, if it is among them, then families by turns, as the resolver sorted them.
/// RFC 8305 section 4
pub fn in_turns(addresses: impl IntoIterator<Item = SocketAddr>, first: Option<SocketAddr>) -> Vec<SocketAddr> {
    let addresses: Vec<_> = addresses.into_iter().collect();
    let is_other = |address: &SocketAddr| addresses.first().is_some_and(|first| first.is_ipv4() != address.is_ipv4());
    let (others, same): (Vec<_>, Vec<_>) = addresses.iter().copied().partition(is_other);
    let mut turns = Vec::with_capacity(addresses.len());
    let (mut same, mut others) = (same.into_iter(), others.into_iter());
    while turns.len() < addresses.len() {
        turns.extend(same.next().into_iter().chain(others.next()));
    }
    if let Some(index) = turns.iter().position(|address| Some(*address) == first) {
        turns[..=index].rotate_right(1);
    }
    turns
}

/// Connects to the first of these addresses that answers, and says which one it was. The others are given up.
///
/// # Errors
/// None answers: why, as the address said that says most. A refusal says more than that there is no way.
///
/// # Cancel safety
/// Dropping the future abandons every attempt.
pub async fn connect_any<T, F>(
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<(SocketAddr, T)>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    if let [address] = *addresses {
        return connect(address).await.map(|connected| (address, connected));
    }
    let mut waiting = addresses.iter().copied();
    let mut attempts = JoinSet::new();
    let mut failed = None;
    loop {
        if let Some(address) = waiting.next() {
            let attempt = connect(address);
            attempts.spawn(async move { (address, attempt.await) });
        }
        let ended = match waiting.len() {
            0 => attempts.join_next().await,
            _ => match timeout(HEAD_START, attempts.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            },
        };
        match ended {
            Some(Ok((address, Ok(connected)))) => return Ok((address, connected)),
            Some(Ok((_, Err(error)))) => failed = Some(telling(failed, error)),
            // A panic, which the runtime has reported.
            Some(Err(_)) => {}
            None => return Err(failed.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())),
        }
    }
}

/// The error that says more.
fn telling(before: Option<io::Error>, error: io::Error) -> io::Error {
    match before {
        Some(before) if error.kind() != io::ErrorKind::ConnectionRefused => before,
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    const DEAD: &str = "192.0.2.1:80";

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|address| address.parse().unwrap()).collect()
    }

    /// 192.0.2.0/24 never answers, 198.51.100.0/24 refuses, 203.0.113.0/24 has no way, others take a tenth of a second.
    async fn play(address: SocketAddr) -> io::Result<SocketAddr> {
        let text = address.to_string();
        match () {
            () if text.starts_with("192.0.2.") => std::future::pending().await,
            () if text.starts_with("198.51.100.") => return Err(io::ErrorKind::ConnectionRefused.into()),
            () if text.starts_with("203.0.113.") => return Err(io::ErrorKind::HostUnreachable.into()),
            () => sleep(Duration::from_millis(100)).await,
        }
        Ok(address)
    }

    async fn took(list: &[&str]) -> (String, u128) {
        let began = Instant::now();
        let outcome = connect_any(&addresses(list), play).await;
        let text = outcome.map_or_else(|error| error.kind().to_string(), |(address, _)| address.to_string());
        (text, began.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_address_costs_a_head_start_and_one_that_fails_nothing() {
        assert_eq!(took(&["10.0.0.1:80", DEAD]).await, ("10.0.0.1:80".into(), 100));
        assert_eq!(took(&[DEAD, "10.0.0.1:80"]).await, ("10.0.0.1:80".into(), 350));
        assert_eq!(took(&["198.51.100.1:80", "203.0.113.1:80", "10.0.0.1:80"]).await, ("10.0.0.1:80".into(), 100));
        assert_eq!(took(&[DEAD, "192.0.2.2:80", "10.0.0.1:80"]).await, ("10.0.0.1:80".into(), 600));
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_fail_the_error_is_the_one_that_says_most() {
        assert_eq!(took(&["203.0.113.1:80", "198.51.100.1:80"]).await, ("connection refused".into(), 0));
        assert_eq!(took(&["198.51.100.1:80", "203.0.113.1:80"]).await, ("connection refused".into(), 0));
        assert_eq!(took(&["203.0.113.1:80"]).await, ("host unreachable".into(), 0));
        assert_eq!(took(&[]).await, ("address not available".into(), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_answers_late_is_still_taken() {
        let began = Instant::now();
        let slow = |address: SocketAddr| async move {
            sleep(Duration::from_millis(if address.port() == 1 { 300 } else { 3000 })).await;
            Ok(())
        };
        let (address, ()) = connect_any(&addresses(&["10.0.0.1:1", "10.0.0.1:2"]), slow).await.unwrap();
        assert_eq!((address.port(), began.elapsed().as_millis()), (1, 300));
    }

    #[test]
    fn families_take_turns_and_the_one_that_answered_last_goes_first() {
        let list = addresses(&["[::1]:1", "[::1]:2", "10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"]);
        let turns = addresses(&["[::1]:1", "10.0.0.1:1", "[::1]:2", "10.0.0.1:2", "10.0.0.1:3"]);
        assert_eq!(in_turns(list.clone(), None), turns);
        let known = addresses(&["10.0.0.1:2", "[::1]:1", "10.0.0.1:1", "[::1]:2", "10.0.0.1:3"]);
        assert_eq!(in_turns(list.clone(), Some(known[0])), known);
        assert_eq!(in_turns(list, Some("10.9.9.9:1".parse().unwrap())), turns, "it has gone");
    }
}
