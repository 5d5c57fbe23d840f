//! What `mod_wsgi.server_metrics()` shows: read from httpd's scoreboard in child
//! processes, and copied by them to where daemon processes may see it.
#![forbid(unsafe_code)]

use crate::daemon::sys;
use crate::httpd::board;
use crate::scoreboard::snapshot::{LONGEST, Publisher, Subscriber};
use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant};

/// How old a copy gets.  More often costs the server for figures nobody looks at that
/// often; more seldom shows less of what goes on.
const AGE: Duration = Duration::from_secs(1);

/// How long the end of a child process waits for one who is reading: a thread that
/// reads needs less than a millisecond.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// Whether httpd takes its scoreboard down: nobody may look any more.
static IS_OVER: RwLock<bool> = RwLock::new(false);

/// What httpd's scoreboard says, as a record; None outside of child processes.
pub fn read() -> Option<Vec<u8>> {
    let is_over = IS_OVER.read().unwrap_or_else(PoisonError::into_inner);
    if *is_over {
        return None;
    }
    board::record(sys::now_micros(), LONGEST)
}

/// The child process ends, and its view of the scoreboard with it.
pub fn end() {
    let begin = Instant::now();
    loop {
        match IS_OVER.try_write() {
            Ok(mut is_over) => break *is_over = true,
            Err(TryLockError::Poisoned(poisoned)) => break *poisoned.into_inner() = true,
            // Prefork may end a child in the midst of anything, also of a read.
            Err(TryLockError::WouldBlock) if begin.elapsed() > LAST_LOOK => break,
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
}

/// The thread of a child process that copies the scoreboard; it ends with this.
#[derive(Debug)]
pub struct Copying(#[expect(dead_code, reason = "its end is what the thread hears")] Sender<()>);

impl Copying {
    /// Starts it.
    pub fn start(publisher: Publisher) -> io::Result<Self> {
        let (stop, is_to_stop) = channel::<()>();
        let copy = move || {
            // Whichever child comes first writes; the others find it done.
            let age = AGE.as_micros() as u64 - AGE.as_micros() as u64 / 10;
            loop {
                let now = sys::monotonic_micros();
                publisher.publish((now, age), sys::is_alive, read);
                match is_to_stop.recv_timeout(AGE) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        std::thread::Builder::new().name("wsgi-metrics".to_owned()).spawn(copy)?;
        Ok(Self(stop))
    }
}

/// Where a daemon process sees the copy, and the last it saw.
struct View {
    subscriber: Subscriber,
    last: Option<Vec<u8>>,
}

/// This daemon process' view, if it has one.
static VIEW: OnceLock<Mutex<View>> = OnceLock::new();

/// Lets this daemon process see what `subscriber` reads.
pub fn subscribe(subscriber: Subscriber) {
    let _ = VIEW.set(Mutex::new(View { subscriber, last: None }));
}

/// The latest copy, in a daemon process.
pub fn view() -> Option<Vec<u8>> {
    let mut view = VIEW.get()?.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(copy) = view.subscriber.read() {
        view.last = Some(copy);
    }
    view.last.clone()
}
