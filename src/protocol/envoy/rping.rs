//! Pings in front of something else: where they end, in bytes that arrive in any split. spec: EV-28, EV-32

use bytes::{Buf as _, Bytes, BytesMut};

use crate::protocol::envoy::PING;

/// How far a run of pings has been read; holds at most four bytes of one.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// How many bytes of a ping have arrived that are neither a whole one nor something else yet.
    pub(super) held: usize,
    over: bool,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A whole ping.
    Ping,
    /// The run is over: everything after the last whole ping. Never empty.
    Rest(Bytes),
    /// Nothing before more bytes arrive.
    More,
}

impl Run {
    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    /// Takes the next step from `input`; all of it unless that is a ping.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Step {
        if self.over {
            return if input.is_empty() { Step::More } else { Step::Rest(std::mem::take(input)) };
        }
        let wanted = &PING[self.held..];
        let same = input.iter().zip(wanted).take_while(|(is, wanted)| is == wanted).count();
        if same == wanted.len() {
            input.advance(same);
            self.held = 0;
            Step::Ping
        } else if same == input.len() {
            self.held += same;
            input.clear();
            Step::More
        } else {
            self.over = true;
            Step::Rest(self.with_held(std::mem::take(input)))
        }
    }

    fn with_held(&mut self, input: Bytes) -> Bytes {
        let held = &PING[..std::mem::take(&mut self.held)];
        if held.is_empty() {
            return input;
        }
        let mut joined = BytesMut::with_capacity(held.len() + input.len());
        joined.extend_from_slice(held);
        joined.extend_from_slice(&input);
        joined.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(bytes: &[u8], step: usize) -> (usize, Vec<u8>) {
        let (mut run, mut pings, mut rest) = (Run::default(), 0, Vec::new());
        for piece in bytes.chunks(step.max(1)) {
            let mut input = Bytes::copy_from_slice(piece);
            loop {
                match run.next(&mut input) {
                    Step::Ping => pings += 1,
                    Step::Rest(more) => rest.extend_from_slice(&more),
                    Step::More => break,
                }
            }
        }
        (pings, rest)
    }

    // spec: EV-32
    #[test]
    fn the_first_byte_of_something_else_ends_the_run_for_good() {
        for (bytes, pings, rest) in [
            (&b"RPINGRPINGPRI * HTTP/2.0"[..], 2, &b"PRI * HTTP/2.0"[..]),
            (b"RPI\x16\x03", 0, b"RPI\x16\x03"),
            (b"RPINGRPRPING", 1, b"RPRPING"),
            (b"\x16\x03RPING", 0, b"\x16\x03RPING"),
            (b"RPINGRPIN", 1, b""),
        ] {
            for step in [1, 2, 3, bytes.len()] {
                assert_eq!(run(bytes, step), (pings, rest.to_vec()), "{bytes:?} by {step}");
            }
        }
    }

    proptest! {
        // spec: EV-32
        #[test]
        fn no_split_changes_where_it_ends(bytes in "(RPING){0,3}[RPINGX]{0,8}", step in 1usize..9) {
            prop_assert_eq!(run(bytes.as_bytes(), step), run(bytes.as_bytes(), bytes.len()));
        }
    }
}
