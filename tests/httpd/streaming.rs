//! Answers whose client watches them grow, and what httpd's filters see of answers that are
//! complete at once.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Httpd, Mode, Request, Site, mpm, ours_only, skip};

/// How many events an answer of [`EVENTS`] has.
const COUNT: usize = 20;

/// Server-sent events, each of which is made only when the client has noted the last.
const EVENTS: &str = "
import os, time
ROOT = os.path.dirname(__file__)
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/event-stream')])
    for number in range(20):
        yield b'data: %d\\n\\n' % number
        end = time.monotonic() + 20
        while not os.path.exists(f'{ROOT}/run/seen-{number}'):
            if time.monotonic() > end:
                raise TimeoutError('the client did not see event %d' % number)
            time.sleep(0.001)
";

/// The server of [`EVENTS`].
fn events(mode: Mode, config: &str) -> Httpd {
    let site = Site::app(mode, EVENTS).config(config);
    site.open_run();
    site.start()
}

/// curl, which shows every byte when it has it.
fn curl(httpd: &Httpd, options: &[&str]) -> Child {
    Command::new("curl")
        .args(["-sSN", "--max-time", "60"])
        .args(options)
        .arg(format!("http://127.0.0.1:{}/", httpd.port()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl runs")
}

#[test]
fn each_event_is_with_the_client_before_the_next_is_made() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = events(mode, "");
        let mut connection = httpd.connect();
        connection.write(Request::get("/").head()).unwrap();
        assert_eq!(connection.read_head().unwrap().status, 200);
        for number in 0..COUNT {
            let event = connection.read_chunk().unwrap();
            assert_eq!(event, format!("data: {number}\n\n").as_bytes(), "{mode:?}");
            httpd.write(&format!("run/seen-{number}"), "");
        }
        assert_eq!(connection.read_chunk().unwrap(), b"");
    }
}

/// Reads the events curl shows, one by one.
fn expect_events(httpd: &Httpd, options: &[&str]) {
    let mut curl = curl(httpd, options);
    let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
    for number in 0..COUNT {
        let line = lines.next().unwrap_or_else(|| panic!("no event {number}")).unwrap();
        assert_eq!(line, format!("data: {number}"), "{options:?}");
        assert_eq!(lines.next().unwrap().unwrap(), "");
        httpd.write(&format!("run/seen-{number}"), "");
    }
    assert!(lines.next().is_none() && curl.wait().unwrap().success());
}

#[test]
fn events_pass_a_filter_that_compresses_one_by_one() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        expect_events(&events(mode, "SetOutputFilter DEFLATE"), &["--compressed"]);
    }
}

#[test]
fn events_pass_http_2_one_by_one() {
    if mpm() == "prefork" {
        return skip("mod_http2 wants threads");
    }
    let config = "LoadModule http2_module ${MODULES}/mod_http2.so\nProtocols h2c http/1.1";
    for mode in [Mode::Embedded, Mode::Daemon] {
        expect_events(&events(mode, config), &["--http2-prior-knowledge"]);
    }
}

/// A hundred pieces that are there when the application returns.
const LIST: &str = "
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    pieces = [b'piece %03d of a hundred; ' % number for number in range(100)]
    return [b''.join(pieces)] if environ['PATH_INFO'] == '/one' else pieces
";

#[test]
fn a_filter_that_compresses_sees_a_list_as_one_piece() {
    ours_only!("row 58: the reference flushes each item of a list through the filters");
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, LIST).config("SetOutputFilter DEFLATE").start();
        let size = |target| {
            let response = httpd.send(&Request::get(target).header("Accept-Encoding", "gzip"));
            assert_eq!(response.header("Content-Encoding"), Some("gzip"));
            response.body.len()
        };
        // A flush costs some five bytes and a chunk of its own.
        let (one, list) = (size("/one"), size("/list"));
        assert!(list <= one + 5, "{mode:?}: {one} bytes as one item, {list} as a list");
    }
}

#[test]
fn a_filter_that_limits_the_rate_sees_a_list_as_one_piece() {
    ours_only!("row 58: the reference flushes each item of a list through the filters");
    let config = "LoadModule ratelimit_module ${MODULES}/mod_ratelimit.so
        SetOutputFilter RATE_LIMIT\nSetEnv rate-limit 1000";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, LIST).config(config).start();
        let start = Instant::now();
        assert_eq!(httpd.get("/list").ok().len(), 2400);
        // It pauses a fifth of a second for each piece: twenty seconds for all of them.
        assert!(start.elapsed() < Duration::from_secs(8), "{mode:?}: {:?}", start.elapsed());
    }
}

#[test]
fn a_large_answer_passes_a_filter_that_limits_the_rate() {
    let source = "
def application(environ, start_response):
    start_response('200 OK', [])
    return (bytes([number]) * 100000 for number in range(20))
";
    let config = "LoadModule ratelimit_module ${MODULES}/mod_ratelimit.so
        SetOutputFilter RATE_LIMIT\nSetEnv rate-limit 20000";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let body = Site::app(mode, source).config(config).start().get("/").body;
        assert_eq!(body.len(), 2_000_000, "{mode:?}");
        assert!(body.chunks(100_000).zip(0_u8..).all(|(part, n)| part.iter().all(|b| *b == n)));
    }
}
