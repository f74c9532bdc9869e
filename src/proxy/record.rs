//! The one record that every exchange leaves: its counts, and its line in the access log.
//!
//! A record begins when a request was read, or when a codec refused what it read, and is written when it is dropped:
//! however the exchange ends, there is exactly one. Counting costs some atomic additions; what only the line needs is
//! collected only while the line is wanted.

mod line;
mod trace;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{StatusCode, Version, request};
use http_body::Body;

use self::line::{Line, Origin};
use super::opener::Opener;
use super::upload::{Progress, Upload};
use crate::id::{HostId, ServiceName, TenantId};
use crate::message::failure::{Cause, Failure};
use crate::message::grpc;
use crate::message::violation::Violation;
use crate::shares::{Account, Meter, Stake, Wait, What};
use crate::telemetry::{
    Direction, ExchangeMetrics, ExchangeRecord, FlowMetrics, Limiter, Metrics, Outcome, RuleCounter, Side,
    TargetMetrics,
};
use crate::transport::{StreamRefusal, TunnelFacts};

pub use self::line::{AccessLog, TARGET};

/// Makes the records of one listener, or of the services of one initiator. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    metrics: ExchangeMetrics,
    side: Side,
    listener: Option<Arc<str>>,
    log: AccessLog,
    /// Bounds the lines of what was refused: whoever is refused may try a thousand times a second.
    refusals: Arc<Limiter>,
    flows: FlowMetrics,
    targets: TargetMetrics,
}

/// How many lines of refused messages are written in a minute; all of them are counted.
const MAX_REFUSALS: u32 = 60;
const MINUTE: Duration = Duration::from_secs(60);

impl Recorder {
    /// Counts into `metrics`. `listener` names the listener in the access log; an initiator has none.
    pub fn new(metrics: &Metrics, side: Side, listener: Option<String>, log: AccessLog) -> Self {
        let causes = Cause::ALL.map(Cause::label);
        let refusals = Arc::new(Limiter::new(MAX_REFUSALS, MINUTE));
        let flows = metrics.flows(side);
        Self {
            metrics: metrics.exchanges(side, &causes),
            side,
            listener: listener.map(Arc::from),
            log,
            refusals,
            flows,
            targets: metrics.targets(side),
        }
    }

    /// What counts the flows of this side.
    pub fn flows(&self) -> &FlowMetrics {
        &self.flows
    }

    /// What says which targets of this side are down.
    pub fn targets(&self) -> &TargetMetrics {
        &self.targets
    }

    /// A recorder of this side whose counts nobody reads, and that writes no lines.
    pub fn silent(side: Side) -> Self {
        Self::new(&Metrics::new(), side, None, AccessLog::Off)
    }

    /// What counts the decisions of a rule of this name.
    pub fn of_rule(&self, rule: String, action: &'static str) -> RuleCounter {
        self.metrics.policies().rule(rule, action)
    }

    /// The name of the listener, if it has one.
    pub fn listener(&self) -> Option<&str> {
        self.listener.as_deref()
    }

    /// A request was read; `remote` is who sent it.
    pub fn begin(&self, head: &request::Parts, remote: Option<SocketAddr>) -> Record {
        self.begin_with(self.log, head, remote)
    }

    /// The same, logged as `log` says.
    pub fn begin_with(&self, log: AccessLog, head: &request::Parts, remote: Option<SocketAddr>) -> Record {
        let line = log.is_wanted().then(|| Box::new(Line::new(self.origin(log), head, remote)));
        // What came through a tunnel has no version of its own; a client of HTTP/1 has no use for an answer of gRPC.
        let may_call = self.side != Side::Egress || head.version >= Version::HTTP_2;
        let mut counted = self.metrics.begin();
        counted.is_call = may_call && grpc::is_call(head);
        Record { counted, uploads: None, line, stake: None }
    }

    fn origin(&self, log: AccessLog) -> Origin {
        Origin { side: self.side, listener: self.listener.clone(), log }
    }

    /// A codec refused what it read: the record of that is written at once, logged as `log` says, up to sixty times a minute.
    pub fn refused_with(&self, log: AccessLog, remote: SocketAddr, version: Option<Version>, violation: Violation) {
        let log = self.bounded(log);
        let mut record = self.unread(log, Some(remote));
        if let Some(line) = &mut record.line {
            line.came_in(version);
        }
        record.failed_with(cause_of(violation), &violation);
        if violation.is_answered() {
            record.responded(violation.status());
        }
    }

