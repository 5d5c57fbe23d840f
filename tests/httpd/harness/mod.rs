//! A real httpd for each test: its ServerRoot, its port, its log, and a `Drop` that
//! looks whether anything went wrong that the test did not announce.
//!
//! Rules of the folder:
//! - nothing here sleeps for a fixed time: [`wait_until`] waits for an event with a deadline;
//! - processes are ended by their process id, and only those a test started;
//! - what differs between the modules (`WSGI_UNDER_TEST`), the MPMs (`WSGI_TEST_MPM`) and
//!   the platforms is decided in [`installation`], so that tests need not know.
#![forbid(unsafe_code)]

mod client;
mod express;
mod group;
mod installation;
mod load;
mod log;
mod process;
mod pythons;
mod server;
mod site;

use std::fmt::Debug;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

pub use client::{Connection, Request, Response, eval};
pub use group::{APPLICATION, gated_group, group, loaded_group};
pub use installation::{can_run, is_ours, is_root, mpm, python_half, under_test};
pub use load::{Answer, Load, expect_served, texts};
pub use process::Process;
pub use pythons::{Python, free_threaded, python, pythons};
pub use server::{Httpd, wait_for_end};
pub use site::{Mode, Site};

/// How long a test waits for anything that must happen: long enough for a busy machine,
/// short enough that a hang is seen.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `event` gives something, and fails the test when it has not by [`DEADLINE`].
#[track_caller]
pub fn wait_until<T>(what: impl Debug, event: impl FnMut() -> Option<T>) -> T {
    wait_within(DEADLINE, what, event)
}

/// Waits until `event` gives something, and fails the test when it has not after `limit`.
#[track_caller]
pub fn wait_within<T>(limit: Duration, what: impl Debug, event: impl FnMut() -> Option<T>) -> T {
    poll(limit, event).unwrap_or_else(|| panic!("waited {limit:?} in vain for {what:?}"))
}

/// Looks for `event` until it gives something or `limit` has passed.
pub fn poll<T>(limit: Duration, mut event: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        let found = event();
        if found.is_some() || Instant::now() >= end {
            return found;
        }
        // The one pause of the harness: between two looks at what nothing announces.
        thread::sleep(Duration::from_millis(3));
    }
}

/// Runs `test` against the application `source`, embedded and then in a daemon process group.
pub fn in_both_modes(source: &str, test: impl Fn(&mut Httpd)) {
    for mode in [Mode::Embedded, Mode::Daemon] {
        // Shown with a failure: which of the two it was.
        eprintln!("{mode:?} mode");
        test(&mut Site::app(mode, source).start());
    }
}

/// Has httpd refuse these lines, saying which of them; ours says as well which directive it
/// was, unless it found the fault when it looked at the configuration as a whole.
#[track_caller]
pub fn expect_refusal(lines: &str) {
    let said = Site::new(lines).refusal();
    if is_ours() && said.contains("httpd.conf:") {
        return;
    }
    assert!(said.contains("on line"), "{lines}: {said}");
    let names = lines.lines().filter_map(|line| line.split_whitespace().next());
    let mut directives = names.filter(|name| name.starts_with("WSGI"));
    assert!(!is_ours() || directives.any(|name| said.contains(name)), "{lines}: {said}");
}

/// Says on the terminal, past the capture of the test runner, that a test does not run.
pub fn skip(why: &str) {
    let thread = thread::current();
    let line = format!("SKIPPED {}: {why}\n", thread.name().unwrap_or("?"));
    std::io::stderr().write_all(line.as_bytes()).expect("standard error can be written");
}

/// Ends a test that is about our module only when another one is under test.
macro_rules! ours_only {
    ($why:expr) => {
        if !$crate::harness::is_ours() {
            return $crate::harness::skip($why);
        }
    };
}
pub(crate) use ours_only;
