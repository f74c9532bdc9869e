//! The three messages round trip whatever they say; the vectors in `proto-spec/` show their bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::id::{Claim, InstanceId};
use crate::protocol::varint;

fn id() -> impl Strategy<Value = String> {
    "[!-~&&[^:@/%?#]]{1,64}"
}

fn limits() -> impl Strategy<Value = PeerLimits> {
    (4096u32.., 32u32..).prop_map(|(head_bytes, head_fields)| PeerLimits { head_bytes, head_fields })
}

fn millis(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn services() -> impl Strategy<Value = Vec<Service>> {
    proptest::collection::btree_map(id(), 0usize..3, 0..5).prop_map(|named| {
        let service =
            |(name, kind): (String, usize)| Service { name: name.parse().unwrap(), kind: ServiceKind::ALL[kind] };
        named.into_iter().map(service).collect()
    })
}

prop_compose! {
    fn place()(node in id(), cluster in id(), tenant in id(), instance: [u8; 16], slot: u32, generation in 0..=varint::MAX) -> Place {
        let claim = Claim {
            tenant: tenant.parse().unwrap(),
            cluster: cluster.parse().unwrap(),
            node: node.parse().unwrap(),
        };
        Place { claim, instance: InstanceId(instance), slot, generation }
    }
}

prop_compose! {
    fn hello()(
        place in place(),
        highest in 1u32..,
        token in proptest::option::of(vec(any::<u8>(), 1..100)),
        services in services(),
        limits in limits(),
        build in "[ -~]{0,40}",
    ) -> Hello {
        let token = token.and_then(Token::new);
        Hello { versions: (1, highest), place, token, services, limits, build }
    }
}

prop_compose! {
    fn welcome()(
        tunnel: u64,
        responder in "[ -~]{1,128}",
        observed in proptest::option::of("[0-9.:]{1,40}"),
        limits in limits(),
        keepalive in millis(10..3_600_001),
        more in millis(1..82_000_000),
        reauth in proptest::option::of(vec(any::<u16>(), 0..10)),
    ) -> Welcome {
        let idle = keepalive + more;
        Welcome { version: 1, tunnel: TunnelId(tunnel), responder, observed, limits, keepalive, idle, reauth, roster: None }
    }
}

prop_compose! {
    fn refusal()(
        code in 0..RefusalCode::ALL.len(),
        reason in "\\PC{0,100}",
        retry_after in proptest::option::of(millis(0..86_400_001)),
    ) -> Refusal {
        Refusal { code: RefusalCode::ALL[code], reason, retry_after }
    }
}

proptest! {
    // spec: HS-1
    #[test]
    fn hello_round_trips(hello in hello()) {
        let mut out = BytesMut::new();
        hello.encode(&mut out);
        prop_assert_eq!(Hello::decode(&out), Ok(hello));
    }

    // spec: HS-2
    #[test]
    fn welcome_round_trips(welcome in welcome()) {
        let mut out = BytesMut::new();
        welcome.encode(&mut out);
        prop_assert_eq!(Welcome::decode(&out), Ok(welcome));
    }

    // spec: HS-3
    #[test]
    fn refusal_round_trips(refusal in refusal()) {
        let mut out = BytesMut::new();
        refusal.encode(&mut out);
        prop_assert_eq!(Refusal::decode(&out), Ok(refusal));
    }

    // spec: HS-7
    #[test]
    fn a_hello_with_one_byte_changed_is_read_or_refused(hello in hello(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut out = BytesMut::new();
        hello.encode(&mut out);
        let at = at.index(out.len());
        out[at] = byte;
        match Hello::decode(&out) {
            Ok(read) => {
                let mut again = BytesMut::new();
                read.encode(&mut again);
                prop_assert_eq!(Hello::decode(&again), Ok(read));
            }
            Err(error) => prop_assert!(matches!(error.code(), RefusalCode::Malformed | RefusalCode::Unsupported)),
        }
    }
}

// spec: HS-17
#[test]
fn a_service_list_has_bounds_and_no_name_twice() {
    let list = |count: usize| {
        let mut out = BytesMut::new();
        for number in 0..count {
            let name = format!("s{number}").parse().unwrap();
            put_services(&mut out, &[Service { name, kind: ServiceKind::Http }]);
        }
        out
    };
    assert_eq!(read_services(&list(256)).map(|services| services.len()), Ok(256));
    for wrong in [list(257), list(0), [&list(1)[..], &list(1)].concat().as_slice().into()] {
        assert_eq!(read_services(&wrong), Err(Malformed::Invalid("services")));
    }
}

// spec: HS-3, HS-18
#[test]
fn texts_that_are_too_long_are_cut_by_the_sender() {
    let refusal = Refusal { code: RefusalCode::Quota, reason: "ü".repeat(300), retry_after: None };
    let mut out = BytesMut::new();
    refusal.encode(&mut out);
    assert_eq!(Refusal::decode(&out).unwrap().reason, "ü".repeat(256));
}
