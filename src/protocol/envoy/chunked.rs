//! The chunked coding (RFC 9112 section 7.1), as far as a handshake needs it: an empty body, or the words of a refusal.

/// The longest line of a chunk's size, and of a trailer.
const MAX_LINE: usize = 1024;
/// The most lines in the trailers.
const MAX_TRAILERS: usize = 100;

/// The bytes are not chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadChunk;

/// A piece of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Never empty.
    Data(&'a [u8]),
    /// There is no more, and there were no further bytes taken.
    End,
}

/// Reads one body; keeps at most one line.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    line: Vec<u8>,
    trailers: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

impl Chunked {
    pub(super) const fn new() -> Self {
        Self { state: State::Size, line: Vec::new(), trailers: 0 }
    }

    /// Takes the next piece from `input`; `None` when more bytes are needed first.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, BadChunk> {
        loop {
            self.state = match self.state {
                State::Done => return Ok(Some(Piece::End)),
                State::Data(0) => State::DataEnd,
                State::Data(left) => {
                    let (data, rest) = input.split_at(input.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                    *input = rest;
                    self.state = State::Data(left - data.len() as u64);
                    return Ok((!data.is_empty()).then_some(Piece::Data(data)));
                }
                State::Size | State::DataEnd | State::Trailers => {
                    if !self.read_line(input)? {
                        return Ok(None);
                    }
                    self.end_line()?
                }
            };
        }
    }

    /// Whether the line is complete; without its CR LF then.
    fn read_line(&mut self, input: &mut &[u8]) -> Result<bool, BadChunk> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            if byte == b'\n' {
                return if self.line.pop() == Some(b'\r') { Ok(true) } else { Err(BadChunk) };
            }
            if self.line.len() == MAX_LINE {
                return Err(BadChunk);
            }
            self.line.push(byte);
        }
        Ok(false)
    }

    fn end_line(&mut self) -> Result<State, BadChunk> {
        let line = std::mem::take(&mut self.line);
        match self.state {
            State::Size => match size(&line)? {
                0 => Ok(State::Trailers),
                size => Ok(State::Data(size)),
            },
            State::Trailers if line.is_empty() => Ok(State::Done),
            State::Trailers if self.trailers < MAX_TRAILERS => {
                self.trailers += 1;
                Ok(State::Trailers)
            }
            State::DataEnd if line.is_empty() => Ok(State::Size),
            _ => Err(BadChunk),
        }
    }
}

/// The size before any extension.
fn size(line: &[u8]) -> Result<u64, BadChunk> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii_end();
    let is_hex = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok().filter(|_| is_hex).ok_or(BadChunk)?;
    u64::from_str_radix(text, 16).map_err(|_| BadChunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Expected<'a> = Result<(&'a [u8], bool, &'a [u8]), BadChunk>;

    /// The data, whether it ended, and what was left.
    fn read(bytes: &[u8], step: usize) -> Result<(Vec<u8>, bool, Vec<u8>), BadChunk> {
        let (mut chunked, mut data, mut ended, mut rest) = (Chunked::new(), Vec::new(), false, Vec::new());
        for mut input in bytes.chunks(step) {
            while !ended {
                match chunked.next(&mut input)? {
                    Some(Piece::Data(more)) => data.extend_from_slice(more),
                    Some(Piece::End) => ended = true,
                    None => break,
                }
            }
            rest.extend_from_slice(input);
        }
        Ok((data, ended, rest))
    }

    // spec: EV-6, EV-10
    #[test]
    fn chunks_are_read_in_any_split_and_nothing_after_them() {
        let cases: [(&[u8], Expected<'_>); 10] = [
            (b"0\r\n\r\nRPING", Ok((b"", true, b"RPING"))),
            (b"0;a=b\r\nt: 1\r\n\r\n", Ok((b"", true, b""))),
            (b"3\r\nabc\r\n2 \r\nde\r\n0\r\n\r\n", Ok((b"abcde", true, b""))),
            (b"3\r\nab", Ok((b"ab", false, b""))),
            (b"0\r\n", Ok((b"", false, b""))),
            (b"3\r\nabcd\r\n", Err(BadChunk)),
            (b"0\n\n", Err(BadChunk)),
            (b"x\r\n", Err(BadChunk)),
            (b"\r\n", Err(BadChunk)),
            (b"00000000000000000\r\n", Err(BadChunk)),
        ];
        for (bytes, expected) in cases {
            let expected = expected.map(|(data, ended, rest)| (data.to_vec(), ended, rest.to_vec()));
            for step in [1, 2, 3, bytes.len()] {
                let got = read(bytes, step);
                // What is wrong shows only once it has arrived, but then in every split.
                assert_eq!(got, expected, "{bytes:?} by {step}");
            }
        }
        assert_eq!(read(&[b'1'; MAX_LINE + 1], 100), Err(BadChunk));
        assert_eq!(read(&[b"0\r\n".to_vec(), b"a:b\r\n".repeat(101)].concat(), 9), Err(BadChunk));
    }
}
