use super::*;
use crate::id::{ClusterId, InstanceId, TenantId};

const SPIFFE: &str = "spiffe://example.org/tenant/{tenant}/cluster/{cluster}/node/{node}";
const KEY: SpkiPin = SpkiPin([7; 32]);
const OTHER_KEY: SpkiPin = SpkiPin([8; 32]);
const TOKEN: &[u8] = b"0123456789abcdef";

fn claim(node: &str, cluster: &str, tenant: &str) -> Claim {
    Claim { node: node.parse().unwrap(), cluster: cluster.parse().unwrap(), tenant: tenant.parse().unwrap() }
}

fn edge() -> Claim {
    claim("edge-17", "stores", "acme")
}

fn certificate(uri_san: &str) -> PeerIdentity {
    PeerIdentity { uri_sans: vec![uri_san.to_owned()], key: Some(KEY), ..PeerIdentity::default() }
}

fn edge_certificate() -> PeerIdentity {
    certificate("spiffe://example.org/tenant/acme/cluster/stores/node/edge-17")
}

fn rules(settings: RuleSettings) -> Rules {
    Rules::new(settings).unwrap()
}

fn spiffe() -> RuleSettings {
    RuleSettings { identity: Some(SPIFFE.to_owned()), ..RuleSettings::default() }
}

fn node_rule(pins: &[SpkiPin], token: Option<&[u8]>) -> NodeRule {
    NodeRule { claim: edge(), pins: pins.to_vec(), token: token.and_then(Secret::new) }
}

fn ask(claim: Claim, identity: &PeerIdentity, token: Option<&[u8]>, rules: &Rules) -> Result<Admitted, Refusal> {
    let place = Place { claim, instance: InstanceId([1; 16]), slot: 0, generation: 1 };
    authorize(place, identity, token, rules)
}

fn code(claim: Claim, identity: &PeerIdentity, token: Option<&[u8]>, rules: &Rules) -> Option<RefusalCode> {
    ask(claim, identity, token, rules).err().map(|refusal| refusal.code)
}

#[test]
fn a_claim_that_equals_its_proof_is_admitted() {
    let admitted = ask(edge(), &edge_certificate(), None, &rules(spiffe())).unwrap();
    assert_eq!(admitted.place().claim, edge());
    assert_eq!(admitted.key(), Some(KEY));
    assert_eq!(admitted.quotas(), Quotas::default());
}

// spec: HS-30
#[test]
fn a_claim_to_anything_else_is_refused_with_403() {
    let rules = rules(spiffe());
    for other in [
        claim("edge-18", "stores", "acme"),
        claim("edge-17", "plants", "acme"),
        claim("edge-17", "stores", "default"),
        claim("Edge-17", "stores", "acme"),
    ] {
        assert_eq!(code(other.clone(), &edge_certificate(), None, &rules), Some(RefusalCode::Forbidden), "{other}");
    }
}

#[test]
fn no_certificate_is_401_even_when_names_are_given() {
    let rules = rules(spiffe());
    assert_eq!(code(edge(), &PeerIdentity::default(), None, &rules), Some(RefusalCode::Unauthenticated));
    let without_key = PeerIdentity { key: None, ..edge_certificate() };
    assert_eq!(code(edge(), &without_key, None, &rules), Some(RefusalCode::Unauthenticated));
}

#[test]
fn any_name_of_the_certificate_may_be_the_proof_but_only_of_the_right_kind() {
    let rules = rules(spiffe());
    let name = edge_certificate().uri_sans.remove(0);
    // spec: SE-41
    let second = PeerIdentity { uri_sans: vec!["spiffe://example.org/x".into(), name.clone()], ..edge_certificate() };
    assert_eq!(code(edge(), &second, None, &rules), None);
    let wrong_kind = PeerIdentity { dns_sans: vec![name], uri_sans: Vec::new(), ..edge_certificate() };
    assert_eq!(code(edge(), &wrong_kind, None, &rules), Some(RefusalCode::Forbidden));
}

