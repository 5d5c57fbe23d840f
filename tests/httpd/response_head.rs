//! Status and headers of an answer on their way through httpd: what is kept apart, what is
//! left as it is, and what is replaced where the configuration says so.
#![forbid(unsafe_code)]

use crate::harness::{Mode, Request, Site, in_both_modes, is_ours, ours_only};

#[test]
fn a_header_that_is_there_twice_stays_two_lines() {
    ours_only!("row 39: the reference merges them in daemon mode");
    let source = "
def application(environ, start_response):
    start_response('200 OK', [('X-Twice', 'a, b'), ('x-twice', 'c'),
        ('Link', '<a>'), ('Link', '<b>')])
    return [b'x']
";
    in_both_modes(source, |httpd| {
        let response = httpd.get("/");
        assert_eq!(response.all("X-Twice"), ["a, b", "c"]);
        assert_eq!(response.all("Link"), ["<a>", "<b>"]);
    });
}

#[test]
fn cookies_and_challenges_stay_apart() {
    let source = "
def application(environ, start_response):
    start_response('401 Unauthorized', [('Set-Cookie', 'a=1; Path=/'), ('Set-Cookie', 'b=2'),
        ('WWW-Authenticate', 'Basic realm=\"x\"'), ('WWW-Authenticate', 'Digest realm=\"y\"')])
    return [b'who?']
";
    in_both_modes(source, |httpd| {
        let response = httpd.get("/");
        assert_eq!((response.status, response.text().as_str()), (401, "who?"));
        assert_eq!(response.all("Set-Cookie"), ["a=1; Path=/", "b=2"]);
        let challenges = response.all("WWW-Authenticate");
        assert_eq!(challenges, ["Basic realm=\"x\"", "Digest realm=\"y\""]);
    });
}

#[test]
fn last_modified_is_sent_as_written() {
    ours_only!("row 40: the reference rewrites it in daemon mode");
    // One in a form HTTP no longer writes, and one that lies in the future.
    for date in ["Sunday, 06-Nov-94 08:49:37 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"] {
        let source = format!(
            "def application(environ, start_response):\n    \
             start_response('200 OK', [('Last-Modified', '{date}')])\n    return [b'x']\n"
        );
        in_both_modes(&source, |httpd| {
            assert_eq!(httpd.get("/").all("Last-Modified"), [date]);
        });
    }
}

#[test]
fn no_status_is_a_word_of_the_transport() {
    ours_only!("row 41: for the reference they are");
    let source = "
from urllib.parse import unquote
def application(environ, start_response):
    start_response(unquote(environ['QUERY_STRING']), [])
    return [b'mine']
";
    in_both_modes(source, |httpd| {
        for (status, reason) in [(200, "Continue"), (200, "Rejected"), (200, "Timeout")] {
            let response = httpd.get(&format!("/?{status}%20{reason}"));
            assert_eq!((response.status, response.text().as_str()), (status, "mine"), "{reason}");
        }
    });
}

#[test]
fn a_status_and_its_reason_are_sent_as_written() {
    let source = "
from urllib.parse import unquote
def application(environ, start_response):
    start_response(unquote(environ['QUERY_STRING']), [('Content-Length', '0')])
    return []
";
    in_both_modes(source, |httpd| {
        for (line, status, reason) in [
            ("200 Fine", 200, "Fine"),
            ("404 Nowhere (to be found)", 404, "Nowhere (to be found)"),
            ("299 Odd", 299, "Odd"),
            ("599 Odd", 599, "Odd"),
            ("200", 200, "OK"),
        ] {
            let response = httpd.get(&format!("/?{}", line.replace(' ', "%20")));
            assert_eq!((response.status, response.reason.as_str()), (status, reason), "{line}");
        }
    });
}

/// Answers 404 or 503 with a page of its own, as the path says.
const MISSING: &str = "
def application(environ, start_response):
    status = environ['PATH_INFO'].strip('/') + ' Sorry'
    start_response(status, [('Content-Type', 'text/plain'), ('X-Mine', 'kept')])
    return [b'a page of the application']
";

#[test]
fn httpd_replaces_error_pages_of_a_daemon_process_where_it_is_told_to() {
    let config = "Alias /pages ${ROOT}/htdocs\nErrorDocument 404 /pages/404.txt
        ErrorDocument 503 \"busy\"\nWSGIErrorOverride On
        <Location /404/own>\nWSGIErrorOverride Off\n</Location>";
    for (mode, replaced) in [(Mode::Daemon, true), (Mode::Embedded, false)] {
        let httpd = Site::app(mode, MISSING)
            .config(config)
            .file("htdocs/404.txt", "a page of httpd")
            .start();
        let own = "a page of the application";
        let expected = |text| if replaced { text } else { own };
        let response = httpd.get("/404");
        assert_eq!((response.status, response.text().as_str()), (404, expected("a page of httpd")));
        assert_eq!(httpd.get("/503").text(), expected("busy"));
        assert_eq!(httpd.get("/503").status, 503);
        // Below 400 there is nothing to replace.
        assert_eq!(httpd.get("/399").text(), own);
        assert_eq!(httpd.get("/200").ok(), own);
    }
}

#[test]
fn without_being_told_httpd_leaves_error_pages_alone() {
    let config = "ErrorDocument 404 \"replaced\"";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let response = Site::app(mode, MISSING).config(config).start().get("/404");
        assert_eq!(response.text(), "a page of the application", "{mode:?}");
        assert_eq!((response.status, response.reason.as_str()), (404, "Sorry"));
        assert_eq!(response.header("X-Mine"), Some("kept"));
    }
}

#[test]
fn a_head_request_is_told_as_configured() {
    let source = "
def application(environ, start_response):
    start_response('200 OK', [('X-Method', environ['REQUEST_METHOD'])])
    return [b'a body']
";
    let config = "<Location /on>\nWSGIMapHEADToGET On\n</Location>
        <Location /off>\nWSGIMapHEADToGET Off\nSetOutputFilter DEFLATE\n</Location>
        <Location /auto>\nWSGIMapHEADToGET Auto\nSetOutputFilter DEFLATE\n</Location>";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, source).config(config).start();
        let targets =
            [("/", "HEAD"), ("/on", "GET"), ("/off", "HEAD"), ("/auto", "GET"), ("/auto2", "HEAD")];
        for (target, method) in targets {
            let response = httpd.send(&Request::new("HEAD", target));
            assert_eq!(response.header("X-Method"), Some(method), "{mode:?} {target}");
            assert!(response.body.is_empty());
        }
        // Other methods are not touched.
        assert_eq!(httpd.send(&Request::post("/on", "x")).header("X-Method"), Some("POST"));
    }
}

#[test]
fn a_range_of_a_single_item_is_sent() {
    let source = "
def application(environ, start_response):
    start_response('200 OK', [('Content-Length', '10')])
    return [b'0123456789']
";
    in_both_modes(source, |httpd| {
        let response = httpd.send(&Request::get("/").header("Range", "bytes=2-4"));
        let whole = (200, "0123456789".to_owned());
        let part = (206, "234".to_owned());
        assert_eq!((response.status, response.text()), if is_ours() { part } else { whole });
    });
}
