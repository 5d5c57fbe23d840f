//! What the host's watch thread may ask: a sign of life, the end of a request,
//! stacks.

mod host;

use host::{Fixture, HELLO, Request, Setup, with_each_python, with_python};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};
use wsgi_wire::vtable::outcome;

/// Applications that take their time: each says in the file `started` that it runs.
const SLOW: &str = "import time
def start(environ):
    open(environ['started'], 'w').close()
def spin(environ, start_response):
    start(environ)
    while True:
        pass
def nap(environ, start_response):
    start(environ)
    time.sleep(0.6)
    while True:
        pass
def told(environ, start_response):
    start_response('200 OK', [('X', 'y')])
    start(environ)
    while True:
        pass
def begun(environ, start_response):
    start_response('200 OK', [])(b'begin')
    start(environ)
    while True:
        pass
def full(environ, start_response):
    start_response('200 OK', [('Content-Length', '4')])
    yield b'done'
    start(environ)
    while True:
        pass
def catches(environ, start_response):
    import mod_wsgi
    try:
        start(environ)
        while True:
            pass
    except mod_wsgi.RequestTimeout:
        pass
    start_response('200 OK', [])
    return [b'caught']
class closes:
    def __init__(self, environ, start_response):
        self.environ = environ
        start_response('200 OK', [])
    def __iter__(self):
        return iter([b'all'])
    def close(self):
        start(self.environ)
        while True:
            pass
class asked:
    def __init__(self, environ):
        self.environ = environ
    def fileno(self):
        start(self.environ)
        while True:
            pass
    def read(self, size):
        return b''
def wraps(environ, start_response):
    start_response('200 OK', [])
    return environ['wsgi.file_wrapper'](asked(environ))
class looked:
    def __init__(self, environ, start_response):
        self.environ = environ
        start_response('200 OK', [])
    def __iter__(self):
        return iter([])
    def __getattr__(self, name):
        if 'told' in self.environ:
            raise AttributeError(name)
        self.environ['told'] = name
        start(self.environ)
        while True:
            pass
def hello(environ, start_response):
    start_response('200 OK', [])
    return [b'Hello']
";

/// Runs `request` and interrupts it as soon as it says that it runs.
fn interrupted(python: &Fixture, request: &Request) -> host::Answer {
    let started = python.directory().join("started");
    let name = started.as_os_str().as_encoded_bytes();
    let request = request.clone().variable("started", name);
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| python.run(&request));
        python.wait_until(|| started.exists());
        let removed = std::fs::remove_file(&started);
        assert!(removed.is_ok(), "{removed:?}");
        assert!(python.interrupt(request.id));
        answer.join()
    })
    .unwrap_or_else(|_| panic!("the worker panicked"))
}

/// Runs `request` and interrupts it while the host holds its answer: the thread is detached
/// there and has no Python code of the application before it but `close()`.  Then, in the
/// same thread, `next`.
fn interrupted_too_late(
    python: &Fixture,
    request: Request,
    next: &Request,
) -> (host::Answer, host::Answer) {
    // Larger than what is copied.
    let held = Request { hold_at: Some(0), ..request };
    std::thread::scope(|scope| {
        let both = scope.spawn(|| (python.run(&held), python.run(next)));
        python.wait_until_held();
        assert!(python.interrupt(held.id));
        python.release();
        both.join()
    })
    .unwrap_or_else(|_| panic!("the worker panicked"))
}

/// A request of its own id for `callable` of `script`.
fn call(script: &Path, group: &'static str, callable: &'static str, id: u64) -> Request {
    Request { callable, group, id, ..Request::get(script) }
}

