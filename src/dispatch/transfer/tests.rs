//! Exchanges with daemon processes that are played by the tests.
#![forbid(unsafe_code)]

use super::super::prepared::Body;
use super::super::room::Room;
use super::*;
use crate::daemon::parent::Entrance;
use crate::daemon::sys::Kept;
use crate::dispatch::client::{BadHead, BodyRead};
use crate::dispatch::group::{Limits, Refused};
use crate::scoreboard::{Scoreboard, Shape};
use std::os::fd::BorrowedFd;
use std::thread::JoinHandle;

/// A client with a body, that keeps what it gets.
#[derive(Default)]
struct Fake {
    body: Vec<Vec<u8>>,
    got: Vec<u8>,
    pieces: usize,
    ended: bool,
    /// How long it takes to give the next piece of its body.
    pace: Duration,
    next: Option<Instant>,
    /// It takes the end of the answer when it hears of this.
    until: Option<std::sync::mpsc::Receiver<()>>,
}

impl Client for Fake {
    fn read_body(&mut self, to: &mut [u8], _wait: bool) -> BodyRead {
        let now = Instant::now();
        if *self.next.get_or_insert(now) > now {
            return BodyRead::WouldBlock;
        }
        self.next = Some(now + self.pace);
        match self.body.pop() {
            None => BodyRead::End,
            Some(piece) => {
                to[..piece.len()].copy_from_slice(&piece);
                BodyRead::Data(piece.len())
            }
        }
    }
    fn start(&mut self, _head: &AnswerHead<'_>) -> Result<bool, BadHead> {
        Ok(true)
    }
    fn pass(&mut self, data: &[u8], _flush: bool, last: bool) -> Result<(), Gone> {
        self.got.extend_from_slice(data);
        if let (true, Some(until)) = (last, &self.until) {
            until.recv_timeout(LONG).unwrap();
        }
        self.ended |= last;
        Ok(())
    }
    fn pass_file(&mut self, _: OwnedFd, _: u64, _: u64, _: bool) -> Result<(), Gone> {
        self.pieces += 1;
        Ok(())
    }
    fn patience(&self) -> Duration {
        LONG
    }
    fn give_up(&mut self) {}
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn log(&mut self, _level: u32, _message: &str) {}
}

/// A group with one process, played by a thread, and the process' inbox.
fn group(socket: Duration) -> (Group, OwnedFd) {
    let shape = Shape::for_group(1, 2);
    let board = Scoreboard::open(Scoreboard::create(shape).unwrap(), shape).unwrap();
    board.slot(0).unwrap().prepare(1);
    board.slot(0).unwrap().open(1, 2);
    let (send, inbox) = sys::message_pair().unwrap();
    let entrance =
        Entrance { name: "one".to_owned(), board, inboxes: vec![Kept::new(send).unwrap()] };
    let connect = Duration::MAX;
    let limits = Limits {
        backlog: 1,
        queue: None,
        connect,
        socket,
        flush_delay: Duration::from_millis(5),
        flush_every: 8 << 20,
        longest_header: 32 * 1024,
        client: None,
    };
    (Group::new(entrance, limits, None), inbox)
}

/// The next connection, its request head read: `play` does the rest.
fn process(inbox: OwnedFd, play: impl FnOnce(OwnedFd) + Send + 'static) -> JoinHandle<OwnedFd> {
    std::thread::spawn(move || {
        let mut found = None;
        let mut rights = Rights::one();
        sys::receive(inbox.as_fd(), &mut [0; 8], &mut rights, Wait::Yes, |fd| found = Some(fd))
            .unwrap();
        let connection = found.unwrap();
        read_frame(&connection);
        play(connection);
        inbox
    })
}

fn read_frame(connection: &OwnedFd) -> (Kind, Vec<u8>) {
    let mut bytes = [0; HEADER];
    read_exactly(connection, &mut bytes);
    let header = Header::decode(bytes).unwrap();
    let mut payload = vec![0; header.length as usize];
    read_exactly(connection, &mut payload);
    (header.kind, payload)
}

fn read_exactly(connection: &OwnedFd, to: &mut [u8]) {
    let mut done = 0;
    while done < to.len() {
        let count = sys::receive_bytes(connection.as_fd(), &mut to[done..], Wait::Yes).unwrap();
        assert!(count > 0);
        done += count;
    }
}

fn say(connection: &OwnedFd, kind: Kind, payload: &[u8], file: Option<BorrowedFd<'_>>) {
    let mut frame = Vec::new();
    frame::put(&mut frame, kind, payload);
    let _ = sys::send_all(connection.as_fd(), &frame, &[], file);
}

fn begin(connection: &OwnedFd) {
    let mut head = Vec::new();
    frame::put_answer_head(&mut head, b"200 OK", std::iter::empty());
    say(connection, Kind::Start, &head, None);
}

fn run(group: &Group, body: Body, client: &mut Fake) -> (Ending, Ticket) {
    let ticket = group.admit(None, || false).unwrap();
    let connection = group.connect(ticket).unwrap();
    let mut request = Prepared::new(body, |_| {});
    (exchange(group, ticket, connection, &mut request, client), ticket)
}

