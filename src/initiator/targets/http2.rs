//! Exchanges over HTTP/2 with prior knowledge (h2c): all on one connection.
//!
//! Built on `h2` itself: hyper's client drops 1xx responses, and takes a response that the target cancelled for one
//! that has ended.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::TargetSettings;
use super::body::TargetBody;
use super::connect::{Address, connect};
use super::outbound::Outbound;
use super::upload::Upload;
use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};
use crate::message::fields::strip_hop_by_hop;
use crate::message::interim::InformationalSink;
use crate::net::Corked;

/// What one response may have under way: enough for 100 MiB/s at a millisecond, and no more than a tunnel's stream.
const STREAM_WINDOW: u32 = 1 << 20;
/// What all responses together may have under way.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// A target that speaks HTTP/2.
pub(super) struct Client {
    address: Address,
    settings: TargetSettings,
    /// The connection in use. Locked while it is made, so that all who need it wait for the same one.
    current: Mutex<Option<Shared>>,
}

/// A connection, and which one it is.
#[derive(Clone)]
struct Shared {
    sender: SendRequest<Bytes>,
    serial: u64,
}

/// Why an attempt brought no response, and whether another may follow.
struct Attempt {
    failure: Failure,
    unprocessed: bool,
    stale: bool,
}

impl Client {
    pub(super) fn new(address: Address, settings: TargetSettings) -> Self {
        Self { address, settings, current: Mutex::default() }
    }

    /// One exchange; a second attempt is made when the target says that the first was not processed, or when the
    /// connection ended and sending the request twice does no harm.
    pub(super) async fn exchange(&self, outbound: Outbound, upload: Upload) -> Result<Response<TargetBody>, Failure> {
        let again = upload.replay().map(|upload| (outbound.clone(), upload));
        let idempotent = outbound.is_idempotent();
        let error = match self.attempt(outbound, upload).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        match again {
            Some((outbound, upload)) if error.unprocessed || (idempotent && error.stale) => {
                self.attempt(outbound, upload).await.map_err(|error| error.failure)
            }
            _ => Err(error.failure),
        }
    }

    async fn attempt(&self, outbound: Outbound, upload: Upload) -> Result<Response<TargetBody>, Attempt> {
        let mut sender = self.sender().await?;
        let sink = outbound.sink.clone();
        let request = outbound.into_http2()?;
        let ends = matches!(&upload, Upload::Whole(data) if data.is_empty());
        let (response, stream) = sender.send_request(request, ends).map_err(Attempt::from)?;
        let upload = if ends { None } else { start(stream, upload)? };
        let head = final_head(response, sink.as_ref()).await.map_err(Attempt::from)?;
        Ok(head.map(|incoming| TargetBody::from(Http2Body { incoming, _upload: upload, data_ended: false })))
    }

    /// A handle whose connection takes one more stream, over a new connection if the present one has ended.
    async fn sender(&self) -> Result<SendRequest<Bytes>, Failure> {
        let present = self.shared(None).await?;
        match present.sender.ready().await {
            Ok(sender) => Ok(sender),
            Err(_) => {
                let fresh = self.shared(Some(present.serial)).await?;
                fresh.sender.ready().await.map_err(|error| Attempt::from(error).failure)
            }
        }
    }

    /// The connection in use; a new one if there is none or it is the one that has ended.
    async fn shared(&self, ended: Option<u64>) -> Result<Shared, Failure> {
        let mut current = self.current.lock().await;
        let serial = match &*current {
            Some(shared) if ended != Some(shared.serial) => return Ok(shared.clone()),
            Some(shared) => shared.serial + 1,
            None => 0,
        };
        let sender = self.connect().await?;
        Ok(current.insert(Shared { sender, serial }).clone())
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>, Failure> {
        let socket = connect(&self.address, self.settings.connect_timeout).await?;
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(self.settings.head_bytes).unwrap_or(u32::MAX));
        let (socket, cork) = Corked::new(socket);
        let (sender, connection) = builder.handshake(socket).await.map_err(|error| Attempt::from(error).failure)?;
        // Ends by itself with the last handle and the last stream; its errors reach whoever holds one.
        tokio::spawn(async move { drop(cork.run(connection).await) });
        Ok(sender)
    }
}

