//! The front of the crate: the names at its root, as a list. A name that comes or goes is seen in a review; one that an
//! embedder uses does not go unnoticed.

use std::collections::BTreeSet;
use std::path::Path;

/// What `src/lib.rs` passes on, by the name that embedders use.
const NAMES: &str = "
    Accept AccessLog AddressError Arrival BodyError Cause Client ClientCertificates ClusterId Credentials Destination
    Directory Drain DrainWatch Drained Egress EgressBuildError EgressBuilder EgressHandle EgressSettings EgressTerms
    EgressTls ExchangeBody Failure HostId HttpService IdError InformationalSink Initiator InitiatorBuildError
    InitiatorBuilder InitiatorHandle InitiatorTerms InitiatorTls InitiatorUpdateError Leaving Metrics NodeId NodeRule
    NodeShare Quotas RecvBody Responder ResponderBuildError ResponderBuilder ResponderHandle ResponderTerms ResponderTls
    ResponderUpdateError Route RouterSettings RuleError RuleSettings Rules Serve ServiceName Share ShareRate ShareSettings SlotStatus
    SpkiPin StartError StatusBoard TenantId TenantShare TlsError TransportChoice TransportKind Trust Tunnel TunnelAddress TunnelSettings load_roots
";

/// The modules that are public.
const MODULES: &str = "
    admin app config egress fleet id initiator lifecycle message net policy protocol proxy registry responder routing shares
    targets telemetry template tls transport
";

#[test]
fn the_root_exports_these_names_and_modules_and_no_others() {
    let root = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let exports = exports(&root);
    assert_eq!(exports, listed(NAMES).union(&listed(MODULES)).cloned().collect());
}

#[test]
fn a_name_is_read_as_embedders_see_it() {
    let text = "//! pub use no::Comment;\npub mod a;\nmod b;\npub use a::One;\npub use a::{\n    Two,\n    Three as Four,\n};\n";
    assert_eq!(exports(text), listed("a One Two Four"));
}

fn listed(names: &str) -> BTreeSet<String> {
    names.split_whitespace().map(str::to_owned).collect()
}

/// The public items of a file that has nothing but modules and uses.
fn exports(text: &str) -> BTreeSet<String> {
    let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    code.join(" ").split(';').filter_map(|item| item.trim().strip_prefix("pub ")).flat_map(names).collect()
}

/// What one public item is called.
fn names(item: &str) -> Vec<String> {
    if let Some(module) = item.strip_prefix("mod ") {
        return vec![module.to_owned()];
    }
    let path = item.strip_prefix("use ").unwrap_or_else(|| panic!("neither a module nor a use: {item}"));
    let passed_on = match path.split_once('{') {
        Some((_, group)) => group.trim_end_matches('}'),
        None => path,
    };
    let name = |one: &str| one.rsplit([' ', ':']).next().unwrap().to_owned();
    passed_on.split(',').map(str::trim).filter(|one| !one.is_empty()).map(name).collect()
}
