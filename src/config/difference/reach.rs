//! How far a change reaches: what is up already follows it, or only what comes up from then on.

const TOLD: &str = "live tunnels are told";
const LATER: &str = "for tunnels that come up from then on";
const COMES_BACK: &str = "open connections are asked to come back";
const SENT_AWAY: &str = "clients who would not be let in any more are sent away";

/// What is said of a change of this key, where a reader could wonder; `None`: it holds at once for whatever comes, or for
/// whatever it is the setting of.
pub(super) fn reach(key: &str) -> Option<&'static str> {
    let of_listener = key.strip_prefix("egress[").and_then(|rest| rest.split_once("].")).map(|(_, rest)| rest);
    match of_listener {
        Some(
            "limits.head_bytes"
            | "limits.head_fields"
            | "limits.body_idle"
            | "limits.body_rate"
            | "limits.exchange_idle"
            | "limits.connect_idle"
            | "half_close"
            | "tls",
        ) => Some(COMES_BACK),
        Some(key) if key == "http3" || key.starts_with("http3.") => Some(COMES_BACK),
        Some("tls.client_ca" | "tls.crl") => Some(SENT_AWAY),
        Some(_) => None,
        None => {
            let (_, key) = key.split_once('.').filter(|(role, _)| ["responder", "initiator"].contains(role))?;
            match key {
                "limits" | "limits.head_bytes" | "limits.head_fields" => Some(TOLD),
                "keepalive" | "idle_timeout" | "congestion" => Some(LATER),
                _ => None,
            }
        }
    }
}
