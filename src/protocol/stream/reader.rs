//! Reads one message from a stream's bytes, in any split. spec: ST-1 to ST-9
//!
//! Only the payload of HEAD, INFO and TRAILERS is ever held, and its length is checked before the first byte of it is.
//! DATA is handed on as it arrives, sharing memory with what was received.

use bytes::Bytes;
use http::HeaderMap;

use crate::protocol::limits::Limits;
use crate::protocol::stream::head;
use crate::protocol::stream::input::{Input, Step, at_most};
use crate::protocol::stream::{FrameType, HERE, RequestHead, ResponseHead, StreamError, StreamType};
use crate::protocol::wire::Malformed;

/// Which kind of message is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A request: the stream's type comes first. What an initiator reads.
    Request,
    /// A response, interim ones first. What a responder reads.
    Response,
    /// A response of a sibling, which says in front of it when it wants the body of the request. spec: FL-47
    Relayed,
}

/// The next part of a message. Flags say that the message is whole; no [`Event::End`] follows then.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The head of a request; `true`: nothing follows.
    Request(Box<RequestHead>, bool),
    /// The head of the final response; `true`: nothing follows. Not boxed: it is no larger than trailers are.
    Response(ResponseHead, bool),
    /// An interim response.
    Info(Box<ResponseHead>),
    /// A sibling wants the body of the request; once at most, of [`Role::Relayed`] alone. spec: FL-47
    Here,
    /// The next bytes of the body, never empty; a frame may come in several of these.
    Data(Bytes),
    /// The fields after the body; only [`Event::End`] follows.
    Trailers(HeaderMap),
    /// The message is whole.
    End,
}

/// An incremental reader of one message: [`push`](Self::push) bytes, then take [`next`](Self::next) until it is `None`.
#[derive(Debug)]
pub struct MessageReader {
    role: Role,
    limits: Limits,
    input: Input,
    step: Step<FrameType>,
    place: Place,
    /// Body bytes that the request's Content-Length still promises.
    promised: Option<u64>,
    here: Here,
    failed: Option<StreamError>,
}

/// What is known of HERE. spec: FL-47
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Here {
    /// It may come.
    Open,
    /// It was read, and is still to be told.
    Read,
    /// It means nothing, or nothing any more.
    Over,
}

/// How far the message is; decides which frames may come. spec: ST-8
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    Body,
    Trailed,
    Ended,
}

impl MessageReader {
    /// A reader at the start of a stream. Holds no more than `limits.head_bytes` at any time.
    pub fn new(role: Role, limits: Limits) -> Self {
        let step = match role {
            Role::Request => Step::StreamType,
            Role::Response | Role::Relayed => Step::FrameHeader,
        };
        let here = if role == Role::Relayed { Here::Open } else { Here::Over };
        Self { role, limits, input: Input::default(), step, place: Place::Head, promised: None, here, failed: None }
    }

    /// Takes as much as these limits allow from now on, if that is more than before. spec: CT-31
    pub fn take_at_least(&mut self, limits: Limits) {
        self.limits = self.limits.or_more(limits);
    }

    /// Hands in received bytes; meant to be called after [`next`](Self::next) returned `None`, else it copies.
    pub fn push(&mut self, chunk: Bytes) {
        self.input.push(chunk);
    }

