//! How an answer of a daemon process reaches the client: when it is flushed, how long its
//! headers may be, and how long the client may take.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::harness::{Connection, Httpd, Mode, Request, Site, is_ours, ours_only, wait_until};

/// Waits for the file `run/go`, at most 20 seconds.
const WAIT: &str = "
import os, time
ROOT = os.path.dirname(__file__)
def wait():
    end = time.time() + 20
    while not os.path.exists(ROOT + '/run/go') and time.time() < end:
        time.sleep(0.005)
";

/// A server whose application runs in a daemon process group with these options.
fn site(options: &str, source: &str) -> Site {
    let config = format!(
        "WSGIRestrictEmbedded On\nWSGIDaemonProcess one threads=2 {options}\n\
         WSGIProcessGroup one\nWSGIApplicationGroup %{{GLOBAL}}\n\
         WSGIScriptAlias / ${{ROOT}}/app.wsgi"
    );
    let site = Site::new(&config).file("app.wsgi", WAIT.to_owned() + source);
    site.open_run();
    site
}

/// Sends a request and reads the head of its answer.
#[track_caller]
fn begin(httpd: &Httpd, request: &Request) -> Connection {
    let mut connection = httpd.connect();
    connection.write(request.head()).unwrap();
    assert_eq!(connection.read_head().unwrap().status, 200);
    connection
}

/// Reads chunks to the end of the answer.
fn rest(connection: &mut Connection) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let chunk = connection.read_chunk().unwrap();
        if chunk.is_empty() {
            return body;
        }
        body.extend(chunk);
    }
}

#[test]
fn a_pause_of_the_application_shows_the_client_what_there_is() {
    let source = "
def application(environ, start_response):
    start_response('200 OK', [])
    yield b'first'
    wait()
    yield b'second'
";
    for options in ["", "response-flush-delay=0", "response-flush-delay=300"] {
        let httpd = site(options, source).start();
        let mut connection = begin(&httpd, &Request::get("/"));
        assert_eq!(connection.read_chunk().unwrap(), b"first", "{options}");
        httpd.write("run/go", "");
        assert_eq!(rest(&mut connection), b"second", "{options}");
    }
}

#[test]
fn pieces_that_follow_each_other_soon_go_out_together() {
    ours_only!("the reference leaves it to httpd how it cuts an answer into chunks");
    let source = "
def application(environ, start_response):
    start_response('200 OK', [])
    yield b'one'
    time.sleep(0.3)
    yield b'two'
";
    let httpd = site("response-flush-delay=20000", source).start();
    let start = Instant::now();
    let mut connection = begin(&httpd, &Request::get("/"));
    assert_eq!(connection.read_chunk().unwrap(), b"onetwo");
    rest(&mut connection);
    // The end of an answer waits for nothing.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_trickle_is_not_held_back_for_longer_than_the_delay() {
    ours_only!("row 51: the reference waits for a pause");
    let source = "
def application(environ, start_response):
    start_response('200 OK', [])
    end = time.time() + 20
    while not os.path.exists(ROOT + '/run/go') and time.time() < end:
        yield b'x'
        time.sleep(0.02)
";
    let httpd = site("response-flush-delay=400", source).start();
    let mut connection = begin(&httpd, &Request::get("/"));
    let first = connection.read_chunk().unwrap();
    assert!(first.len() > 1, "it waits for more");
    httpd.write("run/go", "");
    rest(&mut connection);
}

