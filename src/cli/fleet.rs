//! `adit fleet`: the responders that act as one, as one of them sees them.

use std::process::ExitCode;

use adit::admin::client::request;
use adit::admin::{FleetReport, FleetResponder};
use adit::config::AdminAddress;
use anyhow::{Context as _, bail};
use clap::Args;
use http::{Method, StatusCode};

use super::say;
use super::table::{table, wrapped};

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 the view is what etcd says, 1 nobody could be asked, or the view is stale or empty."
)]
pub(super) struct FleetArgs {
    /// The admin listener of one of them: ip:port, localhost:port, or a path of a Unix socket
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: AdminAddress,
    /// Print what the admin listener says, as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn fleet(args: &FleetArgs) -> anyhow::Result<ExitCode> {
    let admin = &args.admin;
    let (status, text) = super::small_runtime()?.block_on(request(admin, Method::GET, "/fleet"))?;
    let text = String::from_utf8_lossy(&text);
    if status != StatusCode::OK {
        bail!("{admin} answered {status} to /fleet: {}", text.trim_end());
    }
    let report: FleetReport = serde_json::from_str(&text).context("/fleet is not what it should be")?;
    say(&if args.json { text.into_owned() } else { show(&report) });
    Ok(if report.view == "current" { ExitCode::SUCCESS } else { ExitCode::from(super::FAILED) })
}

/// What a view is that etcd does not confirm, and one that nothing is in yet.
const STALE: &str = "stale";
const EMPTY: &str = "empty";

fn show(report: &FleetReport) -> String {
    let age = report.view_age_seconds.map(|age| format!("{age:.1}s"));
    let old = age.as_ref().map_or_else(String::new, |age| format!(", {age} old"));
    let etcd = report.etcd.as_ref().map_or_else(String::new, |etcd| format!(", from {etcd}"));
    let FleetReport { view, tunnels, responders, prefix, .. } = report;
    let mut text = format!("view {view}{old}{etcd}\n");
    text += match view.as_str() {
        EMPTY => "  etcd was not read since this responder was started: no other responder is known yet\n",
        STALE => "  etcd is not heard: this is what it said last, and the others may have changed since\n",
        _ => "",
    };
    if let Some(trouble) = &report.trouble {
        text += &wrapped(trouble, "  ", 80);
    }
    text += &format!("\n{} responders, {tunnels} tunnels below {prefix}\n", responders.len());
    let since = age.filter(|_| view == STALE);
    let rows: Vec<_> = responders.iter().map(|responder| row(responder, since.as_deref())).collect();
    text += &table(["RESPONDER", "STATE", "TUNNELS", "WEIGHT", "REGION", "INITIATORS AT"], &rows, 120, &[0, 4, 5]);
    text
}

/// `since`: when the others were last known to be so, if that is not now.
fn row(responder: &FleetResponder, since: Option<&str>) -> [String; 6] {
    let this = if responder.is_this { " (this)" } else { "" };
    let state = if responder.draining { "draining" } else { "live" };
    [
        format!("{}{this}", responder.id),
        match since.filter(|_| !responder.is_this) {
            Some(since) => format!("{state} {since} ago"),
            None => state.to_owned(),
        },
        responder.tunnels.to_string(),
        responder.weight.to_string(),
        responder.region.clone().unwrap_or_default(),
        responder.initiators_at.join(" "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn responder(id: &str, is_this: bool, draining: bool) -> FleetResponder {
        FleetResponder {
            id: id.into(),
            is_this,
            draining,
            tunnels: 3,
            weight: 100,
            initiators_at: vec![format!("{id}:7843")],
            ..FleetResponder::default()
        }
    }

    #[test]
    fn each_responder_has_a_line_and_a_stale_view_says_why_and_how_old_each_is() {
        let report = FleetReport {
            prefix: "/adit/".into(),
            view: "stale".into(),
            view_age_seconds: Some(12.34),
            tunnels: 6,
            trouble: Some("etcd did not answer".into()),
            responders: vec![responder("a", true, false), responder("b", false, true)],
            ..FleetReport::default()
        };
        assert_eq!(
            show(&report),
            "view stale, 12.3s old\n  etcd is not heard: this is what it said last, and the others may have changed since\n\
             \x20 etcd did not answer\n\n2 responders, 6 tunnels below /adit/\n\
             RESPONDER  STATE               TUNNELS  WEIGHT  REGION  INITIATORS AT\n\
             a (this)   live                3        100             a:7843\n\
             b          draining 12.3s ago  3        100             b:7843\n"
        );
    }

    #[test]
    fn a_view_that_etcd_confirms_says_no_more_of_its_responders_than_how_they_are() {
        let report = FleetReport {
            prefix: "/adit/".into(),
            view: "current".into(),
            view_age_seconds: Some(0.04),
            tunnels: 6,
            etcd: Some("http://10.0.0.5:2379".into()),
            responders: vec![responder("a", true, false), responder("b", false, false)],
            ..FleetReport::default()
        };
        assert_eq!(
            show(&report),
            "view current, 0.0s old, from http://10.0.0.5:2379\n\n2 responders, 6 tunnels below /adit/\n\
             RESPONDER  STATE  TUNNELS  WEIGHT  REGION  INITIATORS AT\n\
             a (this)   live   3        100             a:7843\n\
             b          live   3        100             b:7843\n"
        );
    }

    #[test]
    fn a_view_that_was_never_read_says_that_nobody_else_is_known() {
        let report = FleetReport {
            prefix: "/adit/".into(),
            view: "empty".into(),
            trouble: Some("etcd did not answer".into()),
            ..FleetReport::default()
        };
        let text = show(&report);
        let begin =
            "view empty\n  etcd was not read since this responder was started: no other responder is known yet\n";
        assert!(text.starts_with(begin) && text.contains("\n  etcd did not answer\n"), "{text}");
    }
}
