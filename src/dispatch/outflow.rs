//! An answer on its way to the client: when it is passed on, when it is flushed,
//! and how long the client may take.
//!
//! What comes from the daemon process is kept for a moment (`response-flush-delay`):
//! most often more follows, and one write is cheaper than two.  It counts from the
//! first byte the client has not been sent, so a steady trickle is not held back.
#![forbid(unsafe_code)]

use super::client::Client;
use super::spool::Spool;
use crate::daemon::sys;
use crate::host::Gone;
use nix::poll::{PollFd, PollFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// As much as this is passed on whatever may follow: a large answer is to flow,
/// and httpd writes to the client by itself from 4 KiB on.
const AT_ONCE: u64 = 32 * 1024;

/// The most that is passed on in one call.
const MOST: usize = 1024 * 1024;

/// A client that is only a moment behind is waited for, and the daemon process with it:
/// taken in meanwhile, everything would be copied once more, and most of it to a file.
const MOMENT: Duration = Duration::from_millis(10);

/// All those moments of one answer together, and what a client has that takes this
/// much: 100 MB a second or more make nobody wait longer than the network does.
const GRACE: Duration = Duration::from_millis(100);

/// What a taken byte adds to the grace, in nanoseconds.
const EARNED: u64 = 10;

/// What of an answer the client does not have yet.
#[derive(Debug)]
pub struct Outflow {
    spool: Spool,
    /// How long it may be kept.
    delay: Duration,
    /// After how many bytes it is flushed in any case.
    every: u64,
    /// When the client is to have all of it; `None` if it has.
    due: Option<Instant>,
    /// How much httpd has that was not flushed.
    unflushed: u64,
    /// Since when the client has taken nothing.
    stuck: Option<Instant>,
    /// As much is known to fit into the client's socket when that is writable.
    fits: usize,
    /// Since when the client is behind.
    behind: Option<Instant>,
    /// Whether the daemon process waits for it.
    holds: bool,
    /// How long it may still be made to wait for the client.
    grace: Duration,
}

impl Outflow {
    /// Nothing yet; it is flushed after `delay`, or `every` so many bytes.
    pub fn new(delay: Duration, every: u64) -> Self {
        let spool = Spool::default();
        Self {
            spool,
            delay,
            every,
            due: None,
            unflushed: 0,
            stuck: None,
            fits: 0,
            behind: None,
            holds: false,
            grace: GRACE,
        }
    }

    /// Passes `data` on as it is, if it is much and the client can take it without
    /// anybody waiting; whether that is so.
    pub fn pass_through(&mut self, client: &mut dyn Client, data: &[u8]) -> Result<bool, Gone> {
        let waiting = self.spool.waiting_in_memory().filter(|waiting| *waiting < AT_ONCE);
        let Some(waiting) = waiting.filter(|_| data.len() as u64 >= AT_ONCE) else {
            return Ok(false);
        };
        let all = data.len() + waiting as usize;
        if is_writable(client) != Some(true) || self.most_at_once(client, all) < all {
            return Ok(false);
        }
        self.announce();
        self.stuck = None;
        self.spool.pass_all(client)?;
        self.earn(all as u64);
        let flush = self.unflushed >= self.every;
        client.pass(data, flush, false)?;
        self.note(flush);
        Ok(true)
    }

    /// What the client's writable socket takes without waiting, if it is less than
    /// `wanted`; otherwise at least that.
    fn most_at_once(&mut self, client: &dyn Client, wanted: usize) -> usize {
        if self.fits < wanted {
            self.fits = most_at_once(client);
        }
        self.fits
    }

    /// Takes in a copy of `data`; an error as of [`Spool::push`].
    pub fn push(&mut self, data: &[u8]) -> io::Result<()> {
        self.announce();
        self.spool.push(data)
    }

    /// Takes in a piece of a file.
    pub fn push_file(&mut self, file: OwnedFd, offset: u64, length: u64) {
        self.announce();
        self.spool.push_file(file, offset, length);
    }

    /// Sees to it that the client will have everything so far.
    pub fn announce(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + self.delay);
    }

    /// Whether nothing is kept here.
    pub fn is_empty(&self) -> bool {
        self.spool.is_empty()
    }

    /// Whether the client has been sent everything.
    pub fn is_idle(&self) -> bool {
        self.due.is_none()
    }

    /// Whether more can be taken in.
    pub fn has_room(&self) -> bool {
        !self.holds && self.spool.has_room()
    }

    /// Looks whether the daemon process is to wait for the client.
    fn watch(&mut self, now: Instant) {
        if self.spool.waiting() >= AT_ONCE {
            let since = *self.behind.get_or_insert(now);
            self.holds = now.saturating_duration_since(since) < self.grace.min(MOMENT);
        } else if let Some(since) = self.behind.take() {
            let waited = now.saturating_duration_since(since).min(MOMENT);
            self.grace = self.grace.saturating_sub(waited);
            self.holds = false;
        }
    }

    /// Notes that the client took `count` bytes.
    fn earn(&mut self, count: u64) {
        self.unflushed += count;
        let earned = Duration::from_nanos(count.saturating_mul(EARNED));
        self.grace = self.grace.saturating_add(earned).min(GRACE);
    }

    /// Whether something is for the client now.
    pub fn wants_client(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now || self.spool.waiting() >= AT_ONCE)
    }

    /// How long there is nothing to do, if it is known.
    pub fn rest(&self, now: Instant) -> Option<Duration> {
        if self.holds {
            // Looked at again when the moment is over.
            return Some(MOMENT);
        }
        let due = self.due.filter(|_| !self.wants_client(now))?;
        Some(due.saturating_duration_since(now))
    }

    /// Gives the client what is for it now and what it can take without anybody
    /// waiting.
    pub fn advance(&mut self, client: &mut dyn Client) -> Result<(), Gone> {
        while self.due.is_some() {
            let now = Instant::now();
            if !self.wants_client(now) {
                break;
            }
            let is_due = self.due.is_some_and(|due| due <= now);
            let Some(is_writable) = is_writable(client) else {
                // A stream of HTTP/2 has a flow control of its own.
                self.pass_all(client, is_due)?;
                continue;
            };
            if !is_writable {
                let since = *self.stuck.get_or_insert(now);
                if now.duration_since(since) < client.patience() {
                    break;
                }
                client.give_up();
                return Err(Gone);
            }
            self.stuck = None;
            self.pass_part(client, is_due)?;
        }
        if self.behind.is_some() || self.spool.waiting() >= AT_ONCE {
            self.watch(Instant::now());
        }
        Ok(())
    }

    /// Passes on a part that does not make anybody wait.
    fn pass_part(&mut self, client: &mut dyn Client, is_due: bool) -> Result<(), Gone> {
        let wanted = usize::try_from(self.spool.waiting()).unwrap_or(usize::MAX);
        let most = self.most_at_once(client, wanted.min(MOST));
        let part = self.spool.next_part(most);
        self.earn(part);
        let is_rest = self.spool.waiting() == part;
        let mut flushed = (is_due && is_rest) || self.unflushed >= self.every;
        if self.spool.is_empty() {
            client.pass(&[], flushed, false)?;
        } else {
            flushed = self.spool.pass_some(client, most, flushed)?;
        }
        self.note(flushed);
        Ok(())
    }

    /// Passes everything on, waiting for the client as long as it takes.
    fn pass_all(&mut self, client: &mut dyn Client, is_due: bool) -> Result<(), Gone> {
        self.earn(self.spool.waiting());
        self.spool.pass_all(client)?;
        let flush = is_due || self.unflushed >= self.every;
        if flush {
            client.pass(&[], true, false)?;
        }
        self.note(flush);
        Ok(())
    }

    /// Notes that something was passed on, and whether it was flushed.
    fn note(&mut self, flushed: bool) {
        if flushed {
            self.unflushed = 0;
            if self.spool.is_empty() {
                self.due = None;
            }
        }
    }

    /// Passes on what is left when the daemon process has no more; `complete` says
    /// whether that was the end of the answer.
    pub fn finish(mut self, client: &mut dyn Client, complete: bool) -> Result<(), Gone> {
        self.spool.pass_all(client)?;
        client.pass(&[], !complete, complete)
    }
}

