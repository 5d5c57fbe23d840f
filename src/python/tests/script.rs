//! Scripts and the interpreters they run in.

mod host;

use host::{HELLO, Request, Setup, app, program, with_each_python, with_python};
use wsgi_wire::vtable::outcome;

#[test]
fn a_changed_script_is_loaded_again_in_place() {
    with_python("a_changed_script_is_loaded_again_in_place", |python| {
        let source = |text: &str| app(&format!("out = ['{text}']"));
        let touch = |seconds| {
            let path = python.directory().join("script.wsgi");
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        };
        let path = python.script("script.wsgi", &source("one"));
        touch(1000);
        let request = Request::get(&path);
        assert_eq!(python.load_script("", &path), 0);
        assert!(python.process_log()[0].1.starts_with("Loading WSGI script '"));
        let answer = python.run(&request);
        assert_eq!((answer.text().as_str(), answer.log().as_str()), ("one", ""));
        python.script("script.wsgi", &source("two"));
        touch(999);
        assert_eq!(python.run(&Request { flags: 0, ..request.clone() }).text(), "one");
        let answer = python.run(&request);
        assert_eq!(answer.text(), "two");
        assert!(answer.log().starts_with("6 Reloading WSGI script '"), "{}", answer.log());
        assert_eq!(python.run(&request).log(), "");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(python.run(&request).text(), "two");
    });
}

#[test]
fn a_look_at_the_script_of_unknown_age_is_not_believed() {
    with_python("a_look_at_the_script_of_unknown_age_is_not_believed", |python| {
        let epoch = std::time::SystemTime::UNIX_EPOCH;
        let path = python.script("script.wsgi", &app("out = ['one']"));
        let touch = |seconds| {
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(epoch + std::time::Duration::from_secs(seconds)).unwrap();
        };
        touch(1000);
        assert_eq!(python.run(&Request::get(&path)).text(), "one");
        let now = epoch.elapsed().unwrap().as_micros() as u64;
        // An old one, and one of before the clock was set back.
        let starts = [now - 1_000_000, now + 3_600_000_000];
        for (start, (seen, text)) in starts.into_iter().zip([(1000, "two"), (1001, "three")]) {
            python.script("script.wsgi", &app(&format!("out = ['{text}']")));
            touch(seen + 1);
            let request = Request { looked: (start, seen * 1_000_000), ..Request::get(&path) };
            assert_eq!(python.run(&request).text(), text);
        }
    });
}

#[test]
fn a_changed_script_is_left_to_a_new_daemon_process() {
    with_each_python("a_changed_script_is_left_to_a_new_daemon_process", |python| {
        python.start_with(&Setup {
            reload_in_place: false,
            process_group: "blog",
            ..Setup::default()
        });
        let path = python.script("script.wsgi", &app("out = [environ['mod_wsgi.process_group']]"));
        let request = Request::get(&path);
        assert_eq!(python.run(&request).text(), "blog");
        let time = std::time::SystemTime::UNIX_EPOCH;
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        let answer = python.run(&request);
        assert_eq!((answer.outcome, answer.log().as_str()), (outcome::STALE, ""));
        assert!(answer.exchange.writes.is_empty());
        assert_eq!(python.run(&Request { flags: 0, ..request }).outcome, outcome::DONE);
        python.stop();
    });
}

/// Waits until the thread `id` of this process sleeps and goes on sleeping.
fn await_sleep(id: libc::pid_t) {
    let mut seen = 0;
    let begin = std::time::Instant::now();
    while seen < 20 && begin.elapsed().as_secs() < 10 {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{id}/stat"));
        let sleeps = stat.is_ok_and(|stat| stat.contains(") S "));
        seen = if sleeps { seen + 1 } else { 0 };
        std::thread::park_timeout(std::time::Duration::from_millis(1));
    }
}

