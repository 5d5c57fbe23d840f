//! Workers that come through a gate, with requests of one byte.
#![forbid(unsafe_code)]

use super::super::connections::Held;
use super::super::sys::{self, Wait};
use super::*;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::gettid;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Scope};

/// More than anything here takes.
const FOR_EVER: Duration = Duration::from_secs(30);

/// What the workers of a test share.
struct Rig {
    gate: Gate,
    connections: Connections,
    stop: EventFd,
    inbox: (OwnedFd, OwnedFd),
    /// How many serve, and the most there ever were.
    serving: AtomicUsize,
    most: AtomicUsize,
}

impl Rig {
    /// A gate behind which nobody ever seems to sleep, or everyone, and nothing waits for
    /// long.
    fn new(workers: u32, is_asleep: fn(Pid) -> bool) -> Self {
        let inbox = sys::message_pair().unwrap();
        let stop = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK).unwrap();
        let connections = Connections::new(&inbox.0, &stop).unwrap();
        let gate = Gate { is_asleep, long: FOR_EVER, ..Gate::new(workers, true) };
        let (serving, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { gate, connections, stop, inbox, serving, most }
    }

    /// The child's end of a new connection.
    fn connect(&self) -> UnixStream {
        let (ours, theirs) = sys::stream_pair().unwrap();
        self.connections.keep(theirs).unwrap();
        let ours = UnixStream::from(ours);
        ours.set_read_timeout(Some(FOR_EVER)).unwrap();
        ours
    }

    /// Starts workers that hand each request's byte to `run`, then send it back.
    fn start<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        workers: u32,
        run: impl Fn(u8) + Copy + Send + 's,
    ) {
        for _ in 0..workers {
            scope.spawn(move || self.work(run));
        }
    }

    fn work(&self, run: impl Fn(u8)) {
        'events: loop {
            match self.gate.next(gettid(), &self.connections).unwrap() {
                Event::Stop => return,
                Event::Inbox => {}
                Event::Connection(name) => {
                    let Some(held) = self.connections.take(name) else { continue };
                    while self.serve(&held, &run) {
                        if held.give_back() {
                            continue 'events;
                        }
                        held.look_again();
                    }
                }
            }
        }
    }

    fn serve(&self, held: &Held<'_>, run: &impl Fn(u8)) -> bool {
        let mut request = [0];
        match sys::receive_bytes(held.socket(), &mut request, Wait::No) {
            Ok(0) => return false,
            Ok(_) => held.doubt(),
            Err(_) => return true,
        }
        let serving = self.serving.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(serving, Ordering::SeqCst);
        run(request[0]);
        self.serving.fetch_sub(1, Ordering::SeqCst);
        held.give_back();
        sys::send_parts(held.socket(), [&request, &[], &[]], None).is_ok()
    }

    /// Ends the workers, whatever becomes of the test.
    fn ending(&self) -> Ending<'_> {
        Ending(self)
    }
}

/// Ends the workers when it is dropped.
struct Ending<'r>(&'r Rig);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let _ = self.0.stop.write(1);
    }
}

