use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::egress::testing::{PATIENCE, Wire};
use crate::egress::{Builder, Egress, Settings};
use crate::lifecycle::{Drain, Drained};
use crate::routing::RouterSettings;
use crate::template::Template;
use crate::tls::pki::{Authority, Validity};
use crate::tls::{ClientCertificates, EgressTls, Trust};

/// Longer than any test.
const FOREVER: Duration = Duration::from_secs(3600);

/// Routes that lead to one node, which is not there: the answer names it.
fn to(node: &str) -> RouterSettings {
    RouterSettings::new(Template::parse(node).unwrap())
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn egress(settings: Settings) -> Egress {
    Builder::new(Arc::default(), to("one")).settings(settings).bind(loopback()).unwrap()
}

/// An egress that runs.
struct Running {
    handle: Handle,
    address: SocketAddr,
    drain: Drain,
    task: JoinHandle<()>,
}

fn run(egress: Egress) -> Running {
    let (handle, address, drain) = (egress.handle(), egress.local_addr(), Drain::new());
    let task = tokio::spawn(egress.run(drain.watch()));
    Running { handle, address, drain, task }
}

fn running() -> Running {
    run(egress(Settings::default()))
}

async fn connect(address: SocketAddr) -> Wire {
    Wire(TcpStream::connect(address).await.unwrap())
}

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";

/// What a request is answered: head and text.
async fn ask(wire: &mut Wire) -> (String, String) {
    wire.send(REQUEST).await;
    wire.response().await
}

async fn asserts_leads_to(wire: &mut Wire, node: &str) {
    let (_, text) = ask(wire).await;
    assert!(text.contains(&format!("no node or cluster {node} is connected")), "{text}");
}

/// A connection that has begun a request.
async fn begun(address: SocketAddr) -> Wire {
    let mut wire = connect(address).await;
    // With a whole one before it, whose answer tells that the beginning was read, too.
    wire.send(format!("{REQUEST}{}", &REQUEST[..20])).await;
    wire.response().await;
    wire
}

/// Ends the request, whose answer must be the last one.
async fn finish(mut wire: Wire) {
    wire.send(&REQUEST[20..]).await;
    let (head, _) = wire.response().await;
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert_eq!(wire.rest().await.0, "");
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it ends in time")
}

#[tokio::test]
async fn new_routes_hold_for_the_next_request_even_of_a_connection_that_stays() {
    let egress = running();
    let mut wire = connect(egress.address).await;
    asserts_leads_to(&mut wire, "one").await;
    egress.handle.update(|terms| terms.router = to("two")).unwrap();
    asserts_leads_to(&mut wire, "two").await;
    assert_eq!(egress.handle.terms().router, to("two"));
}

#[tokio::test]
async fn new_limits_hold_for_the_next_request_even_of_a_connection_that_stays() {
    let egress = running();
    let mut old = connect(egress.address).await;
    asserts_leads_to(&mut old, "one").await;
    egress.handle.update(|terms| terms.settings.max_head_bytes = 20).unwrap();
    for mut wire in [old, connect(egress.address).await] {
        let (head, _) = ask(&mut wire).await;
        assert!(head.starts_with("HTTP/1.1 431"), "{head}");
    }
}

#[tokio::test]
async fn a_connection_that_stays_is_asked_to_come_back_under_other_limits() {
    let egress = running();
    let mut old = connect(egress.address).await;
    asserts_leads_to(&mut old, "one").await;
    egress.handle.update(|terms| terms.settings.pace.body_rate += 1).unwrap();
    let (head, text) = ask(&mut old).await;
    assert!(head.contains("connection: close\r\n") && text.contains("no node"), "{head}");
    assert_eq!(old.rest().await.0, "");
}

#[tokio::test]
async fn a_raised_limit_lets_in_who_waits() {
    let egress = run(egress(Settings { max_connections: 1, ..Settings::default() }));
    let mut first = connect(egress.address).await;
    asserts_leads_to(&mut first, "one").await;
    let mut second = connect(egress.address).await;
    second.send(REQUEST).await;
    egress.handle.update(|terms| terms.settings.max_connections = 2).unwrap();
    assert!(second.response().await.0.starts_with("HTTP/1.1 503"));
    asserts_leads_to(&mut first, "one").await;
}

fn tls() -> EgressTls {
    let validity = Validity { from: SystemTime::now(), lifetime: FOREVER };
    let authority = Authority::create("test", validity).unwrap();
    let credentials = authority.responder(&["edge.test".to_owned()], validity).unwrap().credentials().unwrap();
    EgressTls { credentials, clients: ClientCertificates::NotAsked }
}

#[tokio::test]
async fn new_tls_holds_for_new_connections_only_and_is_made_once() {
    let egress = running();
    let mut old = connect(egress.address).await;
    asserts_leads_to(&mut old, "one").await;
    egress.handle.update(|terms| terms.tls = Some(Arc::new(tls()))).unwrap();
    asserts_leads_to(&mut old, "one").await;
    let mut plain = connect(egress.address).await;
    plain.send(REQUEST).await;
    let (answer, _) = plain.rest().await;
    assert!(!answer.starts_with("HTTP/"), "{answer}");

    let made = || egress.handle.0.current.accepting().tls.unwrap();
    let before = made();
    egress.handle.update(|terms| terms.router = to("two")).unwrap();
    assert!(Arc::ptr_eq(&before, &made()), "clients can resume their sessions");
    egress.handle.update(|terms| terms.tls = Some(Arc::new(tls()))).unwrap();
    assert!(!Arc::ptr_eq(&before, &made()));
}

#[tokio::test]
async fn terms_that_cannot_be_used_change_nothing() {
    let egress = running();
    let refused = egress.handle.update(|terms| {
        let nobody = ClientCertificates::Required(Trust::default());
        terms.tls = Some(Arc::new(EgressTls { clients: nobody, ..tls() }));
        terms.router = to("two");
    });
    assert!(refused.is_err());
    asserts_leads_to(&mut connect(egress.address).await, "one").await;
    assert!(egress.handle.terms().tls.is_none());
}

#[tokio::test]
async fn of_updates_at_once_none_is_lost_and_whoever_looks_sees_all_of_one() {
    const EACH: u64 = 200;
    let egress = egress(Settings::default());
    let handle = egress.handle();
    let increase = |terms: &mut Terms| {
        terms.router.hold += Duration::from_secs(1);
        terms.settings.head_timeout = terms.router.hold;
    };
    handle.update(|terms| terms.settings.head_timeout = terms.router.hold).unwrap();
    let (before, done) = (handle.terms().router.hold, AtomicBool::new(false));
    std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let now = handle.0.current.load();
                assert_eq!(now.judge.router.hold(), now.accepting().settings.head_timeout);
            }
        });
        let updates: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..EACH).for_each(|_| handle.update(increase).unwrap()))).collect();
        updates.into_iter().for_each(|thread| thread.join().unwrap());
        done.store(true, Ordering::Relaxed);
        looks.join().unwrap();
    });
    assert_eq!(handle.terms().router.hold, before + Duration::from_secs(4 * EACH));
}

