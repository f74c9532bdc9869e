//! Finds the frame headers in one direction of a connection, in any split.

/// The preface of a client. RFC 9113 section 3.4.
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;
/// The whole payload of RST_STREAM.
const CODE_BYTES: usize = 4;

/// The part of a frame's header that decides what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of its payload.
    pub length: u32,
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// The stream that it is about; 0: the connection.
    pub stream: u32,
    /// Of RST_STREAM, why; 0 of all others.
    pub code: u32,
}

impl FrameHeader {
    /// DATA. RFC 9113 section 6.1
    pub const DATA: u8 = 0;
    /// HEADERS. RFC 9113 section 6.2
    pub const HEADERS: u8 = 1;
    /// RST_STREAM. RFC 9113 section 6.4
    pub const RST_STREAM: u8 = 3;
    /// GOAWAY. RFC 9113 section 6.8
    pub const GOAWAY: u8 = 7;
    /// CONTINUATION. RFC 9113 section 6.10
    pub const CONTINUATION: u8 = 9;

    /// END_STREAM, of DATA and HEADERS.
    pub const fn ends_stream(self) -> bool {
        self.flags & 1 != 0
    }

    /// END_HEADERS, of HEADERS and CONTINUATION.
    pub const fn ends_head(self) -> bool {
        self.flags & 4 != 0
    }

    /// PADDED, of DATA and HEADERS.
    pub const fn is_padded(self) -> bool {
        self.flags & 8 != 0
    }
}

/// The place in one direction.
#[derive(Debug)]
pub struct FrameScan {
    /// Bytes of the preface or of a payload that are still to pass.
    skip: usize,
    header: [u8; HEADER_BYTES + CODE_BYTES],
    held: usize,
}

impl FrameScan {
    /// What a client sends, which begins with its preface.
    pub const fn of_client() -> Self {
        Self { skip: PREFACE_BYTES, header: [0; HEADER_BYTES + CODE_BYTES], held: 0 }
    }

    /// What a server sends.
    pub const fn of_server() -> Self {
        Self { skip: 0, ..Self::of_client() }
    }

    /// The next frame that begins in `bytes`, of which what was looked at is taken away; `None` once nothing is left.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<FrameHeader> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        *bytes = &bytes[skipped..];
        while self.held < self.wanted() {
            let taken = (self.wanted() - self.held).min(bytes.len());
            if taken == 0 {
                return None;
            }
            self.header[self.held..self.held + taken].copy_from_slice(&bytes[..taken]);
            self.held += taken;
            *bytes = &bytes[taken..];
        }
        let payload = std::mem::take(&mut self.held) - HEADER_BYTES;
        let [a, b, c, kind, flags, s, t, u, v, code @ ..] = self.header;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.skip = length as usize - payload;
        let stream = u32::from_be_bytes([s & 0x7f, t, u, v]);
        let code = if payload == 0 { 0 } else { u32::from_be_bytes(code) };
        Some(FrameHeader { length, kind, flags, stream, code })
    }

    /// Whether a frame has begun, by its header, whose payload has not all passed.
    pub const fn is_in_payload(&self) -> bool {
        self.skip > 0
    }

    /// How many bytes of the frame that begins have to be seen.
    fn wanted(&self) -> usize {
        let is_reset =
            self.held >= HEADER_BYTES && self.header[..4] == [0, 0, CODE_BYTES as u8, FrameHeader::RST_STREAM];
        if is_reset { HEADER_BYTES + CODE_BYTES } else { HEADER_BYTES }
    }
}
