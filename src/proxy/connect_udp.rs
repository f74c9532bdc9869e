//! CONNECT-UDP (RFC 9298): the datagrams of a flow in capsules (RFC 9297), which are the body of a request and of its
//! response. spec: ST-79

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use http::header::HeaderName;
use http::{HeaderValue, Response, request};
use http_body::Body;
use tokio::sync::mpsc;

use super::datagrams::{Ended, LocalError, Sink, Source, carry, failure_of};
use crate::id::ServiceName;
use crate::message::BoxError;
use crate::message::failure::{Cause, Failure};
use crate::message::upgrade::Protocol;
use crate::protocol::capsule::{CapsuleError, CapsuleReader, encode_datagram};
use crate::protocol::code::StreamCode;
use crate::protocol::limits::MAX_DURATION;
use crate::protocol::stream::ClientAddresses;
use crate::telemetry::{DatagramDrop, FlowMetrics};
use crate::transport::{BodyError, OpenError, RecvBody, SendError, Tunnel};

/// The protocol that is asked for. RFC 9298 section 3
const PROTOCOL: &str = "connect-udp";
/// The field that says that capsules follow. RFC 9297 section 3.4
const CAPSULE_PROTOCOL: HeaderName = HeaderName::from_static("capsule-protocol");
/// Datagrams that wait for the client to take them; those behind wait in the flow, and are dropped there.
const QUEUE: usize = 16;

/// An extension of the head of a request that is to be carried over a flow.
#[derive(Debug, Clone)]
pub struct OverFlow {
    /// What counts that.
    pub flows: FlowMetrics,
    /// Who asks for it.
    pub client: ClientAddresses,
}

/// Whether a request asks for datagrams.
pub fn is_asked(head: &request::Parts) -> bool {
    head.extensions.get::<Protocol>().is_some_and(|protocol| protocol.is(PROTOCOL))
}

/// Opens a flow to the service that the request names, and passes what its body brings in a task of its own. The body of the
/// response is what comes back; dropped before its end, it ends the flow.
pub(super) async fn connect<B>(
    tunnel: &Tunnel,
    (service, OverFlow { flows, client }): (Option<&ServiceName>, OverFlow),
    body: &mut Option<B>,
) -> Result<Response<RecvBody>, OpenError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
{
    let service = service.ok_or(OpenError::Request("CONNECT names no service"))?;
    // How long it may rest the initiator knows, by the service; the client's connection bounds it besides. spec: ST-76
    let flow = tunnel.open_flow_for(service, Some(client)).await?.idle_after(MAX_DURATION);
    let (sender, pieces) = mpsc::channel(QUEUE);
    let source = FromClient { body: body.take(), reader: CapsuleReader::default(), flows: flows.clone() };
    let task = tokio::spawn(async move {
        // Its bytes are charged as those of the bodies that they are in.
        let ends = (source, ToClient(sender.clone()));
        let (ended, send) = carry(flow, ends, (&flows, None), |_, _| {}).await;
        // Dropped, it says END. spec: ST-75
        drop(send);
        if let Some(error) = cut(ended) {
            // A client that is gone needs none.
            let _ = sender.send(Err(error)).await;
        }
    });
    let mut response = Response::new(RecvBody::handed(pieces, task.abort_handle()));
    response.headers_mut().insert(CAPSULE_PROTOCOL, HeaderValue::from_static("?1"));
    Ok(response)
}

/// How the response ends, where it does not end well.
fn cut(ended: Ended) -> Option<BodyError> {
    match ended {
        Ended::Well => None,
        Ended::Here(LocalError::Target(error)) => Some(BodyError::Source(error.into())),
        Ended::Here(LocalError::Other(failure)) => Some(BodyError::Failed(failure)),
        // It wanted no more, or was idle. spec: ST-75, ST-76
        Ended::Send(SendError::Stopped(StreamCode::NoError | StreamCode::Cancelled)) => None,
        Ended::Send(SendError::Lost(lost)) => Some(BodyError::TunnelLost(lost)),
        Ended::Send(error) => Some(BodyError::Source(error.into())),
        // Nobody is at the target, which is no fault of the way there. spec: ST-77
        Ended::Recv(error) => Some(BodyError::Failed(failure_of(&error))),
    }
}

/// Datagrams out of the body of a request.
struct FromClient<B> {
    body: Option<B>,
    reader: CapsuleReader,
    flows: FlowMetrics,
}

/// Datagrams on their way into the body of a response.
struct ToClient(mpsc::Sender<Result<Bytes, BodyError>>);

impl<B> FromClient<B> {
    fn broken(&self, error: CapsuleError) -> LocalError {
        self.flows.dropped(DatagramDrop::Malformed);
        LocalError::Other(Failure::new(Cause::BadRequest, error.to_string()))
    }
}

impl<B> Source for FromClient<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + Send,
{
    async fn next(&mut self) -> Result<Option<Bytes>, LocalError> {
        loop {
            if let Some(datagram) = self.reader.read().map_err(|error| self.broken(error))? {
                return Ok(Some(datagram));
            }
            for _ in 0..self.reader.take_unknown_contexts() {
                self.flows.dropped(DatagramDrop::Malformed);
            }
            let Some(body) = &mut self.body else { return Ok(None) };
            match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.reader.push(&data);
                    }
                }
                None => return self.reader.finish().map(|()| None).map_err(|error| self.broken(error)),
                Some(Err(error)) => {
                    let details = format!("the request's body failed: {}", error.into());
                    return Err(LocalError::Other(Failure::new(Cause::RequestCut, details)));
                }
            }
        }
    }
}

impl Sink for ToClient {
    async fn put(&mut self, datagram: Bytes) -> Result<bool, LocalError> {
        let mut capsule = BytesMut::new();
        encode_datagram(&datagram, &mut capsule);
        let gone = |_| LocalError::Other(Failure::new(Cause::RequestCut, "the client is gone"));
        self.0.send(Ok(capsule.freeze())).await.map(|()| true).map_err(gone)
    }
}
