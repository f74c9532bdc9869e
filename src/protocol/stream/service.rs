//! What opens a raw stream or a flow: OPEN, OPENED and REFUSED, and the frames behind them. spec: ST-50 to ST-54
//!
//! The responder names a service in OPEN; the initiator connects to its target and answers OPENED or REFUSED. DATA and
//! END have the numbers that they have on an HTTP stream, so [`encode_data_header`](super::encode_data_header) and
//! [`encode_end`](super::encode_end) write them here too.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use bytes::{BufMut, BytesMut};

use crate::id::ServiceName;
use crate::protocol::code::OpenCause;
use crate::protocol::handshake::identifier;
use crate::protocol::limits;
use crate::protocol::stream::{StreamType, put_frame};
use crate::protocol::varint;
use crate::protocol::wire::{Cursor, Fields, Malformed, printable, put_field, put_sized, text, unknown_field, whole};

/// The type of a frame on a raw stream or a flow. spec: ST-50
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceFrame {
    /// Responder, first: which service is wanted. The other way the same number is OPENED: it is connected.
    Open = 0x01,
    /// Bytes of a raw stream.
    Data = 0x03,
    /// This direction of a raw stream, or the whole flow, is over.
    End = 0x09,
    /// Initiator, instead of OPENED, and last: it is not connected.
    Refused = 0x0b,
    /// One datagram of a flow.
    Datagram = 0x0d,
}

impl ServiceFrame {
    /// Every type, in wire order.
    pub const ALL: [Self; 5] = [Self::Open, Self::Data, Self::End, Self::Refused, Self::Datagram];

    /// The number on the wire.
    pub const fn number(self) -> u64 {
        self as u64
    }

    /// The type with this number, if there is one.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.number() == number)
    }
}

/// What OPEN says. spec: ST-52
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The exported service that is wanted.
    pub service: ServiceName,
    /// The id of the flow that is wanted, at most 2^62 - 1; without one a raw stream is. spec: ST-70
    pub flow: Option<u64>,
    /// Who connected to the responder, if that says so. spec: ST-66
    pub client: Option<ClientAddresses>,
}

/// Who connected to a responder, and where: what a target may be told. spec: ST-66
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddresses {
    /// Who connected.
    pub source: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
}

impl ClientAddresses {
    /// Both addresses as what they are, where IPv4 came through a socket of IPv6.
    pub fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Self { source: canonical(source), destination: canonical(destination) }
    }
}

/// As it stands in the field of a tunnel over TCP. spec: TB-16
impl fmt::Display for ClientAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.source, self.destination)
    }
}

/// A text that has not two addresses. spec: TB-16
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not two addresses with ports")]
pub struct ClientError;

impl FromStr for ClientAddresses {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let (source, destination) = text.split_once(' ').ok_or(ClientError)?;
        let address = |text: &str| text.parse().map_err(|_| ClientError);
        Ok(Self { source: address(source)?, destination: address(destination)? })
    }
}

impl Open {
    /// The type of the stream that it opens.
    pub const fn stream_type(&self) -> StreamType {
        if self.flow.is_some() { StreamType::Flow } else { StreamType::Raw }
    }
}

/// What REFUSED says. spec: ST-54
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}: {reason}")]
pub struct Refused {
    /// Which kind of no.
    pub cause: OpenCause,
    /// For people; at most 512 bytes, a longer one is cut. May be empty.
    pub reason: String,
}

/// The flags of OPEN and OPENED: none is defined, and a bit that is not understood is an error. spec: ST-52, ST-53
const NO_FLAGS: u8 = 0;

/// Appends the stream type and OPEN: the first bytes of a raw stream or a flow. spec: ST-52
pub fn encode_open(open: &Open, out: &mut BytesMut) {
    varint::encode(out, open.stream_type().number());
    put_frame(out, ServiceFrame::Open.number(), |out| {
        out.put_u8(NO_FLAGS);
        put_sized(out, open.service.as_str().as_bytes());
        if let Some(flow) = open.flow {
            varint::encode(out, flow);
        }
        if let Some(client) = &open.client {
            put_field(out, CLIENT_OPTION, |out| put_client(client, out));
        }
    });
}

/// Appends OPENED: the target is connected. spec: ST-53
pub fn encode_opened(out: &mut BytesMut) {
    put_frame(out, ServiceFrame::Open.number(), |out| out.put_u8(NO_FLAGS));
}

/// Appends REFUSED: the target is not connected; the sender finishes then. spec: ST-54
pub fn encode_refused(refused: &Refused, out: &mut BytesMut) {
    put_frame(out, ServiceFrame::Refused.number(), |out| {
        varint::encode(out, refused.cause.number().into());
        put_sized(out, printable(&refused.reason, limits::MAX_REASON_BYTES).as_bytes());
    });
}

