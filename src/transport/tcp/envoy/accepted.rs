//! What becomes of a tunnel of an Envoy when Envoys are accepted by other settings than those by which it was. spec: EV-50

use std::sync::Arc;

use crate::transport::tcp::envoy::{AcceptSettings, Security};

/// By which settings a tunnel was accepted, and what its initiator called this responder.
#[derive(Debug)]
pub(crate) struct Accepted {
    by: Arc<AcceptSettings>,
    named: Option<String>,
}

impl Accepted {
    /// `named`: what its initiator called this responder.
    pub(super) fn new(by: &Arc<AcceptSettings>, named: Option<String>) -> Self {
        Self { by: Arc::clone(by), named }
    }

    /// What becomes of it under these settings; `None`: no Envoy is accepted any more.
    pub(crate) fn still_taken(&self, settings: Option<&AcceptSettings>) -> StillTaken {
        settings.map_or(StillTaken::No, |settings| settings.still_takes(&self.by, self.named.as_deref()))
    }
}

/// What becomes of a tunnel of an Envoy under other settings than those by which it was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StillTaken {
    /// It would be accepted as well.
    Yes,
    /// Inside it another certificate is expected by now than the one that was looked at.
    Untrusted,
    /// It would not be accepted.
    No,
}

impl AcceptSettings {
    /// Whether the same tunnels are taken as by `other`. What is shown to them, and how often they are asked for a sign of life,
    /// is no matter of that.
    pub fn takes_the_same(&self, other: &Self) -> bool {
        let asks = |settings: &Self| (settings.rules.clone(), settings.security, settings.inner.expected.clone());
        asks(self) == asks(other)
    }

    /// Whether a tunnel would be taken that `former` has accepted, and whose initiator called this responder `named`.
    pub fn still_takes(&self, former: &Self, named: Option<&str>) -> StillTaken {
        let (rules, before) = (&self.rules, &former.rules);
        let is_named = match &rules.required_cluster {
            None => true,
            required if *required == before.required_cluster => true,
            Some(required) => named == Some(required),
        };
        // Who asked for an upgrade may be answered without one, and who did not ask is not let in where it is needed.
        let may_upgrade = before.upgrade || !rules.upgrade;
        if rules.path != before.path || !may_upgrade || !is_named || self.security != former.security {
            return StillTaken::No;
        }
        let is_trusted = self.inner.expected == former.inner.expected || self.security != Security::InnerTls;
        if is_trusted { StillTaken::Yes } else { StillTaken::Untrusted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::envoy::HandshakeRules;
    use crate::tls::{Trust, server_name};
    use crate::transport::tcp::envoy::Inner;

    // spec: EV-50
    #[test]
    fn a_tunnel_stays_where_it_would_be_accepted_again() {
        use StillTaken::{No, Untrusted, Yes};
        let settings = |rules: HandshakeRules| AcceptSettings { rules, ..AcceptSettings::default() };
        let usual = || AcceptSettings::default();
        let upgrading = || settings(HandshakeRules { upgrade: true, ..HandshakeRules::default() });
        let elsewhere = || settings(HandshakeRules { path: "/other".parse().unwrap(), ..HandshakeRules::default() });
        let called = |name: &str| {
            settings(HandshakeRules { required_cluster: Some(name.to_owned()), ..HandshakeRules::default() })
        };
        let clear = || AcceptSettings { security: Security::None, ..AcceptSettings::default() };
        let expecting = || {
            let expected = Some((server_name("edge.example").unwrap(), Trust::default()));
            AcceptSettings { inner: Inner { expected, ..Inner::default() }, ..AcceptSettings::default() }
        };
        for (what, before, now, named, verdict) in [
            ("nothing", usual(), usual(), None, Yes),
            ("an upgrade is needed", usual(), upgrading(), None, No),
            ("no upgrade is needed", upgrading(), usual(), None, Yes),
            ("another path", usual(), elsewhere(), None, No),
            ("a name is needed, and it said none", usual(), called("a"), None, No),
            ("a name is needed, and it said another", usual(), called("a"), Some("b"), No),
            ("a name is needed, and it said that", usual(), called("a"), Some("a"), Yes),
            ("another name is needed", called("a"), called("b"), Some("a"), No),
            ("no name is needed", called("a"), usual(), Some("a"), Yes),
            ("more protection", clear(), usual(), None, No),
            ("less protection", usual(), clear(), None, No),
            ("another certificate inside", usual(), expecting(), None, Untrusted),
            ("the same certificate inside", expecting(), expecting(), None, Yes),
        ] {
            let accepted = Accepted::new(&Arc::new(before), named.map(str::to_owned));
            assert_eq!(accepted.still_taken(Some(&now)), verdict, "{what}");
            assert_eq!(accepted.still_taken(None), No, "{what}, and then none at all");
        }
    }
}
