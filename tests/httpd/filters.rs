//! An application among httpd's other modules: filters, error documents, authentication, old
//! clients.
#![forbid(unsafe_code)]

use crate::harness::{Httpd, Mode, Request, Site, in_both_modes, mpm, ours_only, skip};

/// Answers with method, path and what a redirect left in the environ.
const TOLD: &str = r#"
def application(environ, start_response):
    keys = ['REQUEST_METHOD', 'PATH_INFO', 'REDIRECT_URL', 'REDIRECT_STATUS', 'REMOTE_USER', 'AUTH_TYPE']
    text = ' '.join(str(environ.get(key)) for key in keys)
    start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Told', text)])
    return [text.encode()]
"#;

/// Starts [`TOLD`] in both modes under these directives.
fn in_both(config: &str, test: impl Fn(&Httpd)) {
    for mode in [Mode::Embedded, Mode::Daemon] {
        eprintln!("{mode:?} mode");
        let site = Site::app(mode, TOLD).config(config);
        test(&site.file("htdocs/plain.txt", "a plain file").start());
    }
}

#[test]
fn an_answer_goes_through_the_filters_of_httpd() {
    // mod_deflate leaves answers alone that it could only make longer.
    let source = TOLD.replace("text.encode()", "text.encode(), b'.' * 1000");
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, &source).config("SetOutputFilter DEFLATE").start();
        let response = httpd.send(&Request::get("/").header("Accept-Encoding", "gzip"));
        assert_eq!(response.header("Content-Encoding"), Some("gzip"));
        assert_eq!(response.body[..2], [0x1f, 0x8b]);
        assert!(httpd.get("/").ok().starts_with("GET /"));
    }
}

#[test]
fn a_head_request_looks_like_get_where_a_filter_needs_the_body() {
    in_both("<Location /filtered>\nSetOutputFilter DEFLATE\n</Location>", |httpd| {
        let told = |target| {
            let response = httpd.send(&Request::new("HEAD", target));
            response.header("X-Told").unwrap_or_default().to_owned()
        };
        assert!(told("/plain").starts_with("HEAD /plain"));
        assert!(told("/filtered").starts_with("GET /filtered"));
    });
}

#[test]
fn a_default_charset_is_added_to_text() {
    in_both("AddDefaultCharset utf-8", |httpd| {
        let response = httpd.get("/");
        assert_eq!(response.header("Content-Type"), Some("text/plain; charset=utf-8"));
    });
}

#[test]
fn an_application_may_serve_an_error_document() {
    let config = "Alias /files ${ROOT}/htdocs\nErrorDocument 404 /from/error";
    in_both(config, |httpd| {
        let response = httpd.get("/files/missing.txt");
        assert_eq!(response.status, 200);
        assert!(
            response.text().starts_with("GET /from/error /files/missing.txt 404"),
            "{}",
            response.text()
        );
    });
}

#[test]
fn the_user_httpd_knows_is_told_to_the_application() {
    // joe with the password "secret".
    let config = "<Location />\nAuthType Basic\nAuthName x\nAuthUserFile ${ROOT}/users\n\
                  Require valid-user\n</Location>";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let mut httpd = Site::app(mode, TOLD)
            .config(config)
            .file("users", "joe:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n")
            .start();
        httpd.allow_error("AH01617");
        assert_eq!(httpd.get("/").status, 401);
        let request = Request::get("/").header("Authorization", "Basic am9lOnNlY3JldA==");
        assert!(httpd.send(&request).ok().ends_with(" joe Basic"));
    }
}

#[test]
fn a_location_on_this_server_is_followed_within_a_daemon_answer_only() {
    let source = "
def application(environ, start_response):
    start_response('200 OK', [('Location', '/files/plain.txt')])
    return [b'go there']
";
    for (mode, expected) in [(Mode::Embedded, "go there"), (Mode::Daemon, "a plain file")] {
        let httpd = Site::app(mode, source)
            .config("Alias /files ${ROOT}/htdocs")
            .file("htdocs/plain.txt", "a plain file")
            .start();
        assert_eq!(httpd.get("/").ok(), expected, "{mode:?}");
    }
}

#[test]
fn a_redirect_reaches_the_client() {
    let source = "
def application(environ, start_response):
    start_response('302 Found', [('Location', '/elsewhere')])
    return []
";
    in_both_modes(source, |httpd| {
        let response = httpd.get("/");
        assert_eq!((response.status, response.header("Location")), (302, Some("/elsewhere")));
    });
}

#[test]
fn a_client_of_http_1_0_gets_the_answer_without_chunks() {
    let source = "
def application(environ, start_response):
    start_response('200 OK', [])
    yield b'one '
    yield b'two'
";
    in_both_modes(source, |httpd| {
        let mut connection = httpd.connect();
        connection.write("GET / HTTP/1.0\r\n\r\n").unwrap();
        let response = connection.read_response(false).unwrap();
        assert_eq!(response.header("Transfer-Encoding"), None);
        assert_eq!(response.ok(), "one two");
    });
}

#[test]
fn headers_of_the_configuration_are_added_to_an_answer() {
    in_both("Header always set X-From-Httpd yes\nHeader unset X-Told", |httpd| {
        let response = httpd.get("/");
        assert_eq!(response.header("X-From-Httpd"), Some("yes"));
        assert_eq!(response.header("X-Told"), None);
    });
}