    /// The transport refused a stream that came through this tunnel: the record of that is written at once.
    pub fn refused_stream(&self, tunnel: TunnelFacts<'_>, refusal: &StreamRefusal) {
        let mut record = self.unread(self.bounded(self.log), None);
        record.through(tunnel);
        record.failed_with(refusal.cause, &refusal.details);
        if let Some(status) = refusal.status {
            record.responded(status);
        }
    }

    /// What may be logged of one more refusal.
    fn bounded(&self, log: AccessLog) -> AccessLog {
        if !log.is_wanted() {
            return log;
        }
        match self.refusals.pass(Instant::now()) {
            None => AccessLog::Off,
            Some(0) => log,
            Some(left_out) => {
                tracing::warn!(listener = self.listener(), left_out, "refused messages were not logged one by one");
                log
            }
        }
    }

    /// Of what never became a request.
    fn unread(&self, log: AccessLog, remote: Option<SocketAddr>) -> Record {
        let line = log.is_wanted().then(|| Box::new(Line::refused(self.origin(log), remote)));
        Record { counted: self.metrics.begin(), uploads: None, line, stake: None }
    }
}

/// The record of one exchange. Written when dropped: as cancelled unless it was said to be complete or to have failed.
#[derive(Debug)]
#[must_use = "the exchange counts as under way while this lives"]
pub struct Record {
    counted: ExchangeRecord,
    uploads: Option<Arc<Progress>>,
    line: Option<Box<Line>>,
    /// What it holds of the shares of its tenant and node, at a responder.
    stake: Option<Stake>,
}

impl Record {
    /// It counts as something that this tenant has under way, from now until the record is closed.
    ///
    /// # Errors
    ///
    /// The tenant's share is used up, as the client is to be told.
    pub(crate) fn enter(&mut self, tenant: Arc<Account>, what: What) -> Result<(), Failure> {
        self.stake = Some(Stake::of_tenant(tenant, what)?);
        Ok(())
    }

    /// It is about to go to a node whose account is this, if it has one.
    ///
    /// # Errors
    ///
    /// The node's share is used up.
    pub(crate) fn go_to(&mut self, node: Option<Arc<Account>>) -> Result<(), Failure> {
        if let Some(stake) = &mut self.stake {
            stake.go_to(node)?;
            if let Some(meter) = self.uploads.as_ref().and_then(|uploads| uploads.meter()) {
                stake.tell(meter);
            }
        }
        Ok(())
    }

    /// The turn of its begin, where it has to wait for that.
    pub(super) fn turn(&self) -> Option<Wait> {
        self.stake.as_ref()?.begin()
    }

    /// What charges the bytes of one direction, if anything does.
    pub(crate) fn meter(&self) -> Option<Meter> {
        self.stake.as_ref().map(Stake::meter)
    }

    /// Whether the client waits for an answer of gRPC.
    pub(crate) fn is_call(&self) -> bool {
        self.counted.is_call
    }

    /// How long ago the request was read.
    pub(crate) fn age(&self) -> Duration {
        self.counted.elapsed()
    }

    /// This rule has decided what becomes of the request.
    pub fn ruled(&mut self, rule: &dyn fmt::Display) {
        if let Some(line) = &mut self.line {
            line.ruled(rule);
        }
    }

    /// Whom the request asks for.
    pub fn asked(&mut self, tenant: &TenantId, host_id: &HostId, service: Option<&ServiceName>) {
        if let Some(line) = &mut self.line {
            line.asked(tenant, host_id, service);
        }
    }

    /// The request goes to this service here, whose target is this one.
    pub fn served(&mut self, service: &ServiceName, target: &Arc<str>) {
        if let Some(line) = &mut self.line {
            line.served(service, target);
        }
    }

    /// The request goes to this upstream, outside of any tunnel.
    pub fn forwarded(&mut self, target: &str) {
        if let Some(line) = &mut self.line {
            line.forwarded(target);
        }
    }

    /// The exchange came through this tunnel.
    pub fn through(&mut self, tunnel: TunnelFacts<'_>) {
        if let Some(line) = &mut self.line {
            line.through(tunnel.id(), tunnel.place(), tunnel.transport());
        }
    }

    /// The request is tried on one more tunnel.
    pub(crate) fn attempt(&mut self, opener: &impl Opener) {
        self.counted.attempt();
        if let Some(line) = &mut self.line {
            line.through(opener.id(), opener.place(), opener.transport());
            line.through_sibling(opener.sibling());
            line.count_attempt();
        }
    }

