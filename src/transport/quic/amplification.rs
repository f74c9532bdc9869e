//! Holds a responder to three times what an address has sent until that address has proven that it is not forged. RFC 9000
//! section 8.1.
//!
//! quinn keeps the limit in whole datagrams: with a byte of it left it sends a full one, so that 1,200 bytes are answered
//! with 3,822 (quinn issue 1082). This sits between it and the socket, and drops what goes beyond; to quinn that is a
//! packet that the network lost.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// How much more than it has sent an unproven address is sent. RFC 9000 section 8.1.
const FACTOR: u64 = 3;
/// Addresses that are remembered at a time; the oldest is forgotten beyond, and then only quinn's own limit holds for it.
/// One that had proven itself and dials again does so anew.
const MAX_WATCHED: usize = 4_096;
/// The bit of a long header, and the type in it of what a client can send before it has read an answer. RFC 9000 section
/// 17.2.
const LONG_HEADER: u8 = 0x80;
const TYPE: u8 = 0x30;
const INITIAL: u8 = 0x00;
const EARLY_DATA: u8 = 0x10;

/// A socket that does not amplify.
pub(super) struct Bounded {
    socket: Arc<dyn AsyncUdpSocket>,
    unproven: Mutex<Unproven>,
    /// How many have proven nothing: most packets are of no address that is among them.
    watched: AtomicUsize,
}

/// What went to and fro with addresses that may be forged, and which of them have turned out not to be: an initiator dials
/// all its tunnels from one address.
#[derive(Debug, Default)]
struct Unproven {
    paths: HashMap<SocketAddr, Path>,
    /// In the order of their first packet.
    order: VecDeque<SocketAddr>,
    /// How many have proven nothing yet.
    watched: usize,
}

#[derive(Debug, Clone, Copy)]
enum Path {
    Unproven { received: u64, sent: u64 },
    Proven,
}

impl fmt::Debug for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bounded").field(&self.socket).finish()
    }
}

impl Unproven {
    /// A datagram came from this address. An Initial and early data are all that a client can make up; who sends anything
    /// else has read an answer. If it has not, what follows is quinn's to judge.
    fn received(&mut self, from: SocketAddr, first: u8, length: usize) {
        let is_initial = first & LONG_HEADER != 0 && matches!(first & TYPE, INITIAL | EARLY_DATA);
        match self.paths.get_mut(&from) {
            Some(Path::Unproven { received, .. }) if is_initial => *received += length as u64,
            Some(path @ Path::Unproven { .. }) => {
                *path = Path::Proven;
                self.watched -= 1;
            }
            None if is_initial => {
                self.forget_oldest();
                self.paths.insert(from, Path::Unproven { received: length as u64, sent: 0 });
                self.order.push_back(from);
                self.watched += 1;
            }
            Some(Path::Proven) | None => {}
        }
    }

    fn forget_oldest(&mut self) {
        while self.order.len() >= MAX_WATCHED {
            let oldest = self.order.pop_front().and_then(|oldest| self.paths.remove(&oldest));
            if let Some(Path::Unproven { .. }) = oldest {
                self.watched -= 1;
            }
        }
    }

    /// How much of datagrams of this size may go to this address, bytes; that is counted.
    fn may_send(&mut self, to: SocketAddr, length: usize, datagram: usize) -> usize {
        let Some(Path::Unproven { received, sent }) = self.paths.get_mut(&to) else { return length };
        let room = (FACTOR * *received).saturating_sub(*sent);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let fits = if length <= room { length } else { room / datagram * datagram };
        *sent += fits as u64;
        fits
    }

    /// So many bytes did not go to this address after all.
    fn not_sent(&mut self, to: SocketAddr, length: usize) {
        if let Some(Path::Unproven { sent, .. }) = self.paths.get_mut(&to) {
            *sent = sent.saturating_sub(length as u64);
        }
    }
}

impl Bounded {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Self {
        Self { socket, unproven: Mutex::default(), watched: AtomicUsize::new(0) }
    }

