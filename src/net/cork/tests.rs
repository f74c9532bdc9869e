use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A stream that remembers every write, and takes no more than it is told to.
#[derive(Debug, Clone)]
struct Peer(Arc<Mutex<Taken>>);

#[derive(Debug)]
struct Taken {
    writes: Vec<Vec<u8>>,
    flushes: usize,
    room: usize,
    /// The most that one write takes.
    piece: usize,
    is_broken: bool,
    is_shut: bool,
    waker: Option<Waker>,
}

impl Peer {
    fn new() -> Self {
        let (room, piece) = (usize::MAX, usize::MAX);
        let (is_broken, is_shut) = (false, false);
        Self(Arc::new(Mutex::new(Taken { writes: vec![], flushes: 0, room, piece, is_broken, is_shut, waker: None })))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Taken) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn writes(&self) -> Vec<Vec<u8>> {
        self.with(|taken| taken.writes.clone())
    }

    fn bytes(&self) -> Vec<u8> {
        self.writes().concat()
    }

    /// Makes room and wakes whoever waits for it.
    fn make_room(&self, room: usize) {
        let waker = self.with(|taken| {
            taken.room = room;
            taken.waker.take()
        });
        waker.expect("somebody waits for room").wake();
    }
}

impl AsyncRead for Peer {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Peer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|taken| {
            if taken.is_broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let length = bytes.len().min(taken.room).min(taken.piece);
            if length == 0 {
                taken.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            taken.room -= length;
            taken.writes.push(bytes[..length].to_vec());
            Poll::Ready(Ok(length))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|taken| taken.flushes += 1);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|taken| taken.is_shut = true);
        Poll::Ready(Ok(()))
    }
}

/// Whether the task was woken.
#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One task, polled by hand.
struct Task<F> {
    future: Pin<Box<F>>,
    woken: Arc<Woken>,
}

impl<F: Future> Task<F> {
    fn new(future: F) -> Self {
        Self { future: Box::pin(future), woken: Arc::default() }
    }

    fn poll(&mut self) -> Poll<F::Output> {
        self.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&self.woken));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::Relaxed)
    }
}

/// Writes and flushes each piece, then sleeps for ever.
async fn write_all(corked: &mut Corked<Peer>, pieces: &[&[u8]]) -> io::Result<()> {
    for piece in pieces {
        corked.write_all(piece).await?;
        corked.flush().await?;
    }
    std::future::pending().await
}

#[test]
fn what_is_written_in_one_turn_leaves_in_one_write_in_order() {
    let peer = Peer::new();
    let (mut corked, cork) = Corked::new(peer.clone());
    let mut task = Task::new(cork.run(write_all(&mut corked, &[b"one ", b"two ", b"three"])));
    assert!(task.poll().is_pending());
    assert_eq!(peer.writes(), [b"one two three".to_vec()], "nothing is held while the task sleeps");
    assert_eq!(peer.with(|taken| taken.flushes), 1);
}

#[test]
fn pieces_of_one_vectored_write_stay_together() {
    let peer = Peer::new();
    let (mut corked, cork) = Corked::new(peer.clone());
    let mut task = Task::new(cork.run(async {
        let pieces = [IoSlice::new(b"head "), IoSlice::new(b"body")];
        assert_eq!(corked.write_vectored(&pieces).await.unwrap(), 9);
        std::future::pending::<()>().await;
    }));
    assert!(task.poll().is_pending());
    assert_eq!(peer.writes(), [b"head body".to_vec()]);
}

#[test]
fn without_its_cork_a_stream_is_written_straight_through() {
    let peer = Peer::new();
    let (mut corked, _cork) = Corked::new(peer.clone());
    let mut task = Task::new(write_all(&mut corked, &[b"one ", b"two"]));
    assert!(task.poll().is_pending());
    assert_eq!(peer.writes(), [b"one ".to_vec(), b"two".to_vec()]);
    assert_eq!(peer.with(|taken| taken.flushes), 2);
}

#[test]
fn what_a_ready_future_left_goes_out_before_anything_else() {
    let peer = Peer::new();
    let (mut corked, cork) = Corked::new(peer.clone());
    assert!(Task::new(cork.run(corked.write_all(b"one "))).poll().is_ready());
    assert_eq!(peer.writes(), Vec::<Vec<u8>>::new(), "the next run is in the same turn");
    assert!(Task::new(cork.run(corked.write_all(b"two "))).poll().is_ready());
    assert!(Task::new(corked.write_all(b"three")).poll().is_ready());
    assert_eq!(peer.writes(), [b"one two ".to_vec(), b"three".to_vec()]);
}

#[test]
fn a_shutdown_writes_everything_first() {
    let peer = Peer::new();
    let (mut corked, cork) = Corked::new(peer.clone());
    let mut task = Task::new(cork.run(async {
        corked.write_all(b"last words").await.unwrap();
        corked.shutdown().await.unwrap();
    }));
    assert!(task.poll().is_ready());
    assert_eq!(peer.bytes(), b"last words");
    assert!(peer.with(|taken| taken.is_shut));
}

