//! Exchanges with real sockets on loopback.

mod connections;
mod cost;
mod http1;
mod http2;
mod origin;
mod reading;
mod shared;
mod tls;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::mpsc;

use super::*;

/// A body fed by hand.
struct Fed(mpsc::UnboundedReceiver<Result<Frame<Bytes>, BoxError>>);

struct Feed(mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>);

fn fed() -> (Feed, Fed) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Feed(sender), Fed(receiver))
}

impl Feed {
    fn data(&self, data: impl Into<Bytes>) {
        self.0.send(Ok(Frame::data(data.into()))).unwrap();
    }

    fn trailers(&self, name: &'static str, value: &'static str) {
        let mut fields = http::HeaderMap::new();
        fields.insert(name, value.parse().unwrap());
        self.0.send(Ok(Frame::trailers(fields))).unwrap();
    }

    fn cut(self) {
        self.0.send(Err("the client went away".into())).unwrap();
    }

    /// Until the other end has dropped the body.
    async fn unwanted(&self) {
        self.0.closed().await;
    }
}

impl Body for Fed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx)
    }
}

#[test]
fn targets_read_and_print_the_same() {
    for text in [
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
        "http://api.local:80",
        "h2c://127.0.0.1:50051",
        "https://api.local:8443",
        "h2://[::1]:50051",
        "unix:/run/api.sock",
        "unix+h2c:/run/api.sock",
        "tcp://127.0.0.1:22",
        "unix+raw:/run/db.sock",
    ] {
        assert_eq!(Target::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(Target::parse("http://api.local/").unwrap().to_string(), "http://api.local:80");
    assert_eq!(Target::parse("https://api.local").unwrap().to_string(), "https://api.local:443");
    assert_eq!(Target::parse("unix:///run/api.sock").unwrap().to_string(), "unix:/run/api.sock");
}

#[test]
fn what_is_no_target_is_refused_with_what_would_be() {
    for bad in ["", "127.0.0.1:80", "udp:127.0.0.1:22", "ftp://a"] {
        let error = Target::parse(bad).unwrap_err();
        assert!(matches!(&error, TargetError::Scheme(_)), "{bad:?}");
        assert!(error.to_string().contains("expected http://host:port"));
    }
    for bad in ["http://", "http://a/b", "http://a?b", "http://u@a", "http://a:99999", "http://a:", "http://:80"] {
        assert!(matches!(Target::parse(bad), Err(TargetError::Host(_))), "{bad:?}");
    }
    for bad in ["tcp://a", "tcp://a/", "udp://a"] {
        assert!(matches!(Target::parse(bad), Err(TargetError::Port(_))), "{bad:?}");
    }
    for bad in ["unix:", "unix+raw:", "unix:run/api.sock"] {
        assert!(matches!(Target::parse(bad), Err(TargetError::Path(_))), "{bad:?}");
    }
}
