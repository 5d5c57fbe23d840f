//! What Python is started with: levels, intervals, signals, services.

mod host;

use host::{HELLO, Input, Request, Setup, with_each_python, with_python};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};
use wsgi_wire::vtable::{level, outcome, status};

/// An application that writes to all streams.
const WRITES: &str = "import sys, threading
print('loading')
def application(environ, start_response):
    print('out')
    print('err', file=sys.stderr)
    print('log', file=environ['wsgi.errors'])
    def outside():
        print('thread')
    thread = threading.Thread(target=outside)
    thread.start()
    thread.join()
    print('half', end='')
    print('other half', end='', file=sys.stderr)
    raise ValueError('x')
";

#[test]
fn the_standard_streams_have_levels_of_their_own() {
    with_each_python("the_standard_streams_have_levels_of_their_own", |python| {
        python.start_with(&Setup { levels: (level::INFO, level::WARN), ..Setup::default() });
        for group in ["", "sub"] {
            let script = python.script(&format!("{group}.wsgi"), WRITES);
            assert_eq!(python.load_script(group, &script), 0);
            let answer = python.run(&Request::get(&script).group(group));
            let log = answer.log();
            let wanted = ["6 out", "4 err", "3 log", "6 half", "3 WSGI0174", "3 ValueError: x"];
            for line in wanted {
                assert!(log.lines().any(|known| known.starts_with(line)), "{line}: {log}");
            }
            assert!(log.lines().any(|line| line == "4 other half"), "{log}");
            let process = python.process_text();
            assert_eq!(process.matches("6 loading").count(), 1, "{process}");
            assert_eq!(process.matches("6 thread").count(), 1, "{process}");
            python.process_log().clear();
        }
        python.stop();
    });
}

#[test]
fn threads_take_turns_as_often_as_asked_for() {
    with_each_python("threads_take_turns_as_often_as_asked_for", |python| {
        python.start_with(&Setup { switch_interval: 0.001, ..Setup::default() });
        let answer = python.get(
            "import sys
def application(environ, start_response):
    start_response('200 OK', [])
    return [str(sys.getswitchinterval()).encode()]
",
        );
        assert_eq!(answer.text(), "0.001");
        python.stop();
    });
}

/// An application that keeps Python's lock for longer than it takes to look.
const KEEPS: &str = "import ctypes
def application(environ, start_response):
    open(environ['started'], 'w').close()
    ctypes.PyDLL(None).usleep(1500000)
    start_response('200 OK', [])
    return [b'']
";

/// What standard error holds once it holds `text`, or when that is late; `signal` is
/// raised until then.
fn written_on(signal: i32, stderr: &Path, text: &str) -> String {
    let begin = Instant::now();
    loop {
        // SAFETY: no memory is passed; Python handles this signal.
        unsafe { libc::raise(signal) };
        let written = std::fs::read_to_string(stderr).unwrap_or_default();
        if written.contains(text) || begin.elapsed() > Duration::from_millis(1200) {
            return written;
        }
    }
}

#[test]
fn a_signal_shows_stacks_while_c_code_keeps_the_lock() {
    with_each_python("a_signal_shows_stacks_while_c_code_keeps_the_lock", |python| {
        let stderr = python.directory().join("stderr");
        let file = File::create(&stderr).unwrap_or_else(|error| panic!("{error}"));
        // What the test's own messages go to is given back below.
        // SAFETY: asks for a copy of an open descriptor.
        let saved = unsafe { libc::dup(2) };
        // SAFETY: two open descriptors.
        unsafe { libc::dup2(file.as_raw_fd(), 2) };
        let signal = libc::SIGRTMAX() - 1;
        python.start_with(&Setup { stacks_signal: signal, ..Setup::default() });
        let mut written = Vec::new();
        for group in ["", "sub"] {
            let script = python.script(&format!("keeps{group}.wsgi"), KEEPS);
            let started = python.directory().join(format!("started-{group}"));
            let name = started.as_os_str().as_encoded_bytes();
            let request = Request::get(&script).group(group).variable("started", name);
            std::thread::scope(|scope| {
                let running = scope.spawn(|| python.run(&request).outcome);
                python.wait_until(|| started.exists());
                written.push(written_on(
                    signal,
                    &stderr,
                    &format!("keeps{group}.wsgi\", line 4 in"),
                ));
                assert_eq!(running.join().ok(), Some(outcome::DONE));
            });
        }
        // SAFETY: two open descriptors.
        unsafe { libc::dup2(saved, 2) };
        let frame = "keeps.wsgi\", line 4 in application";
        assert!(written[0].contains(frame), "{}", written[0]);
        // `faulthandler` alone does not know about other interpreters.
        let program = host::program().to_string_lossy().into_owned();
        if ["3.11", "3.12"].iter().any(|version| program.ends_with(version)) {
            let frame = "keepssub.wsgi\", line 4 in application";
            assert!(written[1].contains(frame), "{}", written[1]);
        }
        python.stop();
        // SAFETY: no memory is passed.
        unsafe { libc::raise(signal) };
    });
}