#[test]
fn a_peer_that_takes_nothing_stops_the_writer_at_the_bound() {
    let peer = Peer::new();
    peer.with(|taken| taken.room = 0);
    let (mut corked, cork) = Corked::new(peer.clone());
    let taken = AtomicBool::new(false);
    let all: Vec<u8> = (0..3 * MAX_HELD_BYTES).map(|index| index as u8).collect();
    let mut task = Task::new(cork.run(async {
        corked.write_all(&all).await.unwrap();
        taken.store(true, Ordering::Relaxed);
        std::future::pending::<()>().await;
    }));
    for _ in 0..3 {
        assert!(task.poll().is_pending());
        assert!(!taken.load(Ordering::Relaxed), "more than the bound was taken");
    }
    peer.make_room(MAX_HELD_BYTES + 1000);
    assert!(task.is_woken());
    assert!(task.poll().is_pending());
    assert_eq!(peer.bytes(), all[..MAX_HELD_BYTES + 1000]);
    assert!(!taken.load(Ordering::Relaxed));
    peer.make_room(usize::MAX);
    assert!(task.is_woken(), "held bytes are waited for");
    assert!(task.poll().is_pending());
    assert!(taken.load(Ordering::Relaxed));
    assert_eq!(peer.bytes(), all);
}

#[test]
fn a_peer_that_takes_small_pieces_gets_every_byte_once() {
    let peer = Peer::new();
    peer.with(|taken| taken.piece = 7);
    let (mut corked, cork) = Corked::new(peer.clone());
    let all: Vec<u8> = (0..2 * MAX_HELD_BYTES).map(|index| (index / 3) as u8).collect();
    let pieces: Vec<&[u8]> = all.chunks(1000).collect();
    let mut task = Task::new(cork.run(write_all(&mut corked, &pieces)));
    assert!(task.poll().is_pending());
    assert!(peer.bytes() == all);
}

/// Writes `last words` and is gone, while something that it has not read is there: its kernel answers with a reset.
async fn leaves_with_last_words() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (mut near, (mut far, _)) = (near.unwrap(), far.unwrap());
    near.write_all(b"never read").await.unwrap();
    far.readable().await.unwrap();
    far.write_all(b"last words").await.unwrap();
    (near, far)
}

#[tokio::test]
async fn what_a_peer_said_before_it_went_is_read_although_it_takes_nothing_more() {
    let (near, far) = leaves_with_last_words().await;
    let (mut corked, cork) = Corked::new(near);
    drop(far);
    let read = cork.run(async {
        let mut read = Vec::new();
        loop {
            // As a connection of HTTP/2, which writes before it reads and ends with the first error.
            if let Err(error) = corked.write_all(b"answer").await {
                return (read, error);
            }
            corked.flush().await.unwrap();
            tokio::task::yield_now().await;
            if let Err(error) = corked.read_buf(&mut read).await {
                return (read, error);
            }
        }
    });
    let (read, error) = read.await;
    assert_eq!(read, b"last words", "{error}");
}