#[test]
fn a_script_that_changes_while_requests_wait_for_it_is_current() {
    with_each_python("a_script_that_changes_while_requests_wait_for_it_is_current", |python| {
        python.start_with(&Setup { reload_in_place: false, ..Setup::default() });
        let go = python.directory().join("go");
        let slow = python.script(
            "slow.wsgi",
            &format!(
                "import os, time\nwhile not os.path.exists('{}'):\n    time.sleep(0.001)\n{HELLO}",
                go.display()
            ),
        );
        let path = python.script("script.wsgi", HELLO);
        let request = Request::get(&path);
        let (send, receive) = std::sync::mpsc::channel();
        let wait = |request: Request, send: std::sync::mpsc::Sender<libc::pid_t>| {
            // SAFETY: asks for a number.
            send.send(unsafe { libc::gettid() }).unwrap();
            python.run(&request)
        };
        std::thread::scope(|scope| {
            let first = send.clone();
            scope.spawn(|| wait(Request::get(&slow), first));
            await_sleep(receive.recv().unwrap());
            let threads = [send.clone(), send.clone()]
                .map(|send| scope.spawn(|| wait(request.clone(), send)));
            for _ in &threads {
                await_sleep(receive.recv().unwrap());
            }
            python.script("script.wsgi", &HELLO.replace("Hello", "Changed"));
            let time = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            std::fs::write(&go, "").unwrap();
            for thread in threads {
                let answer = thread.join().unwrap();
                assert_eq!((answer.outcome, &*answer.text()), (outcome::DONE, "Changed"));
            }
        });
        python.stop();
    });
}

#[test]
fn a_script_that_fails_is_reported_once_and_tried_again() {
    with_python("a_script_that_fails_is_reported_once_and_tried_again", |python| {
        let path = python.script("script.wsgi", "import no_such_module\n");
        let request = Request::get(&path);
        let answer = python.run(&request);
        assert_eq!(answer.outcome, outcome::FAILED);
        let log = answer.log();
        assert!(log.contains("3 WSGI0109: script '"), "{log}");
        assert!(log.contains("3 Traceback (most recent call last):"), "{log}");
        assert!(log.contains(&format!("3   File \"{}\", line 1, in <module>", path.display())));
        assert!(!log.contains("mod_wsgi setup"), "{log}");
        for count in 2..4 {
            let answer = python.run(&request);
            let lines: Vec<_> =
                answer.exchange.log.iter().filter(|(level, _)| *level == 3).collect();
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(lines[0].1.contains(&format!("{count} times")), "{lines:?}");
            assert!(lines[0].1.contains("ModuleNotFoundError: No module named"), "{lines:?}");
        }
        for (source, code) in [
            ("raise SystemExit('bye')", "WSGI0107"),
            ("def broken(:", "WSGI0105"),
            ("# coding: nonsense\nx = 1", "WSGI0105"),
        ] {
            let answer = python.get(source);
            assert_eq!(answer.outcome, outcome::FAILED);
            assert!(answer.log().contains(&format!("3 {code}: ")), "{}", answer.log());
            assert!(answer.exchange.log.len() > 2, "{}", answer.log());
        }
        let answer = python.get("applications = 1");
        assert_eq!(answer.outcome, outcome::FAILED);
        assert!(answer.log().contains("3 WSGI0089: script '"), "{}", answer.log());
        assert_eq!(python.get(HELLO).text(), "Hello");
        assert_eq!(python.load_script("x", std::path::Path::new("/nonexistent/x.wsgi")), -1);
    });
}

