//! WebSockets over Envoy's tunnels. The fields of RFC 6455 that belong to one hop of HTTP/1.1, key and accept, go through them:
//! an Envoy makes an extended CONNECT of its client's Upgrade and leaves the key in it, and makes an Upgrade for its target of
//! an extended CONNECT with the key that it finds there; the answer it passes on, too. So each end does here what the Envoy
//! in the other one's place leaves to be done. spec: EV-48, EV-49

use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use http::{HeaderMap, HeaderValue, response};

use crate::message::failure::{Cause, Failure};
use crate::message::upgrade::{self, DECLINED_FIELD, Protocol};
use crate::protocol::stream::StreamError;
use crate::protocol::wire::Malformed;

/// The responder's side: a key that went with an extended CONNECT.
#[derive(Debug)]
pub(in crate::transport::tcp) struct Asked(HeaderValue);

impl Asked {
    /// Puts a key among the fields of a request that asks for a WebSocket.
    pub(in crate::transport::tcp) fn with(protocol: Option<&Protocol>, fields: &mut HeaderMap) -> Option<Box<Self>> {
        protocol.filter(|protocol| protocol.is_websocket())?;
        let key = upgrade::new_key(rand::random());
        fields.insert(SEC_WEBSOCKET_KEY, key.clone());
        Some(Box::new(Self(key)))
    }

    /// Looks for the answer to the key. An Envoy passes on any 2xx of its target as if it were consent: without an answer it is
    /// none. spec: EV-48
    ///
    /// # Errors
    /// The answer is one to another key.
    pub(in crate::transport::tcp) fn settle(&self, head: &mut response::Parts) -> Result<(), StreamError> {
        let accepted = head.headers.remove(SEC_WEBSOCKET_ACCEPT);
        if !head.status.is_success() {
            return Ok(());
        }
        match accepted {
            Some(accepted) if accepted == upgrade::accept(&self.0) => Ok(()),
            Some(_) => Err(Malformed::Invalid("sec-websocket-accept").into()),
            None => {
                head.headers.insert(DECLINED_FIELD, HeaderValue::from_static("1"));
                Ok(())
            }
        }
    }
}

/// The initiator's side: an extended CONNECT of an Envoy, with the key of the Envoy's client where that has one.
#[derive(Debug)]
pub(in crate::transport::tcp) struct Asking(Option<HeaderValue>);

impl Asking {
    /// Takes the key out of the fields of a request.
    pub(in crate::transport::tcp) fn of(fields: &mut HeaderMap) -> Box<Self> {
        Box::new(Self(fields.remove(SEC_WEBSOCKET_KEY)))
    }

    /// Answers the key, and does not let an Envoy take an answer for consent that is none. spec: EV-49
    ///
    /// # Errors
    /// The target did not switch protocols: what an Envoy is told instead.
    pub(in crate::transport::tcp) fn settle(&self, head: &mut response::Parts) -> Result<(), Failure> {
        if !head.status.is_success() {
            return Ok(());
        }
        if head.headers.remove(DECLINED_FIELD).is_some() {
            let details = format!("the target answered {} and did not switch protocols", head.status.as_u16());
            return Err(Failure::new(Cause::UpgradeFailed, details));
        }
        if let Some(key) = &self.0 {
            head.headers.insert(SEC_WEBSOCKET_ACCEPT, upgrade::accept(key));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http::{Response, StatusCode};

    use super::*;

    fn answer(status: u16, fields: &[(&'static str, &str)]) -> response::Parts {
        let builder = Response::builder().status(status);
        let builder = fields.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).unwrap().into_parts().0
    }

    // spec: EV-48
    #[test]
    fn only_an_answer_to_the_key_is_consent() {
        let mut fields = HeaderMap::new();
        assert!(Asked::with(Protocol::new("tcp").as_ref(), &mut fields).is_none() && fields.is_empty());
        let asked = Asked::with(Some(&Protocol::websocket()), &mut fields).unwrap();
        let accept = upgrade::accept(&fields[SEC_WEBSOCKET_KEY]);
        let mut consent = answer(200, &[("sec-websocket-accept", accept.to_str().unwrap())]);
        asked.settle(&mut consent).unwrap();
        assert!(consent.headers.is_empty());
        let mut none = answer(200, &[]);
        asked.settle(&mut none).unwrap();
        assert!(none.headers.contains_key(DECLINED_FIELD));
        let mut refused = answer(403, &[]);
        asked.settle(&mut refused).unwrap();
        assert!(refused.headers.is_empty());
        assert!(asked.settle(&mut answer(200, &[("sec-websocket-accept", "another")])).is_err());
    }

    // spec: EV-49
    #[test]
    fn a_key_is_answered_and_a_declined_wish_is_a_failure() {
        let key = ("sec-websocket-key", HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        let mut fields: HeaderMap = [key].into_iter().map(|(name, value)| (name.parse().unwrap(), value)).collect();
        let asking = Asking::of(&mut fields);
        assert!(fields.is_empty());
        let mut consent = answer(200, &[]);
        asking.settle(&mut consent).unwrap();
        assert_eq!(consent.headers[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut refused = answer(404, &[]);
        asking.settle(&mut refused).unwrap();
        assert!(refused.headers.is_empty());
        let failure = asking.settle(&mut answer(200, &[("adit-declined", "1")])).unwrap_err();
        assert_eq!(failure.cause().status(), StatusCode::BAD_GATEWAY);
        let mut keyless = answer(200, &[]);
        Asking::of(&mut HeaderMap::new()).settle(&mut keyless).unwrap();
        assert!(keyless.headers.is_empty());
    }
}
