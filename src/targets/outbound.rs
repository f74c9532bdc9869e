//! The request head as a target is to see it, whatever the target speaks.

use http::header::{CONTENT_LENGTH, HOST, HeaderMap};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version, request};

use super::upload::Upload;
use crate::message::cookie;
use crate::message::failure::{Cause, Failure};
use crate::message::fields::strip_hop_by_hop;
use crate::message::length::content_length;
use crate::message::upgrade::Protocol;

/// A request head, checked and without the fields of any hop.
#[derive(Clone)]
pub(super) struct Outbound {
    pub(super) method: Method,
    pub(super) authority: Option<Authority>,
    pub(super) path: PathAndQuery,
    /// Neither Host nor a field of a hop is among them, and one Cookie at most.
    pub(super) headers: HeaderMap,
    /// The Content-Length among the fields.
    pub(super) declared: Option<u64>,
    /// What an extended CONNECT asks for.
    pub(super) protocol: Option<Box<Protocol>>,
}

impl Outbound {
    /// Takes what matters out of a received head.
    ///
    /// # Errors
    ///
    /// `Content-Length` is not one number, or contradicts a body that is whole. Sent as it is, the difference would be
    /// taken from, or left to, the next request on the same connection.
    pub(super) fn new(head: request::Parts) -> Result<Self, Failure> {
        let request::Parts { method, uri, mut headers, mut extensions, .. } = head;
        let protocol = extensions.remove::<Protocol>().map(Box::new);
        strip_hop_by_hop(&mut headers);
        if protocol.is_some() {
            // What follows is no body.
            headers.remove(CONTENT_LENGTH);
        }
        cookie::join(&mut headers);
        let declared = content_length(&headers).map_err(|error| Failure::new(Cause::BadRequest, error.to_string()))?;
        let uri = uri.into_parts();
        let host = headers.remove(HOST);
        let authority = uri.authority.or_else(|| Authority::try_from(host?.as_bytes()).ok());
        let path = uri.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { method, authority, path, headers, declared, protocol })
    }

    /// A body that is whole has the length that the head declares, if it declares one.
    pub(super) fn check_length(&self, upload: &Upload) -> Result<(), Failure> {
        match (self.declared, upload) {
            (Some(declared), Upload::Whole(data)) if declared != data.len() as u64 => {
                let details = format!("Content-Length contradicts a body of {} bytes", data.len());
                Err(Failure::new(Cause::BadRequest, details))
            }
            _ => Ok(()),
        }
    }

    /// Whether sending the request a second time does no harm. RFC 9110 section 9.2.2.
    pub(super) fn is_idempotent(&self) -> bool {
        self.method.is_idempotent()
    }

    /// The request in HTTP/2: scheme and authority in the URI, no `Host`.
    pub(super) fn into_http2(self, scheme: Scheme) -> Result<Request<()>, Failure> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = self.authority.as_ref().map(|_| scheme);
        uri.authority = self.authority;
        uri.path_and_query = Some(self.path);
        let uri = Uri::from_parts(uri).map_err(|error| Failure::new(Cause::BadRequest, error.to_string()))?;
        let mut request = Request::new(());
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        *request.method_mut() = self.method;
        *request.headers_mut() = self.headers;
        if let Some(protocol) = self.protocol {
            request.extensions_mut().insert(h2::ext::Protocol::from(protocol.as_str()));
        }
        Ok(request)
    }
}
