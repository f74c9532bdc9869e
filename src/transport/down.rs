//! Which services of an initiator are down, as it said in one tunnel. Asked on the path of every request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::id::ServiceName;
use crate::protocol::handshake::{Service, ServiceKind};
use crate::protocol::health::Down;

/// The services that are down. By default none is.
#[derive(Debug, Default)]
pub(crate) struct DownServices {
    /// Whether any is: usually not, and then nobody looks further.
    any: AtomicBool,
    known: ArcSwap<Known>,
    /// What was said last, about whatever names. Bounded by the frame that says it.
    told: Mutex<Vec<Down>>,
}

/// What follows from that for the services that are exported.
#[derive(Debug, Default)]
struct Known {
    /// By name.
    down: Vec<Down>,
    /// Whether everything that is exported of HTTP is down. spec: CT-61
    all_http: bool,
}

impl DownServices {
    /// Whether this service is down; of a request that names none, whether all that could be meant are. spec: CT-61
    pub(crate) fn has(&self, service: Option<&ServiceName>) -> bool {
        self.any.load(Ordering::Acquire) && {
            let known = self.known.load();
            match service {
                Some(service) => known.down.binary_search_by(|down| down.service.cmp(service)).is_ok(),
                None => known.all_http,
            }
        }
    }

    /// Those that are down, by name.
    pub(crate) fn list(&self) -> Vec<Down> {
        self.known.load().down.clone()
    }

    /// These are down, and no others. spec: CT-58
    pub(crate) fn replace(&self, down: Vec<Down>, exported: &[Service]) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = down;
        self.know(&told, exported);
    }

    /// Other services are exported.
    pub(crate) fn follow(&self, exported: &[Service]) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        self.know(&told, exported);
    }

    fn know(&self, told: &[Down], exported: &[Service]) {
        let is_exported = |down: &&Down| exported.iter().any(|service| service.name == down.service);
        let mut down: Vec<Down> = told.iter().filter(is_exported).cloned().collect();
        down.sort_by(|one, other| one.service.cmp(&other.service));
        let mut http = exported.iter().filter(|service| service.kind == ServiceKind::Http).peekable();
        let all_http = http.peek().is_some() && http.all(|service| down.iter().any(|one| one.service == service.name));
        let any = !down.is_empty();
        self.known.store(Arc::new(Known { down, all_http }));
        self.any.store(any, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::code::DownCause;

    fn name(text: &str) -> ServiceName {
        text.parse().unwrap()
    }

    fn exported(names: &[(&str, ServiceKind)]) -> Vec<Service> {
        names.iter().map(|(text, kind)| Service { name: name(text), kind: *kind }).collect()
    }

    fn down(names: &[&str]) -> Vec<Down> {
        names.iter().map(|text| Down { service: name(text), cause: DownCause::TargetRefused }).collect()
    }

    // spec: CT-58
    #[test]
    fn each_word_replaces_the_one_before_and_is_about_what_is_exported() {
        let services = DownServices::default();
        let mut all = exported(&[("web", ServiceKind::Http), ("ssh", ServiceKind::Tcp)]);
        assert!(!services.has(Some(&name("ssh"))) && !services.has(None));
        services.replace(down(&["ssh", "other"]), &all);
        assert!(services.has(Some(&name("ssh"))) && !services.has(Some(&name("other"))));
        all.extend(exported(&[("other", ServiceKind::Http)]));
        services.follow(&all);
        assert!(services.has(Some(&name("other"))), "it is exported by now");
        assert_eq!(services.list().len(), 2);
        services.replace(down(&["web"]), &all);
        assert!(services.has(Some(&name("web"))) && !services.has(Some(&name("ssh"))));
        services.replace(Vec::new(), &all);
        assert!(!services.has(Some(&name("web"))) && services.list().is_empty());
    }

    // spec: CT-61
    #[test]
    fn a_request_without_a_service_finds_none_only_where_all_of_http_are_down() {
        let services = DownServices::default();
        let all = exported(&[("web", ServiceKind::Http), ("api", ServiceKind::Http), ("ssh", ServiceKind::Tcp)]);
        for (names, expected) in [(&["web", "ssh"][..], false), (&["web", "api"], true), (&["ssh"], false)] {
            services.replace(down(names), &all);
            assert_eq!(services.has(None), expected, "{names:?}");
        }
        services.replace(down(&["ssh"]), &exported(&[("ssh", ServiceKind::Tcp)]));
        assert!(!services.has(None), "who exports nothing of HTTP by name may serve it all the same");
    }
}