/// Long enough for anything but a deadlock.
const LONG: Duration = Duration::from_secs(20);

#[test]
fn the_end_of_a_body_arrives_however_full_the_socket_is() {
    let (group, mut inbox) = group(LONG);
    for size in (160..260).step_by(4) {
        let play = |connection: OwnedFd| {
            say(&connection, Kind::WantBody, &[], None);
            wait_for_the_last_byte(&connection);
            while read_frame(&connection).0 == Kind::Body {}
            begin(&connection);
            say(&connection, Kind::End, &[0], None);
        };
        let process = process(inbox, play);
        let mut client = Fake { body: vec![vec![b'x'; 4096]; size / 4], ..Fake::default() };
        let start = Instant::now();
        let (ending, ticket) = run(&group, Body::OnDemand, &mut client);
        assert!(matches!(ending, Ending::Complete), "{ending:?}");
        assert!(start.elapsed() < LONG / 2, "{size} KiB took {:?}", start.elapsed());
        group.give_back(ticket);
        inbox = process.join().unwrap();
        drop(group.connect(ticket).unwrap());
    }
}

/// Waits until the peer cannot send any more, or has sent everything: until nothing
/// has been added for a while.
fn wait_for_the_last_byte(connection: &OwnedFd) {
    let end = Instant::now() + LONG / 2;
    let mut before = 0;
    loop {
        let now = waiting_bytes(connection);
        if now > 0 && now == before {
            return;
        }
        assert!(Instant::now() < end, "{now} bytes and no end");
        before = now;
        let _ = sys::poll(&mut [], Some(Duration::from_millis(10)));
    }
}

/// How many bytes the peer has sent and nobody has read.
fn waiting_bytes(connection: &OwnedFd) -> usize {
    let mut bytes = vec![0; 1 << 20];
    let flags = nix::sys::socket::MsgFlags::MSG_PEEK | nix::sys::socket::MsgFlags::MSG_DONTWAIT;
    use std::os::fd::AsRawFd;
    nix::sys::socket::recv(connection.as_raw_fd(), &mut bytes, flags).unwrap_or(0)
}

#[test]
fn a_slow_upload_that_goes_on_is_not_silence() {
    let (group, inbox) = group(Duration::from_millis(400));
    let process = process(inbox, |connection| {
        say(&connection, Kind::WantBody, &[], None);
        while read_frame(&connection).0 == Kind::Body {}
        begin(&connection);
        say(&connection, Kind::End, &[0], None);
    });
    let pace = Duration::from_millis(100);
    let mut client = Fake { body: vec![vec![b'x'; 10]; 10], pace, ..Fake::default() };
    let (ending, _) = run(&group, Body::OnDemand, &mut client);
    assert!(matches!(ending, Ending::Complete), "{ending:?}");
    process.join().unwrap();
}

#[test]
fn a_client_that_keeps_the_daemon_process_waiting_is_not_its_silence() {
    let (group, inbox) = group(Duration::from_millis(200));
    let process = process(inbox, |connection| {
        say(&connection, Kind::WantBody, &[], None);
        while read_frame(&connection).0 == Kind::Body {}
        begin(&connection);
        say(&connection, Kind::End, &[0], None);
    });
    let pace = Duration::from_millis(900);
    let mut client = Fake { body: vec![vec![b'x'; 10]; 1], pace, ..Fake::default() };
    let (ending, _) = run(&group, Body::OnDemand, &mut client);
    assert!(matches!(ending, Ending::Complete), "{ending:?}");
    process.join().unwrap();
}

#[test]
fn an_answer_given_without_reading_the_body_is_an_answer() {
    let (group, inbox) = group(LONG);
    let process = process(inbox, |connection| {
        say(&connection, Kind::Failed, &500_u16.to_le_bytes(), None);
    });
    // More than a socket holds: sending it fails half-way.
    let mut body = Room::default();
    body.put(&vec![0; 1 << 20]);
    let (ending, _) = run(&group, Body::Whole(body), &mut Fake::default());
    assert!(matches!(ending, Ending::Failed(500)), "{ending:?}");
    process.join().unwrap();
}

#[test]
fn silence_is_told_from_a_process_that_is_gone() {
    let (group, inbox) = group(Duration::from_millis(300));
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let process = process(inbox, move |connection| {
        let _ = wait.recv();
        drop(connection);
    });
    let (ending, ticket) = run(&group, Body::None, &mut Fake::default());
    let Ending::Broken { cause: Fault::Silent(_), answered: false, .. } = ending else {
        panic!("{ending:?}");
    };
    drop(done);
    let inbox = process.join().unwrap();
    assert!(group.is_there(ticket));
    group.slot(ticket).unwrap().set_state(crate::scoreboard::State::Empty);
    // Held open by a process that the dead one forked.
    let (ours, held) = sys::stream_pair().unwrap();
    sys::set_timeout(&ours, Duration::from_millis(50)).unwrap();
    let connection = Connection::known(ours, 1);
    let mut request = Prepared::new(Body::None, |_| {});
    let ending = exchange(&group, ticket, connection, &mut request, &mut Fake::default());
    let Ending::Broken { cause: Fault::NoProcess, .. } = ending else { panic!("{ending:?}") };
    drop((inbox, held));
}

