//! The head of a response, and the interim heads before it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use h2::RecvStream;
use h2::client::ResponseFuture;
use http::Response;

use crate::message::interim::{Allowance, Flood};

/// What comes next of a response.
#[derive(Debug)]
pub enum Head {
    /// A 1xx response, its fields as they came; another head follows.
    Interim(Response<()>),
    /// The response itself; its body is the stream.
    Final(Response<RecvStream>),
}

/// The next head on the stream. Must not be called again once it was ready with the final head or an error.
///
/// # Errors
///
/// The stream was reset, the connection is gone, or the peer broke HTTP/2.
pub fn poll_head(response: &mut ResponseFuture, cx: &mut Context<'_>) -> Poll<Result<Head, h2::Error>> {
    // An error of the stream is told by the response itself.
    if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
        return Poll::Ready(Ok(Head::Interim(interim)));
    }
    Poll::Ready(ready!(Pin::new(response).poll(cx)).map(Head::Final))
}

/// Waits for the final head and gives each interim one before it to `interim`.
///
/// # Errors
///
/// As [`poll_head`]; what `interim` makes of a head that must not be; [`Flood`] when interim heads do not end.
///
/// Cancel safety: no head is lost, but those given to `interim` are given once, and counting starts anew.
pub async fn final_head<E, F>(response: &mut ResponseFuture, mut interim: F) -> Result<Response<RecvStream>, E>
where
    E: From<h2::Error> + From<Flood>,
    F: FnMut(Response<()>) -> Result<(), E>,
{
    let mut allowance = Allowance::default();
    loop {
        match poll_fn(|cx| poll_head(response, cx)).await? {
            Head::Final(response) => return Ok(response),
            Head::Interim(early) => {
                allowance.take()?;
                interim(early)?;
            }
        }
    }
}
