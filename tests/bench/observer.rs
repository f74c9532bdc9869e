//! What an end says of its tunnels, asked at its admin listener.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use adit::admin::TunnelsReport;

use crate::interop::End;
use crate::support::eventually::eventually;
use crate::support::http1::get;

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Responder,
    Initiator,
}

/// Asks one end, also while somebody else holds its process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observer {
    pub(crate) side: Side,
    pub(crate) end: End,
    pub(crate) admin: SocketAddr,
}

/// What a responder of Envoy counts refusals under, and what an initiator does.
const ENVOY_FAILURES: [&str; 4] = ["reverse_tunnel.handshake.", "failure_reason.", "ssl.fail_", "ssl.connection_error"];

impl Observer {
    /// The tunnels that are up, by name; Envoy's have none, so they are numbered.
    pub(crate) async fn tunnels(&self) -> Option<BTreeSet<String>> {
        if matches!(self.end, End::Adit) {
            let report = self.report().await?;
            let accepted = report.accepted.into_iter().map(|tunnel| tunnel.id);
            let dialled = report.dialled.into_iter().filter_map(|tunnel| tunnel.id);
            return Some(accepted.chain(dialled).collect());
        }
        let name = match self.side {
            Side::Responder => "tunnels_by.nodes.",
            Side::Initiator => "tunnels.cluster.responder.connected",
        };
        let count: u64 = self.stats(name).await?.into_iter().map(|(_, value)| value).sum();
        Some((0..count).map(|number| number.to_string()).collect())
    }

    pub(crate) async fn has_a_tunnel(&self) {
        eventually("a tunnel", async || self.tunnels().await.filter(|tunnels| !tunnels.is_empty()).map(drop)).await;
    }

    /// Why there is no tunnel, in the words of that end; empty when it has nothing to say.
    pub(crate) async fn complaint(&self) -> String {
        let words = match self.end {
            End::Adit => {
                let report = self.report().await.unwrap_or_default();
                report.dialled.into_iter().filter_map(|tunnel| tunnel.reason).collect()
            }
            End::Envoy => self.envoy_complaints().await,
        };
        words.join("; ")
    }

    async fn envoy_complaints(&self) -> Vec<String> {
        let mut words = Vec::new();
        for part in ENVOY_FAILURES {
            let stats = self.stats(part).await.unwrap_or_default();
            let failures = stats.into_iter().filter(|(name, value)| *value > 0 && !name.ends_with("accepted"));
            words.extend(failures.map(|(name, _)| name[name.find(part).unwrap_or(0)..].to_owned()));
        }
        words.sort();
        words.dedup();
        words
    }

    async fn report(&self) -> Option<TunnelsReport> {
        serde_json::from_slice(&get(self.admin, "/tunnels", &[]).await.ok()?.body).ok()
    }

    /// Envoy's counters and gauges whose names contain `part`.
    async fn stats(&self, part: &str) -> Option<Vec<(String, u64)>> {
        let text = get(self.admin, &format!("/stats?hidden=include&filter={part}"), &[]).await.ok()?.text();
        let value = |line: &str| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Some(text.lines().filter_map(value).collect())
    }
}
