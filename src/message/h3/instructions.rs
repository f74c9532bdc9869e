//! What a client may say on its streams of QPACK to an end that has no dynamic table, and sends no reference to one. RFC 9204
//! section 4

/// Of whose stream this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// Of the client's encoder.
    Encoder,
    /// Of the client's decoder.
    Decoder,
}

/// Something that it must not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

/// Set Dynamic Table Capacity to nothing, all that it can be. RFC 9204 section 4.3.1
const NO_CAPACITY: u8 = 0x20;
/// Stream Cancellation: the bits that say so, and those of an id that goes on. RFC 9204 section 4.4.2
const CANCELLATION: u8 = 0x40;
const KIND: u8 = 0xc0;
const ID: u8 = 0x3f;
/// Most further bytes of an id.
const MAX_MORE: u8 = 9;

/// Reads one of the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instructions {
    stream: Stream,
    /// Bytes of an integer that may still come.
    more: u8,
}

impl Instructions {
    pub(super) const fn new(stream: Stream) -> Self {
        Self { stream, more: 0 }
    }

    /// Reads the next bytes. `begun` grows by the instructions that begin in them, up to the one that is broken.
    pub(super) fn push(&mut self, bytes: &[u8], begun: &mut u32) -> Result<(), Broken> {
        for byte in bytes {
            if self.more > 0 {
                self.more = if byte & 0x80 == 0 { 0 } else { self.more - 1 };
                // An integer that is still not whole is larger than any id.
                if self.more == 0 && byte & 0x80 != 0 {
                    return Err(Broken);
                }
                continue;
            }
            *begun = begun.saturating_add(1);
            match self.stream {
                Stream::Encoder if *byte == NO_CAPACITY => {}
                Stream::Decoder if byte & KIND == CANCELLATION => {
                    self.more = if byte & ID == ID { MAX_MORE } else { 0 };
                }
                _ => return Err(Broken),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stream: Stream, bytes: &[u8]) -> Result<u32, Broken> {
        let (mut whole, mut sum) = (0, 0);
        let read = Instructions::new(stream).push(bytes, &mut whole);
        let mut split = Instructions::new(stream);
        let pieces = bytes.iter().try_for_each(|byte| split.push(&[*byte], &mut sum));
        assert_eq!((pieces, sum), (read, whole), "the split changes nothing");
        read.map(|()| whole)
    }

    #[test]
    fn an_encoder_may_give_up_its_table_and_nothing_else() {
        assert_eq!(read(Stream::Encoder, &[0x20, 0x20, 0x20]), Ok(3));
        for bad in [&[0x21][..], &[0x3f, 0xe1, 0x1f], &[0xc1, 0], &[0x41, b'a', 0], &[0x00], &[0x20, 0x80]] {
            assert_eq!(read(Stream::Encoder, bad), Err(Broken), "{bad:x?}");
        }
    }

    #[test]
    fn a_decoder_may_cancel_streams_and_acknowledge_nothing() {
        assert_eq!(read(Stream::Decoder, &[0x40, 0x7e, 0x7f, 0x80, 0x80, 0x01, 0x44]), Ok(4));
        for bad in [&[0x80][..], &[0x01], &[0x00], &[0x3f, 0xff, 0x7f], &[0x40, 0xff]] {
            assert_eq!(read(Stream::Decoder, bad), Err(Broken), "{bad:x?}");
        }
        assert_eq!(read(Stream::Decoder, &[[0x7f].as_slice(), &[0xff; 9]].concat()), Err(Broken), "without end");
        assert_eq!(read(Stream::Decoder, &[[0x7f].as_slice(), &[0xff; 8], &[0x7f]].concat()), Ok(1));
    }
}
