//! `wsgi.input`: how an application reads what the client sends.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::harness::{Httpd, Mode, Request, Site, in_both_modes, ours_only, wait_until};

/// Evaluates the query string with `i` for the input, and answers with its `repr`.
const EVAL: &str = r#"
from urllib.parse import unquote
def application(environ, start_response):
    names = {'i': environ['wsgi.input'], 'environ': environ}
    try:
        text = repr(eval(unquote(environ['QUERY_STRING']), names))
    except Exception as e:
        text = type(e).__name__
    start_response('200 OK', [])
    return [text.encode()]
"#;

/// Reads all of the input and answers with it.
const ECHO: &str = "
def application(environ, start_response):
    body = environ['wsgi.input'].read()
    start_response('200 OK', [])
    return [body]
";

/// The target that evaluates `expression`.
fn target(expression: &str) -> String {
    let escape = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '(' | ')' | ',' | '.' | '[' | ']' | '_' => {
            c.to_string()
        }
        _ => format!("%{:02x}", u32::from(c)),
    };
    format!("/?{}", expression.chars().map(escape).collect::<String>())
}

#[test]
fn the_input_is_read_like_a_file() {
    const LINES: &str = "one\ntwo\n\nlast";
    in_both_modes(EVAL, |httpd| {
        for (expression, expected) in [
            ("i.read()", "b'one\\ntwo\\n\\nlast'"),
            ("i.read(-1)", "b'one\\ntwo\\n\\nlast'"),
            ("i.read(5)", "b'one\\nt'"),
            ("i.read(0)", "b''"),
            ("i.read(1000)", "b'one\\ntwo\\n\\nlast'"),
            ("[i.read(), i.read(), i.read(3)]", "[b'one\\ntwo\\n\\nlast', b'', b'']"),
            ("[i.read(3), i.read(1), i.read()]", "[b'one', b'\\n', b'two\\n\\nlast']"),
            ("i.readline()", "b'one\\n'"),
            ("i.readline(-1)", "b'one\\n'"),
            ("i.readline(2)", "b'on'"),
            ("i.readline(4)", "b'one\\n'"),
            ("i.readline(100)", "b'one\\n'"),
            ("i.readline(0)", "b''"),
            ("[i.readline(2), i.readline(), i.read(2)]", "[b'on', b'e\\n', b'tw']"),
            (
                "[i.readline() for _ in range(6)]",
                "[b'one\\n', b'two\\n', b'\\n', b'last', b'', b'']",
            ),
            ("[i.read(2), i.readline(), i.readline()]", "[b'on', b'e\\n', b'two\\n']"),
            ("i.readlines()", "[b'one\\n', b'two\\n', b'\\n', b'last']"),
            ("[i.readline(), i.readlines()]", "[b'one\\n', [b'two\\n', b'\\n', b'last']]"),
            ("[i.readlines(1), i.read()]", "[[b'one\\n'], b'two\\n\\nlast']"),
            ("list(i)", "[b'one\\n', b'two\\n', b'\\n', b'last']"),
            ("[next(i), i.read(1), next(i), i.readline()]", "[b'one\\n', b't', b'wo\\n', b'\\n']"),
            ("[i.read(), list(i)]", "[b'one\\ntwo\\n\\nlast', []]"),
            ("iter(i) is i", "True"),
            ("[i.close(), i.read(3)]", "[None, b'one']"),
            ("i.read('3')", "TypeError"),
            ("i.read(1, 2)", "TypeError"),
        ] {
            let request = Request::post(&target(expression), LINES);
            assert_eq!(httpd.send(&request).ok(), expected, "{expression}");
        }
    });
}

#[test]
fn none_stands_for_no_size() {
    ours_only!("row 33: the reference raises TypeError");
    in_both_modes(EVAL, |httpd| {
        let request = Request::post(&target("i.read(None)"), "all");
        assert_eq!(httpd.send(&request).ok(), "b'all'");
    });
}

