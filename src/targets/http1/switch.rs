//! An exchange that asks a target of HTTP/1.1 to go on in another protocol: a GET with an Upgrade, on a connection of its
//! own, and after the target's 101 bytes both ways. spec: ST-25

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::Client;
use super::attempt::Failed;
use super::body::Http1Body;
use super::connection::{Connection, Sender};
use super::failure::closed;
use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};
use crate::message::fields::strip_hop_by_hop;
use crate::message::interim::SendInterim;
use crate::message::response::ResponseHead;
use crate::message::upgrade::{self, DECLINED_FIELD, Protocol};
use crate::net::Grace;
use crate::net::input::Input;
use crate::protocol::budgets::{LEAST_RATE, RAW_PATIENCE};
use crate::targets::connect::Socket;
use crate::targets::halves::ReadHalf;
use crate::targets::held::Held;
use crate::targets::outbound::Outbound;
use crate::targets::upload::{Upload, cut};

/// How much is asked for at once, bytes.
const READ: usize = 64 * 1024;
/// How long a target may take for what it was sent before its sender, or the tunnel, died.
const GRACE: Grace = Grace { patience: RAW_PATIENCE, rate: LEAST_RATE };

/// What a target has made of a wish for another protocol.
pub(in crate::targets) enum Answer {
    Switched(Response<Switched>),
    Declined(Box<Response<Http1Body>>),
}

impl Client {
    /// Asks for `protocol`. What the sender says behind its request is for that protocol, and waits for it.
    pub(in crate::targets) async fn switch(
        &self,
        outbound: &mut Outbound,
        protocol: Protocol,
        upload: Upload,
        interim: Option<&dyn SendInterim>,
    ) -> Result<Answer, Failure> {
        let key = protocol.is_websocket().then(|| upgrade::new_key(rand::random()));
        outbound.method = Method::GET;
        upgrade::ask(&protocol, key.as_ref(), &mut outbound.headers);
        let connection = self.pool.connect().await?;
        let mut attempt = self.begin(connection, outbound, Upload::Whole(Bytes::new()))?.switching();
        let head = poll_fn(|cx| attempt.poll(&mut outbound.headers, interim, cx)).await;
        let head = head.map_err(|Failed { failure, .. }| failure)?;
        if head.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return switched(head, &protocol, key.as_ref(), attempt.connection, upload).map(Answer::Switched);
        }
        let mut response = self.response(head, attempt);
        if response.status().is_success() {
            // spec: ST-43
            response.headers_mut().insert(DECLINED_FIELD, HeaderValue::from_static("1"));
        }
        Ok(Answer::Declined(Box::new(response)))
    }
}

/// The target goes on in the protocol that it was asked for: inside, that is 200. RFC 8441 section 5
fn switched(
    head: ResponseHead,
    protocol: &Protocol,
    key: Option<&HeaderValue>,
    connection: Connection,
    upload: Upload,
) -> Result<Response<Switched>, Failure> {
    let mut response = head.response;
    upgrade::take_answer(protocol, key, response.headers_mut())
        .map_err(|wrong| Failure::new(Cause::UpgradeFailed, wrong))?;
    strip_hop_by_hop(response.headers_mut());
    response.headers_mut().remove(CONTENT_LENGTH);
    *response.status_mut() = StatusCode::OK;
    Ok(response.map(|()| Switched::new(connection, upload)))
}

/// What a target says in another protocol. It ends when the target ends its direction; the other one goes on by itself.
/// Dropped before that, or cut, it resets the connection, behind what the sender said before.
pub(in crate::targets) struct Switched {
    /// There until it is dropped.
    read: Option<ReadHalf>,
    input: Input,
    upload: Option<AbortOnDropHandle<Result<(), Failure>>>,
    is_over: bool,
    both: Arc<Both>,
}

/// What both directions share, and what is gone with the last of them.
#[derive(Default)]
struct Both {
    /// One of them has ended in order.
    ended: AtomicBool,
    held: OnceLock<Held>,
}

/// The direction to the target. Dropped before its end, it does not look like one.
struct Open {
    sender: Option<Sender>,
    both: Arc<Both>,
}

impl Open {
    /// Ends the direction.
    async fn end(mut self) {
        let Some(mut sender) = self.sender.take() else { return };
        // A target that is gone is seen by whoever reads from it.
        let _ = sender.write.shutdown().await;
        if self.both.ended.swap(true, Ordering::AcqRel) {
            sender.write.end_on_drop();
        }
        sender.write.abandon();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some(sender) = self.sender.take() else { return };
        let (acknowledged, both) = (sender.write.acknowledged(GRACE), Arc::clone(&self.both));
        behind(acknowledged, move || {
            sender.write.abandon();
            drop(both);
        });
    }
}