#[test]
fn an_interpreter_is_set_up_as_configured() {
    with_each_python("an_interpreter_is_set_up_as_configured", |python| {
        let directory = |name: &str| {
            let path = python.directory().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path.display().to_string()
        };
        let (one, two, extra, home) =
            (directory("one"), directory("two"), directory("extra"), directory("home"));
        directory("one/mod_wsgi");
        python.script("one/mod_wsgi/__init__.py", "raise RuntimeError('not to be imported')\n");
        python.script("one/mod_wsgi/express.py", "name = 'express'\n");
        python.script("two/some.pth", &format!("{extra}\n"));
        python.start_with(&Setup {
            python_path: format!("{one}:{two}"),
            home: home.clone(),
            user: ("joe", "/home/joe"),
            ..Setup::default()
        });
        let script = python.script(
            "setup.wsgi",
            &app("import os, sys, signal, mod_wsgi
from mod_wsgi import express
out = sys.path[:4] + [express.name, mod_wsgi.version]
out += [os.environ['HOME'], os.environ['USER'], os.environ.get('LOGNAME')]
before = signal.getsignal(signal.SIGTERM)
out += [signal.signal(signal.SIGTERM, print) is print, signal.getsignal(signal.SIGTERM) is before]
out += [repr(signal.signal)[:32]]
pid = os.fork() if mod_wsgi.application_group == '' else 0
if pid == 0 and mod_wsgi.application_group == '':
    os._exit(0 if signal.signal(signal.SIGTERM, signal.SIG_IGN) is before else 1)
out += [os.waitpid(pid, 0)[1] if pid else 0]"),
        );
        for group in ["", "other"] {
            let answer = python.run(&Request::get(&script).group(group));
            let wanted = format!(
                "{home}\n{one}\n{two}\n{extra}\nexpress\n(6, 1, 1)\n/home/joe\njoe\nNone\nTrue\n\
                 True\n<mod_wsgi.SignalIntercept object\n0"
            );
            assert_eq!(answer.text(), wanted, "{}", answer.log());
            assert!(
                answer.log().contains("6 Callback registration for signal 15"),
                "{}",
                answer.log()
            );
        }
        python.stop();
    });
}

#[test]
fn prints_go_to_the_log_of_the_request_that_runs() {
    with_python("prints_go_to_the_log_of_the_request_that_runs", |python| {
        let script = python.script(
            "log.wsgi",
            &app("import sys, threading, warnings
print('to', 'stdout')
print('to stderr', file=sys.stderr)
sys.stderr.write('part ')
sys.stderr.write('whole\\nend')
errors = environ['wsgi.errors']
errors.write('caf\\xe9 \\udc80\\n')
errors.buffer.write(b'raw \\xff\\n')
errors.buffer.write(memoryview(b'view\\n'))
errors.buffer.writelines([b'l', bytearray(b'm\\n')])
errors.write('cut' + chr(0) + 'here\\n')
errors.write('x' * 10000 + '\\n')
out = [errors.encoding, errors.errors, errors.closed, errors.readable(), errors.isatty()]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    out += [errors.buffer.write('text\\n'), errors.buffer.write('more\\n'), len(caught)]
thread = threading.Thread(target=lambda: (print('aside'), errors.write('from a thread\\n')))
thread.start()
thread.join()
try:
    errors.fileno()
except OSError as error:
    out += [type(error).__name__]
errors.write('without newline')"),
        );
        let answer = python.run(&Request::get(&script));
        assert_eq!(answer.text(), "utf-8\nreplace\nFalse\nFalse\nFalse\n5\n5\n1\nOSError");
        let lines: Vec<_> = answer.exchange.log.iter().skip(1).map(|(_, line)| &line[..]).collect();
        let long = "x".repeat(8192);
        let wanted = [
            "to stdout",
            "to stderr",
            "part whole",
            "end",
            "caf\u{e9} ?",
            "raw \u{fffd}",
            "view",
            "lm",
            "cut",
            &long,
            "text",
            "more",
            "from a thread",
            "without newline",
        ];
        assert_eq!(lines, wanted);
        assert_eq!(python.process_log().as_slice(), [(3, "aside".to_owned())]);
    });
}

#[test]
fn the_virtual_environment_of_the_program_is_used() {
    with_each_python("the_virtual_environment_of_the_program_is_used", |python| {
        let home = python.directory().join("venv");
        let made = std::process::Command::new(program())
            .args(["-m", "venv", "--without-pip"])
            .arg(&home)
            .status()
            .unwrap();
        assert!(made.success());
        python.start_with(&Setup { program: Some(home.join("bin/python")), ..Setup::default() });
        let script = python.script(
            "venv.wsgi",
            &app("import sys\nout = [sys.prefix, sys.prefix != sys.base_prefix, sys.executable]"),
        );
        for group in ["", "other"] {
            let answer = python.run(&Request::get(&script).group(group));
            let home = home.display();
            assert_eq!(answer.text(), format!("{home}\nTrue\n{home}/bin/python"));
        }
        python.stop();
    });
}