#[test]
fn want_of_memory_is_told_apart() {
    with_python("want_of_memory_is_told_apart", |python| {
        for (source, wanted) in [
            ("    raise MemoryError\n", outcome::NO_MEMORY),
            ("    class Less(MemoryError): pass\n    raise Less\n", outcome::NO_MEMORY),
            ("    s('200 OK', [])\n    raise MemoryError\n", outcome::NO_MEMORY),
            ("    s('200 OK', [])(b'x')\n    raise MemoryError\n", outcome::CUT_NO_MEMORY),
            (
                "    s('200 OK', [])\n    yield b'x'\n    raise MemoryError\n",
                outcome::CUT_NO_MEMORY,
            ),
            ("    s('200 OK', [])(b'x')\n    raise ValueError\n", outcome::CUT),
            ("    'x' * (1 << 62)\n", outcome::NO_MEMORY),
        ] {
            let answer = python.get(&format!("def application(e, s):\n{source}"));
            assert_eq!(answer.outcome, wanted, "{source}: {}", answer.log());
            assert_eq!(answer.log().matches("3 WSGI").count(), 1, "{}", answer.log());
        }
        for source in ["raise MemoryError\n", "import missing_module_of_no_name\n"] {
            let answer = python.get(source);
            let wanted =
                if source.contains("Memory") { outcome::NO_MEMORY } else { outcome::FAILED };
            assert_eq!(answer.outcome, wanted, "{}", answer.log());
        }
    });
}

#[test]
fn a_host_hears_when_the_script_is_loaded() {
    with_each_python("a_host_hears_when_the_script_is_loaded", |python| {
        python.start_with(&Setup { reload_in_place: false, ..Setup::default() });
        let script = python.script("hello.wsgi", HELLO);
        let answer = python.run(&Request::get(&script));
        assert_eq!((answer.outcome, answer.exchange.loaded), (outcome::DONE, 1));
        std::fs::File::options()
            .write(true)
            .open(&script)
            .and_then(|file| file.set_modified(std::time::SystemTime::UNIX_EPOCH))
            .unwrap_or_else(|error| panic!("{error}"));
        let answer = python.run(&Request::get(&script));
        assert_eq!((answer.outcome, answer.exchange.loaded), (outcome::STALE, 0));
        for source in ["raise ValueError\n", "x = 1\n"] {
            let script = python.script(&format!("{}.wsgi", source.len()), source);
            let answer = python.run(&Request::get(&script));
            assert_eq!((answer.outcome, answer.exchange.loaded), (outcome::FAILED, 0));
        }
        let fault = vec![Input::Fault(status::GONE)];
        let request = Request { input: fault, ..Request::get(&python.script("b.wsgi", HELLO)) };
        assert_eq!(python.run(&request).exchange.loaded, 1);
        python.stop();
    });
}

#[test]
fn sigterm_ends_the_script_of_a_service_in_silence() {
    with_each_python("sigterm_ends_the_script_of_a_service_in_silence", |python| {
        python.start_with(&Setup { service: true, ..Setup::default() });
        let started = python.directory().join("started");
        let script = python.script(
            "service.py",
            &format!(
                "import signal, sys, time
assert type(signal.signal).__name__ != 'SignalIntercept'
try:
    open({started:?}, 'w').close()
    while True:
        time.sleep(0.001)
finally:
    print('cleaned up')
"
            ),
        );
        std::thread::scope(|scope| {
            scope.spawn(|| {
                python.wait_until(|| started.exists());
                let own = std::process::id().cast_signed();
                // SAFETY: no memory is passed; Python handles this signal.
                unsafe { libc::kill(own, libc::SIGTERM) };
            });
            assert_eq!(python.load_script("", &script), 0);
        });
        let log = python.process_text();
        assert!(log.contains("3 cleaned up"), "{log}");
        assert!(!log.contains("WSGI0") && !log.contains("Traceback"), "{log}");
        let other = python.script("other.py", "raise SystemExit(3)\n");
        assert_eq!(python.load_script("", &other), 0);
        let broken = python.script("broken.py", "raise ValueError\n");
        assert_eq!(python.load_script("", &broken), -1);
        assert!(python.process_text().contains("3 WSGI0109"), "{}", python.process_text());
        let plain = python.script("plain.py", "import signal\n");
        assert_eq!(python.load_script("sub", &plain), 0);
        assert!(python.process_text().contains("3 WSGI0090: "), "{}", python.process_text());
        python.stop();
    });
}

#[test]
fn a_service_told_to_end_while_its_threads_run_runs_its_callbacks() {
    with_each_python("a_service_told_to_end_while_its_threads_run_runs_its_callbacks", |python| {
        python.start_with(&Setup { service: true, ..Setup::default() });
        let script = python.script(
            "threads.py",
            "import atexit, os, signal, sys, threading, time
main = threading.get_ident()
def names(frame):
    while frame is not None:
        yield frame.f_code.co_name
        frame = frame.f_back
def work():
    while '_shutdown' not in names(sys._current_frames().get(main)):
        time.sleep(0.001)
    time.sleep(0.1)
    signal.pthread_kill(main, signal.SIGTERM)
    while True:
        time.sleep(1)
def last():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.05)
    print('callback ended')
atexit.register(last)
threading.Thread(target=work).start()
",
        );
        assert_eq!(python.load_script("", &script), 0);
        python.stop();
        let log = python.process_text();
        assert!(log.contains("callback ended"), "{log}");
        assert!(!log.contains("WSGI0098"), "{log}");
    });
}

#[test]
fn exit_of_a_script_that_is_no_service_is_a_failure() {
    with_python("exit_of_a_script_that_is_no_service_is_a_failure", |python| {
        let script = python.script("exits.wsgi", "raise SystemExit\n");
        assert_eq!(python.load_script("", &script), -1);
        assert!(python.process_text().contains("3 WSGI0107: "), "{}", python.process_text());
    });
}