#[test]
fn a_filter_that_collects_is_flushed_every_so_many_bytes() {
    // mod_deflate gives nothing away of so little before it is flushed or full.
    let source = "
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    for _ in range(4):
        yield b'x' * 40000
    wait()
    yield b'end'
";
    let site = site("response-flush-delay=15000 response-buffer-size=65536", source)
        .config("SetOutputFilter DEFLATE");
    let httpd = site.start();
    let start = Instant::now();
    let request = Request::get("/").header("Accept-Encoding", "gzip");
    let mut connection = begin(&httpd, &request);
    let mut size = 0;
    // Ten bytes are what every gzip stream begins with.
    while size <= 10 {
        size += connection.read_chunk().unwrap().len();
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    httpd.write("run/go", "");
    rest(&mut connection);
}

#[test]
fn a_header_longer_than_its_buffer_is_an_error() {
    let source = "
def application(environ, start_response):
    value = 'v' * int(environ['QUERY_STRING'])
    start_response('200 OK', [('X-Long', value)])
    return [b'done']
";
    for (options, fits, not) in [("header-buffer-size=8192", 8000, 8300), ("", 32000, 33000)] {
        let mut httpd = site(options, source).start();
        httpd.expect_error("WSGI0144");
        let response = httpd.get(&format!("/?{fits}"));
        assert_eq!(response.ok(), "done");
        assert_eq!(response.header("X-Long").unwrap().len(), fits);
        assert_eq!(httpd.get(&format!("/?{not}")).status, 500);
        assert_eq!(httpd.get("/?1").ok(), "done");
        if is_ours() {
            let log = httpd.log();
            let line = log.lines().find(|line| line.contains("WSGI0144")).unwrap();
            assert!(line.contains("'X-Long'") && line.contains("header-buffer-size"), "{line}");
            assert!(!line.contains("vvv"), "{line}");
        }
    }
}

#[test]
fn embedded_mode_has_no_bound_for_headers() {
    let source = "
def application(environ, start_response):
    start_response('200 OK', [('X-Long', 'v' * 40000)])
    return [b'done']
";
    let response = Site::app(Mode::Embedded, source).start().get("/");
    assert_eq!(response.header("X-Long").unwrap().len(), 40_000);
}

/// Answers with 40 MB; `/held` does not end before `run/go` is there.
const LARGE: &str = "
def application(environ, start_response):
    start_response('200 OK', [])
    if environ['PATH_INFO'] == '/small':
        return [b'small']
    return large(environ['PATH_INFO'] == '/held')
def large(held):
    for _ in range(40):
        yield b'x' * 1000000
    if held:
        wait()
";

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    for path in ["/whole", "/held"] {
        let mut httpd = site("response-socket-timeout=1", LARGE).start();
        httpd.expect_error("WSGI0120");
        let start = Instant::now();
        let mut stuck = begin(&httpd, &Request::get(path));
        httpd.wait_for_log("WSGI0120");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        assert_eq!(httpd.get("/small").ok(), "small");
        httpd.write("run/go", "");
        ours_only!("row 1: the reference makes it look complete");
        let mut length = 0;
        while let Ok(chunk) = stuck.read_chunk() {
            assert!(!chunk.is_empty(), "{path}: the answer looks complete");
            length += chunk.len();
        }
        assert!(length < 40_000_000);
    }
}

#[test]
fn an_answer_without_length_that_was_given_up_never_looks_complete() {
    ours_only!("row 1: the reference makes it look complete");
    let daemon = || site("response-socket-timeout=1", LARGE);
    let embedded = Site::app(Mode::Embedded, &(WAIT.to_owned() + LARGE)).config("Timeout 1");
    for (site, path) in [(daemon(), "/whole"), (daemon(), "/held"), (embedded, "/whole")] {
        let mut httpd = site.start();
        httpd.allow_error("WSGI0118");
        httpd.allow_error("WSGI0120");
        let mut stuck = httpd.connect();
        stuck.write(format!("GET {path}?q HTTP/1.0\r\n\r\n")).unwrap();
        httpd.wait_for_log(&format!(": GET {path}, id "));
        httpd.wait_for_log("the client took nothing for 1s; its connection is reset");
        httpd.write("run/go", "");
        assert!(stuck.read_response(false).is_err(), "{path}");
    }
}

#[test]
fn a_client_may_be_slow_as_long_as_it_takes_something() {
    let httpd = site("response-socket-timeout=2", LARGE).start();
    let mut slow = begin(&httpd, &Request::get("/whole"));
    let start = Instant::now();
    let mut length = 0;
    while length < 40_000_000 {
        // A pause before each part of four megabytes.
        let until = Instant::now() + Duration::from_millis(400);
        wait_until("a while", || (Instant::now() >= until).then_some(()));
        // Whatever the chunks are.
        let mut part = Vec::new();
        slow.read_exactly(4_000_000, &mut part).unwrap();
        length += part.len();
    }
    assert!(start.elapsed() > Duration::from_secs(3), "{:?}", start.elapsed());
}