#[test]
fn an_interrupted_request_ends_as_far_as_it_had_come() {
    with_python("an_interrupted_request_ends_as_far_as_it_had_come", |python| {
        let script = python.script("slow.wsgi", SLOW);
        let mut id = 7;
        for group in ["", "sub"] {
            for (callable, wanted, said) in [
                ("spin", outcome::TIMED_OUT, "3 WSGI9410: the application was interrupted"),
                ("nap", outcome::TIMED_OUT, "; answering 504"),
                ("told", outcome::TIMED_OUT, "; answering 504"),
                ("begun", outcome::CUT, "; the answer is cut off"),
                ("full", outcome::DONE, "; the answer was complete"),
                ("catches", outcome::DONE, ""),
                ("closes", outcome::DONE, "3 WSGI9410: close() of"),
                ("wraps", outcome::TIMED_OUT, "; answering 504"),
                ("looked", outcome::TIMED_OUT, "; answering 504"),
            ] {
                id += 1;
                let answer = interrupted(python, &call(&script, group, callable, id));
                let log = answer.log();
                assert_eq!(answer.outcome, wanted, "{group} {callable}: {log}");
                assert!(log.contains(said), "{group} {callable}: {log}");
                let coded = usize::from(!said.is_empty());
                assert_eq!(log.matches("3 WSGI").count(), coded, "{group} {callable}: {log}");
                assert_eq!(log.matches("3 mod_wsgi.RequestTimeout").count(), coded, "{log}");
                let place = match callable {
                    "closes" => "in close",
                    "wraps" => "in fileno",
                    "looked" => "in __getattr__",
                    other => &format!("in {other}"),
                };
                assert!(coded == 0 || log.contains(place), "{callable}: {log}");
                let answer = python.run(&call(&script, group, "hello", id));
                assert_eq!(answer.text(), "Hello", "after {callable}: {}", answer.log());
            }
        }
    });
}

#[test]
fn an_interrupt_is_logged_with_the_stack_of_its_thread() {
    with_python("an_interrupt_is_logged_with_the_stack_of_its_thread", |python| {
        let script = python.script("slow.wsgi", SLOW);
        interrupted(python, &call(&script, "sub", "spin", 77));
        let log = python.process_text();
        let at = log.find("6 Dumping stack trace of thread ").unwrap();
        let lines: Vec<_> = log[at..].lines().collect();
        assert!(lines[0].ends_with("request 77, application group 'sub'; most recent call last:"));
        assert!(lines[1].contains("slow.wsgi\", line ") && lines[1].ends_with(", in spin"));
        let last = lines.iter().position(|line| line.starts_with("6 Injected")).unwrap();
        assert!(lines[last].starts_with("6 Injected RequestTimeout into thread "), "{lines:?}");
        assert!(lines[last].ends_with(", request 77."), "{lines:?}");
        let frames = &lines[1..last];
        assert!(frames.iter().all(|line| line.starts_with("6   File \"")), "{lines:?}");
        assert!(!log.contains("4 WSGI"), "{log}");
    });
}

#[test]
fn what_does_not_run_is_not_interrupted() {
    with_python("what_does_not_run_is_not_interrupted", |python| {
        assert!(!python.interrupt(1));
        let script = python.script("hello.wsgi", HELLO);
        assert_eq!(python.run(&Request::get(&script)).text(), "Hello");
        let before = python.process_log().len();
        assert!(!python.interrupt(1));
        assert_eq!(python.process_log().len(), before);
    });
}

#[test]
fn a_sleep_in_c_is_interrupted_when_it_ends() {
    with_python("a_sleep_in_c_is_interrupted_when_it_ends", |python| {
        let script = python.script("slow.wsgi", SLOW);
        let started = python.directory().join("started");
        let nap =
            call(&script, "", "nap", 5).variable("started", started.as_os_str().as_encoded_bytes());
        let line = 1 + SLOW.lines().position(|line| line.contains("time.sleep")).unwrap();
        let asleep = format!("slow.wsgi\", line {line}, in nap");
        std::thread::scope(|scope| {
            let answer = scope.spawn(|| python.run(&nap));
            python.wait_until(|| {
                python.stacks();
                python.process_text().contains(&asleep)
            });
            let begin = Instant::now();
            assert!(python.interrupt(5));
            assert_eq!(answer.join().unwrap().outcome, outcome::TIMED_OUT);
            assert!(begin.elapsed() >= Duration::from_millis(200), "{:?}", begin.elapsed());
        });
    });
}

