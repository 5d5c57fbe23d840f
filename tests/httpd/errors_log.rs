//! `wsgi.errors`, standard output and tracebacks: what reaches httpd's error log, and as what.
#![forbid(unsafe_code)]

use crate::harness::{Httpd, Mode, Request, Site, in_both_modes, ours_only};

/// An application with `body` before an answer.
fn app(body: &str) -> String {
    let body = body.trim().replace('\n', "\n    ");
    format!(
        "import sys\ndef application(environ, start_response):\n    \
         errors = environ['wsgi.errors']\n    {body}\n    \
         start_response('200 OK', [])\n    return [b'done']\n"
    )
}

/// Runs `body` in both modes; each of `lines` must be a record of its own, of level error.
#[track_caller]
fn expect_records(body: &str, lines: &[&str]) {
    for mode in [Mode::Embedded, Mode::Daemon] {
        eprintln!("{mode:?}: {body}");
        let mut httpd = Site::app(mode, &app(body)).start();
        for line in lines {
            httpd.expect_error(line);
        }
        assert_eq!(httpd.get("/").ok(), "done");
        for line in lines {
            httpd.wait_for_log(&format!("{line}\n"));
        }
    }
}

/// The records of the log that hold `text`.
fn records(httpd: &Httpd, text: &str) -> Vec<String> {
    httpd.log().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

#[test]
fn each_line_is_a_record() {
    expect_records("errors.write('first line\\nsecond line\\n')", &["first line", "second line"]);
}

#[test]
fn a_line_may_come_in_pieces() {
    expect_records(
        "errors.write('one ')\nerrors.write('and ')\nerrors.write('two\\n')",
        &["one and two"],
    );
}

#[test]
fn a_line_without_an_end_is_written_when_it_is_flushed() {
    expect_records("errors.write('half a line')\nerrors.flush()", &["half a line"]);
}

#[test]
fn a_line_without_an_end_is_written_at_the_end_of_the_request() {
    expect_records("errors.write('never ended')", &["never ended"]);
}

#[test]
fn writelines_and_print_work() {
    expect_records(
        "errors.writelines(['alpha\\n', 'beta\\n'])\nprint('gamma', file=errors)",
        &["alpha", "beta", "gamma"],
    );
}

#[test]
fn standard_output_and_error_go_to_the_log() {
    expect_records(
        "print('on stdout')\nprint('on stderr', file=sys.stderr)",
        &["on stdout", "on stderr"],
    );
}

#[test]
fn text_is_written_as_utf_8() {
    // httpd escapes what is not ASCII.
    expect_records("errors.write('caf\\xe9\\n')", &["caf\\xc3\\xa9"]);
}

#[test]
fn a_control_character_cannot_forge_a_record() {
    let body = "errors.write('before\\rafter\\x1b[1m\\n')";
    expect_records(body, &["before\\rafter\\x1b[1m"]);
}

#[test]
fn the_stream_looks_like_a_text_file() {
    let body = "assert errors.writable() and not errors.readable() and not errors.seekable()\n\
                assert errors.encoding == 'utf-8' and errors.errors == 'replace'\n\
                assert not errors.isatty() and not errors.closed\n\
                try:\n    errors.fileno()\nexcept OSError:\n    print('no fileno', file=errors)";
    expect_records(body, &["no fileno"]);
}

#[test]
fn records_go_to_the_log_of_the_virtual_host() {
    for group in ["", "WSGIProcessGroup one"] {
        let config = format!(
            "WSGIDaemonProcess one\n<VirtualHost *:${{PORT}}>\nServerName a.test\n\
             ErrorLog ${{ROOT}}/a.log\n{group}\nWSGIScriptAlias / ${{ROOT}}/app.wsgi\n</VirtualHost>"
        );
        let source = app("print('for the host', file=errors)");
        let httpd = Site::new(&config).file("app.wsgi", source).start();
        let request = Request::get("/").header("Host", "a.test");
        assert_eq!(httpd.send(&request).ok(), "done");
        httpd.wait_for_file("a.log", "for the host\n");
        assert!(!httpd.log().contains("for the host"), "{}", httpd.log());
    }
}

#[test]
fn a_record_names_the_client() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let mut httpd = Site::app(mode, &app("print('tell me who', file=errors)")).start();
        httpd.expect_error("tell me who");
        httpd.get("/").ok();
        httpd.wait_for_log("tell me who");
        let record = records(&httpd, "tell me who").remove(0);
        assert!(record.contains(" 127.0.0.1:"), "{record}");
    }
}

#[test]
fn a_traceback_is_logged_as_python_prints_it() {
    ours_only!("6.1.1 from PyPI logs the last line of it only");
    let source = "
def inner():
    return {}['lost']
def application(environ, start_response):
    return inner()
";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let mut httpd = Site::app(mode, source).start();
        httpd.expect_error("WSGI0174");
        httpd.expect_error("KeyError: 'lost'");
        assert_eq!(httpd.get("/").status, 500);
        for text in [
            "Traceback (most recent call last):",
            "app.wsgi\", line 5, in application",
            "line 3, in inner",
        ] {
            httpd.wait_for_log(text);
        }
    }
}

