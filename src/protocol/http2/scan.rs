//! Finds the frame headers in one direction of a connection, in any split.

/// The preface of a client. RFC 9113 section 3.4.
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;

/// The part of a frame's header that decides what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of its payload.
    pub length: u32,
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
}

impl FrameHeader {
    /// DATA. RFC 9113 section 6.1
    pub const DATA: u8 = 0;
    /// HEADERS. RFC 9113 section 6.2
    pub const HEADERS: u8 = 1;
    /// GOAWAY. RFC 9113 section 6.8
    pub const GOAWAY: u8 = 7;

    /// END_STREAM, of DATA and HEADERS.
    pub const fn ends_stream(self) -> bool {
        self.flags & 1 != 0
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
    header: [u8; HEADER_BYTES],
    held: usize,
}

impl FrameScan {
    /// What a client sends, which begins with its preface.
    pub const fn of_client() -> Self {
        Self { skip: PREFACE_BYTES, header: [0; HEADER_BYTES], held: 0 }
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
        let taken = (HEADER_BYTES - self.held).min(bytes.len());
        self.header[self.held..self.held + taken].copy_from_slice(&bytes[..taken]);
        self.held += taken;
        *bytes = &bytes[taken..];
        if self.held < HEADER_BYTES {
            return None;
        }
        self.held = 0;
        let [a, b, c, kind, flags, ..] = self.header;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.skip = length as usize;
        Some(FrameHeader { length, kind, flags })
    }
}