#[test]
fn loading_a_script_is_interrupted_and_done_again() {
    with_python("loading_a_script_is_interrupted_and_done_again", |python| {
        let script = python.script(
            "loading.wsgi",
            &format!(
                "import os\nif not os.path.exists({0:?}):\n    open({0:?}, 'w').close()\n    \
                 open({1:?}, 'w').close()\n    while True: pass\n{HELLO}",
                python.directory().join("once"),
                python.directory().join("started"),
            ),
        );
        let answer = interrupted(python, &call(&script, "", "application", 5));
        let log = answer.log();
        assert_eq!(answer.outcome, outcome::TIMED_OUT, "{log}");
        assert_eq!(log.matches("3 WSGI").count(), 1, "{log}");
        assert!(log.contains("loading.wsgi' was interrupted for time and was not loaded"), "{log}");
        assert_eq!(python.run(&Request::get(&script)).text(), "Hello");
    });
}

#[test]
fn an_interrupt_that_comes_too_late_meets_nobody() {
    with_python("an_interrupt_that_comes_too_late_meets_nobody", |python| {
        let script = python.script(
            "large.wsgi",
            &format!(
                "{HELLO}\ndef large(environ, start_response):\n    \
                 start_response('200 OK', [])\n    return [b'x' * 100000]\n"
            ),
        );
        for group in ["", "sub"] {
            let late = call(&script, group, "large", 3);
            let next = call(&script, group, "application", 4);
            let (first, second) = interrupted_too_late(python, late, &next);
            assert_eq!(first.outcome, outcome::DONE, "{}", first.log());
            assert_eq!(second.outcome, outcome::DONE, "{}", second.log());
            assert_eq!(second.text(), "Hello");
        }
    });
}

#[test]
fn close_runs_although_an_interrupt_came_too_late() {
    with_python("close_runs_although_an_interrupt_came_too_late", |python| {
        let script = python.script(
            "closes.wsgi",
            &format!(
                "{HELLO}
class closes:
    def __init__(self, environ, start_response):
        self.name = environ['closed']
        start_response('200 OK', [])
    def __iter__(self):
        return iter([b'x' * 100000])
    def close(self):
        open(self.name, 'w').close()
"
            ),
        );
        let cases = [("", None), ("", Some(0)), ("sub", None), ("sub", Some(0))];
        for (id, (group, gone_at)) in (3..).zip(cases) {
            let closed = python.directory().join(format!("closed-{id}"));
            let late = Request { gone_at, ..call(&script, group, "closes", id) }
                .variable("closed", closed.as_os_str().as_encoded_bytes());
            let next = call(&script, group, "application", 2);
            let (answer, _) = interrupted_too_late(python, late, &next);
            let wanted = gone_at.map_or(outcome::DONE, |_| outcome::GONE);
            assert_eq!(answer.outcome, wanted, "{}", answer.log());
            assert!(!answer.log().contains("WSGI9410"), "{}", answer.log());
            assert!(closed.exists(), "close() did not run: {group} {gone_at:?}");
        }
    });
}

#[test]
fn an_interrupt_does_not_meet_the_traceback_of_what_was_raised() {
    with_python("an_interrupt_does_not_meet_the_traceback_of_what_was_raised", |python| {
        let script = python.script(
            "slow.wsgi",
            "import os, time
class Slow(Exception):
    def __str__(self):
        started, told = self.args
        open(started, 'w').close()
        while not os.path.exists(told):
            time.sleep(0.001)
        return 'told'
def application(environ, start_response):
    raise Slow(environ['started'], environ['told'])
",
        );
        let (started, told) = (python.directory().join("started"), python.directory().join("told"));
        let request = call(&script, "sub", "application", 6)
            .variable("started", started.as_os_str().as_encoded_bytes())
            .variable("told", told.as_os_str().as_encoded_bytes());
        std::thread::scope(|scope| {
            let answer = scope.spawn(|| python.run(&request));
            python.wait_until(|| started.exists());
            let was_told = python.interrupt(6);
            std::fs::write(&told, "").unwrap_or_else(|error| panic!("{error}"));
            let answer = answer.join().unwrap();
            assert!(!was_told, "{}", answer.log());
            assert_eq!(answer.outcome, outcome::FAILED, "{}", answer.log());
            assert!(answer.log().contains("Slow: told"), "{}", answer.log());
        });
    });
}

/// Background threads that keep calling and returning, deep down; what their
/// variables hold says on which threads it ended.
const RETURNING: &str = "import threading
ended, over, threads = set(), threading.Event(), []
class Held:
    def __del__(self, ident=threading.get_ident, note=ended.add):
        note(ident())