#[test]
fn an_id_that_fits_no_dns_name_is_refused() {
    let settings = RuleSettings {
        identity: Some("dns:{node}.example.org".into()),
        tenant: Some(TenantId::default()),
        cluster: Some(ClusterId::new("c").unwrap()),
        ..RuleSettings::default()
    };
    let wildcard = PeerIdentity { dns_sans: vec!["*.example.org".into()], key: Some(KEY), ..PeerIdentity::default() };
    assert_eq!(code(claim("*", "c", "default"), &wildcard, None, &rules(settings)), Some(RefusalCode::Forbidden));
}

#[test]
fn a_fixed_tenant_or_cluster_admits_no_other() {
    let tenant = rules(RuleSettings { tenant: Some(TenantId::new("other").unwrap()), ..spiffe() });
    assert_eq!(code(edge(), &edge_certificate(), None, &tenant), Some(RefusalCode::Forbidden));
    let cluster = rules(RuleSettings { cluster: Some(ClusterId::new("other").unwrap()), ..spiffe() });
    assert_eq!(code(edge(), &edge_certificate(), None, &cluster), Some(RefusalCode::Forbidden));
}

#[test]
fn pins_for_all_come_on_top_of_the_name() {
    let pinned = rules(RuleSettings { pins: vec![KEY], ..spiffe() });
    assert_eq!(code(edge(), &edge_certificate(), None, &pinned), None);
    assert_eq!(
        code(claim("edge-18", "stores", "acme"), &edge_certificate(), None, &pinned),
        Some(RefusalCode::Forbidden)
    );
    let other = rules(RuleSettings { pins: vec![OTHER_KEY], ..spiffe() });
    assert_eq!(code(edge(), &edge_certificate(), None, &other), Some(RefusalCode::Forbidden));
}

#[test]
fn pins_of_a_node_prove_its_whole_claim_and_nobody_elses() {
    let rules = rules(RuleSettings { nodes: vec![node_rule(&[OTHER_KEY, KEY], None)], ..RuleSettings::default() });
    let bare = PeerIdentity { key: Some(KEY), ..PeerIdentity::default() };
    let stranger = PeerIdentity { key: Some(SpkiPin([9; 32])), ..PeerIdentity::default() };
    assert_eq!(code(edge(), &bare, None, &rules), None);
    assert_eq!(code(edge(), &stranger, None, &rules), Some(RefusalCode::Forbidden));
    assert_eq!(code(edge(), &PeerIdentity::default(), None, &rules), Some(RefusalCode::Unauthenticated));
    for other in
        [claim("edge-18", "stores", "acme"), claim("edge-17", "plants", "acme"), claim("edge-17", "stores", "x")]
    {
        assert_eq!(code(other.clone(), &bare, None, &rules), Some(RefusalCode::Forbidden), "{other}");
    }
}

#[test]
fn a_pinned_node_cannot_step_around_its_pin_with_another_cluster() {
    let rules = rules(RuleSettings { nodes: vec![node_rule(&[OTHER_KEY], None)], ..spiffe() });
    let stolen_name = certificate("spiffe://example.org/tenant/acme/cluster/plants/node/edge-17");
    assert_eq!(code(claim("edge-17", "plants", "acme"), &stolen_name, None, &rules), Some(RefusalCode::Forbidden));
}

#[test]
fn a_token_proves_its_node_and_a_wrong_one_is_401() {
    let rules = rules(RuleSettings { nodes: vec![node_rule(&[], Some(TOKEN))], ..RuleSettings::default() });
    let nobody = PeerIdentity::default();
    assert_eq!(code(edge(), &nobody, Some(TOKEN), &rules), None);
    assert_eq!(code(edge(), &nobody, Some(b"0123456789abcdeX"), &rules), Some(RefusalCode::Unauthenticated));
    assert_eq!(code(edge(), &nobody, None, &rules), Some(RefusalCode::Unauthenticated));
    assert_eq!(code(claim("edge-18", "stores", "acme"), &nobody, Some(TOKEN), &rules), Some(RefusalCode::Forbidden));
}