#[test]
fn the_access_log_has_the_status_of_the_application() {
    let source = "
def application(environ, start_response):
    start_response('418 Teapot', [])
    return [b'x']
";
    in_both_modes(source, |httpd| {
        httpd.get("/teapot");
        httpd.wait_for_file("access.log", "418 GET /teapot");
    });
}

/// A page whose parts are answers of the application.
const PAGE: &str = r#"
import mod_wsgi, sys
# The reference counts from here on.
mod_wsgi.start_recording_metrics()
class Last:
    def __del__(self):
        sys.stdout.write('a part is forgotten\n')
def application(environ, start_response):
    path = environ['PATH_INFO']
    if path == '/big':
        start_response('200 OK', [('Content-Type', 'application/octet-stream')])
        return [b'.' * 30000] * 2000
    if path in ('/part', '/last'):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        if path == '/last':
            mod_wsgi.request_data()['last'] = Last()
        return [b'part']
    start_response('200 OK', [('Content-Type', 'text/html')])
    body = b'[<!--#include virtual="%s" -->]' % environ['QUERY_STRING'].encode()
    if path == '/count':
        count = lambda: b'%d' % mod_wsgi.process_metrics()['active_requests']
        return (piece() for piece in (count, lambda: body, count))
    if path == '/ids':
        seen = []
        mod_wsgi.subscribe_events(lambda event, **told: seen.append(told.get('request_id')))
        ours = environ['mod_wsgi.request_id']
        ids = lambda: b' %d of %d' % (seen.count(ours), len(seen))
        return (piece() for piece in (lambda: body, ids))
    return iter([body]) if path == '/pieces' else [body]
"#;

/// [`PAGE`] in one child process, whose answers httpd completes.
fn page(mode: Mode) -> Site {
    Site::app(mode, PAGE)
        .one_child()
        .config("LoadModule include_module ${MODULES}/mod_include.so\n<Location />")
        .config("Options +Includes\nSetOutputFilter INCLUDES\n</Location>")
}

#[test]
fn a_filter_may_ask_the_application_while_it_takes_the_last_of_an_answer() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = page(mode).start();
        for target in ["/pieces?/part", "/whole?/part"] {
            assert_eq!(httpd.get(target).ok(), "[part]", "{mode:?} {target}");
        }
    }
}

#[test]
fn what_is_left_of_a_request_within_a_request_may_say_something() {
    let mut httpd = page(Mode::Embedded).start();
    assert_eq!(httpd.get("/pieces?/last").ok(), "[part]");
    httpd.expect_error("a part is forgotten");
}

#[test]
fn a_request_is_active_while_a_filter_asks_the_application_within_it() {
    let httpd = page(Mode::Embedded).start();
    assert_eq!(httpd.get("/count?/part").ok(), "1[part]1");
}

#[test]
fn events_of_a_request_within_a_request_have_its_id() {
    ours_only!("row 111: the reference crashes");
    let httpd = page(Mode::Embedded).start();
    assert_eq!(httpd.get("/ids?/part").ok(), "[part] 3 of 3");
}

#[test]
fn an_interpreter_that_a_filter_needs_may_say_something_while_it_is_made() {
    // It must not wait for the request whose answer the filter has.
    let mut httpd = page(Mode::Embedded)
        .config("WSGIApplicationGroup %{GLOBAL}\nWSGIPythonPath ${ROOT}/lib")
        .config("<Location /part>\nWSGIAccessScript ${ROOT}/access.py application-group=other")
        .config("</Location>")
        .file("access.py", "def allow_access(environ, host): return True\n")
        .file("lib/said.pth", "import sys; sys.stderr.write('an interpreter is made\\n')\n")
        .start();
    assert_eq!(httpd.get("/pieces?/part").ok(), "[part]");
    httpd.expect_error("an interpreter is made");
}

/// A page and its part, which uses what belongs to the page.
const NESTED: &str = r#"
import gc
page = None
class Left:
    def __del__(self):
        page['wsgi.errors'].write('a finalizer writes to the log of the page\n')
def part():
    left = Left()
    left.itself = left
    del left
    gc.collect()
    try:
        page['wsgi.input'].read()
    except RuntimeError as error:
        return str(error).encode()
def application(environ, start_response):
    global page
    start_response('200 OK', [('Content-Type', 'text/html')])
    if environ['PATH_INFO'] == '/part':
        return [part()]
    page = environ
    return iter([b'[<!--#include virtual="/part" -->]'])
"#;

#[test]
fn a_part_does_not_wait_for_the_page_that_waits_for_it() {
    let mut httpd = Site::app(Mode::Embedded, NESTED)
        .one_child()
        .config("LoadModule include_module ${MODULES}/mod_include.so\n<Location />")
        .config("Options +Includes\nSetOutputFilter INCLUDES\n</Location>")
        .start();
    let said = "the request this object belongs to is passing on its answer";
    assert_eq!(httpd.get("/").ok(), format!("[{said}]"));
    httpd.expect_error("a finalizer writes to the log of the page");
}

#[test]
fn a_client_that_reads_slowly_keeps_nobody_from_running_python() {
    if mpm() == "prefork" {
        skip("a process of prefork has one request at a time");
        return;
    }
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = page(mode).start();
        let mut slow = httpd.connect();
        slow.write(Request::get("/big").head()).unwrap();
        slow.read_head().unwrap();
        assert_eq!(httpd.get("/part").ok(), "part", "{mode:?}");
    }
}