def deep(n):
    held = Held()
    if n:
        deep(n - 1)
def work():
    while not over.is_set():
        deep(90)
def started(environ, start_response):
    for _ in range(40):
        threads.append(threading.Thread(target=work))
        threads[-1].start()
    start_response('200 OK', [])
    return [b'']
def strangers(environ, start_response):
    over.set()
    for thread in threads: thread.join()
    idents = {thread.ident for thread in threads}
    start_response('200 OK', [])
    return [b'%d of %d' % (len(ended - idents), len(ended))]
";

#[test]
fn no_object_of_the_application_ends_on_the_watch_thread() {
    with_each_python("no_object_of_the_application_ends_on_the_watch_thread", |python| {
        python.start_with(&Setup { switch_interval: 1e-4, ..Setup::default() });
        let script = python.script("returning.wsgi", RETURNING);
        assert_eq!(python.run(&call(&script, "", "started", 1)).outcome, outcome::DONE);
        let watch = std::thread::scope(|scope| {
            // Fewer on a busy machine.
            let begin = Instant::now();
            let dumps = move || {
                (0..100)
                    .take_while(|_| begin.elapsed() < Duration::from_secs(5))
                    .for_each(|_| python.stacks());
            };
            scope.spawn(dumps).join()
        });
        assert!(watch.is_ok());
        let answer = python.run(&call(&script, "", "strangers", 2));
        assert!(answer.text().starts_with("0 of "), "{}", answer.text());
        assert!(!answer.text().ends_with(" 0"), "{}", answer.text());
        let text = python.process_text();
        assert!(text.matches(", in deep").count() > 1000 && !text.contains("4 WSGI"));
        python.stop();
    });
}

/// An application that runs for as long as it is told.
const RACING: &str = "import mod_wsgi, sys
def application(environ, start_response):
    for _ in range(int(environ['turns'])):
        pass
    start_response('200 OK', [])
    # More than is copied: while the host has it, the GIL is anybody's.
    return [b'Hello' * 10000]
def count(environ, start_response):
    start_response('200 OK', [])
    return [b'%d' % sys.getrefcount(mod_wsgi.RequestTimeout)]
";

/// How long the race between requests and interrupts goes on at most.
const RACE: Duration = Duration::from_secs(20);

#[test]
fn an_interrupt_never_hits_the_next_request() {
    with_each_python("an_interrupt_never_hits_the_next_request", |python| {
        // Threads take turns all the time, or an interrupt would always be too late.
        python.start_with(&Setup { switch_interval: 1e-6, ..Setup::default() });
        let script = python.script("race.wsgi", RACING);
        let count = |group| python.run(&call(&script, group, "count", 1)).text();
        let groups = ["", "sub"];
        let before = groups.map(count);
        let current = AtomicU64::new(0);
        let ended = AtomicBool::new(false);
        let (told, timed_out) = std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let mut timed_out = Vec::new();
                let begin = Instant::now();
                // A busy machine gets through with fewer.
                for id in (10..10_010).take_while(|_| begin.elapsed() < RACE) {
                    let turns = if id % 32 == 2 { 10_000 } else { id % 97 * 3 };
                    let turns = turns.to_string();
                    let request = call(&script, groups[(id / 4 % 2) as usize], "application", id)
                        .variable("turns", turns.as_bytes());
                    current.store(id, SeqCst);
                    let answer = python.run(&request);
                    match answer.outcome {
                        outcome::DONE => assert_eq!(answer.body().len(), 50_000),
                        outcome::TIMED_OUT => timed_out.push(id),
                        other => panic!("{other}: {}", answer.log()),
                    }
                }
                ended.store(true, SeqCst);
                timed_out
            });
            let watch = scope.spawn(|| {
                let mut told = Vec::new();
                while !ended.load(SeqCst) {
                    // Those with an odd number are left alone.
                    let id = current.load(SeqCst) & !1;
                    if told.last() != Some(&id) && python.interrupt(id) {
                        told.push(id);
                    }
                }
                told
            });
            (watch.join().unwrap(), worker.join().unwrap())
        });
        let strangers: Vec<_> = timed_out.iter().filter(|id| !told.contains(id)).collect();
        assert_eq!(strangers.first(), None, "{} were not interrupted", strangers.len());
        // Some came too late, and some in time, or this shows nothing.
        let counts = (told.len(), timed_out.len());
        assert!(counts.1 > 0 && counts.0 > counts.1, "{counts:?}");
        assert_eq!(groups.map(count), before);
        python.stop();
        assert!(!python.is_python_there(), "a thread state was left");
    });
}