    /// The body of the request, counted.
    pub fn upload<B: Body>(&mut self, body: B) -> Upload<B> {
        let upload = Upload::new(body, self.counted.metrics(), self.meter());
        self.uploads = upload.progress();
        upload
    }

    /// As [`Self::upload`], where only the record wants to know of it: no deadline, no other attempt.
    pub fn counted_upload<B: Body>(&mut self, body: B) -> Upload<B> {
        match self.line {
            Some(_) => self.upload(body),
            None => Upload::counted(body, self.counted.metrics()),
        }
    }

    /// The head of the final response is passed on.
    pub fn responded(&mut self, status: StatusCode) {
        self.counted.responded(status.as_u16());
        if let Some(line) = &mut self.line {
            line.responded(self.counted.elapsed());
        }
    }

    /// How the upload is getting on, if there is any and that is followed.
    pub(crate) fn upload_progress(&self) -> Option<Arc<Progress>> {
        self.uploads.clone()
    }

    /// Bytes of the response's body were passed on.
    pub(super) fn response_bytes(&mut self, bytes: u64) {
        self.counted.metrics().body_bytes(Direction::Response, bytes);
        if let Some(line) = &mut self.line {
            line.response_bytes(bytes);
        }
    }

    /// What counts the bytes of both directions while they pass.
    pub(crate) fn bytes(&self) -> ExchangeMetrics {
        self.counted.metrics().clone()
    }

    /// So many bytes of datagrams have passed in all, which were counted while they did.
    pub(crate) fn passed(&mut self, request: u64, response: u64) {
        if let Some(line) = &mut self.line {
            line.datagram_bytes(request, response);
        }
    }

    /// The exchange failed; the first failure is the one that counts.
    pub fn fail(&mut self, failure: &Failure) {
        self.failed_with(failure.cause(), &failure.details());
    }

    /// The exchange failed of this cause; `details` say for people what exactly happened. If its client had broken a rule
    /// before, all that follows comes of that.
    pub fn failed_with(&mut self, cause: Cause, details: &dyn fmt::Display) {
        match self.broken_rule() {
            Some(violation) => self.note_failure(cause_of(violation), &violation),
            None => self.note_failure(cause, details),
        }
    }

    fn note_failure(&mut self, cause: Cause, details: &dyn fmt::Display) {
        if !self.counted.has_failed()
            && let Some(line) = &mut self.line
        {
            line.details(details);
        }
        self.counted.fail(cause.label());
    }

    /// Both messages were passed on whole.
    pub fn complete(&mut self) {
        self.counted.complete();
    }

    /// The response was passed on whole. Where both directions count alike, the exchange is over once the upload is.
    pub(super) fn response_complete(mut self) {
        let uploads = self.uploads.clone();
        match uploads.as_ref().and_then(|uploads| uploads.ending()) {
            None => self.complete(),
            Some(ending) => ending.after(Box::new(move |whole| {
                if whole {
                    self.complete();
                }
            })),
        }
    }

    /// What the client is told in place of a failure, if that comes of a rule that it broke in the middle of its body.
    pub(super) fn fault_of_client(&self) -> Option<Failure> {
        self.broken_rule().map(|violation| Failure::new(cause_of(violation), violation.to_string()))
    }

    /// The rule that the client broke in the middle of its body, if it did.
    fn broken_rule(&self) -> Option<Violation> {
        self.uploads.as_ref().and_then(|uploads| uploads.broken())
    }

    /// An exchange that was given up because its client broke a rule was not cancelled. The codec answers the client.
    /// One whose client has gone was.
    fn settle(&mut self) {
        if self.counted.outcome() == Outcome::Open
            && let Some(violation) = self.broken_rule().filter(|violation| !violation.is_cut())
        {
            self.note_failure(cause_of(violation), &violation);
            if self.counted.status().is_none() && violation.is_answered() {
                self.responded(violation.status());
            }
        }
    }
}

/// What a broken rule counts as.
fn cause_of(violation: Violation) -> Cause {
    match violation.status() {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Cause::HeadTooLarge,
        StatusCode::TOO_MANY_REQUESTS => Cause::Quota,
        _ if violation.is_cut() => Cause::RequestCut,
        _ => Cause::BadRequest,
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.settle();
        self.counted.count_end();
        if let Some(line) = self.line.take() {
            line.write(&self.counted, self.uploads.as_ref().map_or(0, |uploads| uploads.bytes()));
        }
    }
}
