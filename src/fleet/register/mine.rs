//! What of this responder is in the directory, and what is to be written so that it is what it should be. No I/O, no clock.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crate::fleet::etcd::{Lease, Operation};
use crate::fleet::register::FleetSettings;
use crate::fleet::view::{Change, Key, ResponderRecord, Stored, TunnelKey, TunnelRecord};
use crate::id::TunnelId;

/// The most keys in one write. etcd takes 128. spec: FL-11
pub(super) const MAX_OPERATIONS: usize = 100;
/// The most bytes in one write; etcd takes 1.5 MiB.
const MAX_BYTES: usize = 512 << 10;

/// What is written, as far as that is known.
pub(super) struct Mine {
    settings: Arc<FleetSettings>,
    pub(super) lease: Option<Lease>,
    /// The time that it was asked for with.
    pub(super) lease_time: Duration,
    pub(super) epoch: Option<u64>,
    /// The value of the responder's record.
    record: Option<Vec<u8>>,
    /// A hash of the value of each tunnel, as far as it is known what is there.
    tunnels: HashMap<TunnelId, Option<u64>>,
    /// It is leaving.
    pub(super) draining: bool,
    /// Another start has the name.
    pub(super) replaced: bool,
}

/// Some tunnels, to be written at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) operations: Vec<Operation>,
    /// What is known when they are written: the hash of the value, or that it is gone.
    after: Vec<(TunnelId, Option<u64>)>,
    bytes: usize,
}

impl Mine {
    pub(super) fn new(settings: Arc<FleetSettings>) -> Self {
        let (lease, lease_time, epoch, record, tunnels) = (None, Duration::ZERO, None, None, HashMap::new());
        Self { settings, lease, lease_time, epoch, record, tunnels, draining: false, replaced: false }
    }

    pub(super) fn settings(&mut self, settings: Arc<FleetSettings>) {
        self.settings = settings;
    }

    /// Nothing is written any more, and this is the lease for what will be.
    pub(super) fn begin(&mut self, lease: Lease, time: Duration) {
        self.moves(lease, time);
        self.tunnels.clear();
    }

    /// Everything is written again, under this lease; until then it stands where it is.
    pub(super) fn moves(&mut self, lease: Lease, time: Duration) {
        (self.lease, self.lease_time) = (Some(lease), time);
        self.record = None;
        self.tunnels.values_mut().for_each(|hash| *hash = None);
    }

    /// Whether no tunnel of this start is known to be written.
    pub(super) fn has_none(&self) -> bool {
        self.tunnels.is_empty()
    }

    /// The key and the value of the responder's record, if that is not what is written. The epoch must be known.
    pub(super) fn record(&self) -> Option<(String, Vec<u8>)> {
        let FleetSettings { siblings, initiators, region, weight, prefix, id, .. } = &*self.settings;
        let record = ResponderRecord {
            epoch: self.epoch?,
            version: concat!("adit ", env!("CARGO_PKG_VERSION")).to_owned(),
            siblings: siblings.clone(),
            initiators: initiators.clone(),
            region: region.clone(),
            weight: *weight,
            draining: self.draining,
        };
        let value = record.encode();
        (self.record.as_ref() != Some(&value)).then(|| (prefix.responder(id), value))
    }

    pub(super) fn record_is(&mut self, value: Vec<u8>) {
        self.record = Some(value);
    }

    /// What takes the directory from what is written to `now`, in writes of a bounded size.
    pub(super) fn batches(&self, now: &[(TunnelId, TunnelRecord)]) -> Vec<Batch> {
        let mut batches = Vec::new();
        let mut batch = Batch::default();
        let mut add = |id: TunnelId, operation: Operation, after: Option<u64>, bytes: usize| {
            let is_full = batch.operations.len() >= MAX_OPERATIONS || batch.bytes + bytes > MAX_BYTES;
            if is_full && !batch.operations.is_empty() {
                batches.push(std::mem::take(&mut batch));
            }
            batch.operations.push(operation);
            batch.after.push((id, after));
            batch.bytes += bytes;
        };
        let live: HashSet<TunnelId> = now.iter().map(|(id, _)| *id).collect();
        for id in self.tunnels.keys().filter(|id| !live.contains(id)) {
            let Some(key) = self.key(*id) else { continue };
            let bytes = key.len();
            add(*id, Operation::Delete(key), None, bytes);
        }
        for (id, record) in now {
            let Some(key) = self.key(*id) else { continue };
            let value = record.encode();
            let hash = hash(&value);
            if self.tunnels.get(id) != Some(&Some(hash)) {
                let bytes = key.len() + value.len();
                add(*id, Operation::Put { key, value }, Some(hash), bytes);
            }
        }
        if !batch.operations.is_empty() {
            batches.push(batch);
        }
        batches
    }

