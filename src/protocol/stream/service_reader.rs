//! Reads one direction of a raw stream or a flow, in any split. spec: ST-50 to ST-55, TB-15
//!
//! Only OPEN, OPENED, REFUSED and DATAGRAM are ever held, and their length is checked before the first byte of them is.
//! DATA is handed on as it arrives, sharing memory with what was received.

use bytes::Bytes;

use crate::protocol::limits;
use crate::protocol::stream::input::{Input, Step, at_most};
use crate::protocol::stream::service::{read_open, read_opened, read_refused};
use crate::protocol::stream::{Open, Refused, ServiceFrame, StreamError, StreamType};
use crate::protocol::wire::Malformed;

/// The next part of one direction of a raw stream or a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceEvent {
    /// The responder wants this service.
    Open(Open),
    /// The initiator has connected it.
    Opened,
    /// The initiator has not; nothing follows.
    Refused(Refused),
    /// The next bytes of a raw stream, never empty; a frame may come in several of these.
    Data(Bytes),
    /// One whole datagram of a flow, possibly empty.
    Datagram(Bytes),
    /// This direction of a raw stream, or the whole flow, is over; nothing follows.
    End,
}

/// An incremental reader: [`push`](Self::push) bytes, then take [`next`](Self::next) until it is `None`.
#[derive(Debug)]
pub struct ServiceReader {
    end: Reads,
    /// What the stream is; an initiator learns it from the first integer.
    stream_type: Option<StreamType>,
    input: Input,
    step: Step<ServiceFrame>,
    place: Place,
    failed: Option<StreamError>,
}

/// Which frames are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// What a responder sends.
    Requests,
    /// What an initiator sends.
    Answers,
    /// DATAGRAM frames and nothing around them.
    Datagrams,
}

/// Which frames may come. spec: ST-51
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Opening,
    Open,
    Ended,
}

impl ServiceReader {
    /// What an initiator reads: the stream's type first, raw or flow, then OPEN.
    pub fn of_requests() -> Self {
        Self::new(Reads::Requests, None, Step::StreamType, Place::Opening)
    }

    /// What a responder reads on a stream of this type: OPENED or REFUSED first.
    pub fn of_answers(stream_type: StreamType) -> Self {
        Self::new(Reads::Answers, Some(stream_type), Step::FrameHeader, Place::Opening)
    }

    /// What either end of a flow over TCP reads: DATAGRAM frames only, to the end of the body. spec: TB-15
    pub fn of_datagrams() -> Self {
        Self::new(Reads::Datagrams, Some(StreamType::Flow), Step::FrameHeader, Place::Open)
    }

    fn new(end: Reads, stream_type: Option<StreamType>, step: Step<ServiceFrame>, place: Place) -> Self {
        Self { end, stream_type, input: Input::default(), step, place, failed: None }
    }

    /// Hands in received bytes; meant to be called after [`next`](Self::next) returned `None`, else it copies.
    pub fn push(&mut self, chunk: Bytes) {
        self.input.push(chunk);
    }

