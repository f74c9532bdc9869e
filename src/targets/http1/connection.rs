//! One HTTP/1.1 connection to a target between its exchanges.

use std::task::Context;

use bytes::BytesMut;

use crate::net::input::Input;
use crate::net::output::Output;
use crate::targets::connect::Socket;
use crate::targets::halves::{ReadHalf, WriteHalf};

/// A connection and its buffers. Dropping it closes it, whatever it is doing.
pub(in crate::targets) struct Connection {
    pub(super) read: ReadHalf,
    pub(super) input: Input,
    pub(super) sender: Sender,
}

/// The direction to the target: what an upload takes along when it gets a task of its own.
pub(in crate::targets) struct Sender {
    pub(super) write: WriteHalf,
    pub(super) output: Output,
}

impl Connection {
    pub(super) fn new(socket: Socket) -> Self {
        let (read, write) = socket.into_split();
        Self { read, input: Input::new(BytesMut::new()), sender: Sender { write, output: Output::default() } }
    }

    /// Whether the next request can be sent: the target has not closed the connection, nor said what nobody asked for.
    pub(super) fn is_usable(&self) -> bool {
        self.input.is_empty() && self.read.is_silent_now()
    }

    /// As [`Self::is_usable`], and wakes the caller when that ends.
    pub(super) fn stays_usable(&self, cx: &mut Context<'_>) -> bool {
        self.input.is_empty() && self.read.stays_silent(cx)
    }

    /// Gives large buffers back.
    pub(super) fn shrink(&mut self) {
        self.input.shrink();
        self.sender.output.shrink();
    }

    /// Gives all buffers back. Nothing may be in them.
    pub(super) fn release(&mut self) {
        self.input = Input::new(BytesMut::new());
        self.sender.output.release();
    }
}