#[test]
fn without_a_body_there_is_nothing_to_read() {
    in_both_modes(EVAL, |httpd| {
        for expression in ["i.read()", "i.read(5)", "i.readline()"] {
            assert_eq!(httpd.get(&target(expression)).ok(), "b''", "{expression}");
        }
        assert_eq!(httpd.get(&target("[list(i), i.readlines()]")).ok(), "[[], []]");
    });
}

#[test]
fn bytes_arrive_as_they_were_sent() {
    let body: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    in_both_modes(ECHO, |httpd| {
        for length in [1, 8191, 8192, 8193, 65_535, 65_536, 65_537, 300_000] {
            let response = httpd.send(&Request::post("/", &body[..length]));
            assert!(response.body == body[..length], "{length} bytes");
        }
    });
}

#[test]
fn a_long_line_is_one_line() {
    let body = "x".repeat(200_000) + "\nrest";
    in_both_modes(EVAL, |httpd| {
        let request = Request::post(&target("[len(i.readline()), i.read()]"), &body);
        assert_eq!(httpd.send(&request).ok(), "[200001, b'rest']");
    });
}

#[test]
fn chunks_are_refused_unless_they_are_allowed() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let mut httpd = Site::app(mode, ECHO).start();
        httpd.expect_error("WSGI0139");
        assert_eq!(httpd.send(&Request::post_chunks("/", &[b"abc"])).status, 411);
    }
}

#[test]
fn chunks_are_one_body() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, EVAL).config("WSGIChunkedRequest On").start();
        let request = Request::post_chunks(&target("i.read()"), &[b"abc", b"def\ngh", b"i"]);
        assert_eq!(httpd.send(&request).ok(), "b'abcdef\\nghi'");
        let request = Request::post_chunks(&target("i.readlines()"), &[b"abc", b"def\ngh", b"i"]);
        assert_eq!(httpd.send(&request).ok(), "[b'abcdef\\n', b'ghi']");
        let request =
            Request::post_chunks(&target("[environ.get('CONTENT_LENGTH'), i.read()]"), &[]);
        assert_eq!(httpd.send(&request).ok(), "[None, b'']");
    }
}

#[test]
fn a_section_may_allow_chunks() {
    let mut httpd = Site::app(Mode::Embedded, ECHO)
        .config("<Location /yes>\nWSGIChunkedRequest On\n</Location>")
        .start();
    httpd.expect_error("WSGI0139");
    assert_eq!(httpd.send(&Request::post_chunks("/yes", &[b"abc"])).ok(), "abc");
    assert_eq!(httpd.send(&Request::post_chunks("/no", &[b"abc"])).status, 411);
}

#[test]
fn chunks_reach_the_application_before_the_last() {
    let source = "
def application(environ, start_response):
    start_response('200 OK', [])
    for line in environ['wsgi.input']:
        yield b'got ' + line
";
    ours_only!("row 6: the reference sends the whole body before it reads an answer");
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, source).config("WSGIChunkedRequest On").start();
        let mut connection = httpd.connect();
        let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        connection.write(head.to_owned() + "4\r\none\n\r\n").unwrap();
        assert_eq!(connection.read_head().unwrap().status, 200);
        assert_eq!(connection.read_chunk().unwrap(), b"got one\n");
        connection.write("4\r\ntwo\n\r\n").unwrap();
        assert_eq!(connection.read_chunk().unwrap(), b"got two\n");
        connection.write("0\r\n\r\n").unwrap();
        assert_eq!(connection.read_chunk().unwrap(), b"");
    }
}

#[test]
fn a_client_that_expects_it_is_told_to_continue() {
    in_both_modes(ECHO, |httpd| {
        let mut connection = httpd.connect();
        let head =
            "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
        connection.write(head).unwrap();
        assert_eq!(connection.read_head().unwrap().status, 100);
        connection.write("abc").unwrap();
        let response = connection.read_response(false).unwrap();
        assert_eq!((response.interim.as_slice(), response.ok()), ([].as_slice(), "abc".to_owned()));
    });
}