#[test]
fn a_script_that_cannot_be_loaded_is_an_error_of_the_server() {
    for (source, code, exception) in [
        ("def application(:\n", "WSGI0105", "SyntaxError"),
        ("raise KeyError('at import')\n", "WSGI0109", "at import"),
        ("import nowhere_to_be_found\n", "WSGI0109", "nowhere_to_be_found"),
        ("import sys\nsys.exit(1)\n", "WSGI0107", "SystemExit"),
    ] {
        for mode in [Mode::Embedded, Mode::Daemon] {
            eprintln!("{mode:?}: {source}");
            let mut httpd = Site::app(mode, source).start();
            httpd.expect_error(code);
            httpd.allow_error(exception);
            httpd.allow_error("app.wsgi");
            assert_eq!(httpd.get("/").status, 500);
            // It is tried again: the next request finds it mended.
            httpd.write("app.wsgi", app("pass"));
            assert_eq!(httpd.get("/").ok(), "done");
        }
    }
}

#[test]
fn one_failure_to_load_is_logged_once() {
    ours_only!("row 26: the reference logs the traceback for every request");
    for mode in [Mode::Embedded, Mode::Daemon] {
        let source = "raise KeyError('at import')\n";
        let mut httpd = Site::app(mode, source).one_child().start();
        httpd.expect_error("WSGI0109");
        httpd.expect_error("at import");
        for _ in 0..5 {
            assert_eq!(httpd.get("/").status, 500);
        }
        httpd.wait_for_log("at import");
        assert_eq!(records(&httpd, "Traceback").len(), 1, "{}", httpd.log());
    }
}

#[test]
fn a_request_that_goes_well_is_not_logged() {
    ours_only!("the reference is not held to it");
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, &app("pass")).one_child().start();
        httpd.get("/").ok();
        let before = httpd.log();
        for _ in 0..3 {
            httpd.get("/").ok();
        }
        assert_eq!(httpd.log(), before, "{mode:?}");
    }
}

#[test]
fn a_line_of_a_megabyte_is_bounded_and_harms_no_other() {
    let body = "errors.write('before\\n' + 'x' * 1000000 + '\\nafter\\n')\nsys.stderr.write('y' * 1000000 + '\\nat last\\n')";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let mut httpd = Site::app(mode, &app(body)).start();
        for text in ["before", "xxxx", "after", "yyyy", "at last"] {
            httpd.expect_error(text);
        }
        assert_eq!(httpd.get("/").ok(), "done");
        httpd.wait_for_log("at last\n");
        let log = httpd.log();
        let longest = log.lines().map(str::len).max().unwrap();
        assert!((4000..10_000).contains(&longest), "{mode:?}: a line of {longest} bytes");
        for text in ["before", "after", "at last"] {
            let line = log.lines().find(|line| line.ends_with(text)).unwrap();
            assert!(line.starts_with('[') && !line.contains("xx"), "{line}");
        }
    }
}

#[test]
fn lines_of_threads_are_not_mixed() {
    let body = "
import threading
def write(name):
    for number in range(200):
        errors.write(name * 30 + ' %d\\n' % number)
threads = [threading.Thread(target=write, args=(name,)) for name in 'cdef']
[thread.start() for thread in threads]
[thread.join() for thread in threads]";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let mut httpd = Site::app(mode, &app(body)).start();
        httpd.allow_error("[wsgi:error]");
        assert_eq!(httpd.get("/").ok(), "done");
        for name in ["c", "d", "e", "f"] {
            for number in 0..200 {
                let text = format!("{} {number}\n", name.repeat(30));
                assert!(httpd.log().contains(&text), "{mode:?}: {text} is in pieces");
            }
        }
    }
}

#[test]
fn what_is_written_after_a_request_goes_to_the_log_of_the_process() {
    let body = "
import os, threading, time
def late(stream):
    end = time.time() + 20
    while not os.path.exists(os.path.dirname(__file__) + '/run/go') and time.time() < end:
        time.sleep(0.005)
    print('from a thread, later')
    print('on stderr, later', file=sys.stderr)
    try:
        stream.write('too late\\n')
    except RuntimeError as e:
        print('the stream of the request raised', type(e).__name__, file=sys.stderr)
threading.Thread(target=late, args=(errors,)).start()
print('still within it', file=errors)";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let mut httpd = Site::app(mode, &app(body)).start();
        httpd.allow_error("[wsgi:error]");
        assert_eq!(httpd.get("/").ok(), "done");
        httpd.write("run/go", "");
        for text in ["from a thread, later", "on stderr, later", "raised RuntimeError"] {
            httpd.wait_for_log(text);
        }
        // Only what was written within the request has its client's address.
        let within = records(&httpd, "still within it").remove(0);
        assert!(within.contains(" 127.0.0.1:"), "{within}");
        let later = records(&httpd, "from a thread, later").remove(0);
        assert!(!later.contains("127.0.0.1"), "{later}");
        assert!(!httpd.log().contains("too late"));
    }
}

#[test]
fn any_text_can_be_written() {
    // Half a surrogate pair is no character: it is substituted, not refused.
    expect_records(
        "errors.write('\\ud800|\\U0001f600|\\u0105\\n')",
        &["?|\\xf0\\x9f\\x98\\x80|\\xc4\\x85"],
    );
}

#[test]
fn what_is_logged_after_the_answer_is_there_before_httpd_stops() {
    let source = "
import sys, threading, time
def late():
    time.sleep(0.5)
    print('rather late', file=sys.stderr, flush=True)
def application(environ, start_response):
    threading.Thread(target=late, daemon=True).start()
    start_response('200 OK', [])
    return [b'early']
";
    in_both_modes(source, |httpd| {
        // The harness waits for it.
        httpd.expect_error("rather late");
        assert_eq!(httpd.get("/").ok(), "early");
    });
}