/// Waits until something is so.
fn wait_until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + FOR_EVER;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {FOR_EVER:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn short_requests_are_served_one_after_the_other() {
    let rig = Rig::new(4, |_| false);
    let mut children: Vec<UnixStream> = (0..6).map(|_| rig.connect()).collect();
    thread::scope(|scope| {
        let _ending = rig.ending();
        rig.start(scope, 4, |_| thread::yield_now());
        for _ in 0..50 {
            children.iter_mut().for_each(|child| child.write_all(b"x").unwrap());
            children.iter_mut().for_each(|child| child.read_exact(&mut [0]).unwrap());
        }
    });
    assert_eq!(rig.most.into_inner(), 1);
}

#[test]
fn who_comes_to_an_end_takes_the_oldest_of_what_waits() {
    let rig = Rig::new(2, |_| false);
    let own = gettid();
    let state = rig.gate.state.as_ref().unwrap();
    let waiting = [11, 7, 9];
    locked(state).waiting.extend(waiting);
    for name in waiting {
        let next = rig.gate.next(own, &rig.connections).unwrap();
        assert_eq!(next, Event::Connection(name));
        assert_eq!(locked(state).take(Pid::from_raw(1), Instant::now()), None);
    }
}

#[test]
fn nobody_is_told_of_events_who_was_called_for_what_waits() {
    let now = Instant::now();
    let mut state = State::new(now);
    state.serving.push(gettid());
    // Called by one that has begun since, while another came and became the guard.
    (state.is_guarded, state.called) = (true, 0);
    state.waiting.extend([7, 9]);
    assert!(state.is_crowded(now));
    state.waiting.pop_back();
    assert!(!state.is_crowded(now));
    // As many rest as wait beside the guard's.
    state.waiting.push_back(9);
    state.resting = 1;
    assert!(!state.is_crowded(now));
}

#[test]
fn one_that_takes_in_connections_is_missed_by_nobody() {
    let rig = Rig::new(2, |_| false);
    let state = rig.gate.state.as_ref().unwrap();
    locked(state).resting = 1;
    sys::send(rig.inbox.1.as_fd(), &[IoSlice::new(b"x")], &[]).unwrap();
    assert_eq!(rig.gate.next(gettid(), &rig.connections).unwrap(), Event::Inbox);
    assert_eq!(locked(state).called, 1);
}

#[test]
fn what_was_sent_to_who_has_a_connection_does_not_wait() {
    let rig = Rig::new(2, |_| false);
    let mut child = rig.connect();
    child.write_all(b"x").unwrap();
    let Event::Connection(name) = rig.gate.next(gettid(), &rig.connections).unwrap() else {
        panic!("the request is the first event");
    };
    assert!(!rig.connections.is_seen_to(name));
    let held = rig.connections.take(name).unwrap();
    assert!(rig.connections.is_seen_to(name));
    assert!(!held.give_back(), "it was not marked");
    held.close();
    assert!(rig.connections.is_seen_to(name));
}

#[test]
fn requests_that_sleep_have_a_worker_each() {
    let rig = Rig::new(5, |_| true);
    let mut children: Vec<UnixStream> = (0..5).map(|_| rig.connect()).collect();
    let all = Barrier::new(5);
    thread::scope(|scope| {
        let _ending = rig.ending();
        rig.start(scope, 5, |_| {
            all.wait();
        });
        for _ in 0..3 {
            children.iter_mut().for_each(|child| child.write_all(b"x").unwrap());
            children.iter_mut().for_each(|child| child.read_exact(&mut [0]).unwrap());
        }
    });
}

#[test]
fn a_request_that_has_waited_for_long_is_begun_beside_one_that_runs() {
    let rig = Rig::new(3, |_| false);
    let rig = Rig { gate: Gate { long: Duration::from_millis(1), ..rig.gate }, ..rig };
    let mut children: Vec<UnixStream> = (0..3).map(|_| rig.connect()).collect();
    let all = Barrier::new(3);
    thread::scope(|scope| {
        let _ending = rig.ending();
        rig.start(scope, 3, |_| {
            all.wait();
        });
        children.iter_mut().for_each(|child| child.write_all(b"x").unwrap());
        children.iter_mut().for_each(|child| child.read_exact(&mut [0]).unwrap());
    });
}

#[test]
fn every_worker_ends_that_listens_rests_or_guards() {
    let rig = Rig::new(5, |_| false);
    let mut children: Vec<UnixStream> = (0..4).map(|_| rig.connect()).collect();
    let holds = Mutex::new(());
    let held = holds.lock().unwrap();
    thread::scope(|scope| {
        let ending = rig.ending();
        rig.start(scope, 5, |_| drop(holds.lock()));
        children.iter_mut().for_each(|child| child.write_all(b"x").unwrap());
        wait_until(|| {
            let state = locked(rig.gate.state.as_ref().unwrap());
            state.is_guarded && state.resting + state.listening == 3
        });
        drop(ending);
        drop(held);
    });
    assert_eq!(rig.serving.into_inner(), 0);
}

#[test]
fn no_request_is_lost_whoever_seems_to_sleep() {
    /// Asleep in one look of three.
    fn at_times(_: Pid) -> bool {
        static LOOKS: AtomicUsize = AtomicUsize::new(0);
        LOOKS.fetch_add(1, Ordering::Relaxed).is_multiple_of(3)
    }
    let rig = Rig::new(5, at_times);
    let children: Vec<UnixStream> = (0..8).map(|_| rig.connect()).collect();
    thread::scope(|scope| {
        let _ending = rig.ending();
        rig.start(scope, 5, |request| {
            for _ in 0..request {
                thread::yield_now();
            }
        });
        thread::scope(|scope| {
            for (client, mut child) in children.into_iter().enumerate() {
                scope.spawn(move || {
                    for number in 0..500 {
                        let request = (number * (client + 1)) as u8;
                        child.write_all(&[request]).unwrap();
                        let mut answer = [0];
                        child.read_exact(&mut answer).unwrap();
                        assert_eq!(answer, [request]);
                    }
                });
            }
        });
    });
}

#[test]
fn the_gate_is_open_for_longer_each_time_until_it_could_stay_closed() {
    let mut now = Instant::now();
    let mut opening = State::new(now).opening;
    let mut pauses = Vec::new();
    for number in 0..9 {
        assert!(!opening.is_open(now));
        // Whether all sleep at the first look, or nobody ever does.
        let opened = now + [LOOK.0, LONG][number % 2];
        opening.open(opened, now);
        pauses.push(opening.pause.as_millis());
        now = opened + opening.pause;
        assert!(opening.is_open(now - LOOK.0));
    }
    assert_eq!(pauses, [16, 32, 64, 128, 256, 512, 1000, 1000, 1000]);
    // Nothing had to wait for a while.
    now += Duration::from_secs(2);
    opening.open(now, now);
    assert_eq!(opening.pause, PAUSE.0);
}

#[test]
fn the_guard_looks_more_seldom_while_requests_end() {
    let mut opening = State::new(Instant::now()).opening;
    for wanted in [500, 1000, 1000] {
        opening.note_progress();
        assert_eq!(opening.look, Duration::from_micros(wanted));
    }
    opening.open(Instant::now(), Instant::now());
    assert_eq!(opening.look, LOOK.0);
}

#[test]
fn a_thread_that_waits_is_asleep_and_one_that_looks_is_not() {
    assert!(!is_asleep(gettid()));
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            tell.send(gettid()).unwrap();
            let _ = ended.recv();
        });
        let sleeper = told.recv().unwrap();
        wait_until(|| is_asleep(sleeper));
        drop(end);
    });
}