/// Applications with threads of their own.
const MANY: &str = "import threading
threads, gate = [], threading.Event()
def deep(n):
    return deep(n - 1) if n else gate.wait()
def started(environ, start_response):
    for n in range(int(environ['count'])):
        threads.append(threading.Thread(target=deep, args=(n,), name=f'helper-{n}'))
        threads[-1].start()
    start_response('200 OK', [])
    return [b'']
def waits(environ, start_response):
    open(environ['waiting'], 'w').close()
    gate.wait()
    start_response('200 OK', [])
    return [b'']
def release(environ, start_response):
    gate.set()
    for thread in threads: thread.join()
    start_response('200 OK', [])
    return [b'']
";

#[test]
fn stacks_of_all_threads_are_logged_with_what_runs_there() {
    with_python("stacks_of_all_threads_are_logged_with_what_runs_there", |python| {
        let script = python.script("many.wsgi", MANY);
        for (group, count) in [("", "20"), ("sub", "150")] {
            let start = call(&script, group, "started", 1).variable("count", count.as_bytes());
            assert_eq!(python.run(&start).outcome, outcome::DONE);
        }
        let waiting = python.directory().join("waiting");
        let waits = call(&script, "sub", "waits", 4711)
            .variable("waiting", waiting.as_os_str().as_encoded_bytes());
        let text = std::thread::scope(|scope| {
            scope.spawn(|| python.run(&waits));
            python.wait_until(|| waiting.exists());
            let thread = scope.spawn(|| python.stacks());
            thread.join().unwrap();
            let text = python.process_text();
            for group in ["", "sub"] {
                let answer = python.run(&call(&script, group, "release", 2));
                assert_eq!(answer.outcome, outcome::DONE);
            }
            text
        });
        let at = text.find("3 WSGI9409: Dumping stack trace of all Python threads").unwrap();
        let lines: Vec<_> = text[at..].lines().collect();
        assert!(lines.iter().all(|line| line.starts_with("3 ")), "{lines:?}");
        for (group, count) in [("", 20), ("sub", 150)] {
            for n in 0..count {
                let tail = format!(" 'helper-{n}', application group '{group}':");
                let found: Vec<_> = lines.iter().filter(|line| line.ends_with(&tail)).collect();
                assert_eq!(found.len(), 1, "{tail} in {text}");
                assert!(found[0].starts_with("3 Thread "));
            }
        }
        let request = ", request 4711, application group 'sub':";
        let at = lines.iter().position(|line| line.ends_with(request)).unwrap();
        assert!(lines[at + 1].ends_with(", in waits"), "{:?}", &lines[at..at + 3]);
        let deepest = "3   (55 earlier calls are not shown)";
        assert_eq!(lines.iter().filter(|line| **line == deepest).count(), 1, "{text}");
    });
}

#[test]
fn more_threads_than_anybody_reads_are_counted() {
    with_python("more_threads_than_anybody_reads_are_counted", |python| {
        let script = python.script(
            "crowd.wsgi",
            "import threading
threads, gate = [], threading.Event()
def application(environ, start_response):
    for n in range(205):
        threads.append(threading.Thread(target=gate.wait))
        threads[-1].start()
    start_response('200 OK', [])
    return [b'']
def release(environ, start_response):
    gate.set()
    for thread in threads: thread.join()
    start_response('200 OK', [])
    return [b'']
",
        );
        python.run(&Request::get(&script));
        python.stacks();
        let text = python.process_text();
        assert_eq!(text.matches("\n3 Thread ").count(), 200, "{text}");
        assert!(text.ends_with("\n3 (5 more threads are not shown)"), "{text}");
        python.run(&call(&script, "", "release", 2));
    });
}

