//! Every state against every event.
//!
//! An entry lists the actions: `C` connect, `A` abandon, `H` claim in the old tunnel's place, `h` claim beside it, `D`
//! drain, `S` switched to, each with `q` or `t`; `W` wait. Events are about the latest attempt over the transport, the
//! last three about the tunnel.

use super::*;

const EVENTS: [&str; 11] = [
    "connected q",
    "connected t",
    "admitted q",
    "admitted t",
    "failed q",
    "failed t",
    "refused q",
    "refused t",
    "suspect",
    "alive",
    "draining",
];

/// State, and what each event does in it.
#[rustfmt::skip]
const TABLE: [(&str, [&str; EVENTS.len()]); 15] = [
    //                            connected    admitted     failed       refused
    //                            q     t      q      t     q     t      q       t      suspect  alive  draining
    ("quic connecting",          ["Hq", "",    "",    "",   "Ct", "",    "W",    "",    "",      "",    ""]),
    ("both connecting",          ["Hq", "Ht",  "",    "",   "",   "",    "At W", "Aq W", "",     "",    ""]),
    ("quic failed",              ["",   "Ht",  "",    "",   "",   "W",   "",     "W",   "",      "",    ""]),
    ("quic claiming",            ["",   "",    "",    "",   "Ct", "",    "W",    "",    "",      "",    ""]),
    ("quic claiming, tcp ready", ["",   "",    "At",  "",   "Ht", "",    "At W", "",    "",      "",    ""]),
    ("tcp claiming",             ["",   "",    "",    "Aq", "",   "",    "",     "Aq W", "",     "",    ""]),
    ("waiting",                  ["",   "",    "",    "",   "",   "",    "",     "",    "",      "",    ""]),
    ("on quic",                  ["",   "",    "",    "",   "Cq", "",    "W",    "",    "Ct",    "",    "W"]),
    ("on quic, suspect",         ["",   "Ht",  "",    "",   "Cq", "Cq",  "At W", "W",   "",      "At",  "At W"]),
    ("on quic, tcp claiming",    ["",   "",    "",    "Aq St", "", "Cq", "",     "W",   "",      "",    "At W"]),
    ("on tcp",                   ["",   "",    "",    "",   "",   "Ct",  "",     "W",   "Cq Ct", "",    "W"]),
    ("on tcp, probing",          ["",   "",    "",    "",   "",   "Ct",  "",     "Aq W", "Ct",   "",    "Aq W"]),
    ("on tcp, trial",            ["",   "",    "",    "",   "",   "Hq",  "",     "Aq W", "Hq",   "",    "Aq W"]),
    ("on tcp, quic claiming",    ["",   "",    "Dt Sq", "", "",   "",    "",     "",    "Ct",    "",    "Aq W"]),
    ("on tcp, suspect",          ["Hq", "ht",  "",    "",   "",   "",    "At W", "Aq W", "",     "At",  "Aq At W"]),
];

fn in_state(state: &str) -> Bench {
    let mut bench = match state {
        state if state.starts_with("on quic") => Bench::on_quic(),
        state if state.starts_with("on tcp") => Bench::on_tcp(),
        _ => Bench::new(TransportChoice::Auto),
    };
    bench.did();
    match state {
        "both connecting" | "quic claiming, tcp ready" | "tcp claiming" => drop(bench.wake(300)),
        "quic failed" => drop(bench.failed(Quic)),
        "waiting" => drop(bench.refused(Quic, None)),
        "on quic, suspect" | "on quic, tcp claiming" => drop(bench.suspect()),
        "on tcp, suspect" => {
            bench.pass(6000);
            bench.suspect();
        }
        "on tcp" => drop(bench.pass(6000)),
        "on tcp, probing" | "on tcp, trial" | "on tcp, quic claiming" => drop(bench.wake(10_000)),
        _ => {}
    }
    match state {
        "quic claiming" | "on tcp, trial" => drop(bench.connected(Quic)),
        "quic claiming, tcp ready" => {
            bench.connected(Quic);
            bench.connected(Tcp);
        }
        "tcp claiming" | "on quic, tcp claiming" => drop(bench.connected(Tcp)),
        "on tcp, quic claiming" => {
            bench.connected(Quic);
            bench.wake(2000);
        }
        _ => {}
    }
    bench
}

/// Nothing happens where there is nothing that the event could be about.
fn apply(bench: &mut Bench, event: &str) -> Vec<Did> {
    let (what, on) = event.split_once(' ').unwrap_or((event, ""));
    let transport = if on == "q" { Quic } else { Tcp };
    let known = bench.attempts.iter().any(|attempt| attempt.transport() == transport);
    match what {
        "suspect" | "alive" | "draining" if bench.auto.tunnel().is_none() => Vec::new(),
        "suspect" => bench.suspect(),
        "alive" => bench.alive(),
        "draining" => bench.draining(1000),
        _ if !known => Vec::new(),
        "connected" => bench.connected(transport),
        "admitted" => bench.admitted(transport),
        "failed" => bench.failed(transport),
        "refused" => bench.refused(transport, Some(1000)),
        _ => unreachable!("{what}"),
    }
}

fn short(did: &[Did]) -> String {
    let letter = |transport: TransportKind| &transport.label()[..1];
    let words = did.iter().map(|did| match *did {
        Did::Connect(on) => format!("C{}", letter(on)),
        Did::Abandon(on) => format!("A{}", letter(on)),
        Did::Claim(on, Supersede) => format!("H{}", letter(on)),
        Did::Claim(on, Beside) => format!("h{}", letter(on)),
        Did::Drain(on) => format!("D{}", letter(on)),
        Did::Switched(to) => format!("S{}", letter(to)),
        Did::Wait(_) => "W".to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn every_event_in_every_state_does_what_the_table_says() {
    let mut wrong = Vec::new();
    for (state, row) in TABLE {
        for (event, expected) in EVENTS.into_iter().zip(row) {
            let did = short(&apply(&mut in_state(state), event));
            if did != expected {
                wrong.push(format!("{state}: {event}: {did:?}, expected {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
