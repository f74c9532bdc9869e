use super::*;

fn listed(id: &str, weight: u16) -> Listed {
    Listed { id: id.parse().unwrap(), region: None, weight, addresses: Vec::new() }
}

fn roster(siblings: impl IntoIterator<Item = Listed>) -> Roster {
    Roster { own: listed("own", 1), siblings: siblings.into_iter().collect() }
}

fn encoded(roster: &Roster) -> BytesMut {
    let mut out = BytesMut::new();
    roster.encode(&mut out);
    out
}

fn claim(node: usize) -> Claim {
    Claim {
        tenant: "acme".parse().unwrap(),
        cluster: "c".parse().unwrap(),
        node: format!("edge-{node}").parse().unwrap(),
    }
}

// spec: HS-26
#[test]
fn what_is_said_is_what_is_read_and_no_more_than_there_is_room_for() {
    let addresses = ["cloud-1.example:7843", "[::1]:1", "10.0.0.1:65535"].map(|text| text.parse().unwrap()).to_vec();
    let full = Listed { region: Some("eu west".to_owned()), addresses, ..listed("r1", 65535) };
    for siblings in [vec![], vec![full.clone()], vec![listed("r2", 0), full]] {
        let said = roster(siblings);
        assert_eq!(Roster::decode(&encoded(&said)), Ok(said));
    }
    let many = roster((0..200).map(|nth| listed(&format!("r{nth}"), 1)));
    assert_eq!(Roster::decode(&encoded(&many)).unwrap().all().count(), 64);
    let long: HostPort = format!("{}:1", "h".repeat(253)).parse().unwrap();
    let wide = roster((0..64).map(|nth| Listed { addresses: vec![long.clone(); 20], ..listed(&format!("r{nth}"), 1) }));
    let read = Roster::decode(&encoded(&wide)).unwrap();
    assert_eq!((read.all().count(), read.siblings[0].addresses.len()), (4, 16));
    let odd = roster([Listed { region: Some("e\nu".to_owned()), ..listed("r", 1) }]);
    assert_eq!(Roster::decode(&encoded(&odd)).unwrap().siblings[0].region, None);
}

// spec: HS-26
#[test]
fn more_than_there_may_be_and_one_that_comes_twice_are_malformed() {
    let write = |all: &[Listed]| {
        let (mut out, mut one) = (BytesMut::new(), BytesMut::new());
        for listed in all {
            one.clear();
            listed.encode(&mut one);
            put_sized(&mut out, &one);
        }
        out
    };
    let many: Vec<Listed> = (0..65).map(|nth| listed(&format!("r{nth}"), 1)).collect();
    assert!(Roster::decode(&write(&many[..64])).is_ok());
    assert_eq!(Roster::decode(&write(&many)), Err(Malformed::Invalid("roster")));
    assert_eq!(Roster::decode(&write(&[listed("r", 1), listed("r", 2)])), Err(Malformed::Invalid("roster")));
    assert_eq!(Roster::decode(&[0; 16_385]), Err(Malformed::Invalid("length of the roster")));
    assert_eq!(Roster::decode(&[]), Err(Malformed::Short));
}

// spec: HS-27
#[test]
fn an_address_has_one_form() {
    let read = |text: &str| {
        let mut value = BytesMut::new();
        put_sized(&mut value, text.as_bytes());
        read_addresses(&value)
    };
    for fine in ["h:1", "a.b-c_d.example:7843", "10.0.0.1:80", "[2001:db8::7]:443"] {
        assert!(read(fine).is_ok(), "{fine}");
    }
    for wrong in
        ["h", "h:0", "h:01", "h:65536", ":1", "[2001:DB8::7]:1", "[0:0::1]:1", "[h]:1", "h:1 ", "http://h:1", "h:1:2"]
    {
        assert_eq!(read(wrong), Err(Malformed::Invalid("address")), "{wrong}");
    }
    assert!(read_addresses(&[]).is_err(), "none is said by leaving the field out");
}

/// Who the first `count` nodes prefer.
fn shares(among: &[Listed], count: usize) -> Vec<usize> {
    let mut shares = vec![0; among.len()];
    for node in 0..count {
        let claim = claim(node);
        let distance = |nth: &usize| among[*nth].distance(&claim);
        let best = (0..among.len()).min_by(|one, other| distance(one).total_cmp(&distance(other))).unwrap();
        shares[best] += 1;
    }
    shares
}

// spec: FL-61
#[test]
fn nodes_spread_over_responders_by_weight() {
    let among = [listed("a", 100), listed("b", 100), listed("c", 200)];
    let shares = shares(&among, 10_000);
    for (share, expected) in shares.iter().zip([2_500, 2_500, 5_000_usize]) {
        assert!(share.abs_diff(expected) < 200, "{shares:?}");
    }
}

// spec: FL-61
#[test]
fn one_that_comes_takes_its_share_and_nothing_moves_between_the_others() {
    let before = [listed("a", 100), listed("b", 100), listed("c", 100)];
    let mut moved = 0;
    for node in 0..4_000 {
        let claim = claim(node);
        let best = |among: &[Listed]| {
            let best = among.iter().min_by(|one, other| one.distance(&claim).total_cmp(&other.distance(&claim)));
            best.unwrap().id.clone()
        };
        let (then, now) = (best(&before), best(&[&before[..], &[listed("d", 100)]].concat()));
        assert!(now == then || now.as_str() == "d");
        moved += usize::from(now != then);
    }
    assert!(moved.abs_diff(1_000) < 150, "{moved} of 4000");
}

#[test]
fn one_without_a_weight_is_nobodys_choice() {
    assert!(listed("a", 0).distance(&claim(1)).is_infinite());
}
