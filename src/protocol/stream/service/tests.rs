use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::protocol::code::StreamCode;
use crate::protocol::stream::{ServiceEvent, ServiceReader, StreamError, encode_data_header, encode_end};

type Read = Result<Vec<ServiceEvent>, StreamError>;

/// What a stream gives that finishes after these chunks; neighbouring pieces of DATA are put together.
fn read_all(mut reader: ServiceReader, chunks: &[&[u8]]) -> Read {
    let mut events: Vec<ServiceEvent> = Vec::new();
    for chunk in chunks {
        reader.push(Bytes::copy_from_slice(chunk));
        while let Some(event) = reader.next()? {
            match (events.last_mut(), event) {
                (Some(ServiceEvent::Data(before)), ServiceEvent::Data(more)) => {
                    *before = [&before[..], &more[..]].concat().into();
                }
                (_, event) => events.push(event),
            }
        }
    }
    reader.finish()?;
    Ok(events)
}

fn request(bytes: &[u8]) -> Read {
    read_all(ServiceReader::of_requests(), &[bytes])
}

fn raw_answer(bytes: &[u8]) -> Read {
    read_all(ServiceReader::of_answers(StreamType::Raw), &[bytes])
}

fn flow_answer(bytes: &[u8]) -> Read {
    read_all(ServiceReader::of_answers(StreamType::Flow), &[bytes])
}

fn encode(events: &[ServiceEvent], out: &mut BytesMut) {
    for event in events {
        match event {
            ServiceEvent::Open(open) => encode_open(open, out),
            ServiceEvent::Opened => encode_opened(out),
            ServiceEvent::Refused(refused) => encode_refused(refused, out),
            ServiceEvent::Data(data) => {
                encode_data_header(data.len() as u64, out);
                out.put_slice(data);
            }
            ServiceEvent::Datagram(datagram) => {
                encode_datagram_header(datagram.len(), out);
                out.put_slice(datagram);
            }
            ServiceEvent::End => encode_end(out),
        }
    }
}

// spec: ST-1, ST-2
#[test]
fn the_first_integer_tells_what_a_stream_is() {
    assert_eq!(StreamType::of(b"\x03\x01"), Ok(Some(StreamType::Raw)));
    assert_eq!(StreamType::of(b"\x05"), Ok(Some(StreamType::Flow)));
    assert_eq!(StreamType::of(b""), Ok(None));
    assert_eq!(StreamType::of(b"\x40"), Ok(None));
    assert_eq!(StreamType::of(b"\x40\x41"), Err(StreamError::UnknownType(0x41)));
    assert_eq!(request(b"\x01"), Err(StreamError::UnknownType(1)), "an HTTP stream has another reader");
    assert_eq!(StreamError::UnknownType(1).code(), StreamCode::UnknownType);
}

// spec: ST-51
#[test]
fn only_the_order_of_a_raw_stream_or_a_flow_is_accepted() {
    let part = |name: char| -> &[u8] {
        match name {
            'R' => b"\x03",
            'F' => b"\x05",
            'O' => b"\x01\x03\x00\x01a",
            'o' => b"\x01\x04\x00\x01a\x07",
            'A' => b"\x01\x01\x00",
            'N' => b"\x0b\x02\x02\x00",
            'D' => b"\x03\x01x",
            'G' => b"\x0d\x01x",
            'E' => b"\x09\x00",
            'S' => b"\x02\x02zz",
            _ => unreachable!(),
        }
    };
    let bytes = |names: &str| names.chars().flat_map(|name| part(name).to_vec()).collect::<Vec<u8>>();
    for whole in ["ROE", "RODDE", "FoE", "FoGGE", "RSOSDSE"] {
        assert!(request(&bytes(whole)).is_ok(), "{whole}");
    }
    for whole in ["AE", "ADE", "N", "SN"] {
        assert!(raw_answer(&bytes(whole)).is_ok(), "{whole}");
    }
    for whole in ["AE", "AGE", "N"] {
        assert!(flow_answer(&bytes(whole)).is_ok(), "{whole}");
    }
    let misplaced = |frame| Err(StreamError::Misplaced(frame));
    for (wrong, frame) in [
        ("RE", ServiceFrame::End),
        ("RD", ServiceFrame::Data),
        ("ROO", ServiceFrame::Open),
        ("RN", ServiceFrame::Refused),
        ("ROG", ServiceFrame::Datagram),
        ("FoD", ServiceFrame::Data),
    ] {
        assert_eq!(request(&bytes(wrong)), misplaced(frame), "{wrong}");
    }
    assert_eq!(raw_answer(&bytes("AN")), misplaced(ServiceFrame::Refused));
    assert_eq!(raw_answer(&bytes("AG")), misplaced(ServiceFrame::Datagram));
    assert_eq!(flow_answer(&bytes("AD")), misplaced(ServiceFrame::Data));
    for after in [raw_answer(&bytes("NE")), raw_answer(&bytes("AES")), request(&bytes("ROED"))] {
        assert_eq!(after, Err(StreamError::AfterEnd));
    }
    assert_eq!(StreamError::Misplaced(ServiceFrame::End).code(), StreamCode::Protocol);
}