/// Appends type and length of a DATAGRAM frame; `len` bytes of payload must follow, at most 65,527. spec: ST-50
pub fn encode_datagram_header(len: usize, out: &mut BytesMut) {
    debug_assert!(len <= limits::MAX_DATAGRAM_BYTES, "a datagram of {len} bytes");
    varint::encode(out, ServiceFrame::Datagram.number());
    varint::encode(out, len as u64);
}

/// Reads the payload of an OPEN on a stream of this type. spec: ST-52
pub(super) fn read_open(payload: &[u8], stream_type: StreamType) -> Result<Open, Malformed> {
    let mut cursor = Cursor::new(payload);
    read_no_flags(&mut cursor)?;
    let service = identifier(cursor.sized()?, "service name", ServiceName::new)?;
    let flow = match stream_type {
        StreamType::Flow => Some(cursor.varint()?),
        StreamType::Http | StreamType::Raw => None,
    };
    let client = read_client_option(cursor)?;
    Ok(Open { service, flow, client })
}

/// The option of OPEN that says who connected. spec: ST-66
pub const CLIENT_OPTION: u64 = 6;
const IPV4: u8 = 4;
const IPV6: u8 = 6;

fn read_client_option(cursor: Cursor<'_>) -> Result<Option<ClientAddresses>, Malformed> {
    let (mut options, mut client) = (Fields::behind(cursor), None);
    while let Some((id, value)) = options.next()? {
        match id {
            CLIENT_OPTION => client = Some(whole(value, read_client)?),
            id => unknown_field(id)?,
        }
    }
    Ok(client)
}

/// Both addresses, then both ports. spec: ST-66
fn read_client(cursor: &mut Cursor<'_>) -> Result<ClientAddresses, Malformed> {
    let (source, destination) = match cursor.byte()? {
        IPV4 => (IpAddr::V4(Ipv4Addr::from_bits(number(cursor)?)), IpAddr::V4(Ipv4Addr::from_bits(number(cursor)?))),
        IPV6 => (read_v6(cursor)?.into(), read_v6(cursor)?.into()),
        _ => return Err(Malformed::Invalid("family of addresses")),
    };
    let ports: u32 = number(cursor)?;
    let (source_port, port) = ((ports >> 16) as u16, ports as u16);
    Ok(ClientAddresses {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, port),
    })
}

fn number(cursor: &mut Cursor<'_>) -> Result<u32, Malformed> {
    Ok(u32::from_be_bytes([cursor.byte()?, cursor.byte()?, cursor.byte()?, cursor.byte()?]))
}

fn read_v6(cursor: &mut Cursor<'_>) -> Result<Ipv6Addr, Malformed> {
    let mut bits = 0;
    for _ in 0..4 {
        bits = (bits << 32) | u128::from(number(cursor)?);
    }
    Ok(Ipv6Addr::from_bits(bits))
}

fn put_client(client: &ClientAddresses, out: &mut BytesMut) {
    let ClientAddresses { source, destination } = client;
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.put_u8(IPV4);
            out.put_slice(&from.octets());
            out.put_slice(&to.octets());
        }
        (from, to) => {
            out.put_u8(IPV6);
            for address in [from, to] {
                out.put_slice(&as_v6(address).octets());
            }
        }
    }
    out.put_u16(source.port());
    out.put_u16(destination.port());
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Reads the payload of an OPENED. spec: ST-53
pub(super) fn read_opened(payload: &[u8]) -> Result<(), Malformed> {
    let mut cursor = Cursor::new(payload);
    read_no_flags(&mut cursor)?;
    skip_options(cursor)
}

/// Reads the payload of a REFUSED; an unknown cause is `internal`. spec: ST-54, ER-9
pub(super) fn read_refused(payload: &[u8]) -> Result<Refused, Malformed> {
    let mut cursor = Cursor::new(payload);
    let cause = OpenCause::from_number(cursor.varint()?).unwrap_or(OpenCause::Internal);
    let reason = text(cursor.sized()?, limits::MAX_REASON_BYTES, "reason")?;
    skip_options(cursor)?;
    Ok(Refused { cause, reason })
}

fn read_no_flags(cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
    if cursor.byte()? == NO_FLAGS { Ok(()) } else { Err(Malformed::Invalid("flag")) }
}

/// Fields to the end of the payload, of which none is defined yet. spec: HS-5, HS-6, ST-52
fn skip_options(cursor: Cursor<'_>) -> Result<(), Malformed> {
    let mut options = Fields::behind(cursor);
    while let Some((id, _)) = options.next()? {
        unknown_field(id)?;
    }
    Ok(())
}