#[test]
fn a_beat_waits_for_code_that_keeps_the_lock() {
    with_python("a_beat_waits_for_code_that_keeps_the_lock", |python| {
        let script = python.script(
            "keeps.wsgi",
            "import ctypes
def application(environ, start_response):
    open(environ['started'], 'w').close()
    ctypes.PyDLL(None).usleep(700000)
    start_response('200 OK', [])
    return [b'']
",
        );
        for group in ["", "sub"] {
            let started = python.directory().join(format!("started-{group}"));
            let request = call(&script, group, "application", 1)
                .variable("started", started.as_os_str().as_encoded_bytes());
            std::thread::scope(|scope| {
                scope.spawn(|| python.run(&request));
                python.wait_until(|| started.exists());
                scope.spawn(|| {
                    // The first may come just before the lock is taken for long.
                    let longest = (0..200)
                        .map(|_| {
                            let begin = Instant::now();
                            python.beat();
                            std::thread::park_timeout(Duration::from_millis(1));
                            begin.elapsed()
                        })
                        .max();
                    assert!(longest > Some(Duration::from_millis(500)), "{longest:?}");
                });
            });
            let begin = Instant::now();
            python.beat();
            assert!(begin.elapsed() < Duration::from_secs(5));
        }
    });
}

#[test]
fn what_computes_in_another_interpreter_keeps_nobody_waiting() {
    with_python("what_computes_in_another_interpreter_keeps_nobody_waiting", |python| {
        let script = python.script("slow.wsgi", SLOW);
        // Interpreters nothing runs in, some of them made before the others.
        for group in ["one", "", "sub", "two"] {
            assert_eq!(python.run(&call(&script, group, "hello", 1)).text(), "Hello");
        }
        for (id, group) in [(8, ""), (9, "sub")] {
            let started = python.directory().join(format!("started-{group}"));
            let spin = call(&script, group, "spin", id)
                .variable("started", started.as_os_str().as_encoded_bytes());
            std::thread::scope(|scope| {
                let spinning = scope.spawn(|| python.run(&spin).outcome);
                python.wait_until(|| started.exists());
                let watch = scope.spawn(|| {
                    let begin = Instant::now();
                    (0..5).for_each(|_| python.beat());
                    python.stacks();
                    assert!(python.interrupt(id));
                    begin.elapsed()
                });
                assert_eq!(spinning.join().ok(), Some(outcome::TIMED_OUT));
                assert!(watch.join().is_ok_and(|took| took < Duration::from_secs(20)));
            });
        }
    });
}

#[test]
fn python_ends_right_after_an_interrupt() {
    with_each_python("python_ends_right_after_an_interrupt", |python| {
        python.start();
        let script = python.script(
            "last.wsgi",
            &format!("import atexit\natexit.register(lambda: print('atexit'))\n{SLOW}"),
        );
        let started = python.directory().join("started");
        let name = started.as_os_str().as_encoded_bytes();
        let request = call(&script, "sub", "spin", 9).variable("started", name);
        std::thread::scope(|scope| {
            let running = scope.spawn(|| python.run(&request).outcome);
            python.wait_until(|| started.exists());
            // A watch thread that has ended when Python is stopped.
            assert!(scope.spawn(|| python.interrupt(9)).join().unwrap());
            python.stop();
            assert_eq!(running.join().unwrap(), outcome::TIMED_OUT);
        });
        assert!(python.process_text().contains("atexit"), "{}", python.process_text());
    });
}

#[test]
fn a_watch_thread_that_has_ended_leaves_nothing_behind() {
    with_each_python("a_watch_thread_that_has_ended_leaves_nothing_behind", |python| {
        python.start();
        let script = python.script("slow.wsgi", SLOW);
        std::thread::scope(|scope| {
            // Workers and the watch thread end before Python does.
            let worker = scope.spawn(|| interrupted(python, &call(&script, "sub", "spin", 9)));
            let watch = scope.spawn(|| {
                python.beat();
                python.stacks();
            });
            // The end of the scope is not the end of its threads.
            assert!(worker.join().is_ok() && watch.join().is_ok());
        });
        python.stop();
        assert!(!python.is_python_there(), "a thread state was left: {}", python.process_text());
    });
}