    /// The next part; `None` when more bytes are needed, or none are expected. An error repeats.
    #[expect(clippy::should_implement_trait, reason = "`None` asks for more bytes, it does not end anything")]
    pub fn next(&mut self) -> Result<Option<ServiceEvent>, StreamError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.advance().inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// The stream finished. An error of [`StreamError::Truncated`] means a cut: the source of this direction died, and
    /// what came before is all there is. spec: ST-61
    pub fn finish(&mut self) -> Result<(), StreamError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if !self.input.is_empty() {
            return Err(if self.is_complete() { StreamError::AfterEnd } else { StreamError::Truncated });
        }
        let between_frames = self.step == Step::FrameHeader && self.input.is_between_frames();
        if self.is_complete() || (self.end == Reads::Datagrams && between_frames) {
            Ok(())
        } else {
            Err(StreamError::Truncated)
        }
    }

    /// Whether END or REFUSED was read.
    pub fn is_complete(&self) -> bool {
        self.place == Place::Ended
    }

    fn advance(&mut self) -> Result<Option<ServiceEvent>, StreamError> {
        loop {
            if self.place == Place::Ended {
                return if self.input.is_empty() { Ok(None) } else { Err(StreamError::AfterEnd) };
            }
            match self.step {
                Step::StreamType => {
                    let Some([number]) = self.input.integers()? else { return Ok(None) };
                    self.stream_type = Some(service_type(number)?);
                    self.step = Step::FrameHeader;
                }
                Step::FrameHeader => {
                    let Some([number, length]) = self.input.integers()? else { return Ok(None) };
                    self.step = self.judge(number, length)?;
                }
                Step::Payload(frame, length) => {
                    let Some(payload) = self.input.payload(length) else { return Ok(None) };
                    self.step = Step::FrameHeader;
                    return self.read(frame, payload).map(Some);
                }
                Step::Data(left) => {
                    let Some(data) = self.input.some(left) else { return Ok(None) };
                    self.step = Step::after_part(left, data.len(), Step::Data);
                    return Ok(Some(ServiceEvent::Data(data)));
                }
                Step::Skip(left) => {
                    let Some(skipped) = self.input.some(left) else { return Ok(None) };
                    self.step = Step::after_part(left, skipped.len(), Step::Skip);
                }
            }
        }
    }

    /// Decides about a frame by its header alone: its place, and its length against the limit. spec: ST-51, ST-55
    fn judge(&self, number: u64, length: u64) -> Result<Step<ServiceFrame>, StreamError> {
        let Some(frame) = ServiceFrame::from_number(number) else {
            return Step::skip(number, length);
        };
        if !self.allows(frame) {
            return Err(StreamError::Misplaced(frame));
        }
        let max = match frame {
            ServiceFrame::Data if length == 0 => return Err(Malformed::Missing("payload").into()),
            ServiceFrame::Data => return Ok(Step::Data(length)),
            ServiceFrame::End if length > 0 => return Err(Malformed::Excess.into()),
            ServiceFrame::End => 0,
            ServiceFrame::Open | ServiceFrame::Refused => limits::MAX_OPEN_BYTES,
            ServiceFrame::Datagram => limits::MAX_DATAGRAM_BYTES,
        };
        let what =
            if frame == ServiceFrame::Datagram { "the length of a datagram" } else { "the length of an opening" };
        at_most(what, length, max as u64)?;
        Ok(Step::Payload(frame, length as usize))
    }

    /// The order of frames. spec: ST-51
    fn allows(&self, frame: ServiceFrame) -> bool {
        let is_flow = self.stream_type == Some(StreamType::Flow);
        match frame {
            ServiceFrame::Open => self.place == Place::Opening,
            ServiceFrame::Refused => self.place == Place::Opening && self.end == Reads::Answers,
            ServiceFrame::Data => self.place == Place::Open && !is_flow,
            ServiceFrame::Datagram => self.place == Place::Open && is_flow,
            ServiceFrame::End => self.place == Place::Open && self.end != Reads::Datagrams,
        }
    }

    fn read(&mut self, frame: ServiceFrame, payload: Bytes) -> Result<ServiceEvent, StreamError> {
        Ok(match frame {
            ServiceFrame::Open => {
                self.place = Place::Open;
                self.read_open(&payload)?
            }
            ServiceFrame::Refused => {
                self.place = Place::Ended;
                ServiceEvent::Refused(read_refused(&payload)?)
            }
            ServiceFrame::Datagram => ServiceEvent::Datagram(payload),
            ServiceFrame::Data | ServiceFrame::End => {
                self.place = Place::Ended;
                ServiceEvent::End
            }
        })
    }

    fn read_open(&self, payload: &[u8]) -> Result<ServiceEvent, Malformed> {
        match (self.end, self.stream_type) {
            (Reads::Requests, Some(stream_type)) => Ok(ServiceEvent::Open(read_open(payload, stream_type)?)),
            _ => read_opened(payload).map(|()| ServiceEvent::Opened),
        }
    }

    /// What is reserved for a frame that is not whole yet.
    #[cfg(test)]
    pub(super) fn held_capacity(&self) -> usize {
        self.input.held_capacity()
    }
}

/// The type of a stream that has this layout. spec: ST-2
fn service_type(number: u64) -> Result<StreamType, StreamError> {
    match StreamType::from_number(number) {
        Some(known @ (StreamType::Raw | StreamType::Flow)) => Ok(known),
        Some(StreamType::Http) | None => Err(StreamError::UnknownType(number)),
    }
}
