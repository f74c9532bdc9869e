//! What stands in the directory of a fleet.

use adit::fleet::view::{Change, Key, Prefix, ResponderRecord, Stored, TunnelRecord, View};

/// A record that is read is written to what is read as the same, and so is a key. A view that gets them, line by line as
/// key, blank and value, does not panic, and knows no more than it was told.
pub fn fleet_records(data: &[u8]) {
    let prefix = Prefix::default();
    let own = "own".parse().expect("a name");
    let view = View::new(prefix.clone(), own);
    let mut told = 0;
    for (line, modified) in data.split(|&byte| byte == b'\n').zip(1..) {
        let blank = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
        let (key, value) = (&line[..blank], line.get(blank + 1..));
        round_trip(&prefix, key, value.unwrap_or_default());
        let change = match value {
            Some(value) => {
                Change::Put(Stored { key: key.to_vec(), value: value.to_vec(), created: modified, modified })
            }
            None => Change::Gone { key: key.to_vec(), modified },
        };
        told += 1;
        view.apply(modified, vec![change]);
        assert!(view.snapshot().tunnels() <= told);
        assert_eq!(view.snapshot().revision(), modified);
    }
}

fn round_trip(prefix: &Prefix, key: &[u8], value: &[u8]) {
    match prefix.parse(key) {
        Some(Key::Responder(id)) => assert_eq!(prefix.responder(&id).as_bytes(), key),
        Some(Key::Tunnel(tunnel)) => assert_eq!(prefix.tunnel(&tunnel).as_bytes(), key),
        None => {}
    }
    if let Ok(record) = ResponderRecord::decode(value) {
        assert_eq!(ResponderRecord::decode(&record.encode()).expect("what was written"), record);
    }
    if let Ok(record) = TunnelRecord::decode(value) {
        assert_eq!(TunnelRecord::decode(&record.encode()).expect("what was written"), record);
    }
}
