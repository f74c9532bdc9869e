//! A flow of datagrams, taken to the target of its service. spec: ST-56, ST-70 to ST-77

use std::future::pending;
use std::sync::Arc;

use http::Method;
use tracing::{Instrument, debug};

use super::exported::Exported;
use super::raw::cause_of;
use super::{Services, span};
use crate::message::failure::Failure;
use crate::protocol::code::OpenCause;
use crate::protocol::handshake::ServiceKind;
use crate::proxy::Record;
use crate::proxy::flow::{head, pass};
use crate::targets::{FlowSocket, NoSocket};
use crate::telemetry::FlowLimit;
use crate::transport::FlowArrival;

/// Passes datagrams both ways until one end is over, or nothing has come or gone for long.
///
/// Cancel safety: dropping the future ends the flow, and its socket.
pub(super) async fn serve(services: Services, mut arrival: FlowArrival) {
    let span = span(&Method::CONNECT, Some(arrival.tunnel()));
    let service = arrival.service.clone();
    let mut record = services.0.recorder.begin(&head(&service), None);
    record.through(arrival.tunnel());
    async {
        let exported = services.taker((&service, ServiceKind::Udp), (arrival.tunnel(), arrival.client), &mut record);
        let Some(opened) = arrival.connecting(connect(&services, exported, &mut record)).await else {
            return debug!("nobody waits for the target any more");
        };
        match opened {
            Ok((exported, socket)) => match arrival.accept().await {
                Ok(flow) => {
                    let flow = flow.idle_after(exported.flow_idle_timeout());
                    let recorder = services.0.recorder.clone();
                    // A flow may last for long: a list of services that was replaced is not to live as long.
                    drop((services, exported));
                    pass(flow, socket.ends(), record, recorder.flows(), pending()).await;
                }
                Err(error) => debug!(%error, "nobody waits for the target any more"),
            },
            Err((cause, failure)) => {
                record.fail(&failure);
                record.responded(failure.status());
                // Whoever has gone needs no answer.
                drop(arrival.refuse(cause, failure.details()).await);
            }
        }
    }
    .instrument(span)
    .await;
}

async fn connect(
    services: &Services,
    exported: Result<Arc<Exported>, (OpenCause, Failure)>,
    record: &mut Record,
) -> Result<(Arc<Exported>, FlowSocket), (OpenCause, Failure)> {
    let exported = exported?;
    let flows = services.0.recorder.flows();
    let socket = exported.open_flow(&services.0.sockets, record).await.map_err(|none| {
        let failure = match none {
            NoSocket::Service(failure) => {
                flows.refused(FlowLimit::Service);
                failure
            }
            NoSocket::Process(failure) => {
                flows.refused(FlowLimit::Process);
                failure
            }
            NoSocket::Target(failure) => failure,
        };
        (cause_of(&failure), failure)
    })?;
    Ok((exported, socket))
}
