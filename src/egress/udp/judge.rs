//! What becomes of a flow: the rules of the listener have a word, and it goes where they or the listener say.

use std::convert::Infallible;
use std::net::SocketAddr;

use super::UdpTerms;
use crate::message::failure::{Cause, Failure};
use crate::policy::traffic::{Action, Decision, Subject};
use crate::registry::{Balance, Choice, affinity};
use crate::routing::Destination;

/// What becomes of one flow.
#[derive(Debug)]
pub(in crate::egress) struct Judged<'a> {
    /// Who decided that; `None`: none can be named.
    pub(in crate::egress) decision: Option<Decision<'a, Infallible>>,
    /// Where it goes, or wanted to.
    pub(in crate::egress) to: Destination,
    /// Whether it may.
    pub(in crate::egress) allowed: Result<(), Failure>,
}

impl UdpTerms {
    /// Who decides on the flow of a source, and where it goes.
    pub(in crate::egress) fn judge(&self, source: SocketAddr) -> Judged<'_> {
        let mut to = self.destination(source);
        let decision = self.policies.decide(&Subject {
            source: Ok(Some(source.ip())),
            tenant: Ok(Some(&self.tenant)),
            service: Ok(Some(&self.service)),
            ..Subject::UNKNOWN
        });
        let decision = match decision {
            Ok(decision) => decision,
            Err(failure) => return Judged { decision: None, to, allowed: Err(failure) },
        };
        let mut allowed = Ok(());
        match decision.action() {
            Action::Allow => {}
            Action::Deny(_) => {
                let details = format!("{decision} of this listener denies the flow");
                allowed = Err(Failure::new(Cause::Denied, details));
            }
            Action::Reroute(elsewhere) => {
                if let Some(host_id) = &elsewhere.host_id {
                    to.host_id = host_id.clone();
                }
                if let Some(service) = &elsewhere.service {
                    to.service = Some(service.clone());
                }
            }
            Action::Forward(never) => match *never {},
        }
        Judged { decision: Some(decision), to, allowed }
    }

    fn destination(&self, source: SocketAddr) -> Destination {
        Destination {
            tenant: self.tenant.clone(),
            host_id: self.host_id.clone(),
            service: Some(self.service.clone()),
            choice: Choice { balance: self.balance, entropy: entropy(self.balance, source) },
        }
    }
}

/// What decides between the nodes of a cluster.
fn entropy(balance: Balance, source: SocketAddr) -> u64 {
    match balance {
        Balance::Hash => affinity(&source.ip().to_canonical().to_string()),
        _ => rand::random(),
    }
}