// spec: ST-61
#[test]
fn a_stream_that_finishes_before_end_gives_what_came_and_is_cut() {
    let mut reader = ServiceReader::of_answers(StreamType::Raw);
    reader.push(Bytes::from_static(b"\x01\x01\x00\x03\x05las"));
    assert_eq!(reader.next(), Ok(Some(ServiceEvent::Opened)));
    assert_eq!(reader.next(), Ok(Some(ServiceEvent::Data(Bytes::from_static(b"las")))));
    assert_eq!(reader.next(), Ok(None));
    assert_eq!(reader.finish(), Err(StreamError::Truncated));
    for cut in [&b""[..], b"\x01", b"\x01\x01\x00", b"\x01\x01\x00\x03"] {
        assert_eq!(raw_answer(cut), Err(StreamError::Truncated), "{cut:02x?}");
    }
}

// spec: ST-55, SE-5
#[test]
fn what_is_too_long_is_rejected_by_its_length_alone() {
    let opening = |actual| Err(StreamError::Limit { what: "the length of an opening", actual, max: 4096 });
    assert_eq!(request(b"\x03\x01\x50\x01"), opening(4097));
    assert_eq!(raw_answer(b"\x01\x50\x01"), opening(4097));
    assert_eq!(raw_answer(b"\x0b\x50\x01"), opening(4097));
    let datagram = Err(StreamError::Limit { what: "the length of a datagram", actual: 65528, max: 65527 });
    assert_eq!(flow_answer(b"\x01\x01\x00\x0d\x80\x00\xff\xf8"), datagram);
    assert_eq!(raw_answer(b"\x0a\x80\x01\x00\x01").unwrap_err().code(), StreamCode::Limit);
}

// spec: ST-55, SE-5
#[test]
fn a_promised_datagram_reserves_nothing() {
    let mut reader = ServiceReader::of_datagrams();
    reader.push(Bytes::from_static(b"\x0d\x80\x00\xff\xf7\x00"));
    assert_eq!(reader.next(), Ok(None));
    assert!(reader.held_capacity() < 1024, "{} bytes held for one byte received", reader.held_capacity());
}

// spec: ST-55
#[test]
fn data_shares_the_memory_it_came_in() {
    let received = Bytes::from_static(b"\x01\x01\x00\x03\x04body");
    let mut reader = ServiceReader::of_answers(StreamType::Raw);
    reader.push(received.clone());
    assert_eq!(reader.next(), Ok(Some(ServiceEvent::Opened)));
    let Ok(Some(ServiceEvent::Data(data))) = reader.next() else { panic!("expected DATA") };
    assert_eq!(data.as_ptr_range().end, received.as_ptr_range().end);
}

// spec: TB-15
#[test]
fn over_tcp_a_flow_is_datagrams_and_nothing_around_them() {
    let read = |bytes: &[u8]| read_all(ServiceReader::of_datagrams(), &[bytes]);
    let datagram = |payload: &'static [u8]| ServiceEvent::Datagram(Bytes::from_static(payload));
    assert_eq!(read(b""), Ok(vec![]));
    assert_eq!(read(b"\x0d\x01a\x0d\x00\x02\x01z"), Ok(vec![datagram(b"a"), datagram(b"")]));
    assert_eq!(read(b"\x0d\x02a"), Err(StreamError::Truncated));
    assert_eq!(read(b"\x0d"), Err(StreamError::Truncated));
    assert_eq!(read(b"\x02\x02z"), Err(StreamError::Truncated));
    assert_eq!(read(b"\x09\x00"), Err(StreamError::Misplaced(ServiceFrame::End)));
    assert_eq!(read(b"\x01\x01\x00"), Err(StreamError::Misplaced(ServiceFrame::Open)));
    assert_eq!(read(b"\x0f\x00"), Err(StreamError::UnknownFrame(0x0f)));
}

// spec: ST-52, ST-53, ST-54
#[test]
fn options_are_skipped_when_even_and_refused_when_odd() {
    let open = Open { service: "a".parse().unwrap(), flow: None, client: None };
    let request = |payload: &[u8]| match request(&[&[0x03, 0x01, payload.len() as u8], payload, b"\x09\x00"].concat()) {
        Ok(events) => Ok(events[0].clone()),
        Err(error) => Err(error),
    };
    assert_eq!(request(b"\x00\x01a\x02\x01z\x04\x00"), Ok(ServiceEvent::Open(open)));
    assert_eq!(request(b"\x00\x01a\x03\x00"), Err(Malformed::UnknownField(3).into()));
    assert_eq!(request(b"\x00\x01a\x04\x00\x02\x00"), Err(Malformed::FieldOrder(2).into()));
    assert_eq!(request(b"\x01\x01a"), Err(Malformed::Invalid("flag").into()));
    assert!(raw_answer(b"\x01\x03\x00\x02\x00\x09\x00").is_ok());
    assert_eq!(raw_answer(b"\x01\x01\x80"), Err(Malformed::Invalid("flag").into()));
    assert!(raw_answer(b"\x0b\x04\x02\x00\x02\x00").is_ok());
}