#[test]
fn descriptors_nobody_announced_end_the_exchange() {
    let (group, inbox) = group(LONG);
    let process = process(inbox, |connection| {
        let null = std::fs::File::open("/dev/null").unwrap();
        begin(&connection);
        for _ in 0..50 {
            say(&connection, Kind::Flush, &[], Some(null.as_fd()));
        }
        let _ = sys::receive_bytes(connection.as_fd(), &mut [0; 8], Wait::Yes);
    });
    let (ending, _) = run(&group, Body::None, &mut Fake::default());
    let Ending::Broken { cause: Fault::Descriptors, .. } = ending else {
        panic!("{ending:?}");
    };
    process.join().unwrap();
}

#[test]
fn a_piece_beyond_its_file_ends_the_exchange() {
    for (path, length) in [("/proc/self/exe", 1_u64 << 40), ("/proc/self/stat", 1)] {
        let (group, inbox) = group(LONG);
        let process = process(inbox, move |connection| {
            begin(&connection);
            let file = std::fs::File::open(path).unwrap();
            let mut piece = Vec::new();
            FilePiece { offset: 0, length }.encode(&mut piece);
            say(&connection, Kind::File, &piece, Some(file.as_fd()));
            say(&connection, Kind::End, &[0], None);
        });
        let mut client = Fake::default();
        let (ending, _) = run(&group, Body::None, &mut client);
        assert!(matches!(ending, Ending::Broken { begun: true, .. }), "{ending:?}");
        assert_eq!(client.pieces, 0);
        process.join().unwrap();
    }
}

#[test]
fn a_connection_with_leftovers_is_not_kept() {
    for leftover in [false, true] {
        let (group, inbox) = group(LONG);
        let process = process(inbox, move |connection| {
            let mut frames = Vec::new();
            let mut head = Vec::new();
            frame::put_answer_head(&mut head, b"200 OK", std::iter::empty());
            frame::put(&mut frames, Kind::Start, &head);
            frame::put(&mut frames, Kind::End, &[0]);
            if leftover {
                frame::put(&mut frames, Kind::Start, &head);
            }
            sys::send_all(connection.as_fd(), &frames, &[], None).unwrap();
        });
        let (ending, ticket) = run(&group, Body::None, &mut Fake::default());
        assert!(matches!(ending, Ending::Complete), "{ending:?}");
        let inbox = process.join().unwrap();
        assert_eq!(group.connect(ticket).unwrap().is_known, !leftover);
        drop(inbox);
    }
}

#[test]
fn a_connection_that_lacks_a_part_of_a_body_is_not_kept() {
    let (group, inbox) = group(LONG);
    let process = process(inbox, |connection| {
        use std::os::fd::AsRawFd;
        // What is still to come fails to be sent.
        let how = nix::sys::socket::Shutdown::Read;
        nix::sys::socket::shutdown(connection.as_raw_fd(), how).unwrap();
        let _ = sys::poll(&mut [], Some(Duration::from_millis(100)));
        begin(&connection);
        say(&connection, Kind::End, &[0], None);
        // Until it is let go.
        let _ = sys::poll(&mut [], Some(Duration::from_millis(500)));
    });
    let mut body = Room::default();
    body.put(&vec![0; 1 << 20]);
    let (ending, ticket) = run(&group, Body::Whole(body), &mut Fake::default());
    assert!(matches!(ending, Ending::Complete), "{ending:?}");
    assert!(!group.connect(ticket).unwrap().is_known);
    process.join().unwrap();
}

#[test]
fn who_waits_for_the_rest_of_a_body_does_not_wait_for_a_slow_reader() {
    let (group, inbox) = group(LONG);
    let (sees_end, until) = std::sync::mpsc::channel();
    let process = process(inbox, move |connection| {
        begin(&connection);
        say(&connection, Kind::Data, b"little", None);
        let _ = sys::poll(&mut [], Some(Duration::from_millis(50)));
        say(&connection, Kind::End, &[0], None);
        let mut rest = vec![0; 1 << 20];
        while sys::receive_bytes(connection.as_fd(), &mut rest, Wait::Yes).unwrap_or(0) > 0 {}
        let _ = sees_end.send(());
    });
    // More than a socket holds.
    let mut body = Room::default();
    body.put(&vec![0; 1 << 20]);
    let mut client = Fake { until: Some(until), ..Fake::default() };
    let (ending, _) = run(&group, Body::Whole(body), &mut client);
    assert!(matches!(ending, Ending::Complete) && client.ended, "{ending:?}");
    process.join().unwrap();
}

#[test]
fn waiting_without_end_is_no_overflow() {
    let (group, inbox) = group(LONG);
    let ticket = group.admit(None, || false).unwrap();
    assert!(group.connect_anew(ticket).is_ok());
    group.slot(ticket).unwrap().withdraw(&mut Vec::new());
    assert_eq!(group.admit(Some(Instant::now()), || false).unwrap_err(), Refused::QueueTimeout);
    drop(inbox);
}
