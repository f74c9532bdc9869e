//! The responder's side of raw streams and flows over QUIC: a service is named, and the initiator says yes or no.

use std::time::Duration;

use bytes::BytesMut;
use tokio::time::timeout;

use crate::id::ServiceName;
use crate::protocol::code::StreamCode;
use crate::protocol::limits::DEFAULT_OPEN_TIMEOUT;
use crate::protocol::stream::{self, ClientAddresses, Open, ServiceEvent, ServiceReader};
use crate::transport::error::{BodyError, OpenError, SendError, TunnelLost};
use crate::transport::flow::Flow;
use crate::transport::quic::control::Connection;
use crate::transport::quic::service::{RawSend, ServiceRecv};
use crate::transport::quic::streams::SendHalf;
use crate::transport::raw::RawStream;
use crate::transport::via::Via;

impl Connection {
    /// See [`Tunnel::open_raw`](crate::transport::Tunnel::open_raw).
    pub(crate) async fn open_raw(
        &self,
        limit: Duration,
        service: &ServiceName,
        client: Option<ClientAddresses>,
    ) -> Result<RawStream, OpenError> {
        let in_flight = self.state.begin();
        let (send, recv) = self.open_service(limit, Open { service: service.clone(), flow: None, client }).await?;
        Ok(RawStream::quic(RawSend::new(send), recv, in_flight))
    }

    /// See [`Tunnel::open_flow`](crate::transport::Tunnel::open_flow).
    pub(crate) async fn open_flow(
        &self,
        service: &ServiceName,
        client: Option<ClientAddresses>,
    ) -> Result<Flow, OpenError> {
        let in_flight = self.state.begin();
        let mut place = self.flows.open(&self.quic, self.state.most_flows())?;
        let open = Open { service: service.clone(), flow: Some(place.id()), client };
        let stream = self.open_service(DEFAULT_OPEN_TIMEOUT, open).await?;
        place.opened();
        let (send, recv) = place.open(stream);
        Ok(Flow::quic(send, recv, in_flight))
    }

    /// Opens a stream and waits until the initiator has accepted it.
    async fn open_service(&self, limit: Duration, open: Open) -> Result<(SendHalf, ServiceRecv), OpenError> {
        let stream_type = open.stream_type();
        self.state.ready_to_open().await?;
        self.state.check_takes(stream_type)?;
        let (send, recv) = self.open_stream().await?;
        let mut send = SendHalf::new(send, &self.send_room, self.state.peer_limits());
        let mut recv = ServiceRecv::new(recv, ServiceReader::of_answers(stream_type)).cancelled_on_drop();
        let mut out = BytesMut::from(self.via.as_ref().map_or(&[][..], Via::route));
        stream::encode_open(&open, &mut out);
        // Why the peer stopped reading is told by what it sends.
        if let Err(error @ SendError::Lost(_)) = send.write(out.freeze()).await {
            return Err(OpenError::NotSent(TunnelLost(error.to_string())));
        }
        let answer = timeout(limit, recv.event()).await.map_err(|_| OpenError::TimedOut)?;
        match answer {
            Ok(ServiceEvent::Opened) => Ok((send, recv)),
            Ok(ServiceEvent::Refused(refused)) => {
                recv.complete();
                Err(OpenError::Refused(refused))
            }
            Ok(_) => Err(OpenError::Reset(StreamCode::Protocol)),
            // Of a sibling it speaks of one of its tunnels.
            Err(BodyError::Reset(StreamCode::UnknownType)) if self.via.is_some() => {
                Err(OpenError::Unsupported(stream_type))
            }
            Err(BodyError::Reset(StreamCode::UnknownType)) => Err(self.state.note_refused_type(stream_type)),
            Err(error) => Err(OpenError::from(error).said_by_sibling(self.via.is_some())),
        }
    }
}
