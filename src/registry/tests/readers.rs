//! Readers beside writers.

use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;

#[test]
fn readers_do_not_wait_for_a_writer() {
    let registry = Fakes::default();
    let fake = join(&registry, 1, &asks("a", "c"));
    let writing = registry.ledger();
    thread::scope(|scope| {
        let read = scope.spawn(|| (pick(&registry, "a"), pick(&registry, "c"), registry.snapshot().count()));
        assert_eq!(read.join().unwrap(), (Ok(fake.clone()), Ok(fake.clone()), 1));
    });
    drop(writing);
}

/// Tunnels are replaced make-before-break and other nodes come and go, all the while every pick finds one.
#[test]
fn a_node_that_is_always_connected_is_always_found() {
    let registry = Fakes::default();
    join(&registry, 0, &asks("steady", "c"));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: [_; 2] = std::array::from_fn(|_| {
            scope.spawn(|| {
                let mut picks = 0_u64;
                while !done.load(Ordering::Relaxed) || picks == 0 {
                    for name in ["steady", "c"] {
                        registry
                            .pick(&TenantId::default(), &host(name), two_choices(picks), &[], Instant::now())
                            .unwrap();
                    }
                    assert!(registry.snapshot().any(|tunnel| tunnel.place.claim.node.as_str() == "steady"));
                    picks += 1;
                }
                picks
            })
        });
        for round in 1..2_000 {
            let newer = Asks { generation: round + 1, ..asks("steady", "c") };
            let (_, superseded) = insert(&registry, round, &newer).unwrap();
            assert_eq!(superseded.len(), 1);
            let visitor = 1_000_000 + round;
            join(&registry, visitor, &asks(&format!("v{}", round % 7), "c"));
            registry.remove(TunnelId(visitor), Instant::now());
        }
        done.store(true, Ordering::Relaxed);
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 0));
    });
    assert_eq!(registry.len(), 1);
}

#[test]
fn writers_from_many_threads_lose_nothing() {
    let registry = Fakes::default();
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let registry = &registry;
            scope.spawn(move || {
                for n in 0..200 {
                    join(registry, thread * 1000 + n, &asks(&format!("n{thread}-{n}"), "c"));
                }
                for n in 0..100 {
                    registry.remove(TunnelId(thread * 1000 + n), Instant::now());
                }
            });
        }
    });
    assert_eq!(registry.len(), 400);
    assert_eq!(registry.snapshot().count(), 400);
}
