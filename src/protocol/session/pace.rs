//! How many frames a peer may send on the control stream. spec: SE-14

use std::time::Instant;

use crate::protocol::allowance::Allowance;
use crate::protocol::budgets::{CHANGE_BURST, CHANGES_PER_SECOND, FRAME_BURST, FRAMES_PER_SECOND};
use crate::protocol::control::FrameType;
use crate::protocol::session::error::SessionError;

/// What is left to a peer.
#[derive(Debug)]
pub(super) struct Pace {
    /// LIMITS, SERVICES, HEALTH, REAUTH and ROSTER: each of them is work for others too.
    changes: Allowance,
    frames: Allowance,
}

impl Pace {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            changes: Allowance::new(now, CHANGE_BURST, CHANGES_PER_SECOND),
            frames: Allowance::new(now, FRAME_BURST, FRAMES_PER_SECOND),
        }
    }

    /// A frame has arrived.
    pub(super) fn take(&mut self, frame: FrameType, now: Instant) -> Result<(), SessionError> {
        let allowance = match frame {
            FrameType::Limits | FrameType::Services | FrameType::Health | FrameType::Reauth | FrameType::Roster => {
                &mut self.changes
            }
            _ => &mut self.frames,
        };
        allowance.spend(1, || now).then_some(()).ok_or(SessionError::Flood)
    }

    /// So many frames of unknown types have arrived.
    pub(super) fn take_skipped(&mut self, frames: u32, now: Instant) -> Result<(), SessionError> {
        (frames == 0 || self.frames.spend(frames, || now)).then_some(()).ok_or(SessionError::Flood)
    }
}