/// Whether the client takes more at once; `None` if it cannot be asked.
fn is_writable(client: &dyn Client) -> Option<bool> {
    let mut fds = [PollFd::new(client.socket()?, PollFlags::POLLOUT)];
    // What cannot be waited for is tried: the write has an error to tell.
    Some(sys::poll(&mut fds, Some(Duration::ZERO)).map_or(true, |count| count > 0))
}

/// What a writable client socket takes without waiting: Linux says "writable"
/// when a third of the send buffer is free.
fn most_at_once(client: &dyn Client) -> usize {
    use nix::sys::socket::{getsockopt, sockopt};
    client
        .socket()
        .and_then(|socket| getsockopt(&socket, sockopt::SndBuf).ok())
        .map_or(64 * 1024, |size| size / 4)
        .clamp(8 * 1024, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::client::{BadHead, BodyRead};
    use std::os::fd::{AsFd, BorrowedFd};
    use wsgi_wire::frame::AnswerHead;

    /// A client that notes what it is passed: how much, and whether it was flushed.
    #[derive(Default)]
    struct Fake {
        passed: Vec<(usize, bool)>,
        socket: Option<OwnedFd>,
        given_up: bool,
    }

    impl Client for Fake {
        fn read_body(&mut self, _to: &mut [u8], _wait: bool) -> BodyRead {
            BodyRead::End
        }
        fn start(&mut self, _head: &AnswerHead<'_>) -> Result<bool, BadHead> {
            Ok(true)
        }
        fn pass(&mut self, data: &[u8], flush: bool, _last: bool) -> Result<(), Gone> {
            self.passed.push((data.len(), flush));
            Ok(())
        }
        fn pass_file(&mut self, _: OwnedFd, _: u64, _: u64, _: bool) -> Result<(), Gone> {
            Ok(())
        }
        fn patience(&self) -> Duration {
            Duration::from_millis(50)
        }
        fn give_up(&mut self) {
            self.given_up = true;
        }
        fn socket(&self) -> Option<BorrowedFd<'_>> {
            self.socket.as_ref().map(AsFd::as_fd)
        }
        fn log(&mut self, _level: u32, _message: &str) {}
    }

    const LONG: Duration = Duration::from_secs(3600);

    /// A client whose socket takes more, and one whose socket does not.
    fn clients() -> (Fake, Fake, [OwnedFd; 2]) {
        let (ready, one) = sys::stream_pair().unwrap();
        let (full, two) = sys::stream_pair().unwrap();
        let data = [io::IoSlice::new(&[0; 64 * 1024])];
        while sys::try_send(full.as_fd(), &data, &[]).is_ok() {}
        let fake = |socket| Fake { socket: Some(socket), ..Fake::default() };
        (fake(ready), fake(full), [one, two])
    }

    #[test]
    fn a_little_waits_for_more_and_is_flushed_when_it_is_due() {
        let (mut client, ..) = clients();
        let mut outflow = Outflow::new(LONG, u64::MAX);
        outflow.push(b"one").unwrap();
        outflow.push(b"two").unwrap();
        outflow.advance(&mut client).unwrap();
        assert_eq!(client.passed, []);
        assert!(outflow.rest(Instant::now()).unwrap() > LONG / 2);
        outflow.due = Some(Instant::now());
        outflow.advance(&mut client).unwrap();
        assert_eq!(client.passed, [(6, true)]);
        assert!(outflow.is_idle() && outflow.rest(Instant::now()).is_none());
    }

    #[test]
    fn without_a_delay_nothing_waits() {
        for mut client in [clients().0, Fake::default()] {
            let mut outflow = Outflow::new(Duration::ZERO, u64::MAX);
            outflow.push(b"one").unwrap();
            outflow.advance(&mut client).unwrap();
            assert!(client.passed.last().unwrap().1, "{:?}", client.passed);
            assert!(outflow.is_idle());
        }
    }

    #[test]
    fn much_is_passed_on_at_once_and_flushed_every_so_many_bytes() {
        for mut client in [clients().0, Fake::default()] {
            let mut outflow = Outflow::new(LONG, 150_000);
            for _ in 0..5 {
                outflow.push(&[0; 50_000]).unwrap();
                outflow.advance(&mut client).unwrap();
            }
            let mut unflushed = 0;
            for (count, flush) in &client.passed {
                unflushed += count;
                assert!(unflushed < 200_000);
                unflushed = if *flush { 0 } else { unflushed };
            }
            assert_eq!(unflushed, 100_000, "{:?}", client.passed);
            outflow.due = Some(Instant::now());
            outflow.advance(&mut client).unwrap();
            assert_eq!(client.passed.last(), Some(&(0, true)));
        }
    }

    #[test]
    fn much_is_passed_through_where_nobody_waits_for_it() {
        let (mut ready, mut full, _peers) = clients();
        let data = [0; 64 * 1024];
        let mut outflow = Outflow::new(LONG, u64::MAX);
        outflow.push(b"little").unwrap();
        assert!(!outflow.pass_through(&mut full, &data).unwrap());
        assert!(!outflow.pass_through(&mut ready, b"little").unwrap());
        assert_eq!((ready.passed.len(), full.passed.len()), (0, 0));
        // The client's socket is as large as the system makes it.
        outflow.fits = 1 << 20;
        assert!(outflow.pass_through(&mut ready, &data).unwrap());
        assert_eq!(ready.passed, [(6, false), (data.len(), false)]);
        assert!(outflow.is_empty() && !outflow.is_idle());
    }

    #[test]
    fn a_client_that_is_behind_is_waited_for_a_moment_and_no_longer() {
        let (mut ready, mut full, _peers) = clients();
        let mut outflow = Outflow::new(LONG, u64::MAX);
        outflow.push(&[0; 64 * 1024]).unwrap();
        outflow.advance(&mut full).unwrap();
        assert!(!outflow.has_room());
        outflow.behind = Instant::now().checked_sub(MOMENT);
        outflow.advance(&mut full).unwrap();
        assert!(outflow.has_room(), "its moment is over");
        outflow.advance(&mut ready).unwrap();
        assert!(outflow.has_room() && outflow.grace < GRACE, "the moment is not forgotten");
        // All its moments are used up.
        outflow.grace = Duration::ZERO;
        outflow.push(&[0; 64 * 1024]).unwrap();
        outflow.advance(&mut full).unwrap();
        assert!(outflow.has_room());
    }

    #[test]
    fn a_client_that_takes_nothing_is_given_up_after_its_time() {
        let (_, mut client, _peers) = clients();
        let mut outflow = Outflow::new(Duration::ZERO, u64::MAX);
        outflow.push(b"one").unwrap();
        outflow.advance(&mut client).unwrap();
        assert!(!client.given_up);
        outflow.stuck = Instant::now().checked_sub(Duration::from_secs(1));
        assert_eq!(outflow.advance(&mut client), Err(Gone));
        assert!(client.given_up);
        assert_eq!(client.passed, []);
    }
}
