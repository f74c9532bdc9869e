//! The request head as a target is to see it, whatever the target speaks.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TE, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version, request};

use super::upload::Upload;
use crate::message::failure::{Cause, Failure};
use crate::message::fields::strip_hop_by_hop;
use crate::message::interim::InformationalSink;
use crate::message::length::content_length;

/// A request head, checked and without the fields of any hop.
#[derive(Clone)]
pub(super) struct Outbound {
    pub(super) method: Method,
    authority: Option<Authority>,
    path: PathAndQuery,
    headers: HeaderMap,
    pub(super) sink: Option<InformationalSink>,
}

impl Outbound {
    /// Takes what matters out of a received head.
    ///
    /// # Errors
    ///
    /// `Content-Length` contradicts a body that is whole. Sent as it is, the difference would be taken from, or left
    /// to, the next request on the same connection.
    pub(super) fn new(head: request::Parts, upload: &Upload) -> Result<Self, Failure> {
        let request::Parts { method, uri, mut headers, mut extensions, .. } = head;
        strip_hop_by_hop(&mut headers);
        if let Upload::Whole(data) = upload {
            check_length(&headers, data.len())?;
        }
        let uri = uri.into_parts();
        let host = headers.remove(HOST);
        let authority = uri.authority.or_else(|| Authority::try_from(host?.as_bytes()).ok());
        let path = uri.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { method, authority, path, headers, sink: extensions.remove() })
    }

    /// Whether sending the request a second time does no harm. RFC 9110 section 9.2.2.
    pub(super) fn is_idempotent(&self) -> bool {
        self.method.is_idempotent()
    }

    /// How many bytes the body has, where the head says so.
    pub(super) fn declared(&self) -> Result<Option<u64>, Failure> {
        content_length(&self.headers).map_err(|violation| Failure::new(Cause::BadRequest, violation.to_string()))
    }

    /// The request in HTTP/1.1: origin-form and `Host`.
    pub(super) fn into_http1(mut self, upload: Upload) -> Request<Upload> {
        let host = match &self.authority {
            Some(authority) => HeaderValue::from_str(authority.as_str()).expect("an authority is field text"),
            None => HeaderValue::from_static(""),
        };
        self.headers.insert(HOST, host);
        if self.headers.contains_key(TE) {
            self.headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        self.declare_body(&upload);
        let mut request = Request::new(upload);
        *request.uri_mut() = Uri::from(self.path);
        *request.version_mut() = Version::HTTP_11;
        *request.method_mut() = self.method;
        *request.headers_mut() = self.headers;
        request
    }

    /// The request in HTTP/2: scheme and authority in the URI, no `Host`.
    pub(super) fn into_http2(self) -> Result<Request<()>, Failure> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = self.authority.as_ref().map(|_| Scheme::HTTP);
        uri.authority = self.authority;
        uri.path_and_query = Some(self.path);
        let uri = Uri::from_parts(uri).map_err(|error| Failure::new(Cause::BadRequest, error.to_string()))?;
        let mut request = Request::new(());
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        *request.method_mut() = self.method;
        *request.headers_mut() = self.headers;
        Ok(request)
    }

    /// States how the body is framed. hyper would guess, and send no body at all with a GET whose length is unknown.
    fn declare_body(&mut self, upload: &Upload) {
        if self.headers.contains_key(CONTENT_LENGTH) {
            return;
        }
        match upload {
            Upload::Streaming(_) => {
                self.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            Upload::Whole(data) if !data.is_empty() || expects_body(&self.method) => {
                self.headers.insert(CONTENT_LENGTH, HeaderValue::from(data.len()));
            }
            Upload::Whole(_) => {}
        }
    }
}

fn check_length(headers: &HeaderMap, actual: usize) -> Result<(), Failure> {
    if content_length(headers).is_ok_and(|declared| declared.is_none_or(|declared| declared == actual as u64)) {
        return Ok(());
    }
    Err(Failure::new(Cause::BadRequest, format!("Content-Length contradicts a body of {actual} bytes")))
}

/// Methods whose empty body is worth a `Content-Length: 0`. RFC 9110 section 8.6.
fn expects_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}
