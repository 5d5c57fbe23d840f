//! The credentials of a request: who gets to see them.
#![forbid(unsafe_code)]

use crate::harness::{Httpd, Mode, Request, Site, is_ours, ours_only};

/// Answers 401 to whoever shows no credentials.
const GATE: &str = r#"
def application(environ, start_response):
    shown = environ.get('HTTP_AUTHORIZATION')
    status = '200 OK' if shown else '401 Unauthorized'
    start_response(status, [('Content-Type', 'text/plain'), ('WWW-Authenticate', 'Basic realm="x"')])
    return [repr((shown, environ.get('REMOTE_USER'), environ.get('AUTH_TYPE'))).encode()]
"#;

/// "user:secret", as a client sends it.
const CREDENTIALS: &str = "Basic dXNlcjpzZWNyZXQ=";

/// The answer to a request for `target` with credentials.
fn ask(httpd: &Httpd, target: &str) -> (u16, String) {
    let response = httpd.send(&Request::get(target).header("Authorization", CREDENTIALS));
    (response.status, response.text())
}

#[test]
fn credentials_reach_an_application_only_where_they_are_passed() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, GATE)
            .config("<Location /pass>\nWSGIPassAuthorization On\n</Location>")
            .config("<Location /cgi>\nCGIPassAuth On\n</Location>")
            .config("<Location /pass/not>\nWSGIPassAuthorization Off\n</Location>")
            .start();
        assert_eq!(ask(&httpd, "/"), (401, "(None, None, None)".to_owned()));
        assert_eq!(ask(&httpd, "/pass/not").0, 401);
        for target in ["/pass", "/cgi"] {
            let shown = format!("('{CREDENTIALS}', None, None)");
            assert_eq!(ask(&httpd, target), (200, shown), "{target}");
        }
    }
}

#[test]
fn an_application_that_does_not_see_credentials_is_hinted_at() {
    ours_only!("mod_wsgi 6.1.1 says nothing");
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::new(mode.config())
            .one_child()
            .config("WSGIScriptAlias /one ${ROOT}/one.wsgi\nWSGIScriptAlias /two ${ROOT}/two.wsgi")
            .config("<Location /one/pass>\nWSGIPassAuthorization On\n</Location>")
            .file("one.wsgi", GATE)
            .file("two.wsgi", GATE)
            .start();
        let hints = || httpd.log().matches("WSGI9510").count();
        // Nothing was withheld.
        assert_eq!(httpd.get("/one").status, 401);
        assert_eq!(ask(&httpd, "/one/pass").0, 200);
        assert_eq!(hints(), 0);
        for _ in 0..3 {
            assert_eq!(ask(&httpd, "/one").0, 401);
        }
        assert_eq!(hints(), 1, "{}", httpd.log());
        assert!(httpd.log().contains("WSGIPassAuthorization is Off"));
        assert_eq!(ask(&httpd, "/two").0, 401);
        assert_eq!(hints(), 2, "{}", httpd.log());
        assert!(!httpd.log().contains("dXNlcjpzZWNyZXQ"));
    }
}

#[test]
fn credentials_for_a_proxy_stay_with_httpd() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let source = "
def application(environ, start_response):
    start_response('200 OK', [])
    return [repr(environ.get('HTTP_PROXY_AUTHORIZATION')).encode()]
";
        let httpd = Site::app(mode, source)
            .config("WSGIPassAuthorization On\n<Location /cgi>\nCGIPassAuth On\n</Location>")
            .start();
        let ask = |target| {
            httpd.send(&Request::get(target).header("Proxy-Authorization", CREDENTIALS)).ok()
        };
        assert_eq!(ask("/"), "None");
        assert_eq!(ask("/cgi"), format!("'{CREDENTIALS}'"));
        assert!(!is_ours() || !httpd.log().contains("WSGI9510"));
    }
}
