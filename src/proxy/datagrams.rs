//! Datagrams both ways between a flow and this end, whatever that is. spec: ST-72 to ST-77

use std::future::Future;
use std::io;
use std::pin::pin;

use bytes::Bytes;
use tokio::task::coop::consume_budget;

use crate::message::failure::{Cause, Failure};
use crate::protocol::code::StreamCode;
use crate::shares::Meter;
use crate::telemetry::{DatagramDrop, Direction, FlowMetrics, Side};
use crate::transport::{Flow, FlowRecv, FlowSend, RawError, SendError};

/// Where the datagrams of this end come from.
pub(crate) trait Source {
    /// The next one; `None` when there will be no more. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, LocalError>> + Send;
}

/// Where those of the other end go.
pub(crate) trait Sink {
    /// Hands one on, or says that it was dropped (`false`).
    fn put(&mut self, datagram: Bytes) -> impl Future<Output = Result<bool, LocalError>> + Send;
}

/// What ends a flow at this end.
#[derive(Debug)]
pub(crate) enum LocalError {
    /// The target is not there (ICMP), as the system tells.
    Target(io::Error),
    /// Another fault, such as that of whoever sent them.
    Other(Failure),
}

/// Passes datagrams both ways until the flow, or this end, is over; says how, and gives the sending half back where it can be
/// used still. `count` hears of each datagram that was passed on, and what `meter` does not allow is dropped.
///
/// # Cancel safety
/// Dropping the future ends the flow.
pub(super) async fn carry(
    flow: Flow,
    (mut source, mut sink): (impl Source, impl Sink),
    (flows, meter): (&FlowMetrics, Option<Meter>),
    count: impl Fn(Direction, usize),
) -> (Ended, Option<FlowSend>) {
    let Flow { send, mut recv } = flow;
    let _open = flows.open();
    let (there, back) = match flows.side() {
        Side::Egress | Side::Relay => (Direction::Request, Direction::Response),
        Side::Target => (Direction::Response, Direction::Request),
    };
    let tally = Tally { flows, meter, there, back, count };
    let mut send = Some(send);
    let ended = {
        let up = pin!(up(&mut source, &mut send, &tally));
        let down = pin!(down(&mut recv, &mut sink, &tally));
        tokio::select! {
            ended = up => ended,
            ended = down => ended,
        }
    };
    (ended, send)
}

/// How a flow ended.
pub(super) enum Ended {
    /// By an end that wanted no more, or for want of datagrams. spec: ST-75, ST-76
    Well,
    /// Here.
    Here(LocalError),
    /// There, or on the way.
    Send(SendError),
    Recv(RawError),
}

async fn up(
    source: &mut impl Source,
    send: &mut Option<FlowSend>,
    tally: &Tally<'_, impl Fn(Direction, usize)>,
) -> Ended {
    loop {
        // Neither a socket that has something nor a flow that takes it ends the turn of its task.
        consume_budget().await;
        let datagram = match source.next().await {
            Ok(Some(datagram)) => datagram,
            Ok(None) => return Ended::Well,
            Err(error) => return Ended::Here(error),
        };
        let length = datagram.len();
        if !tally.admits(length) {
            continue;
        }
        // Taken out while it sends: cut in the middle it cannot be used any more.
        let Some(mut sending) = send.take() else { return Ended::Well };
        match sending.send(datagram).await {
            Ok(()) => tally.count(tally.there, length),
            Err(SendError::Head(_)) => tally.flows.dropped(DatagramDrop::Socket),
            Err(error) => return Ended::Send(error),
        }
        *send = Some(sending);
    }
}

async fn down(recv: &mut FlowRecv, sink: &mut impl Sink, tally: &Tally<'_, impl Fn(Direction, usize)>) -> Ended {
    loop {
        let datagram = match recv.recv().await {
            Ok(Some(datagram)) => datagram,
            Ok(None) => return Ended::Well,
            // Over HTTP/2, who lets go of a stream that has not ended both ways resets it. spec: ST-75
            Err(RawError::Reset(StreamCode::NoError | StreamCode::Cancelled)) => return Ended::Well,
            Err(error) => return Ended::Recv(error),
        };
        let length = datagram.len();
        if !tally.admits(length) {
            continue;
        }
        match sink.put(datagram).await {
            Ok(true) => tally.count(tally.back, length),
            Ok(false) => tally.flows.dropped(DatagramDrop::Socket),
            Err(error) => return Ended::Here(error),
        }
    }
}

/// Whether a datagram is within the rates of whose flow it is; one that is not counts as dropped.
pub(crate) fn admits(meter: Option<&Meter>, length: usize, flows: &FlowMetrics) -> bool {
    let admits = meter.is_none_or(|meter| meter.admits(u64::try_from(length).unwrap_or(u64::MAX)));
    if !admits {
        flows.dropped(DatagramDrop::Rate);
    }
    admits
}

/// Counts what passes.
struct Tally<'a, F> {
    flows: &'a FlowMetrics,
    meter: Option<Meter>,
    /// Of what is sent over the flow, and of what comes over it.
    there: Direction,
    back: Direction,
    count: F,
}

impl<F: Fn(Direction, usize)> Tally<'_, F> {
    /// Whether a datagram may go on; one that may not counts as dropped.
    fn admits(&self, length: usize) -> bool {
        admits(self.meter.as_ref(), length, self.flows)
    }

    fn count(&self, direction: Direction, length: usize) {
        self.flows.passed(direction);
        (self.count)(direction, length);
    }
}

/// Why a flow was cut by the other end.
pub(super) fn failure_of(error: &RawError) -> Failure {
    let cause = match error {
        RawError::TunnelLost(_) => Cause::TunnelLost,
        // The first over TCP. spec: ST-77, TB-14
        RawError::Cut | RawError::Reset(StreamCode::Truncated) => Cause::TargetRefused,
        RawError::Protocol(_) => Cause::PeerProtocol,
        RawError::HeldBack => Cause::NotRead,
        RawError::Reset(_) => Cause::PeerReset,
    };
    Failure::new(cause, error.to_string())
}
