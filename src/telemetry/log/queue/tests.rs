use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// As much patience as a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A writer that does nothing until it is told to, and then says what it wrote.
struct Gate {
    open: Receiver<io::Result<()>>,
    page: Sender<Vec<u8>>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open.recv().unwrap_or(Ok(()))?;
        let _ = self.page.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct World {
    queue: Queue,
    open: Sender<io::Result<()>>,
    page: Receiver<Vec<u8>>,
    ticks: Receiver<u64>,
}

fn start() -> World {
    let queue = Queue::default();
    let (open, gate) = channel();
    let (page, written) = channel();
    let (tick, ticks) = channel();
    let tick = move |dropped| {
        let _ = tick.send(dropped);
    };
    queue.start(Gate { open: gate, page }, tick).unwrap();
    World { queue, open, page: written, ticks }
}

fn tick_with(ticks: &Receiver<u64>, wanted: u64) {
    while ticks.recv_timeout(PATIENCE).unwrap() != wanted {}
}

#[test]
fn a_writer_that_is_stuck_stops_nobody_and_what_finds_no_room_is_counted() {
    let world = start();
    let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
    let lines = 3 * MAX_QUEUED_BYTES / line.len();
    for _ in 0..lines {
        world.queue.push(&line);
    }
    let dropped = world.queue.dropped();
    // One buffer waits; another one may be in the hands of the writer.
    assert!((lines as u64 / 3..=2 * lines as u64 / 3).contains(&dropped), "{dropped} of {lines}");
    assert!(!world.queue.flush(Duration::from_millis(1)), "nothing was written");
    drop(world.open);
    assert!(world.queue.flush(PATIENCE), "everything was written once there was room");
    tick_with(&world.ticks, dropped);
    let written: usize = world.page.try_iter().map(|bytes| bytes.len()).sum();
    assert_eq!(written as u64, (lines as u64 - dropped) * line.len() as u64, "whole lines, and each of them once");
}

#[test]
fn lines_that_cannot_be_written_are_counted_and_the_next_ones_are_written() {
    let world = start();
    world.open.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
    world.queue.push(b"lost\n");
    assert!(world.queue.flush(PATIENCE));
    world.open.send(Err(io::ErrorKind::WouldBlock.into())).unwrap();
    world.open.send(Err(io::ErrorKind::Interrupted.into())).unwrap();
    world.open.send(Ok(())).unwrap();
    world.queue.push(b"kept\n");
    assert_eq!(world.page.recv_timeout(PATIENCE).unwrap(), b"kept\n");
    tick_with(&world.ticks, 1);
}

#[test]
fn a_flush_waits_for_lines_that_came_before_it() {
    let world = start();
    for _ in 0..100 {
        world.open.send(Ok(())).unwrap();
        world.queue.push(b"last words\n");
        assert!(world.queue.flush(PATIENCE));
        assert_eq!(world.page.try_recv().unwrap(), b"last words\n");
    }
}

#[test]
fn the_writer_looks_up_when_nothing_comes_in() {
    let world = start();
    tick_with(&world.ticks, 0);
    tick_with(&world.ticks, 0);
}