#[test]
fn an_application_that_does_not_read_does_not_ask_for_the_body() {
    ours_only!("row 6: the reference fetches the body first in daemon mode");
    let source = "
def application(environ, start_response):
    start_response('403 No', [('Content-Length', '2')])
    return [b'no']
";
    in_both_modes(source, |httpd| {
        let mut connection = httpd.connect();
        let head =
            "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
        connection.write(head).unwrap();
        // An answer that waits for the body that was not asked for comes at httpd's Timeout.
        connection.limit_patience(Duration::from_secs(10));
        let response = connection.read_response(false).unwrap();
        assert_eq!((response.status, response.interim.as_slice()), (403, [].as_slice()));
    });
}

#[test]
fn a_bad_body_does_not_end_an_answer_that_has_begun() {
    ours_only!("row 63: an error page or the rest of the answer follows the first part of it");
    let source = "
def application(environ, start_response):
    start_response('200 OK', [])
    yield b'early'
    try:
        environ['wsgi.input'].read()
    except OSError:
        if environ['PATH_INFO'] == '/fails':
            raise
    yield b' and late'
";
    let begin = |httpd: &Httpd, path: &str, rest: &str| {
        let mut connection = httpd.connect();
        let head = "Host: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
        connection.write(format!("POST {path} HTTP/1.1\r\n{head}")).unwrap();
        assert_eq!(connection.read_head().unwrap().status, 200);
        assert_eq!(connection.read_chunk().unwrap(), b"early");
        connection.write(rest).unwrap();
        connection
    };
    let limited = "WSGIChunkedRequest On\nLimitRequestBody 1000";
    for mode in [Mode::Embedded, Mode::Daemon] {
        for rest in ["zz\r\n", "-1\r\n", &format!("7d0\r\n{}", "x".repeat(2000))] {
            eprintln!("{mode:?} {rest:.10}");
            let httpd = Site::app(mode, source).config(limited).start();
            // An application that goes on has its answer come to its own end.
            let mut connection = begin(&httpd, "/goes-on", rest);
            assert_eq!(connection.read_chunk().unwrap(), b" and late");
            assert_eq!(connection.read_chunk().unwrap(), b"");
            assert!(connection.is_closed(), "what follows cannot be told from the body");
            let mut connection = begin(&httpd, "/fails", rest);
            assert!(connection.read_chunk().is_err(), "what was cut looks whole");
        }
    }
}

#[test]
fn a_body_nobody_read_does_not_spoil_the_next_request() {
    let source = "
def application(environ, start_response):
    start_response('200 OK', [('Content-Length', '2')])
    return [b'ok']
";
    in_both_modes(source, |httpd| {
        let mut connection = httpd.connect();
        for length in [10, 100_000, 10] {
            let request = Request::post("/", "y".repeat(length)).keep_alive();
            assert_eq!(connection.exchange(&request).unwrap().ok(), "ok");
        }
    });
}

#[test]
fn a_body_that_ends_early_is_an_error_of_the_read() {
    ours_only!("row 27: the reference logs it as an error of the server");
    let source = "
import os
ROOT = os.path.dirname(__file__)
def application(environ, start_response):
    with open(ROOT + '/run/read.log', 'a') as f:
        try:
            f.write('read %d\\n' % len(environ['wsgi.input'].read()))
        except OSError:
            f.write('OSError\\n')
    start_response('200 OK', [])
    return [b'x']
";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let site = Site::app(mode, source);
        site.open_run();
        let httpd = site.start();
        // Longer than what is read before the application starts.
        let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n";
        let mut connection = httpd.connect();
        connection.write(head.to_owned() + "abc").unwrap();
        connection.finish_writing();
        let _ = connection.read_response(false);
        httpd.wait_for_file("run/read.log", "OSError\n");
    }
}

#[test]
fn a_short_body_that_ends_early_never_reaches_the_application() {
    ours_only!("row 27: the reference logs it as an error of the server");
    let httpd = Site::app(Mode::Daemon, ECHO).start();
    let mut connection = httpd.connect();
    connection.write("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\nabc").unwrap();
    connection.finish_writing();
    let status = connection.read_response(false).map(|response| response.status);
    assert!(matches!(status, Ok(400 | 408) | Err(_)), "{status:?}");
    assert_eq!(httpd.get("/").ok(), "");
}

