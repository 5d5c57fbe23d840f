//! `start_response`, `write`, iteration and `close`: how an application answers, and what
//! becomes of one that does it wrong.
#![forbid(unsafe_code)]

use crate::harness::{Connection, Httpd, Mode, Request, Site, in_both_modes, ours_only};

/// Runs the Python of `body` as the body of the application.
fn app(body: &str) -> String {
    let body = body.trim().replace('\n', "\n    ");
    format!("import os, sys\ndef application(environ, start_response):\n    {body}\n")
}

/// Writes a line to `closed.log` for each time a result is closed.
const CLOSING: &str = r#"
import os
ROOT = os.path.dirname(__file__)
class Result:
    def __init__(self, items):
        self.items = iter(items)
    def __iter__(self):
        return self
    def __next__(self):
        item = next(self.items)
        if isinstance(item, Exception):
            raise item
        return item
    def close(self):
        with open(ROOT + '/run/closed.log', 'a') as f:
            f.write('closed\n')
"#;

/// A site with `source` whose application may write below `run`.
fn writable(mode: Mode, source: &str) -> Httpd {
    let site = Site::app(mode, source);
    site.open_run();
    site.start()
}

#[test]
fn status_and_headers_reach_the_client() {
    let source = app("
start_response('418 I am a teapot', [('Content-Type', 'text/x-tea'), ('X-A', 'b'), ('X-E', '')])
return [b'short and stout']");
    in_both_modes(&source, |httpd| {
        let response = httpd.get("/");
        assert_eq!((response.status, response.reason.as_str()), (418, "I am a teapot"));
        assert_eq!(response.header("Content-Type"), Some("text/x-tea"));
        assert_eq!(response.header("X-A"), Some("b"));
        assert_eq!(response.header("X-E"), Some(""));
        assert_eq!(response.text(), "short and stout");
    });
}

#[test]
fn headers_may_hold_latin_1() {
    let source = app("start_response('200 OK', [('X-Name', 'caf\\xe9')])\nreturn [b'x']");
    in_both_modes(&source, |httpd| {
        assert_eq!(httpd.get("/").header("X-Name"), Some("caf\u{e9}"));
    });
}

#[test]
fn several_cookies_stay_several_headers() {
    let source = app("
start_response('200 OK', [('Set-Cookie', 'a=1'), ('Set-Cookie', 'b=2'),
    ('WWW-Authenticate', 'Basic realm=\"x\"'), ('WWW-Authenticate', 'Bearer')])
return [b'x']");
    in_both_modes(&source, |httpd| {
        let response = httpd.get("/");
        assert_eq!(response.all("Set-Cookie"), ["a=1", "b=2"]);
        assert_eq!(response.all("WWW-Authenticate"), ["Basic realm=\"x\"", "Bearer"]);
    });
}

#[test]
fn wrong_arguments_raise_what_the_reference_raises() {
    let source = r#"
class Text(str): pass
CASES = [
    ('no arguments', lambda sr: sr(), TypeError),
    ('one argument', lambda sr: sr('200 OK'), TypeError),
    ('headers not a list', lambda sr: sr('200 OK', ()), TypeError),
    ('exc_info not a tuple', lambda sr: sr('200 OK', [], 'x'), RuntimeError),
    ('status is bytes', lambda sr: sr(b'200 OK', []), TypeError),
    ('status is a number', lambda sr: sr(200, []), TypeError),
    ('status not latin-1', lambda sr: sr('200 \u20ac', []), UnicodeEncodeError),
    ('status too short', lambda sr: sr('20', []), ValueError),
    ('status without number', lambda sr: sr('abc OK', []), ValueError),
    ('status without blank', lambda sr: sr('200OK', []), ValueError),
    ('status of four digits', lambda sr: sr('2000 OK', []), ValueError),
    ('status with newline', lambda sr: sr('200 OK\nX: y', []), ValueError),
    ('header not a tuple', lambda sr: sr('200 OK', [['a', 'b']]), TypeError),
    ('header of one', lambda sr: sr('200 OK', [('a',)]), ValueError),
    ('header of three', lambda sr: sr('200 OK', [('a', 'b', 'c')]), ValueError),
    ('name is bytes', lambda sr: sr('200 OK', [(b'a', 'b')]), TypeError),
    ('value is bytes', lambda sr: sr('200 OK', [('a', b'b')]), TypeError),
    ('value is a number', lambda sr: sr('200 OK', [('Content-Length', 3)]), TypeError),
    ('value not latin-1', lambda sr: sr('200 OK', [('a', '\u20ac')]), UnicodeEncodeError),
    ('empty name', lambda sr: sr('200 OK', [('', 'b')]), ValueError),
    ('name with blank', lambda sr: sr('200 OK', [('a b', 'c')]), ValueError),
    ('name with newline', lambda sr: sr('200 OK', [('a\n', 'c')]), ValueError),
    ('value with newline', lambda sr: sr('200 OK', [('a', 'b\nX: y')]), ValueError),
    ('value with return', lambda sr: sr('200 OK', [('a', 'b\rc')]), ValueError),
]
def application(environ, start_response):
    wrong = []
    for name, call, expected in CASES:
        try:
            call(start_response)
        except expected:
            continue
        except BaseException as e:
            wrong.append('%s: %r' % (name, e))
        else:
            wrong.append('%s: accepted' % name)
    start_response('200 OK', [])
    return ['; '.join(wrong).encode() or b'all refused']
"#;
    in_both_modes(source, |httpd| assert_eq!(httpd.get("/").ok(), "all refused"));
}

/// Both modes answer 500 to this application, and log `error`.
#[track_caller]
fn expect_failure(body: &str, error: &str) {
    let source = app(&format!("{body}\nreturn [b'x']"));
    for mode in [Mode::Embedded, Mode::Daemon] {
        let mut httpd = Site::app(mode, &source).start();
        httpd.expect_error(error);
        httpd.allow_error("WSGI0174");
        assert_eq!(httpd.get("/").status, 500, "{mode:?} {body}");
    }
}

#[test]
fn a_nul_in_a_header_is_an_error() {
    ours_only!("row 24: the reference cuts the text at the NUL");
    for text in ["'200 O\\0K', []", "'200 OK', [('A\\0', 'b')]", "'200 OK', [('A', 'b\\0c')]"] {
        expect_failure(&format!("start_response({text})"), "ValueError");
    }
}

#[test]
fn headers_that_belong_to_the_connection_are_an_error() {
    ours_only!("row 24: the reference lets them through");
    for header in [
        "('Connection', 'close')",
        "('Transfer-Encoding', 'chunked')",
        "('Keep-Alive', 'x')",
        "('Upgrade', 'x')",
        "('Content-Length', '1'), ('Content-Length', '2')",
    ] {
        expect_failure(&format!("start_response('200 OK', [{header}])"), "Error");
    }
}

#[test]
fn a_final_answer_is_not_an_interim_one() {
    ours_only!("row 23: the reference sends it and leaves the client out of step");
    expect_failure("start_response('103 Early Hints', [])", "ValueError");
}

#[test]
fn a_second_call_before_any_output_replaces_the_first() {
    let source = app("
start_response('200 OK', [('X-First', 'yes')])
start_response('404 Gone', [('X-Second', 'yes')])
return [b'x']");
    in_both_modes(&source, |httpd| {
        let response = httpd.get("/");
        assert_eq!(response.status, 404);
        assert_eq!((response.header("X-First"), response.header("X-Second")), (None, Some("yes")));
    });
}

#[test]
fn exc_info_replaces_an_answer_that_was_not_sent() {
    let source = app("
start_response('200 OK', [])
try:
    1 / 0
except ZeroDivisionError:
    start_response('503 Sorry', [], sys.exc_info())
return [b'sorry']");
    in_both_modes(&source, |httpd| {
        let response = httpd.get("/");
        assert_eq!((response.status, response.text()), (503, "sorry".to_owned()));
    });
}

#[test]
fn after_output_a_second_call_raises() {
    let source = app("
write = start_response('200 OK', [])
write(b'sent;')
try:
    start_response('500 Oops', [])
except RuntimeError:
    write(b'RuntimeError;')
try:
    1 / 0
except ZeroDivisionError:
    try:
        start_response('500 Oops', [], sys.exc_info())
    except ZeroDivisionError:
        write(b'raised again')
return []");
    in_both_modes(&source, |httpd| {
        assert_eq!(httpd.get("/").ok(), "sent;RuntimeError;raised again");
    });
}

#[test]
fn what_is_written_comes_before_what_is_returned() {
    let source = app("
write = start_response('200 OK', [])
write(b'one ')
write(b'')
write(b'two ')
return [b'three']");
    in_both_modes(&source, |httpd| assert_eq!(httpd.get("/").ok(), "one two three"));
}

#[test]
fn write_takes_bytes_only() {
    let source = app("
write = start_response('200 OK', [])
names = []
for args in ('text',), (None,), (), (b'a', b'b'):
    try:
        write(*args)
    except TypeError:
        names.append('TypeError')
return [' '.join(names).encode()]");
    in_both_modes(&source, |httpd| {
        assert_eq!(httpd.get("/").ok(), "TypeError TypeError TypeError TypeError");
    });
}

#[test]
fn items_of_a_generator_are_sent_as_they_come() {
    let source = "
import os, time
ROOT = os.path.dirname(__file__)
def application(environ, start_response):
    start_response('200 OK', [])
    yield b'first'
    end = time.time() + 20
    while not os.path.exists(ROOT + '/go') and time.time() < end:
        time.sleep(0.005)
    yield b''
    yield b'second'
";
    in_both_modes(source, |httpd| {
        let mut connection = httpd.connect();
        connection.write(Request::get("/").head()).unwrap();
        assert_eq!(connection.read_head().unwrap().status, 200);
        assert_eq!(connection.read_chunk().unwrap(), b"first");
        httpd.write("go", "");
        assert_eq!(connection.read_chunk().unwrap(), b"second");
        assert_eq!(connection.read_chunk().unwrap(), b"");
    });
}

#[test]
fn start_response_may_wait_for_the_first_item() {
    let source = "
def application(environ, start_response):
    yield b''
    start_response('201 Made', [])
    yield b'made'
";
    in_both_modes(source, |httpd| assert_eq!(httpd.get("/").status, 201));
}

#[test]
fn an_answer_may_be_empty() {
    let source = app("start_response('200 OK', [('X-A', 'b')])\nreturn []");
    in_both_modes(&source, |httpd| {
        let response = httpd.get("/");
        assert_eq!((response.ok(), response.header("X-A")), (String::new(), Some("b")));
    });
}

#[test]
fn subclasses_of_bytes_are_bytes() {
    let source = "
class Bytes(bytes): pass
"
    .to_owned()
        + &app("start_response('200 OK', [])\nreturn (Bytes(b'a'), b'b')");
    in_both_modes(&source, |httpd| assert_eq!(httpd.get("/").ok(), "ab"));
}

#[test]
fn the_length_of_a_single_item_is_announced() {
    ours_only!("row 34: the reference sends it in chunks");
    let source = app("start_response('200 OK', [])\nreturn [b'12345']");
    in_both_modes(&source, |httpd| {
        assert_eq!(httpd.get("/").header("Content-Length"), Some("5"));
    });
}

#[test]
fn no_content_type_is_made_up() {
    ours_only!("row 11: the reference lets httpd guess from the name of the script");
    let source = app("start_response('200 OK', [])\nreturn [b'x']");
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, &source).config("AddType text/x-script .wsgi").start();
        assert_eq!(httpd.get("/").header("Content-Type"), None);
    }
}

#[test]
fn a_head_request_gets_no_body() {
    let source = app("start_response('200 OK', [('Content-Length', '3')])\nreturn [b'abc']");
    in_both_modes(&source, |httpd| {
        let response = httpd.send(&Request::new("HEAD", "/"));
        assert_eq!((response.status, response.header("Content-Length")), (200, Some("3")));
    });
}

#[test]
fn statuses_without_a_body_get_none() {
    let source = app("start_response(environ['QUERY_STRING'] + ' X', [])\nreturn [b'abc']");
    in_both_modes(&source, |httpd| {
        for status in [204, 304] {
            let mut connection = httpd.connect();
            let request = Request::get(&format!("/?{status}")).keep_alive();
            for _ in 0..2 {
                assert_eq!(connection.exchange(&request).unwrap().status, status);
            }
        }
    });
}

#[test]
fn more_than_the_announced_length_is_not_sent() {
    let source = app("
start_response('200 OK', [('Content-Length', '3')])
return [b'ab', b'cdef', b'ghi']");
    in_both_modes(&source, |httpd| {
        let mut connection = httpd.connect();
        connection.write(Request::get("/").keep_alive().head()).unwrap();
        assert_eq!(connection.read_response(false).unwrap().text(), "abc");
    });
}

#[test]
fn less_than_the_announced_length_never_looks_whole() {
    ours_only!("row 23: the reference keeps the connection, out of step");
    let source = app("start_response('200 OK', [('Content-Length', '30')])\nreturn [b'abc']");
    for mode in [Mode::Embedded, Mode::Daemon] {
        let mut httpd = Site::app(mode, &source).start();
        httpd.expect_error("announced 30 bytes");
        // While nothing was sent, the answer can still be refused as a whole.
        match httpd.try_send(&Request::get("/").keep_alive()) {
            Ok(response) => assert_eq!(response.status, 500),
            Err(cut) => assert_eq!(cut.partial.unwrap().text(), "abc"),
        }
    }
}

#[test]
fn a_header_called_status_is_a_plain_header() {
    ours_only!("row 28: the reference obeys it in daemon mode");
    let source = app("start_response('200 OK', [('Status', '404 No')])\nreturn [b'x']");
    in_both_modes(&source, |httpd| assert_eq!(httpd.get("/").status, 200));
    let source = app("start_response('200 Error', [])\nreturn [b'x']");
    in_both_modes(&source, |httpd| assert_eq!(httpd.get("/").ok(), "x"));
}

#[test]
fn an_application_that_fails_is_an_error_of_the_server() {
    for body in [
        "raise KeyError('lost')",
        "start_response('200 OK', [])\nraise KeyError('lost')",
        "start_response('200 OK', [])\nreturn (1 / 0 for x in [1])",
        "start_response('200 OK', [])\nreturn ['text']",
        "start_response('200 OK', [])\nreturn None",
        "start_response('200 OK', [])\nreturn 3",
        "return [b'no start_response']",
        "start_response('200 OK', [('Content-Length', 'many')])\nreturn [b'x']",
        "start_response('200 OK', [('Content-Length', '-1')])\nreturn [b'x']",
        "sys.exit(3)",
    ] {
        for mode in [Mode::Embedded, Mode::Daemon] {
            eprintln!("{mode:?}: {body}");
            let mut httpd = Site::app(mode, &app(body)).start();
            let is_exit = body.contains("exit");
            httpd.expect_error(if is_exit { "WSGI0175" } else { "WSGI0174" });
            for text in ["KeyError", "ZeroDivisionError", "TypeError", "RuntimeError", "ValueError"]
            {
                httpd.allow_error(text);
            }
            if is_exit {
                httpd.allow_error("SystemExit");
            }
            assert_eq!(httpd.get("/").status, 500, "{body}");
        }
    }
}

#[test]
fn an_exception_in_the_middle_cuts_the_answer() {
    ours_only!("row 1: the reference makes it look complete in daemon mode");
    for head in ["[]", "[('Content-Length', '100')]"] {
        let source = format!(
            "def application(environ, start_response):\n    \
             start_response('200 OK', {head})\n    yield b'first'\n    raise KeyError('lost')\n"
        );
        for mode in [Mode::Embedded, Mode::Daemon] {
            let mut httpd = Site::app(mode, &source).start();
            httpd.expect_error("KeyError");
            httpd.allow_error("WSGI0174");
            httpd.allow_error("WSGI0119");
            let cut = httpd.try_send(&Request::get("/")).unwrap_err();
            let partial = cut.partial.expect("the head was sent");
            assert_eq!((partial.status, partial.text()), (200, "first".to_owned()), "{head}");
        }
    }
}

#[test]
fn an_exception_after_write_cuts_the_answer() {
    ours_only!("row 1: the reference appends an error page or makes it look complete");
    let source = app("start_response('200 OK', [])(b'first')\nraise KeyError('lost')");
    for mode in [Mode::Embedded, Mode::Daemon] {
        let mut httpd = Site::app(mode, &source).start();
        httpd.expect_error("KeyError");
        httpd.allow_error("WSGI0174");
        httpd.allow_error("WSGI0119");
        let cut = httpd.try_send(&Request::get("/")).unwrap_err();
        assert_eq!(cut.partial.expect("the head was sent").text(), "first");
    }
}

#[test]
fn the_result_is_closed_once_whatever_happens() {
    for (items, failing) in [
        ("[b'a', b'b']", false),
        ("[]", false),
        ("[b'a', KeyError('lost')]", true),
        ("[KeyError('lost')]", true),
        ("['text']", true),
    ] {
        let source = format!(
            "{CLOSING}\ndef application(environ, start_response):\n    \
             start_response('200 OK', [])\n    return Result({items})\n"
        );
        for mode in [Mode::Embedded, Mode::Daemon] {
            eprintln!("{mode:?}: {items}");
            let mut httpd = writable(mode, &source);
            if failing {
                httpd.expect_error("WSGI0174");
                httpd.allow_error("Error");
                httpd.allow_error("WSGI0119");
            }
            let _ = httpd.try_send(&Request::get("/"));
            httpd.wait_for_file("run/closed.log", "closed\n");
            let _ = httpd.try_send(&Request::get("/"));
            httpd.wait_for_file("run/closed.log", "closed\nclosed\n");
            assert_eq!(httpd.read("run/closed.log"), "closed\nclosed\n");
        }
    }
}

#[test]
fn the_result_is_closed_when_the_client_leaves() {
    let source = format!(
        "{CLOSING}\nimport itertools\ndef application(environ, start_response):\n    \
         start_response('200 OK', [])\n    return Result(itertools.repeat(b'x' * 65536))\n"
    );
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = writable(mode, &source);
        let mut connection: Connection = httpd.connect();
        connection.write(Request::get("/").head()).unwrap();
        assert_eq!(connection.read_head().unwrap().status, 200);
        drop(connection);
        httpd.wait_for_file("run/closed.log", "closed\n");
        assert_eq!(httpd.read("run/closed.log"), "closed\n");
    }
}

#[test]
fn an_exception_in_close_does_not_change_the_answer() {
    let source = "
class Result(list):
    def close(self):
        raise KeyError('in close')
def application(environ, start_response):
    start_response('200 OK', [('Content-Length', '2')])
    return Result([b'ok'])
";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let mut httpd = Site::app(mode, source).start();
        httpd.expect_error("in close");
        httpd.allow_error("WSGI0174");
        assert_eq!(httpd.get("/").ok(), "ok");
        httpd.wait_for_log("in close");
    }
}

#[test]
fn objects_of_a_request_are_of_no_use_after_it() {
    let source = r#"
kept = []
def application(environ, start_response):
    answer = []
    for call in kept:
        try:
            call()
        except RuntimeError:
            answer.append('RuntimeError')
        else:
            answer.append('worked')
    kept[:] = [lambda: start_response('200 OK', []), environ['wsgi.input'].read]
    write = start_response('200 OK', [])
    kept.append(lambda: write(b'x'))
    return [' '.join(answer).encode()]
"#;
    let config =
        "WSGIDaemonProcess one threads=1\nWSGIProcessGroup one\nWSGIScriptAlias / ${ROOT}/app.wsgi";
    let httpd = Site::new(config).file("app.wsgi", source).start();
    assert_eq!(httpd.get("/").ok(), "");
    assert_eq!(httpd.get("/").ok(), "RuntimeError RuntimeError RuntimeError");
}

#[test]
fn many_answers_go_over_one_connection() {
    let source = app("
start_response('200 OK', [])
return [environ['QUERY_STRING'].encode(), environ['wsgi.input'].read()]");
    in_both_modes(&source, |httpd| {
        let mut connection = httpd.connect();
        for number in 0..50 {
            let request = Request::post(&format!("/?{number}:"), "x".repeat(number)).keep_alive();
            let text = connection.exchange(&request).unwrap().ok();
            assert_eq!(text, format!("{number}:{}", "x".repeat(number)));
        }
    });
}