    /// The next part of the message; `None` when more bytes are needed, or none are expected. An error repeats.
    #[expect(clippy::should_implement_trait, reason = "`None` asks for more bytes, it does not end anything")]
    pub fn next(&mut self) -> Result<Option<Event>, StreamError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.advance().inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// The head of a request, and whether nothing follows, as [`next`](Self::next) would give it first; for a reader of
    /// requests that has given nothing yet. Saves the box.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn request_head(&mut self) -> Result<Option<(RequestHead, bool)>, StreamError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.advance_to_head().inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// The stream finished: fine when the message is whole and nothing is left. spec: ST-9
    pub fn finish(&mut self) -> Result<(), StreamError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        match (self.is_complete(), self.input.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => Err(StreamError::AfterEnd),
            (false, _) => Err(StreamError::Truncated),
        }
    }

    /// Bytes that are held of a frame that is not whole.
    pub(crate) fn held_bytes(&self) -> usize {
        self.input.held_bytes()
    }

    /// Whether the message is whole: its END was read.
    pub fn is_complete(&self) -> bool {
        self.place == Place::Ended
    }

    fn advance(&mut self) -> Result<Option<Event>, StreamError> {
        loop {
            if self.here == Here::Read {
                self.here = Here::Over;
                return Ok(Some(Event::Here));
            }
            if self.place == Place::Ended {
                return if self.input.is_empty() { Ok(None) } else { Err(StreamError::AfterEnd) };
            }
            match self.step {
                Step::Payload(frame, length) => {
                    let Some(payload) = self.input.payload(length) else { return Ok(None) };
                    self.step = Step::FrameHeader;
                    return self.read(frame, &payload).map(Some);
                }
                Step::Data(left) => {
                    let Some(data) = self.input.some(left) else { return Ok(None) };
                    self.step = Step::after_part(left, data.len(), Step::Data);
                    return Ok(Some(Event::Data(data)));
                }
                Step::StreamType | Step::FrameHeader | Step::Skip(_) => {
                    if !self.advance_between()? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// The first payload of a request can only be its HEAD.
    fn advance_to_head(&mut self) -> Result<Option<(RequestHead, bool)>, StreamError> {
        loop {
            match self.step {
                Step::Payload(FrameType::Head, length) => {
                    let Some(payload) = self.input.payload(length) else { return Ok(None) };
                    self.step = Step::FrameHeader;
                    return self.read_request(&payload).map(Some);
                }
                Step::Payload(frame, _) => return Err(StreamError::Order(frame)),
                Step::Data(_) => return Err(StreamError::Order(FrameType::Data)),
                Step::StreamType | Step::FrameHeader | Step::Skip(_) => {
                    if !self.advance_between()? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// One step through what yields nothing; `false` when more bytes are needed for it.
    fn advance_between(&mut self) -> Result<bool, StreamError> {
        match self.step {
            Step::StreamType => {
                let Some([number]) = self.input.integers()? else { return Ok(false) };
                if StreamType::from_number(number) != Some(StreamType::Http) {
                    return Err(StreamError::UnknownType(number));
                }
                self.step = Step::FrameHeader;
            }
            Step::FrameHeader => {
                let Some([number, length]) = self.input.integers()? else { return Ok(false) };
                self.step = self.judge(number, length)?;
            }
            Step::Skip(left) => {
                let Some(skipped) = self.input.some(left) else { return Ok(false) };
                self.step = Step::after_part(left, skipped.len(), Step::Skip);
            }
            Step::Payload(..) | Step::Data(_) => {}
        }
        Ok(true)
    }

    /// Decides about a frame by its header alone: its place, and its length against the limit. spec: ST-4 to ST-8
    fn judge(&mut self, number: u64, length: u64) -> Result<Step<FrameType>, StreamError> {
        let Some(frame) = FrameType::from_number(number) else {
            let step = Step::skip(number, length)?;
            if number == HERE && self.here == Here::Open && self.place == Place::Head {
                self.here = Here::Read;
            }
            return Ok(step);
        };
        if !self.allows(frame) {
            return Err(StreamError::Order(frame));
        }
        match frame {
            FrameType::Data => {
                self.spend(length)?;
                Ok(Step::Data(length))
            }
            FrameType::End if length > 0 => Err(Malformed::Excess.into()),
            FrameType::End => Ok(Step::Payload(frame, 0)),
            FrameType::Head | FrameType::Info | FrameType::Trailers => {
                at_most("the length of a head", length, self.limits.head_bytes as u64)?;
                Ok(Step::Payload(frame, length as usize))
            }
        }
    }

    /// The order of frames. spec: ST-8
    fn allows(&self, frame: FrameType) -> bool {
        match self.place {
            Place::Head => frame == FrameType::Head || (frame == FrameType::Info && self.role != Role::Request),
            Place::Body => matches!(frame, FrameType::Data | FrameType::Trailers | FrameType::End),
            Place::Trailed => frame == FrameType::End,
            Place::Ended => false,
        }
    }

    /// Counts a DATA frame against the request's Content-Length, before any of it is handed on. spec: ST-22, ST-24
    fn spend(&mut self, length: u64) -> Result<(), StreamError> {
        if length == 0 {
            return Err(Malformed::Missing("payload").into());
        }
        if let Some(promised) = &mut self.promised {
            *promised = promised.checked_sub(length).ok_or(Malformed::Invalid("content-length"))?;
        }
        Ok(())
    }

    fn read(&mut self, frame: FrameType, payload: &Bytes) -> Result<Event, StreamError> {
        match (frame, self.role) {
            (FrameType::Head, Role::Request) => {
                let (head, end) = self.read_request(payload)?;
                Ok(Event::Request(Box::new(head), end))
            }
            (FrameType::Head, Role::Response | Role::Relayed) => {
                let (head, end) = head::read_response(payload, &self.limits)?;
                self.begin_body(end)?;
                Ok(Event::Response(head, end))
            }
            (FrameType::Info, _) => Ok(Event::Info(Box::new(head::read_info(payload, &self.limits)?))),
            (FrameType::Trailers, _) => {
                self.place = Place::Trailed;
                Ok(Event::Trailers(head::read_trailers(payload, &self.limits)?))
            }
            (FrameType::End | FrameType::Data, _) => {
                self.end()?;
                Ok(Event::End)
            }
        }
    }

    fn read_request(&mut self, payload: &Bytes) -> Result<(RequestHead, bool), StreamError> {
        let (head, end) = head::read_request(payload, &self.limits)?;
        self.promised = head::content_length(&head.fields)?;
        self.begin_body(end)?;
        Ok((head, end))
    }

    fn begin_body(&mut self, end: bool) -> Result<(), StreamError> {
        self.place = Place::Body;
        if end { self.end() } else { Ok(()) }
    }

    /// The message ends here; a request must have kept what its Content-Length promised. spec: ST-24
    fn end(&mut self) -> Result<(), StreamError> {
        if self.promised.is_some_and(|left| left > 0) {
            return Err(Malformed::Invalid("content-length").into());
        }
        self.place = Place::Ended;
        Ok(())
    }
}

#[cfg(test)]
impl MessageReader {
    /// What is reserved for a frame that is not whole yet.
    pub(super) fn held_capacity(&self) -> usize {
        self.input.held_capacity()
    }
}