#[test]
fn a_client_too_slow_with_its_body_is_told_so() {
    ours_only!("row 27: the reference answers 500 in embedded mode");
    let known = "Content-Length: 30\r\n\r\nabc";
    let chunked = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    for (mode, body) in [
        (Mode::Embedded, known),
        (Mode::Embedded, chunked),
        (Mode::Daemon, known),
        (Mode::Daemon, chunked),
    ] {
        let site = Site::app(mode, ECHO).config("Timeout 1\nWSGIChunkedRequest On");
        let mut httpd = site.start();
        httpd.allow_error("OSError");
        httpd.allow_error("WSGI0174");
        let mut connection = httpd.connect();
        connection.write(format!("POST / HTTP/1.1\r\nHost: x\r\n{body}")).unwrap();
        let response = connection.read_response(false).unwrap();
        assert!(matches!(response.status, 400 | 408), "{mode:?}: {}", response.status);
    }
}

#[test]
fn a_slow_uploader_holds_no_worker() {
    ours_only!("the reference gives the only thread to whoever connects first");
    let config =
        "WSGIDaemonProcess one threads=1\nWSGIProcessGroup one\nWSGIScriptAlias / ${ROOT}/app.wsgi";
    let httpd = Site::new(config).file("app.wsgi", ECHO).start();
    let mut slow = httpd.connect();
    slow.write("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc").unwrap();
    assert_eq!(httpd.send(&Request::post("/", "quick")).ok(), "quick");
    slow.write("def").unwrap();
    assert_eq!(slow.read_response(false).unwrap().ok(), "abcdef");
}

#[test]
fn a_read_waits_for_what_is_still_to_come() {
    let source = "
import os
ROOT = os.path.dirname(__file__)
def application(environ, start_response):
    first = environ['wsgi.input'].readline()
    with open(ROOT + '/run/first', 'wb') as f:
        f.write(first)
    rest = environ['wsgi.input'].read()
    start_response('200 OK', [])
    return [first, rest]
";
    let site = Site::app(Mode::Embedded, source);
    site.open_run();
    let httpd = site.start();
    let mut connection = httpd.connect();
    connection.write("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\none\n").unwrap();
    wait_until("the first line to be read", || (httpd.read("run/first") == "one\n").then_some(()));
    connection.write("second").unwrap();
    assert_eq!(connection.read_response(false).unwrap().ok(), "one\nsecond");
}

#[test]
fn a_module_that_limits_the_time_of_a_body_is_obeyed() {
    ours_only!("row 27: the reference answers 500");
    let config = "LoadModule reqtimeout_module ${MODULES}/mod_reqtimeout.so
        RequestReadTimeout body=1\nWSGIChunkedRequest On";
    for mode in [Mode::Embedded, Mode::Daemon] {
        for body in [
            "Content-Length: 30\r\n\r\nabc",
            "Content-Length: 300000\r\n\r\nabc",
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ] {
            let httpd = Site::app(mode, ECHO).config(config).start();
            let mut connection = httpd.connect();
            connection.write(format!("POST / HTTP/1.1\r\nHost: x\r\n{body}")).unwrap();
            let response = connection.read_response(false).unwrap();
            assert!(matches!(response.status, 400 | 408), "{mode:?}: {}", response.status);
            assert!(connection.is_closed());
            assert_eq!(httpd.send(&Request::post("/", "quick")).ok(), "quick");
        }
    }
}

#[test]
fn chunks_above_the_limit_of_the_server_are_refused() {
    ours_only!("row 27: the reference logs it as an error of the server");
    let config = "LimitRequestBody 1000\nWSGIChunkedRequest On";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, ECHO).config(config).start();
        let small = Request::post_chunks("/", &[&[b'x'; 900]]);
        assert_eq!(httpd.send(&small).body.len(), 900);
        let mut connection = httpd.connect();
        let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunk = format!("258\r\n{}\r\n", "y".repeat(600));
        connection.write(format!("{head}{chunk}{chunk}{chunk}")).unwrap();
        assert_eq!(connection.read_response(false).unwrap().status, 413, "{mode:?}");
        assert!(connection.is_closed());
    }
}