#[tokio::test]
async fn a_write_that_fails_as_the_task_goes_to_sleep_is_told_to_who_reads() {
    let peer = Peer::new();
    let (mut corked, cork) = Corked::new(peer.clone());
    peer.with(|taken| taken.is_broken = true);
    let mut turns = 0;
    let mut task = Task::new(cork.run(poll_fn(|cx| {
        turns += 1;
        if turns == 1 {
            assert!(Pin::new(&mut corked).poll_write(cx, b"lost").is_ready());
            return Poll::Pending;
        }
        assert!(Pin::new(&mut corked).poll_write(cx, &[7; 2 * MAX_HELD_BYTES]).is_ready(), "it is thrown away");
        assert!(matches!(Pin::new(&mut corked).poll_flush(cx), Poll::Ready(Ok(()))));
        let mut room = [0; 8];
        Pin::new(&mut corked).poll_read(cx, &mut ReadBuf::new(&mut room))
    })));
    assert!(task.poll().is_pending());
    assert!(task.is_woken(), "a task that sleeps would never learn of it");
    let Poll::Ready(Err(error)) = task.poll() else { panic!("the error was swallowed") };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn the_buffer_of_a_crowd_shrinks_when_the_crowd_is_gone() {
    let peer = Peer::new();
    let (mut corked, cork) = Corked::new(peer);
    let capacity = || lock(&cork.0).held.capacity();
    let crowd = vec![0; MAX_HELD_BYTES];
    assert!(Task::new(cork.run(write_all(&mut corked, &[&crowd]))).poll().is_pending());
    assert!(capacity() >= MAX_HELD_BYTES);
    for _ in 0..8 {
        assert!(Task::new(cork.run(write_all(&mut corked, &[b"ping"]))).poll().is_pending());
    }
    assert!(capacity() <= KEPT_BYTES, "{} bytes are kept for one ping", capacity());
}

#[tokio::test]
async fn reads_pass_through() {
    let (near, mut far) = duplex(64);
    let (mut corked, cork) = Corked::new(near);
    let asked = cork.run(async {
        corked.write_all(b"ask").await.unwrap();
        let mut answer = [0; 6];
        corked.read_exact(&mut answer).await.unwrap();
        answer
    });
    let answered = async {
        let mut question = [0; 3];
        far.read_exact(&mut question).await.unwrap();
        assert_eq!(&question, b"ask");
        far.write_all(b"answer").await.unwrap();
    };
    let (answer, ()) = tokio::join!(asked, answered);
    assert_eq!(&answer, b"answer");
}

/// As a connection of HTTP/2 does: reads on as long as something comes, and hands out a byte only then.
fn poll_byte(io: &mut Corked<DuplexStream>, read: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<u8> {
    let mut bytes = [0; 1000];
    loop {
        let mut into = ReadBuf::new(&mut bytes);
        match Pin::new(&mut *io).poll_read(cx, &mut into) {
            Poll::Ready(read) => read.unwrap(),
            Poll::Pending => return read.pop().map_or(Poll::Pending, Poll::Ready),
        }
        read.extend_from_slice(into.filled());
    }
}

#[tokio::test]
async fn no_more_is_read_than_is_taken_of_a_peer_that_sends_without_a_pause() {
    let (near, mut far) = duplex(1 << 20);
    let (mut corked, cork) = Corked::new(near);
    far.write_all(&[7; 1 << 20]).await.unwrap();
    let mut read = Vec::new();
    for _ in 0..1 << 20 {
        assert_eq!(cork.next(poll_fn(|cx| poll_byte(&mut corked, &mut read, cx))).await, 7);
        assert!(read.len() < MOST_READ_BYTES + 1000, "{}", read.len());
    }
    let waits = tokio::spawn(async move { cork.next(poll_fn(|cx| poll_byte(&mut corked, &mut read, cx))).await });
    tokio::task::yield_now().await;
    far.write_all(b"x").await.unwrap();
    assert_eq!(waits.await.unwrap(), b'x', "it is woken");
}

/// A peer that never stops sending, and always has room.
struct Endless;

impl AsyncRead for Endless {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // As a socket does it.
        let operation = ready!(coop::poll_proceed(cx));
        into.put_slice(&vec![7; into.remaining()]);
        operation.made_progress();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let operation = ready!(coop::poll_proceed(cx));
        operation.made_progress();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How many bytes pass in each turn of a task that goes on as long as it may.
async fn turns(
    mut pass: impl FnMut(&mut Corked<Endless>, &mut Context<'_>) -> Poll<usize> + Send + 'static,
) -> Vec<usize> {
    let (mut corked, cork) = Corked::new(Endless);
    let task = tokio::spawn(async move {
        let mut turns = Vec::new();
        let all = poll_fn(|cx| {
            let mut passed = 0;
            while let Poll::Ready(bytes) = pass(&mut corked, cx) {
                passed += bytes;
            }
            turns.push(passed);
            if turns.len() < 5 { Poll::Pending } else { Poll::Ready(()) }
        });
        cork.run(all).await;
        turns
    });
    task.await.unwrap()
}

#[tokio::test]
async fn whoever_reads_without_end_gives_way_after_a_few_reads() {
    let turns = turns(|io, cx| {
        let mut bytes = [0; 16 << 10];
        let mut into = ReadBuf::new(&mut bytes);
        Pin::new(io).poll_read(cx, &mut into).map(|read| read.map(|()| into.filled().len()).unwrap())
    });
    for passed in turns.await {
        assert!((64 << 10..=144 << 10).contains(&passed), "{passed} bytes in one turn");
    }
}

#[tokio::test]
async fn whoever_reads_without_end_writes_what_it_has_in_the_same_turn() {
    let (mut corked, cork) = Corked::new(Endless);
    let task = tokio::spawn(async move {
        let mut has_answered = false;
        let read = poll_fn(|cx| {
            let mut bytes = [0; 16 << 10];
            while Pin::new(&mut corked).poll_read(cx, &mut ReadBuf::new(&mut bytes)).is_ready() {}
            if std::mem::replace(&mut has_answered, true) {
                return Poll::Ready(());
            }
            assert!(Pin::new(&mut corked).poll_write(cx, b"answer").is_ready());
            Poll::Pending
        });
        let mut read = pin!(cork.run(read));
        poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await.is_pending() && cork.passed() == 6
    });
    assert!(task.await.unwrap());
}

#[tokio::test]
async fn whoever_writes_without_end_gives_way_after_a_few_writes() {
    let turns = turns(|io, cx| Pin::new(io).poll_write(cx, &[7; 16 << 10]).map(Result::unwrap));
    for passed in turns.await {
        assert!((64 << 10..=256 << 10).contains(&passed), "{passed} bytes in one turn");
    }
}