#[tokio::test]
async fn a_listener_is_added_and_a_removed_one_finishes_what_it_carries() {
    let egress = running();
    let added = egress.handle.add(loopback()).unwrap();
    assert_eq!(egress.handle.addresses().len(), 2);
    asserts_leads_to(&mut connect(added).await, "one").await;
    let (busy, mut idle) = (begun(added).await, connect(added).await);
    ask(&mut idle).await;

    let leaving = in_time(egress.handle.remove(added, FOREVER)).await.unwrap();
    assert_eq!(egress.handle.addresses(), [egress.address]);
    assert!(TcpStream::connect(added).await.is_err(), "nobody listens there");
    assert_eq!(egress.handle.add(added).unwrap(), added, "it can be bound again while the rest finishes");
    assert_eq!(idle.rest().await.0, "");
    finish(busy).await;
    assert_eq!(in_time(leaving.ended()).await, Drained::Complete);

    for address in [egress.address, added] {
        asserts_leads_to(&mut connect(address).await, "one").await;
    }
    assert!(egress.handle.remove(loopback(), FOREVER).await.is_none(), "no such listener");
}

#[tokio::test]
async fn a_removed_listener_says_goodbye_over_http_2() {
    let egress = running();
    let stream = TcpStream::connect(egress.address).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("http://h/").body(()).unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    let mut body = in_time(response).await.unwrap().into_body();
    while in_time(body.data()).await.is_some() {}
    drop(body);
    let leaving = in_time(egress.handle.remove(egress.address, FOREVER)).await.unwrap();
    assert_eq!(in_time(leaving.ended()).await, Drained::Complete);
    let refused = ready(&mut sender).await;
    assert!(refused.is_err(), "no request is taken any more");
    assert!(in_time(connection).await.unwrap().is_ok(), "GOAWAY without an error");
}

async fn ready(sender: &mut h2::client::SendRequest<Bytes>) -> Result<(), h2::Error> {
    in_time(std::future::poll_fn(|cx| sender.poll_ready(cx))).await
}