    fn unproven(&self) -> MutexGuard<'_, Unproven> {
        // Counters: a panic elsewhere leaves at worst one packet uncounted.
        self.unproven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, meta: &RecvMeta, bytes: &[u8]) {
        for datagram in bytes[..meta.len.min(bytes.len())].chunks(meta.stride.max(1)) {
            let Some(first) = datagram.first() else { continue };
            if first & LONG_HEADER == 0 && self.watched.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut unproven = self.unproven();
            unproven.received(meta.addr, *first, datagram.len());
            self.watched.store(unproven.watched, Ordering::Relaxed);
        }
    }

    /// How much of this may go out, bytes. Whatever the kind of packet: a server has keys for all of them before its client
    /// has proven anything.
    fn may_send(&self, transmit: &Transmit<'_>) -> usize {
        let (length, datagram) = (transmit.contents.len(), transmit.segment_size.unwrap_or(transmit.contents.len()));
        if self.watched.load(Ordering::Relaxed) == 0 {
            return length;
        }
        self.unproven().may_send(transmit.destination, length, datagram.max(1))
    }
}

impl AsyncUdpSocket for Bounded {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.may_send(transmit) {
            0 => Ok(()),
            most => self
                .socket
                .try_send(&Transmit { contents: &transmit.contents[..most], ..*transmit })
                // The same bytes come again when the socket takes them.
                .inspect_err(|_| self.unproven().not_sent(transmit.destination, most)),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.socket.poll_recv(cx, bufs, meta))?;
        for (meta, bytes) in meta.iter().zip(bufs.iter()).take(received) {
            self.note(meta, bytes);
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: u8 = 0xc0;
    const EARLY: u8 = 0xd0;
    const HANDSHAKE: u8 = 0xe0;
    const SHORT: u8 = 0x40;

    fn address(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    fn sent(unproven: &mut Unproven, port: u16, length: usize) -> usize {
        unproven.may_send(address(port), length, 1200)
    }

    // spec: SE-23
    #[test]
    fn an_address_that_may_be_forged_is_sent_three_times_what_it_sent_and_not_a_byte_more() {
        let mut unproven = Unproven::default();
        unproven.received(address(1), FIRST, 1200);
        assert_eq!(sent(&mut unproven, 1, 2622), 2622);
        assert_eq!(sent(&mut unproven, 1, 1200), 0, "a retransmission");
        assert_eq!(sent(&mut unproven, 1, 978), 978);
        unproven.received(address(1), FIRST, 1200);
        assert_eq!(sent(&mut unproven, 1, 4000), 3600, "whole datagrams");
        assert_eq!(sent(&mut unproven, 2, 1_000_000), 1_000_000, "a tunnel that is up");
    }

    #[test]
    fn what_the_socket_did_not_take_is_not_counted() {
        let mut unproven = Unproven::default();
        unproven.received(address(1), FIRST, 1200);
        for _ in 0..3 {
            assert_eq!(sent(&mut unproven, 1, 3600), 3600);
            unproven.not_sent(address(1), 3600);
        }
    }

    #[test]
    fn who_has_read_an_answer_is_not_held_to_it_nor_is_what_it_dials_next() {
        for proof in [HANDSHAKE, SHORT] {
            let mut unproven = Unproven::default();
            unproven.received(address(1), FIRST, 1200);
            unproven.received(address(1), EARLY, 1200);
            assert_eq!(unproven.watched, 1, "early data needs no answer");
            unproven.received(address(1), proof, 50);
            unproven.received(address(1), FIRST, 1200);
            assert_eq!(sent(&mut unproven, 1, 36_000), 36_000);
            assert_eq!(unproven.watched, 0);
        }
    }

    #[test]
    fn a_flood_of_addresses_is_no_flood_of_memory() {
        let mut unproven = Unproven::default();
        let most = u16::try_from(MAX_WATCHED).unwrap();
        for round in 0..3 {
            for port in 0..2 * most {
                unproven.received(address(port), FIRST, 1200);
                if port % 2 == 0 && round > 0 {
                    unproven.received(address(port), SHORT, 50);
                }
            }
            assert!(unproven.paths.len() <= MAX_WATCHED && unproven.order.len() <= MAX_WATCHED);
            let watched = unproven.paths.values().filter(|path| matches!(path, Path::Unproven { .. })).count();
            assert_eq!(unproven.watched, watched);
        }
        assert_eq!(sent(&mut unproven, 2 * most - 1, 3601), 3600, "the newest are watched");
    }
}