#[test]
fn of_several_proofs_all_must_hold() {
    let rules = rules(RuleSettings { nodes: vec![node_rule(&[KEY], Some(TOKEN))], ..spiffe() });
    assert_eq!(code(edge(), &edge_certificate(), Some(TOKEN), &rules), None);
    assert_eq!(code(edge(), &edge_certificate(), None, &rules), Some(RefusalCode::Unauthenticated));
    let other_key = PeerIdentity { key: Some(OTHER_KEY), ..edge_certificate() };
    assert_eq!(code(edge(), &other_key, Some(TOKEN), &rules), Some(RefusalCode::Forbidden));
}

#[test]
fn accepting_anybody_accepts_anybody_and_still_holds_fixed_names() {
    let any = RuleSettings { insecure_accept_any: true, ..RuleSettings::default() };
    assert_eq!(code(edge(), &PeerIdentity::default(), None, &rules(any.clone())), None);
    let fixed = rules(RuleSettings { tenant: Some(TenantId::default()), ..any });
    assert_eq!(code(edge(), &PeerIdentity::default(), None, &fixed), Some(RefusalCode::Forbidden));
}

#[test]
fn asking_again_under_new_rules_finds_who_is_no_longer_admitted() {
    let before = rules(spiffe());
    let admitted = ask(edge(), &edge_certificate(), None, &before).unwrap();
    let after = rules(RuleSettings { pins: vec![OTHER_KEY], ..spiffe() });
    assert!(authorize(admitted.place().clone(), &edge_certificate(), None, &after).is_err());
}

#[test]
fn reasons_say_what_was_expected_and_escape_what_the_peer_sent() {
    let refusal = ask(edge(), &certificate("evil\n\"name"), None, &rules(spiffe())).unwrap_err();
    assert_eq!(
        refusal.reason,
        "the certificate does not prove edge-17:stores:acme: expected URI SAN \
         \"spiffe://example.org/tenant/acme/cluster/stores/node/edge-17\", found \"evil\\n\\\"name\""
    );
}

#[test]
fn reasons_keep_their_bound_whatever_the_names() {
    let long = claim(&"n".repeat(128), &"c".repeat(128), &"t".repeat(128));
    let refusal = ask(long, &certificate(&"é".repeat(2000)), None, &rules(spiffe())).unwrap_err();
    assert!((1..=MAX_REASON_BYTES).contains(&refusal.reason.len()), "{}", refusal.reason.len());
}

// spec: CT-32, CT-55
#[test]
fn a_fresh_token_takes_the_place_of_the_former_one_only_if_it_admits() {
    let old = rules(RuleSettings { nodes: vec![node_rule(&[], Some(TOKEN))], ..RuleSettings::default() });
    let fresh = b"fedcba9876543210";
    let new = rules(RuleSettings { nodes: vec![node_rule(&[], Some(fresh))], ..RuleSettings::default() });
    let admitted = ask(edge(), &PeerIdentity::default(), Some(TOKEN), &old).unwrap();
    let (place, proof) = (admitted.place().clone(), admitted.proof());
    let token = Token::new(&fresh[..]).unwrap();
    let refused = proof.authorize_with((None, Some(&token)), place.clone(), &old).unwrap_err();
    assert_eq!(refused.code, RefusalCode::Unauthenticated);
    assert!(proof.authorize(place.clone(), &old).is_ok(), "the former one still counts");
    let renewed = proof.authorize_with((None, Some(&token)), place.clone(), &new).unwrap();
    let proof = renewed.proof();
    assert!(proof.authorize(place.clone(), &new).is_ok() && proof.authorize(place, &old).is_err());
}
