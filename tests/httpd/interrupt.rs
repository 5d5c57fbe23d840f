//! Requests that compute for too long, in an interpreter of their own as applications have by
//! default.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::harness::{Request, Site, is_ours, ours_only};

/// Computes for as long as the query says, in the midst of its answer or before.
const COMPUTES: &str = "
import ctypes, mod_wsgi, os, sys, time
def compute(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
def application(environ, start_response):
    seconds = float(environ['QUERY_STRING'] or 0)
    path = environ['PATH_INFO']
    if path == '/caught':
        try:
            compute(seconds)
        except mod_wsgi.RequestTimeout:
            pass
    if path == '/before':
        compute(seconds)
    start_response('200 OK', [])
    if path == '/version':
        yield b'%d.%d' % sys.version_info[:2]
        return
    if path == '/hold':
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    yield b'%d' % os.getpid()
    if path == '/amidst':
        compute(seconds)
";

/// A server whose application group is not that of the main interpreter.
fn site(options: &str) -> Site {
    let config = format!(
        "WSGIRestrictEmbedded On\nWSGIDaemonProcess one {options}\nWSGIProcessGroup one\n\
         WSGIApplicationGroup own\nWSGIScriptAlias / ${{ROOT}}/app.wsgi"
    );
    Site::new(&config).file("app.wsgi", COMPUTES)
}

#[test]
fn before_its_answer_a_request_ends_with_504_and_one_line() {
    let mut httpd = site("threads=1 request-timeout=1 interrupt-timeout=10").start();
    if is_ours() {
        httpd.expect_error("WSGI9410: the application was interrupted for time; answering 504");
    }
    // The lines of the traceback.
    httpd.allow_error("[script ");
    let pid = httpd.get("/").ok();
    assert_eq!(httpd.get("/before?60").status, 504);
    assert_eq!(httpd.get("/").ok(), pid);
    httpd.wait_for_log("Injected RequestTimeout into thread");
    let log = httpd.log();
    ours_only!("the code");
    assert_eq!(httpd.logged("WSGI9"), 1, "{log}");
}

#[test]
fn in_the_midst_of_its_answer_a_request_is_cut() {
    ours_only!("row 1: the reference's client takes it for complete");
    let mut httpd = site("threads=1 request-timeout=1 interrupt-timeout=10").start();
    httpd.expect_error("WSGI9410: the application was interrupted for time; the answer is cut off");
    httpd.allow_error("[script ");
    let pid = httpd.get("/").ok();
    assert!(httpd.try_send(&Request::get("/amidst?60")).is_err());
    assert_eq!(httpd.get("/").ok(), pid);
}

#[test]
fn who_catches_the_interrupt_answers() {
    let httpd = site("threads=1 request-timeout=1 interrupt-timeout=10").start();
    let pid = httpd.get("/").ok();
    assert_eq!(httpd.get("/caught?60").ok(), pid);
    assert_eq!(httpd.get("/").ok(), pid);
}

#[test]
fn code_that_computes_is_no_deadlock() {
    ours_only!("row 53");
    let httpd = site("threads=2 deadlock-timeout=1").start();
    let pid = httpd.get("/").ok();
    let start = Instant::now();
    assert_eq!(httpd.get("/before?4").ok(), pid);
    assert!(start.elapsed() >= Duration::from_secs(4));
    assert_eq!(httpd.get("/").ok(), pid);
}

#[test]
fn code_that_keeps_pythons_lock_is_shown_where_python_can() {
    ours_only!("the reference shows what it can when the lock is back");
    let mut httpd = site("threads=1 deadlock-timeout=1 shutdown-timeout=1").start();
    for code in ["WSGI9116", "WSGI0146"] {
        httpd.expect_error(code);
    }
    let version = httpd.get("/version").text();
    assert_eq!(httpd.get("/hold?30").status, 502);
    httpd.get("/").ok();
    let log = httpd.log();
    // Others have `faulthandler` show the main interpreter, where nothing runs.
    let is_shown = ["3.11", "3.12", "3.15"].contains(&version.as_str());
    assert_eq!(log.contains("line 22 in application"), is_shown, "{version} {log}");
}
