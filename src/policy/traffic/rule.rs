//! One rule.

use std::fmt;

use http::StatusCode;

use crate::id::{HostId, ServiceName};
use crate::policy::traffic::matcher::Matcher;

/// Where among the rules one stands; the highest is looked at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Priority(u16);

impl Priority {
    /// The lowest and the highest.
    pub const BOUNDS: (u16, u16) = (1, 1000);

    /// What is looked at first.
    pub const HIGHEST: Self = Self(Self::BOUNDS.1);

    /// `None` outside of [`Priority::BOUNDS`].
    pub fn new(priority: u16) -> Option<Self> {
        let (lowest, highest) = Self::BOUNDS;
        (lowest..=highest).contains(&priority).then_some(Self(priority))
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A rule: what it is about, and what becomes of that. `F` says where something is forwarded to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule<F> {
    /// Unique among the rules of one listener or initiator.
    pub priority: Priority,
    /// What people call it.
    pub name: Option<String>,
    /// What it is about.
    pub matches: Matcher,
    /// What becomes of it.
    pub action: Action<F>,
}

/// What becomes of a request or a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<F> {
    /// It goes where it would go without rules.
    Allow,
    /// It goes nowhere; a request is answered with this status.
    Deny(StatusCode),
    /// It goes elsewhere in the tunnels of its tenant.
    Reroute(Reroute),
    /// It goes to a plain upstream, outside of any tunnel.
    Forward(F),
}

impl<F> Action<F> {
    /// The word in files, logs and metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny(_) => "deny",
            Self::Reroute(_) => "reroute",
            Self::Forward(_) => "forward",
        }
    }
}

/// Where else something goes; what is not said stays. Never to another tenant: ids mean something within one only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reroute {
    /// To which node or cluster.
    pub host_id: Option<HostId>,
    /// To which service.
    pub service: Option<ServiceName>,
}

impl<F> Rule<F> {
    /// How it is named where only one word is wanted: its name, else its priority.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.priority.to_string())
    }
}

/// `rule 900 (no-admin)`
impl<F> fmt::Display for Rule<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}", self.priority)?;
        match &self.name {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}