#[tokio::test]
async fn what_does_not_finish_is_cut_at_the_limit_of_the_removal() {
    let egress = running();
    let mut busy = begun(egress.address).await;
    let leaving = in_time(egress.handle.remove(egress.address, Duration::from_millis(50))).await.unwrap();
    assert_eq!(in_time(leaving.ended()).await, Drained::Expired(1));
    assert_eq!(busy.rest().await.0, "");
}

#[tokio::test]
async fn a_removal_that_nobody_waits_for_goes_on() {
    let egress = running();
    let mut busy = begun(egress.address).await;
    {
        let mut removal = std::pin::pin!(egress.handle.remove(egress.address, Duration::from_millis(50)));
        let once = std::future::poll_fn(|cx| std::task::Poll::Ready(removal.as_mut().poll(cx).is_ready()));
        assert!(!once.await, "the socket is not closed yet");
    }
    assert_eq!(busy.rest().await.0, "");
}

#[tokio::test]
async fn of_two_removals_at_once_one_is_it() {
    let egress = running();
    let remove = || egress.handle.remove(egress.address, FOREVER);
    let (one, two) = in_time(async { tokio::join!(remove(), remove()) }).await;
    assert_eq!((one.is_some(), two.is_some()), (true, false));
}

#[tokio::test]
async fn a_listener_can_be_removed_while_the_egress_drains_and_none_added() {
    let egress = running();
    let busy = begun(egress.address).await;
    egress.drain.begin(FOREVER);
    let leaving = in_time(egress.handle.remove(egress.address, FOREVER)).await.unwrap();
    assert!(matches!(egress.handle.add(loopback()), Err(BuildError::Over)));
    assert!(!egress.task.is_finished(), "the drain waits for what was removed, too");
    finish(busy).await;
    assert_eq!(in_time(leaving.ended()).await, Drained::Complete);
    assert_eq!(in_time(egress.drain.drain(FOREVER)).await, Drained::Complete);
    in_time(egress.task).await.unwrap();
}

#[tokio::test]
async fn the_end_of_the_drain_cuts_what_was_removed() {
    let egress = running();
    let mut busy = begun(egress.address).await;
    let leaving = in_time(egress.handle.remove(egress.address, FOREVER)).await.unwrap();
    egress.drain.stop();
    in_time(egress.task).await.unwrap();
    assert_eq!(in_time(leaving.ended()).await, Drained::Complete);
    assert_eq!(busy.rest().await.0, "");
}

#[tokio::test]
async fn before_it_runs_listeners_can_be_added_and_removed() {
    let egress = egress(Settings::default());
    let (handle, first) = (egress.handle(), egress.local_addr());
    let added = handle.add(loopback()).unwrap();
    let leaving = in_time(handle.remove(first, FOREVER)).await.unwrap();
    assert_eq!(in_time(leaving.ended()).await, Drained::Complete);
    assert!(TcpStream::connect(first).await.is_err());
    let mut early = connect(added).await;
    let _running = run(egress);
    asserts_leads_to(&mut early, "one").await;
}

#[tokio::test]
async fn nothing_can_be_added_to_an_egress_that_is_gone() {
    let egress = egress(Settings::default());
    let handle = egress.handle();
    drop(egress);
    assert!(matches!(handle.add(loopback()), Err(BuildError::Over)));

    let egress = running();
    egress.task.abort();
    assert!(in_time(egress.task).await.unwrap_err().is_cancelled());
    assert!(matches!(egress.handle.add(loopback()), Err(BuildError::Over)));
    assert!(TcpStream::connect(egress.address).await.is_err());
}

#[tokio::test]
async fn a_listener_gets_tls_and_http3_while_it_runs() {
    // One whose port is nobody's over UDP: other tests have some.
    let (egress, taken) = loop {
        let egress = running();
        if let Ok(taken) = UdpSocket::bind(egress.address) {
            break (egress, taken);
        }
    };
    let mut terms = egress.handle.terms();
    terms.tls = Some(Arc::new(tls()));
    let refused = egress.handle.prepare(terms.clone()).unwrap_err().to_string();
    assert!(refused.contains("cannot bind udp") && refused.contains("http3"), "{refused}");
    let mut wire = connect(egress.address).await;
    asserts_leads_to(&mut wire, "one").await;
    drop(taken);
    let prepared = egress.handle.prepare(terms).unwrap();
    asserts_leads_to(&mut connect(egress.address).await, "one").await;
    egress.handle.commit(prepared);
    asserts_leads_to(&mut wire, "one").await;
    let accepting = egress.handle.0.current.accepting();
    assert!(accepting.tls.is_some() && accepting.http3.is_some());
    assert!(egress.handle.0.entrances.without_http3().is_empty());
    assert!(UdpSocket::bind(egress.address).is_err(), "HTTP/3 has its port");
}