impl From<h2::Error> for Attempt {
    fn from(error: h2::Error) -> Self {
        let refused = error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
        let cut = !error.is_remote() && error.reason() == Some(Reason::CANCEL);
        let cause = match () {
            () if cut => Cause::RequestCut,
            () if error.is_library() => Cause::TargetProtocol,
            () => Cause::TargetClosed,
        };
        Self {
            failure: Failure::new(cause, error.to_string()),
            unprocessed: refused,
            stale: error.is_io() || error.is_go_away(),
        }
    }
}

impl From<Failure> for Attempt {
    fn from(failure: Failure) -> Self {
        Self { failure, unprocessed: false, stale: false }
    }
}

/// Begins the upload. What is whole goes out at once, the rest in a task that ends with the handle.
fn start(mut stream: SendStream<Bytes>, upload: Upload) -> Result<Option<AbortOnDropHandle<()>>, Attempt> {
    match upload {
        Upload::Whole(data) => {
            stream.send_data(data, true).map_err(Attempt::from)?;
            Ok(None)
        }
        streaming => Ok(Some(AbortOnDropHandle::new(tokio::spawn(send(stream, streaming))))),
    }
}

/// Sends a body to its end. A body that fails cancels the stream; a stream that the target gave up ends the sending.
async fn send(mut stream: SendStream<Bytes>, mut upload: Upload) {
    loop {
        let frame = tokio::select! {
            frame = upload.frame() => frame,
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return,
        };
        let goes_on = match frame {
            Some(Ok(frame)) => send_frame(&mut stream, frame).await,
            Some(Err(_)) => return stream.send_reset(Reason::CANCEL),
            None => stream.send_data(Bytes::new(), true).map(|()| false),
        };
        // An error means that the target gave up; the response, or its failure, tells the rest.
        if !goes_on.unwrap_or(false) {
            return;
        }
    }
}

/// Sends one frame as fast as the target takes it; says whether more may follow.
async fn send_frame(stream: &mut SendStream<Bytes>, frame: Frame<Bytes>) -> Result<bool, h2::Error> {
    let mut data = match frame.into_data() {
        Ok(data) => data,
        Err(frame) => {
            let trailers = frame.into_trailers().unwrap_or_default();
            return stream.send_trailers(trailers).map(|()| false);
        }
    };
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let Some(capacity) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return Ok(false) };
        let part = data.split_to(capacity?.min(data.len()));
        stream.send_data(part, false)?;
    }
    Ok(true)
}

/// Passes 1xx responses on until the final head is there.
async fn final_head(
    mut response: ResponseFuture,
    sink: Option<&InformationalSink>,
) -> Result<Response<RecvStream>, h2::Error> {
    let head = poll_fn(|cx| {
        while let Poll::Ready(Some(Ok(mut informational))) = response.poll_informational(cx) {
            strip_hop_by_hop(informational.headers_mut());
            if let Some(sink) = sink {
                sink.send(informational);
            }
        }
        Pin::new(&mut response).poll(cx)
    });
    head.await
}

/// A response body; dropping it before its end resets the stream.
pub(super) struct Http2Body {
    incoming: RecvStream,
    /// Keeps the upload going while the response is wanted.
    _upload: Option<AbortOnDropHandle<()>>,
    data_ended: bool,
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if !this.data_ended {
            if let Some(data) = ready!(this.incoming.poll_data(cx)).transpose()? {
                // Handed on is as good as read: whoever holds it does not ask for more until it is gone.
                this.incoming.flow_control().release_capacity(data.len())?;
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            this.data_ended = true;
        }
        let trailers = ready!(this.incoming.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
