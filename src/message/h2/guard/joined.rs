//! Small DATA frames that wait for their readers, joined. spec: SE-19

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Context;

use super::super::small::{SMALL, Small, SmallFrames};
use super::{DATA, END_STREAM, FRAME_HEAD, Frame, HEADERS, PADDED, RST_STREAM};

/// So many bytes go on as soon as they are joined.
const JOINED: usize = 1024;

/// Small DATA frames that are held back, those of each stream in one piece.
#[derive(Debug)]
pub(super) struct Joined {
    frames: Arc<SmallFrames>,
    held: HashMap<u32, Vec<u8>>,
    /// Those of them that nobody reads: they go on behind what they came with.
    unread: Vec<u32>,
    /// Readers were kept waiting, and have to be asked what they want.
    keeps_waiting: bool,
}

/// What happens to a frame at the front.
pub(super) enum Data {
    /// It goes on as any other.
    Passes,
    /// It is small, and has not come to its end.
    Incomplete,
    /// Instead of so many bytes these go on.
    Joined { bytes: usize, instead: Vec<u8> },
}

impl Joined {
    pub(super) fn new(frames: Arc<SmallFrames>) -> Self {
        Self { frames, held: HashMap::new(), unread: Vec::new(), keeps_waiting: false }
    }

    /// Whether readers were kept waiting.
    pub(super) const fn keeps_waiting(&self) -> bool {
        self.keeps_waiting
    }

    /// Whether some of it has nobody who would ask for it.
    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// What happens to a frame, which is at the front of these bytes.
    pub(super) fn pass(&mut self, frame: Frame, bytes: &[u8]) -> Data {
        if frame.is_small_data() {
            let judged = self.frames.judge(frame.stream);
            self.keeps_waiting |= judged == Small::Waits;
            match judged {
                Small::Passes => {}
                _ if bytes.len() < FRAME_HEAD + frame.length => return Data::Incomplete,
                _ => return self.join(frame.stream, judged, bytes),
            }
        }
        // What is held back goes before whatever else its reader sees.
        let may_wait = !self.held.is_empty() && frame.is_seen_by_readers();
        let held = if may_wait { self.held.remove(&frame.stream) } else { None };
        held.map_or(Data::Passes, |held| Data::Joined { bytes: 0, instead: data(frame.stream, &held) })
    }

    /// Takes the small frames of a stream that come one behind the other, of which the first is whole.
    fn join(&mut self, stream: u32, judged: Small, bytes: &[u8]) -> Data {
        let (mut end, mut instead) = (0, Vec::new());
        let held = self.held.entry(stream).or_default();
        if judged == Small::Unread && held.is_empty() {
            self.unread.push(stream);
        }
        while let Some(frame) = Frame::read(&bytes[end..])
            && frame.is_small_data()
            && frame.stream == stream
            && let Some(payload) = bytes.get(end + FRAME_HEAD..end + FRAME_HEAD + frame.length)
        {
            held.extend_from_slice(payload);
            end += FRAME_HEAD + frame.length;
            if held.len() >= JOINED {
                instead.extend(data(stream, held));
                held.clear();
            }
        }
        if held.is_empty() {
            self.held.remove(&stream);
        }
        Data::Joined { bytes: end, instead }
    }

    /// What is held back of these streams, in frames.
    fn of(&mut self, streams: Vec<u32>) -> Vec<u8> {
        let held = streams.into_iter().filter_map(|stream| Some(data(stream, &self.held.remove(&stream)?)));
        held.flatten().collect()
    }

    /// What goes on because its reader wants it; the task is woken when there is more.
    pub(super) fn wanted(&mut self, cx: &Context<'_>) -> Vec<u8> {
        let wanted = self.frames.wanted(cx);
        let released = self.of(wanted);
        self.keeps_waiting = !self.held.is_empty();
        released
    }

    /// What goes on although nobody wants it.
    pub(super) fn unread(&mut self) -> Vec<u8> {
        let unread = std::mem::take(&mut self.unread);
        self.of(unread)
    }

    /// Everything, at the end.
    pub(super) fn all(&mut self) -> Vec<u8> {
        self.unread.clear();
        self.held.drain().flat_map(|(stream, held)| data(stream, &held)).collect()
    }
}

/// A DATA frame with these bytes, far fewer than a reader takes.
fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u32).to_be_bytes();
    [&length[1..], &[DATA, 0], &stream.to_be_bytes(), bytes].concat()
}

impl Frame {
    /// Whether it is DATA with little in it that does not end its message.
    const fn is_small_data(self) -> bool {
        self.kind == DATA && self.length > 0 && self.length < SMALL && self.flags & (END_STREAM | PADDED) == 0
    }

    const fn is_seen_by_readers(self) -> bool {
        matches!(self.kind, DATA | HEADERS | RST_STREAM)
    }
}