/// Lets go of an end of a connection once the target has acknowledged what it was sent: with the last of them the connection
/// is reset, which would throw that away. spec: ST-61
fn behind(acknowledged: Option<impl Future<Output = ()> + Send + 'static>, let_go: impl FnOnce() + Send + 'static) {
    // At the end of the process nothing is waited for.
    match (acknowledged, Handle::try_current()) {
        (Some(acknowledged), Ok(runtime)) => drop(runtime.spawn(async move {
            acknowledged.await;
            let_go();
        })),
        _ => let_go(),
    }
}

impl Switched {
    /// Bytes both ways with a target from the first one on.
    pub(in crate::targets) fn begin(socket: Socket, upload: Upload) -> Self {
        Self::new(Connection::new(socket), upload)
    }

    fn new(connection: Connection, upload: Upload) -> Self {
        let Connection { read, input, sender } = connection;
        // Whatever closes it before both directions have ended, this process included, must not look like their end.
        read.reset_on_drop();
        let both = Arc::new(Both::default());
        let sender = Open { sender: Some(sender), both: Arc::clone(&both) };
        let upload = AbortOnDropHandle::new(tokio::spawn(send(upload, sender)));
        Self { read: Some(read), input, upload: Some(upload), is_over: false, both }
    }

    /// Holds this until both directions are over.
    pub(in crate::targets) fn hold(&self, held: Held) {
        // There is one exchange, which holds what it has once.
        let _ = self.both.held.set(held);
    }

    fn end(&mut self) -> Option<Result<Frame<Bytes>, BoxError>> {
        self.is_over = true;
        if self.both.ended.swap(true, Ordering::AcqRel) {
            self.read.iter().for_each(ReadHalf::end_on_drop);
        }
        // It runs on; its end, or its failure, ends the connection.
        self.upload.take().map(AbortOnDropHandle::detach);
        None
    }

    fn fail(&mut self, failure: Failure) -> Option<Result<Frame<Bytes>, BoxError>> {
        self.is_over = true;
        self.upload = None;
        Some(Err(failure.into()))
    }

    /// Ready when what the sender says was cut: then the target must not take it for whole.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let Some(task) = &mut self.upload else { return Poll::Pending };
        match ready!(Pin::new(task).poll(cx)) {
            Ok(Ok(())) => {
                self.upload = None;
                Poll::Pending
            }
            Ok(Err(failure)) => Poll::Ready(failure),
            Err(_) => Poll::Ready(Failure::new(Cause::Internal, "nobody sends to the target any more")),
        }
    }
}

impl Drop for Switched {
    /// What the sender said is the target's, also where nobody wants what the target says any more. spec: ST-61
    fn drop(&mut self) {
        let Some(read) = self.read.take() else { return };
        let both = Arc::clone(&self.both);
        match (self.upload.take(), Handle::try_current()) {
            (Some(upload), Ok(runtime)) => drop(runtime.spawn(async move {
                // How it ends makes no difference here: it ends the direction, or has left its end of the connection.
                let _ = timeout(RAW_PATIENCE, upload).await;
                if let Some(acknowledged) = read.acknowledged(GRACE) {
                    acknowledged.await;
                }
                drop((read, both));
            })),
            _ => behind(read.acknowledged(GRACE), move || drop((read, both))),
        }
    }
}

impl Body for Switched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        while this.input.is_empty() {
            let Some(read) = &mut this.read else { return Poll::Ready(None) };
            match this.input.poll_fill(read, cx, READ) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) => return Poll::Ready(this.end()),
                Poll::Ready(Err(error)) => return Poll::Ready(this.fail(closed(Some(&error), "its end"))),
                Poll::Pending => {
                    // It may rest for hours.
                    this.input.shrink();
                    let failure = ready!(this.poll_upload(cx));
                    return Poll::Ready(this.fail(failure));
                }
            }
        }
        Poll::Ready(Some(Ok(Frame::data(this.input.take()))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Passes on what the sender says, and its end.
async fn send(mut upload: Upload, mut open: Open) -> Result<(), Failure> {
    while let Some(sender) = &mut open.sender {
        let next = poll_fn(|cx| {
            let frame = Pin::new(&mut upload).poll_frame(cx);
            if frame.is_pending() {
                // It may rest for hours.
                sender.output.shrink();
            }
            frame
        });
        match next.await {
            Some(Ok(frame)) => sender.output.push(frame.into_data().unwrap_or_default()),
            Some(Err(error)) => return Err(cut(&error)),
            None => break,
        }
        let written = poll_fn(|cx| sender.output.poll_write(&mut sender.write, cx)).await;
        written.map_err(|error| closed(Some(&error), "it took what it was sent"))?;
    }
    open.end().await;
    Ok(())
}
