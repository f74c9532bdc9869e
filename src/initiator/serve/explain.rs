//! What an initiator would do with something that came through a tunnel, without a tunnel.

use std::net::IpAddr;

use http::Request;
use http::uri::Scheme;
use http_body_util::Empty;

use super::governed::{Judged, Through};
use super::{Exported, Services};
use crate::id::ServiceName;
use crate::message::failure::Failure;
use crate::message::validate;
use crate::message::violation::Violation;
use crate::policy::traffic::ExplainedRule;
use crate::protocol::handshake::ServiceKind;

/// What becomes of something that comes through a tunnel, by the code that decides it there.
#[derive(Debug)]
pub struct ExplainedService {
    /// The rule that decides; `None`: the last one, or what came is at fault.
    pub rule: Option<ExplainedRule>,
    /// Who takes it, or why nobody does.
    pub way: Result<Taken, Failure>,
}

/// Who takes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The service.
    pub service: ServiceName,
    /// Its target.
    pub target: String,
}

impl From<&Exported> for Taken {
    fn from(exported: &Exported) -> Self {
        Self { service: exported.name().clone(), target: exported.target().to_owned() }
    }
}

impl Services {
    /// What these would do with a request that asks for this service, or for whom its host and path say. Its URI is absolute,
    /// and its fields say who connected, as a responder writes it.
    ///
    /// # Errors
    /// It breaks a rule of HTTP, so no responder would pass it on.
    pub fn explain(
        &self,
        request: Request<()>,
        service: Option<&ServiceName>,
        through: Through<'_>,
    ) -> Result<ExplainedService, Violation> {
        let (mut head, ()) = request.into_parts();
        let scheme = head.uri.scheme().cloned().unwrap_or(Scheme::HTTP);
        validate::unsent_request(&mut head, &scheme, usize::MAX)?;
        let Judged { decision, taker } = self.judge(service, &head, Some(through));
        let mut record = self.0.recorder.begin(&head, None);
        let way = taker.and_then(|exported| {
            exported.prepare(head, Empty::new(), &mut record)?;
            Ok(Taken::from(&**exported))
        });
        Ok(ExplainedService { rule: decision.and_then(|decision| decision.explained()), way })
    }

    /// The same of a raw stream or a flow to a service; which of both `kind` says. `client` is who connected, if the responder
    /// says it.
    pub fn explain_stream(
        &self,
        asked: (&ServiceName, ServiceKind),
        through: Through<'_>,
        client: Option<IpAddr>,
    ) -> ExplainedService {
        let Judged { decision, taker } = self.judge_stream(asked, (through, client));
        let way = taker.map(|exported| Taken::from(&**exported)).map_err(|(_, failure)| failure);
        ExplainedService { rule: decision.and_then(|decision| decision.explained()), way }
    }
}
