//! The first frame of either direction of the control stream. spec: FL-33, FL-34

use bytes::BytesMut;

use crate::protocol::fleet::{Greeted, Greeting, GreetingError, encode_refusal};
use crate::protocol::handshake::Refusal;

/// How much is read at once.
const READ_BYTES: usize = 4 * 1024;

/// Why there is no greeting.
#[derive(Debug)]
pub(super) enum NotGreeted {
    /// What came is none.
    Broken(GreetingError),
    /// The connection, or its control stream, ended before.
    Ended(Option<quinn::ConnectionError>),
}

/// Reads the greeting; what came behind it is for the session. Not cancel safe.
pub(super) async fn read(recv: &mut quinn::RecvStream) -> Result<(Greeted, BytesMut), NotGreeted> {
    let mut received = BytesMut::new();
    loop {
        if let Some(greeted) = Greeted::take(&mut received).map_err(NotGreeted::Broken)? {
            return Ok((greeted, received));
        }
        match recv.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => received.extend_from_slice(&chunk.bytes),
            Ok(None) => return Err(NotGreeted::Ended(None)),
            Err(quinn::ReadError::ConnectionLost(error)) => return Err(NotGreeted::Ended(Some(error))),
            Err(_) => return Err(NotGreeted::Ended(None)),
        }
    }
}

/// Says who this end is.
pub(super) async fn greet(send: &mut quinn::SendStream, own: &Greeting) -> Result<(), quinn::WriteError> {
    let mut out = BytesMut::new();
    own.encode(&mut out);
    send.write_chunk(out.freeze()).await
}

/// Says no, and ends the direction.
pub(super) async fn refuse(send: &mut quinn::SendStream, refusal: &Refusal) -> Result<(), quinn::WriteError> {
    let mut out = BytesMut::new();
    encode_refusal(refusal, &mut out);
    send.write_chunk(out.freeze()).await?;
    let _ = send.finish();
    Ok(())
}