// spec: ST-54, ER-9
#[test]
fn an_unknown_cause_is_an_internal_one() {
    let refused = Refused { cause: OpenCause::Internal, reason: "no".to_owned() };
    assert_eq!(raw_answer(b"\x0b\x04\x3f\x02no"), Ok(vec![ServiceEvent::Refused(refused)]));
    assert_eq!(raw_answer(b"\x0b\x03\x02\x01\n"), Err(Malformed::Invalid("reason").into()));
}

// spec: ST-54
#[test]
fn a_reason_is_cut_and_cleaned_by_its_sender() {
    let long = Refused { cause: OpenCause::Limit, reason: "a\n".repeat(600) };
    let mut out = BytesMut::new();
    encode_refused(&long, &mut out);
    let events = raw_answer(&out).unwrap();
    let [ServiceEvent::Refused(read)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(read.reason, "a ".repeat(256));
}

fn payload() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 1..20).prop_map(Bytes::from)
}

fn client() -> impl Strategy<Value = ClientAddresses> {
    let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(one, other)| (one.into(), other.into()));
    let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(one, other)| (one.into(), other.into()));
    let addresses = prop_oneof![v4, v6];
    (addresses, any::<(u16, u16)>()).prop_map(|((source, destination), (from, to)): ((IpAddr, IpAddr), _)| {
        ClientAddresses { source: SocketAddr::new(source, from), destination: SocketAddr::new(destination, to) }
    })
}

// spec: ST-66
#[test]
fn who_connected_is_read_whole_or_not_at_all() {
    let open = |option: &[u8]| {
        let payload = [b"\x00\x01a\x06", &[option.len() as u8][..], option].concat();
        request(&[&[0x03, 0x01, payload.len() as u8], &payload[..], b"\x09\x00"].concat())
    };
    let v4 = [4, 192, 0, 2, 1, 198, 51, 100, 7, 0x12, 0x34, 0x01, 0xbb];
    let Ok(events) = open(&v4) else { panic!("it is whole") };
    let ServiceEvent::Open(Open { client: Some(client), .. }) = &events[0] else { panic!("{events:?}") };
    assert_eq!(client.to_string(), "192.0.2.1:4660 198.51.100.7:443");
    assert_eq!(client.to_string().parse(), Ok(*client));
    for wrong in [&v4[..12], &[&v4[..], &[0]].concat(), &[5; 13], &[6; 13], b""] {
        assert!(open(wrong).is_err(), "{wrong:?}");
    }
    for wrong in ["", "192.0.2.1:1", "192.0.2.1:1 192.0.2.2", "192.0.2.1:1  192.0.2.2:2", "a:1 b:2"] {
        assert_eq!(wrong.parse::<ClientAddresses>(), Err(ClientError), "{wrong}");
    }
}

prop_compose! {
    /// One direction of a raw stream or a flow, whole.
    fn any_direction()(
        is_flow in any::<bool>(),
        is_request in any::<bool>(),
        service in "[a-z]{1,64}",
        flow in 0..=varint::MAX,
        pieces in vec(payload(), 0..4),
        refusal in proptest::option::of(0..OpenCause::ALL.len()),
        client in proptest::option::of(client()),
    ) -> (StreamType, bool, Vec<ServiceEvent>) {
        let stream_type = if is_flow { StreamType::Flow } else { StreamType::Raw };
        let first = if is_request {
            ServiceEvent::Open(Open { service: service.parse().unwrap(), flow: is_flow.then_some(flow), client })
        } else if let Some(at) = refusal {
            let refused = Refused { cause: OpenCause::ALL[at], reason: service };
            return (stream_type, false, vec![ServiceEvent::Refused(refused)]);
        } else {
            ServiceEvent::Opened
        };
        let piece = if is_flow { ServiceEvent::Datagram } else { ServiceEvent::Data };
        // Neighbouring pieces of DATA are put together by the test's reader.
        let pieces = if is_flow { pieces } else { pieces.into_iter().take(1).collect() };
        let events = std::iter::once(first).chain(pieces.into_iter().map(piece)).chain([ServiceEvent::End]);
        (stream_type, is_request, events.collect())
    }
}

proptest! {
    // spec: ST-50, ST-52, ST-53, ST-54
    #[test]
    fn a_direction_round_trips_in_any_split(
        (stream_type, is_request, events) in any_direction(),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut out = BytesMut::new();
        encode(&events, &mut out);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(out.len())).collect();
        cuts.extend([0, out.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &out[pair[0]..pair[1]]).collect();
        let reader = if is_request { ServiceReader::of_requests() } else { ServiceReader::of_answers(stream_type) };
        prop_assert_eq!(read_all(reader, &chunks), Ok(events));
    }
}