    /// The batch is sent. Whatever becomes of it, what it writes may be there from now on.
    pub(super) fn begun(&mut self, batch: &Batch) {
        for (id, after) in &batch.after {
            if after.is_some() {
                // It is written again, or taken away.
                self.tunnels.insert(*id, None);
            }
        }
    }

    /// The batch was written.
    pub(super) fn written(&mut self, batch: Batch) {
        for (id, after) in batch.after {
            match after {
                Some(hash) => self.tunnels.insert(id, Some(hash)),
                None => self.tunnels.remove(&id),
            };
        }
    }

    /// What somebody else did to what is written here; true when something has to be written again.
    pub(super) fn heard(&mut self, change: &Change) -> bool {
        match change {
            Change::Gone { key, .. } => match self.settings.prefix.parse(key) {
                Some(Key::Responder(id)) if id == self.settings.id => {
                    let is_back = self.has_name_again();
                    self.record.take().is_some() || is_back
                }
                Some(Key::Tunnel(key)) if self.is_own(&key) => self.tunnels.remove(&key.tunnel).is_some(),
                _ => false,
            },
            Change::Put(stored) => match self.settings.prefix.parse(&stored.key) {
                Some(Key::Responder(id)) if id == self.settings.id => {
                    self.replaced |= self.is_of_later_start(&stored.value);
                    false
                }
                _ => false,
            },
        }
    }

    /// Everything was read anew, and this is what there is of this responder: etcd may have lost what was written, and may have again
    /// what was taken out. What is known is brought in line with it, so that what differs is written again. spec: FL-13
    pub(super) fn found(&mut self, own: &[Stored]) {
        let own_key = self.settings.prefix.responder(&self.settings.id).into_bytes();
        let record = own.iter().find(|stored| stored.key == own_key).map(|stored| &stored.value);
        match record.is_some_and(|value| self.is_of_later_start(value)) {
            true => self.replaced = true,
            false => drop(self.has_name_again()),
        }
        self.record = self.record.take().filter(|known| record == Some(known));
        // What is not known to be as it should be is written again, or taken out.
        let known = std::mem::take(&mut self.tunnels);
        for stored in own {
            if let Some(Key::Tunnel(key)) = self.settings.prefix.parse(&stored.key)
                && self.is_own(&key)
            {
                let known = known.get(&key.tunnel).copied().flatten();
                self.tunnels.insert(key.tunnel, known.filter(|known| *known == hash(&stored.value)));
            }
        }
    }

    fn is_of_later_start(&self, record: &[u8]) -> bool {
        let is_later = |record: ResponderRecord| self.epoch.is_some_and(|epoch| record.epoch > epoch);
        ResponderRecord::decode(record).is_ok_and(is_later)
    }

    /// Whoever had the name is gone: it is this start's again, under a higher epoch. Returns whether anybody had it. spec: FL-10
    fn has_name_again(&mut self) -> bool {
        let is_back = std::mem::take(&mut self.replaced);
        if is_back {
            // What there is under the former epoch is none of what is written from here on.
            self.epoch = None;
            self.tunnels.clear();
        }
        is_back
    }

    fn is_own(&self, key: &TunnelKey) -> bool {
        key.responder == self.settings.id && self.epoch == Some(key.epoch)
    }

    fn key(&self, tunnel: TunnelId) -> Option<String> {
        let key = TunnelKey { responder: self.settings.id.clone(), epoch: self.epoch?, tunnel };
        Some(self.settings.prefix.tunnel(&key))
    }
}

