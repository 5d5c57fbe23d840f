//! Interpreters with locks of their own, where Python has them (3.12 and later).

mod host;

use host::options::{Plan, Said};
use host::{Fixture, Input, Request, Setup, with_each_python};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use wsgi_wire::vtable::outcome;

/// A start where every sub-interpreter but `shared` is to have its own lock, and no
/// thread gives one up for being asked to.
fn setup() -> Setup {
    let layers = vec![
        Said { own_gil: Some(true), switch_interval: 1000.0, ..Said::default() },
        Said { own_gil: Some(false), group: Some("shared"), ..Said::default() },
    ];
    Setup { options: Plan { layers, ..Plan::default() }, ..Setup::default() }
}

/// Whether this Python is one where interpreters can have locks of their own.
fn can_own_gil() -> bool {
    let program = host::program().to_string_lossy().into_owned();
    !program.ends_with("3.10") && !program.ends_with("3.11")
}

/// An application that does a bit of everything.
const MIXED: &str = "import gc, hashlib, io, json, logging, os, re, sys, threading, time, weakref
import mod_wsgi
local = threading.local()
kept = []
class Odd:
    def __del__(self):
        kept.append(len(kept))
        del kept[100:]
def application(environ, start_response):
    local.count = getattr(local, 'count', 0) + 1
    body = environ['wsgi.input'].read()
    ring = [Odd()]
    ring.append(ring)
    text = json.dumps({'n': list(range(50)), 'b': body.decode()})
    json.loads(text)
    out = []
    thread = threading.Thread(target=lambda: out.append(hashlib.md5(body).hexdigest()))
    thread.start()
    thread.join()
    print('x', file=environ['wsgi.errors'])
    try:
        re.compile('(')
    except re.error:
        pass
    del ring
    if local.count % 7 == 0:
        gc.collect()
    start_response('200 OK', [('X-Hash', out[0])])
    return [mod_wsgi.application_group.encode(), b' ', body]
";

/// Sends `count` requests to each of these groups, from so many threads.
fn storm(
    python: &Fixture,
    script: &Path,
    groups: &[&'static str],
    (threads, count): (usize, usize),
) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count * groups.len() {
                        return;
                    }
                    let group = groups[at % groups.len()];
                    let request = Request::get(script).group(group);
                    let answer = python.run(&request.body(&[b"ab", b"c"]));
                    assert_eq!(answer.outcome, outcome::DONE, "{}", answer.log());
                    assert_eq!(answer.text(), format!("{group} abc"));
                }
            });
        }
    });
}

#[test]
fn requests_of_many_interpreters_at_once_and_their_end() {
    with_each_python("requests_of_many_interpreters_at_once_and_their_end", |python| {
        let layers = vec![
            Said { own_gil: Some(true), ..Said::default() },
            Said { own_gil: Some(false), group: Some("shared"), ..Said::default() },
        ];
        let options = Plan { layers, ..Plan::default() };
        python.start_with(&Setup { options, ..Setup::default() });
        let script = python.script("mixed.wsgi", MIXED);
        storm(python, &script, &["", "a", "b", "c", "shared"], (8, 60));
        python.stop();
    });
}

/// Says that it computes, and does until it is told to end: by bytes in memory, since whoever
/// asks for a file gives the lock back.
const COMPUTES: &str = "import mmap, time
def application(environ, start_response):
    with open(environ['state'], 'r+b') as file:
        state = mmap.mmap(file.fileno(), 2)
    end = time.monotonic() + 120
    # Whoever sees this comes too late for the lock: it is given back no more.
    state[0] = 1
    while not state[1] and time.monotonic() < end:
        pass
    start_response('200 OK', [])
    return [b'']
";

/// A request that computes; ended when it is dropped.
struct Computing(PathBuf);

impl Computing {
    /// Whether it has begun.
    fn has_begun(&self) -> bool {
        std::fs::read(&self.0).expect("the file of its bytes")[0] == 1
    }

    /// Ends it.
    fn end(&self) {
        let file = std::fs::File::options().write(true).open(&self.0);
        let file = file.expect("the file of its bytes");
        file.write_all_at(&[1], 1).expect("room for a byte");
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs `body` while a request computes in `group`.
fn while_computing<T>(
    python: &Fixture,
    group: &'static str,
    body: impl FnOnce(&Computing) -> T,
) -> T {
    let script = python.script("computes.wsgi", COMPUTES);
    assert_eq!(python.load_script(group, &script), 0);
    let state = python.directory().join(format!("state-{group}"));
    std::fs::write(&state, [0; 2]).expect("a file can be written");
    let request = Request { id: 77, ..Request::get(&script).group(group) };
    let request = request.variable("state", state.as_os_str().as_encoded_bytes());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| python.run(&request).outcome);
        let computing = Computing(state.clone());
        python.wait_until(|| computing.has_begun());
        let result = body(&computing);
        drop(computing);
        assert!(running.join().is_ok());
        result
    })
}

/// Sees that `work`, on a thread of its own, is not done before `computing` ends.
fn expect_wait(computing: &Computing, work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let working = scope.spawn(work);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(500) {
            assert!(!working.is_finished());
            std::thread::park_timeout(Duration::from_millis(10));
        }
        computing.end();
    });
}

