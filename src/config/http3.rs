//! `http3` of a listener.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::config::reader::{At, Section};

const FORM: &str = "true, false, or { early_data, port }";

/// Whether HTTP/3 is served beside a listener with TLS, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http3Config {
    /// Whether there is any, on the UDP port of the listener's number; default: with `tls`, yes.
    pub enabled: bool,
    /// `early_data`: whether requests with safe methods are taken before the handshake is done (0-RTT), marked with
    /// `early-data: 1`. Default false.
    pub early_data: bool,
    /// `port`: the UDP port that clients are told (`Alt-Svc`), 1 to 65,535, where it is not the one that is listened on.
    pub port: Option<u16>,
}

impl Http3Config {
    /// Without anything that has to be asked for.
    pub(super) const fn of(enabled: bool) -> Self {
        Self { enabled, early_data: false, port: None }
    }
}

/// `true`, `false`, or its keys. It has no clear text.
pub(super) fn http3(section: &mut Section<'_>) -> Http3Config {
    let has_tls = section.has("tls");
    let asks_clients = section.find("tls").is_some_and(|at| at.has("client_ca"));
    section.or("http3", Http3Config::of(has_tls), |at| {
        let is_section = at.is_section();
        let enabled = is_section || at.understood(FORM, |text| text.parse().ok())?;
        if enabled && !has_tls {
            at.wrong("needs TLS; expected tls: { cert, key } beside it, or false");
        }
        if !is_section {
            return Some(Http3Config::of(enabled));
        }
        at.section(|section| {
            let early_data = section.or("early_data", false, |at| early_data(&at, asks_clients));
            let port = section.optional("port", |at| at.number(1..=65_535).and_then(|port| u16::try_from(port).ok()));
            Some(Http3Config { enabled, early_data, port })
        })
    })
}

fn early_data(at: &At<'_>, asks_clients: bool) -> Option<bool> {
    let wanted = at.boolean()?;
    if wanted && asks_clients {
        at.wrong("would serve clients before their certificates are seen; expected false, or tls without client_ca");
    }
    Some(wanted)
}

impl Serialize for Http3Config {
    /// As it is written in a file.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if *self == Self::of(self.enabled) {
            return self.enabled.serialize(serializer);
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("early_data", &self.early_data)?;
        if let Some(port) = self.port {
            map.serialize_entry("port", &port)?;
        }
        map.end()
    }
}
