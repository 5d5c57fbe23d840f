//! `WSGIApplicationGroup`: which applications share an interpreter.
#![forbid(unsafe_code)]

use crate::harness::{Httpd, Mode, Request, Site, ours_only};

/// Leaves its mark in a module of its interpreter, and answers with all marks.
const MARKS: &str = r#"
import sys
import mod_wsgi
def application(environ, start_response):
    marks = sys.__dict__.setdefault('marks_of_the_test', set())
    marks.add(environ['SCRIPT_NAME'])
    start_response('200 OK', [])
    return [('%s: %s' % (mod_wsgi.application_group, ' '.join(sorted(marks)))).encode()]
"#;

/// Two aliases, `/a` and `/b`, for one script.
fn site(mode: Mode, config: &str) -> Httpd {
    // One child process, so that what two requests share is decided by the interpreter alone.
    Site::new(mode.config())
        .one_child()
        .config("WSGIScriptAlias /a ${ROOT}/app.wsgi\nWSGIScriptAlias /b ${ROOT}/app.wsgi")
        .config(config)
        .file("app.wsgi", MARKS)
        .start()
}

/// Runs `test` in both modes under `config`.
fn in_both(config: &str, test: impl Fn(&Httpd)) {
    for mode in [Mode::Embedded, Mode::Daemon] {
        eprintln!("{mode:?} mode");
        test(&site(mode, config));
    }
}

#[test]
fn each_mount_has_an_interpreter_of_its_own() {
    in_both("", |httpd| {
        let port = httpd.port();
        assert_eq!(httpd.get("/a").ok(), format!("wsgi.test:{port}|/a: /a"));
        assert_eq!(httpd.get("/b").ok(), format!("wsgi.test:{port}|/b: /b"));
    });
}

#[test]
fn applications_of_one_group_share_an_interpreter() {
    in_both("WSGIApplicationGroup shared", |httpd| {
        assert_eq!(httpd.get("/a").ok(), "shared: /a");
        assert_eq!(httpd.get("/b").ok(), "shared: /a /b");
    });
}

#[test]
fn the_global_group_is_the_main_interpreter() {
    in_both("WSGIApplicationGroup %{GLOBAL}", |httpd| {
        assert_eq!(httpd.get("/a").ok(), ": /a");
        assert_eq!(httpd.get("/b").ok(), ": /a /b");
    });
}

#[test]
fn a_section_may_have_a_group_of_its_own() {
    let config =
        "WSGIApplicationGroup shared\n<Location /b>\nWSGIApplicationGroup own\n</Location>";
    in_both(config, |httpd| {
        assert_eq!(httpd.get("/a").ok(), "shared: /a");
        assert_eq!(httpd.get("/b").ok(), "own: /b");
    });
}

#[test]
fn a_thread_keeps_what_it_stored_between_requests() {
    let source = r#"
import threading
local = threading.local()
lock = threading.Lock()
def application(environ, start_response):
    local.count = getattr(local, 'count', 0) + 1
    start_response('200 OK', [])
    return [str(local.count).encode()]
"#;
    for group in ["%{GLOBAL}", "named"] {
        let config = format!(
            "WSGIDaemonProcess one threads=1\nWSGIProcessGroup one\nWSGIApplicationGroup {group}"
        );
        let httpd = Site::new(&config)
            .config("WSGIScriptAlias / ${ROOT}/app.wsgi")
            .file("app.wsgi", source)
            .start();
        for count in 1..4 {
            assert_eq!(httpd.get("/").ok(), count.to_string(), "{group}");
        }
    }
}

#[test]
fn ports_a_client_makes_up_make_no_interpreters() {
    ours_only!("the reference makes an interpreter for each, until there is no memory left");
    in_both("", |httpd| {
        let port = httpd.port();
        for host in ["wsgi.test", "wsgi.test:1", "wsgi.test:2", "wsgi.test:65535"] {
            let request = Request::get("/a").header("Host", host);
            assert_eq!(httpd.send(&request).ok(), format!("wsgi.test:{port}|/a: /a"), "{host}");
        }
    });
}