fn hash(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::etcd::EtcdSettings;
    use crate::fleet::view::{Prefix, Stored};
    use crate::id::{Claim, InstanceId, Place};

    fn mine() -> Mine {
        let settings = FleetSettings {
            prefix: Prefix::default(),
            id: "r".parse().unwrap(),
            lease: super::super::DEFAULT_LEASE,
            siblings: Vec::new(),
            initiators: Vec::new(),
            region: None,
            weight: 100,
            etcd: EtcdSettings::new(Vec::new()),
        };
        let mut mine = Mine::new(Arc::new(settings));
        mine.begin(Lease(1), super::super::DEFAULT_LEASE);
        mine.epoch = Some(5);
        mine
    }

    fn tunnel(number: u64, down: &[&str]) -> (TunnelId, TunnelRecord) {
        let claim = Claim {
            tenant: "t".parse().unwrap(),
            node: format!("n{number}").parse().unwrap(),
            cluster: "c".parse().unwrap(),
        };
        let place = Place { claim, instance: InstanceId([0; 16]), slot: 0, generation: 1 };
        let down = down.iter().map(|name| name.parse().unwrap()).collect();
        (TunnelId(number), TunnelRecord { place, key: None, issued: None, suspect: false, down, http_down: false })
    }

    fn write(mine: &mut Mine, now: &[(TunnelId, TunnelRecord)]) -> Vec<Vec<Operation>> {
        let batches = mine.batches(now);
        let written = batches.iter().map(|batch| batch.operations.clone()).collect();
        batches.into_iter().for_each(|batch| mine.written(batch));
        written
    }

    // Regression: a lease whose time a reload had raised ended before it was renewed for the first time.
    #[test]
    fn under_another_lease_everything_is_written_again_and_nothing_is_taken_away_before() {
        let mut mine = mine();
        let all = [tunnel(1, &[]), tunnel(2, &[])];
        write(&mut mine, &all);
        mine.moves(Lease(2), Duration::from_secs(300));
        assert!(!mine.has_none() && mine.record().is_some());
        let again = mine.batches(&all);
        assert!(again[0].operations.iter().all(|operation| matches!(operation, Operation::Put { .. })));
        assert_eq!((again.len(), again[0].operations.len()), (1, 2));
    }

    // Regression: such a record stayed as long as the process, and kept the node from coming with another key.
    #[test]
    fn what_was_sent_without_an_answer_is_taken_away_when_its_tunnel_is_gone() {
        let mut mine = mine();
        let batches = mine.batches(&[tunnel(1, &[])]);
        mine.begun(&batches[0]);
        let again = mine.batches(&[tunnel(1, &[])]);
        assert!(matches!(again[0].operations[..], [Operation::Put { .. }]), "it may not be there");
        let gone = mine.batches(&[]);
        assert!(matches!(gone[0].operations[..], [Operation::Delete(_)]), "it may be there");
    }

    #[test]
    fn ten_thousand_tunnels_are_a_hundred_writes_and_then_none() {
        // spec: FL-11
        let mut mine = mine();
        let now: Vec<_> = (0..10_000).map(|number| tunnel(number, &[])).collect();
        let written = write(&mut mine, &now);
        assert_eq!(written.len(), 100);
        assert!(written.iter().all(|operations| operations.len() == MAX_OPERATIONS));
        assert!(write(&mut mine, &now).is_empty(), "it is written already");
        assert_eq!(write(&mut mine, &[]).len(), 100, "and taken out likewise");
        assert!(mine.has_none());
    }

    #[test]
    fn only_what_has_changed_is_written() {
        let mut mine = mine();
        write(&mut mine, &[tunnel(1, &[]), tunnel(2, &[]), tunnel(3, &[])]);
        let written = write(&mut mine, &[tunnel(1, &[]), tunnel(2, &["api"])]);
        let [operations] = &written[..] else { panic!("{written:?}") };
        let key = |number: u64| format!("/adit/tunnels/r/{:016x}/{number:016x}", 5);
        assert_eq!(operations[0], Operation::Delete(key(3)));
        let value = tunnel(2, &["api"]).1.encode();
        assert_eq!(operations[1..], [Operation::Put { key: key(2), value }]);
    }

    #[test]
    fn what_somebody_else_deletes_is_written_again() {
        let mut mine = mine();
        let now = [tunnel(1, &[]), tunnel(2, &[])];
        write(&mut mine, &now);
        let key = format!("/adit/tunnels/r/{:016x}/{:016x}", 5, 1).into_bytes();
        assert!(mine.heard(&Change::Gone { key, modified: 9 }));
        assert_eq!(write(&mut mine, &now)[0].len(), 1);
    }

    fn stored(key: String, value: Vec<u8>) -> Stored {
        Stored { key: key.into_bytes(), value, created: 1, modified: 1 }
    }

    // Regression: what a copy of etcd lacked was never written again, and what it still had was never taken out.
    // spec: FL-13
    #[test]
    fn after_a_whole_read_what_is_missing_is_written_and_what_is_too_much_is_taken_out() {
        let mut mine = mine();
        let now = [tunnel(1, &[]), tunnel(2, &[]), tunnel(3, &[])];
        write(&mut mine, &now);
        let (key, value) = mine.record().unwrap();
        mine.record_is(value.clone());
        let tunnel_key = |number: u64| format!("/adit/tunnels/r/{:016x}/{number:016x}", 5);
        let tunnel_of = |number: u64| stored(tunnel_key(number), tunnel(number, &[]).1.encode());

        let as_it_is = [stored(key.clone(), value), tunnel_of(1), tunnel_of(2), tunnel_of(3)];
        mine.found(&as_it_is);
        assert!(mine.record().is_none() && mine.batches(&now).is_empty(), "nothing differs");

        let former = stored(tunnel_key(2), tunnel(2, &["api"]).1.encode());
        mine.found(&[tunnel_of(1), former, tunnel_of(9)]);
        assert_eq!(mine.record().map(|(key, _)| key), Some(key), "the responder's own is not there");
        let batches = mine.batches(&now);
        let [Batch { operations, .. }] = &batches[..] else { panic!("{batches:?}") };
        let (puts, gone): (Vec<_>, Vec<_>) = operations.iter().partition(|of| matches!(of, Operation::Put { .. }));
        assert_eq!(gone, [&Operation::Delete(tunnel_key(9))]);
        let put = |number: u64| Operation::Put { key: tunnel_key(number), value: tunnel(number, &[]).1.encode() };
        assert_eq!(puts, [&put(2), &put(3)]);
    }

    // Regression: nothing but the end of the other record, heard as it came, gave the name back.
    // spec: FL-10
    #[test]
    fn after_a_whole_read_a_name_is_free_again_if_no_later_start_has_it() {
        let mut mine = mine();
        let (key, own) = mine.record().unwrap();
        let later = String::from_utf8(own.clone()).unwrap().replace("\"epoch\":5", "\"epoch\":6").into_bytes();
        mine.found(&[stored(key.clone(), later)]);
        assert!(mine.replaced, "another start has it");
        write(&mut mine, &[tunnel(1, &[])]);
        let former = format!("/adit/tunnels/r/{:016x}/{:016x}", 5, 1);
        mine.found(&[stored(key.clone(), own), stored(former, tunnel(1, &[]).1.encode())]);
        assert!(!mine.replaced && mine.epoch.is_none(), "what was restored is of this one");
        assert!(mine.has_none(), "nothing is written under the next epoch yet");
        mine.epoch = Some(7);
        mine.replaced = true;
        mine.found(&[]);
        assert!(!mine.replaced && mine.epoch.is_none());
    }

    #[test]
    fn a_later_start_with_the_same_name_is_noticed() {
        // spec: FL-10
        let mut mine = mine();
        let (key, own) = mine.record().unwrap();
        let put =
            |value: Vec<u8>| Change::Put(Stored { key: key.clone().into_bytes(), value, created: 1, modified: 1 });
        mine.heard(&put(own.clone()));
        assert!(!mine.replaced);
        let later = String::from_utf8(own).unwrap().replace("\"epoch\":5", "\"epoch\":6");
        mine.heard(&put(later.into_bytes()));
        assert!(mine.replaced);
        assert!(mine.heard(&Change::Gone { key: key.into_bytes(), modified: 2 }), "the name is free again");
        assert!(!mine.replaced && mine.epoch.is_none());
    }

    #[test]
    fn a_write_of_large_records_holds_fewer_of_them() {
        let names: Vec<String> = (0..200).map(|number| format!("{number:064}")).collect();
        let down: Vec<&str> = names.iter().map(String::as_str).collect();
        let now: Vec<_> = (0..100).map(|number| tunnel(number, &down)).collect();
        let bytes = |operation: &Operation| match operation {
            Operation::Put { key, value } => key.len() + value.len(),
            _ => 0,
        };
        for operations in write(&mut mine(), &now) {
            assert!(operations.iter().map(bytes).sum::<usize>() <= MAX_BYTES);
        }
    }
}