#[test]
fn one_that_computes_keeps_nobody_else_from_running() {
    with_each_python("one_that_computes_keeps_nobody_else_from_running", |python| {
        python.start_with(&setup());
        let script = python.script("hello.wsgi", host::HELLO);
        for group in ["", "b", "shared"] {
            assert_eq!(python.load_script(group, &script), 0);
        }
        while_computing(python, "a", |computing| {
            let serve = || {
                for group in ["", "b", "shared"] {
                    let request = Request::get(&script).group(group);
                    assert_eq!(python.run(&request).outcome, outcome::DONE);
                }
            };
            if can_own_gil() { serve() } else { expect_wait(computing, serve) }
        });
        python.stop();
    });
}

#[test]
fn a_beat_is_one_of_every_lock() {
    with_each_python("a_beat_is_one_of_every_lock", |python| {
        python.start_with(&setup());
        for group in ["a", "shared", ""] {
            // A thread of its own, as the contract has it.
            while_computing(python, group, |computing| expect_wait(computing, || python.beat()));
        }
        python.stop();
    });
}

#[test]
fn a_request_in_one_is_interrupted() {
    with_each_python("a_request_in_one_is_interrupted", |python| {
        let layers = vec![Said { own_gil: Some(true), ..Said::default() }];
        let options = Plan { layers, ..Plan::default() };
        python.start_with(&Setup { options, ..Setup::default() });
        while_computing(python, "a", |_| {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    assert!(python.interrupt(77));
                    python.stacks();
                });
            });
        });
        let text = python.process_text();
        assert!(text.contains("application group 'a'"), "{text}");
        python.stop();
    });
}

#[test]
fn threads_and_callbacks_at_the_end_are_waited_for() {
    with_each_python("threads_and_callbacks_at_the_end_are_waited_for", |python| {
        let layers = vec![Said { own_gil: Some(true), ..Said::default() }];
        let options = Plan { layers, ..Plan::default() };
        python.start_with(&Setup { options, ..Setup::default() });
        let script = python.script(
            "ends.wsgi",
            "import atexit, sys, threading, time
import mod_wsgi
NAME = mod_wsgi.application_group
def work():
    time.sleep(0.3)
    print('worked in', NAME)
def linger():
    while True:
        time.sleep(0.01)
def application(environ, start_response):
    atexit.register(print, 'left', NAME)
    threading.Thread(target=work, daemon=False).start()
    if 'daemon' in environ:
        threading.Thread(target=linger, daemon=True).start()
    start_response('200 OK', [])
    return [b'']
",
        );
        for (group, daemon) in [("", false), ("a", false), ("b", true), ("c", false)] {
            let request = Request::get(&script).group(group);
            let request = if daemon { request.variable("daemon", b"1") } else { request };
            // On a thread that is gone at the end.
            std::thread::scope(|scope| {
                scope.spawn(|| assert_eq!(python.run(&request).outcome, outcome::DONE));
            });
        }
        python.stop();
        let text = python.process_text();
        for group in ["", "a", "b", "c"] {
            assert!(text.contains(&format!("worked in {group}")), "{group}: {text}");
            assert!(text.contains(&format!("left {group}")), "{group}: {text}");
        }
        assert!(!text.contains("Exception"), "{text}");
    });
}

#[test]
fn forks_at_the_same_time_are_each_ended() {
    with_each_python("forks_at_the_same_time_are_each_ended", |python| {
        python.start_with(&Setup { options: setup().options, ..Setup::default() });
        let script = python.script(
            "forks.wsgi",
            "import os
def application(environ, start_response):
    codes = []
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            os._exit(77)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    start_response('200 OK', [])
    return [str(set(codes)).encode()]
",
        );
        // From a sub-interpreter no child runs in any case; from the main one it might.
        let groups = ["a", "b", ""];
        for group in groups {
            assert_eq!(python.load_script(group, &script), 0);
        }
        std::thread::scope(|scope| {
            for group in groups {
                let script = &script;
                scope.spawn(move || {
                    let answer = python.run(&Request::get(script).group(group));
                    assert_eq!(answer.text(), "{1}", "{}", answer.log());
                });
            }
        });
        python.stop();
    });
}

#[test]
fn reading_in_one_holds_up_nobody() {
    with_each_python("reading_in_one_holds_up_nobody", |python| {
        python.start_with(&setup());
        let script = python.script(
            "reads.wsgi",
            "def application(environ, start_response):
    data = environ['wsgi.input'].read()
    start_response('200 OK', [])
    yield data
",
        );
        let groups = ["a", "b"];
        storm_of_bodies(python, &script, &groups);
        python.stop();
    });
}

/// Requests with bodies in many pieces, at once.
fn storm_of_bodies(python: &Fixture, script: &Path, groups: &[&'static str]) {
    std::thread::scope(|scope| {
        for at in 0..6 {
            scope.spawn(move || {
                let group = groups[at % groups.len()];
                let mut request = Request::get(script).group(group);
                request.method = "POST";
                request.input = (0..50).map(|_| Input::Data(vec![b'x'; 999])).collect();
                for _ in 0..5 {
                    let answer = python.run(&request);
                    assert_eq!(answer.body().len(), 50 * 999, "{}", answer.log());
                    std::thread::park_timeout(Duration::from_millis(1));
                }
            });
        }
    });
}
