//! What quinn's counters say about whether the peer lives and hears this end. spec: CT-10

use std::time::Duration;

use quinn::ConnectionStats;

/// The proofs so far, and what was known at the last of them.
#[derive(Debug, Default, Clone)]
pub(super) struct Proof {
    count: u64,
    frames: u64,
    rtt: Duration,
}

impl Proof {
    /// Looks at the counters; the number of proofs so far.
    pub(super) fn note(&mut self, stats: ConnectionStats) -> u64 {
        self.note_counters(frames_of_the_application(&stats), stats.path.rtt)
    }

    /// The estimate of the round trip moves when something newly sent was acknowledged, and at no other time. Counted ACK
    /// frames would not do: one goes along with every packet, whether it says something new or not.
    fn note_counters(&mut self, frames: u64, rtt: Duration) -> u64 {
        if frames != self.frames && rtt != self.rtt {
            *self = Self { count: self.count + 1, frames, rtt };
        }
        self.count
    }
}

/// Frames that only a running application causes: data, credit, the end of a stream.
fn frames_of_the_application(stats: &ConnectionStats) -> u64 {
    let frames = &stats.frame_rx;
    let heard = [
        frames.stream,
        frames.datagram,
        frames.max_data,
        frames.max_stream_data,
        frames.max_streams_bidi,
        frames.reset_stream,
        frames.stop_sending,
    ];
    heard.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(40);

    // spec: CT-10
    #[test]
    fn neither_what_arrives_nor_an_acknowledgement_is_a_proof_alone() {
        let mut proof = Proof::default();
        let begin = proof.note_counters(1, RTT);
        assert_eq!(proof.note_counters(9, RTT), begin, "the peer may hear nothing");
        assert_eq!(proof.note_counters(9, RTT * 2), begin + 1);
        assert_eq!(proof.note_counters(9, RTT * 3), begin + 1, "its application may hang");
        assert_eq!(proof.note_counters(10, RTT * 3), begin + 2);
    }
}
