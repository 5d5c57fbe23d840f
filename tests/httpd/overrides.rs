//! What httpd makes of a request before, and of an answer after, an application has it.
#![forbid(unsafe_code)]

use crate::harness::{Httpd, Mode, Request, Site};

/// Says which method it saw, with the status its query string names.
const STATUS: &str = "
def application(environ, start_response):
    status = environ['QUERY_STRING'] or '200'
    start_response(status + ' Yes', [('Content-Type', 'text/plain'), ('X-From', 'application'),
                                     ('X-Method', environ['REQUEST_METHOD'])])
    return [b'of the application']
";

/// Runs `test` in both modes with [`STATUS`] and these directives.
fn with(config: &str, test: impl Fn(Mode, &Httpd)) {
    for mode in [Mode::Embedded, Mode::Daemon] {
        eprintln!("{mode:?} mode");
        let site = Site::app(mode, STATUS).file("htdocs/sorry.html", "of the server");
        let config = format!("Alias /sorry.html ${{ROOT}}/htdocs/sorry.html\n{config}");
        test(mode, &site.config(&config).start());
    }
}

#[test]
fn error_documents_replace_errors_of_applications_where_that_is_wanted() {
    let config = "ErrorDocument 404 /sorry.html\nErrorDocument 503 /sorry.html\n\
                  WSGIErrorOverride On\n<Location /own>\nWSGIErrorOverride Off\n</Location>";
    with(config, |mode, httpd| {
        // Embedded applications keep their errors, as with the reference.
        let theirs = if mode == Mode::Daemon { "of the server" } else { "of the application" };
        for status in [404, 503] {
            let answer = httpd.get(&format!("/a?{status}"));
            assert_eq!((answer.status, answer.text().as_str()), (status, theirs));
            assert_eq!(answer.header("X-From").is_none(), mode == Mode::Daemon, "{answer:?}");
            let answer = httpd.get(&format!("/own?{status}"));
            assert_eq!((answer.status, answer.text().as_str()), (status, "of the application"));
        }
        for status in [200, 203, 302] {
            let answer = httpd.get(&format!("/a?{status}"));
            assert_eq!((answer.status, answer.text().as_str()), (status, "of the application"));
        }
    });
}

#[test]
fn errors_of_applications_stay_where_nothing_is_said() {
    with("ErrorDocument 404 /sorry.html", |_, httpd| {
        let answer = httpd.get("/a?404");
        assert_eq!((answer.status, answer.text().as_str()), (404, "of the application"));
    });
}

#[test]
fn a_head_request_is_shown_as_get_where_that_is_wanted() {
    let config = "<Location /on>\nWSGIMapHEADToGET On\n</Location>\n\
                  <Location /off>\nWSGIMapHEADToGET off\nSetOutputFilter DEFLATE\n</Location>\n\
                  <Location /filtered>\nSetOutputFilter DEFLATE\n</Location>";
    with(config, |_, httpd| {
        for (path, seen) in [("/", "HEAD"), ("/on", "GET"), ("/off", "HEAD"), ("/filtered", "GET")]
        {
            let answer = httpd.send(&Request::new("HEAD", path));
            assert_eq!((answer.status, answer.body.len()), (200, 0));
            assert_eq!(answer.header("X-Method"), Some(seen), "{path}");
            let answer = httpd.send(&Request::with_body("PUT", path, "x"));
            assert_eq!(answer.header("X-Method"), Some("PUT"), "{path}");
        }
    });
}

#[test]
fn errors_and_heads_may_be_chosen_in_an_htaccess_file_too() {
    let site = |line: &str| {
        let config = "<Directory ${ROOT}/htdocs>\nAllowOverride FileInfo\nOptions +ExecCGI\n\
                      </Directory>\nAddHandler wsgi-script .wsgi\nErrorDocument 404 /sorry.html";
        let site = Site::new(Mode::Daemon.config()).config(config);
        let site = site.file("htdocs/a.wsgi", STATUS).file("htdocs/sorry.html", "of the server");
        site.file("htdocs/.htaccess", line).start()
    };
    let answer = site("WSGIErrorOverride On\n").get("/a.wsgi?404");
    assert_eq!((answer.status, answer.text().as_str()), (404, "of the server"));
    let answer = site("WSGIMapHEADToGET On\n").send(&Request::new("HEAD", "/a.wsgi"));
    assert_eq!(answer.header("X-Method"), Some("GET"));
}
