//! The servers that rules forward to, over a change of the rules: which of those that are there are whose afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::app::load::{Loaded, is_same_tls};
use crate::config::{Known, UpstreamConfig};
use crate::egress::{TrafficRules, Upstream};
use crate::policy::traffic::{Action, Priority};
use crate::tls::TargetTls;

/// What is there already, by the priority of the rule that forwards to it.
pub(super) type KnownUpstreams = BTreeMap<Priority, Known>;

/// A server as the settings have it.
type Settings<'a> = (Priority, &'a UpstreamConfig, Option<&'a TargetTls>);

/// Whose the servers are to which a listener forwards that goes by the rules `running`. One whose settings and files are the
/// same stays, whatever else has changed of its rule; of one at the same address what is under way counts.
pub(super) fn known(
    (new, index): (&Loaded, usize),
    (before, old): (&Loaded, usize),
    running: &TrafficRules,
) -> KnownUpstreams {
    let there = |priority: Priority| {
        running.iter().find(|rule| rule.priority == priority).and_then(|rule| match &rule.action {
            Action::Forward(upstream) => Some(Arc::clone(upstream)),
            _ => None,
        })
    };
    let former = before.upstreams(old).into_iter();
    let former = former.filter_map(|settings| Some((settings, there(settings.0)?))).collect();
    assign(new.upstreams(index), former)
}

/// Each is one rule's at most: two that forward to one server have places of their own there.
fn assign(mut own: Vec<Settings<'_>>, mut former: Vec<(Settings<'_>, Arc<Upstream>)>) -> KnownUpstreams {
    let is_same = |own: &Settings<'_>, former: &Settings<'_>| own.1 == former.1 && is_same_tls(own.2, former.2);
    let is_there = |own: &Settings<'_>, former: &Settings<'_>| own.1.target == former.1.target;
    let mut known = KnownUpstreams::new();
    // The best fit is looked for first.
    for (stays, of_same_rule) in [(true, true), (true, false), (false, true), (false, false)] {
        own.retain(|own| {
            let fits = |former: &Settings<'_>| {
                let is_one = if stays { is_same(own, former) } else { is_there(own, former) };
                is_one && (!of_same_rule || own.0 == former.0)
            };
            let Some(found) = former.iter().position(|(settings, _)| fits(settings)) else { return true };
            let (_, upstream) = former.swap_remove(found);
            known.insert(own.0, if stays { Known::Same(upstream) } else { Known::Changed(upstream) });
            false
        });
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::UpstreamSettings;
    use crate::targets::ServiceLimits;

    fn config(target: &str, in_flight: Option<u32>) -> UpstreamConfig {
        let limits = ServiceLimits { in_flight, connections: None };
        UpstreamConfig { target: target.parse().unwrap(), tls: None, limits, health: None }
    }

    fn there(config: &UpstreamConfig) -> Arc<Upstream> {
        Arc::new(Upstream::new(UpstreamSettings::new(config.target.clone())).unwrap())
    }

    fn priority(number: u16) -> Priority {
        Priority::new(number).unwrap()
    }

    // A change of any other rule made all of them anew.
    #[test]
    fn a_server_whose_settings_are_the_same_stays_and_of_one_at_its_address_what_is_under_way_counts() {
        let (one, other) = (config("http://a:1", Some(1)), config("http://b:1", None));
        let (changed, elsewhere) = (config("http://b:1", Some(3)), config("http://c:1", None));
        let servers = [there(&one), there(&one), there(&other)];
        let former = [(7, &one), (8, &one), (9, &other)];
        let former = former.iter().zip(&servers);
        let former =
            former.map(|((number, config), server)| ((priority(*number), *config, None), Arc::clone(server))).collect();
        let own = [(8, &one), (5, &one), (6, &one), (3, &changed), (4, &elsewhere)];
        let known = assign(own.map(|(number, config)| (priority(number), config, None)).to_vec(), former);
        let of = |number| known.get(&priority(number));
        let is = |number, server: &Arc<Upstream>| match of(number) {
            Some(Known::Same(known)) => Some((true, Arc::ptr_eq(known, server))),
            Some(Known::Changed(known)) => Some((false, Arc::ptr_eq(known, server))),
            None => None,
        };
        assert_eq!(is(8, &servers[1]), Some((true, true)), "the one of its own rule");
        assert_eq!(is(5, &servers[0]), Some((true, true)), "a rule that has another priority now");
        assert!(of(6).is_none(), "no third one");
        assert_eq!(is(3, &servers[2]), Some((false, true)), "another number of places");
        assert!(of(4).is_none(), "it is somewhere else");
    }
}
