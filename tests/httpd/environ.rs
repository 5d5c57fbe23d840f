//! The environ an application is called with (PEP 3333 and what mod_wsgi adds).
#![forbid(unsafe_code)]

use crate::harness::{Httpd, Mode, Request, Site, in_both_modes, mpm};

/// Answers with the `repr` of the keys the query string lists, one a line.
const KEYS: &str = r#"
def application(environ, start_response):
    names = environ['HTTP_X_KEYS'].split(',')
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return ['\n'.join(repr(environ.get(name)) for name in names).encode()]
"#;

/// The `repr` of these environ entries for `request`.
#[track_caller]
fn entries<const N: usize>(httpd: &Httpd, request: Request, keys: [&str; N]) -> [String; N] {
    let text = httpd.send(&request.header("X-Keys", keys.join(","))).ok();
    let values: Vec<String> = text.lines().map(str::to_owned).collect();
    values.try_into().unwrap_or_else(|values| panic!("{keys:?}: {values:?}"))
}

/// Each key has the value beside it.
#[track_caller]
fn expect(httpd: &Httpd, request: Request, pairs: &[(&str, &str)]) {
    for (key, value) in pairs {
        assert_eq!(entries(httpd, request.clone(), [key]), [*value], "{key}");
    }
}

#[test]
fn the_request_line_is_in_it() {
    in_both_modes(KEYS, |httpd| {
        expect(
            httpd,
            Request::get("/a%20b/c?x=1&y=%20"),
            &[
                ("REQUEST_METHOD", "'GET'"),
                ("SCRIPT_NAME", "''"),
                ("PATH_INFO", "'/a b/c'"),
                ("QUERY_STRING", "'x=1&y=%20'"),
                ("REQUEST_URI", "'/a%20b/c?x=1&y=%20'"),
                ("SERVER_PROTOCOL", "'HTTP/1.1'"),
                ("REQUEST_SCHEME", "'http'"),
                ("wsgi.url_scheme", "'http'"),
            ],
        );
        expect(httpd, Request::new("PURGE", "/"), &[("REQUEST_METHOD", "'PURGE'")]);
        expect(httpd, Request::get("/"), &[("QUERY_STRING", "''"), ("PATH_INFO", "'/'")]);
    });
}

#[test]
fn the_connection_is_in_it() {
    in_both_modes(KEYS, |httpd| {
        let port = format!("'{}'", httpd.port());
        expect(
            httpd,
            Request::get("/"),
            &[
                ("SERVER_NAME", "'wsgi.test'"),
                ("SERVER_PORT", &port),
                ("SERVER_ADDR", "'127.0.0.1'"),
                ("REMOTE_ADDR", "'127.0.0.1'"),
                ("mod_wsgi.listener_port", &port),
            ],
        );
        let [remote] = entries(httpd, Request::get("/"), ["REMOTE_PORT"]);
        assert!(remote.trim_matches('\'').parse::<u16>().is_ok(), "{remote}");
    });
}

#[test]
fn the_place_of_the_script_is_in_it() {
    in_both_modes(KEYS, |httpd| {
        let script = format!("'{}/app.wsgi'", httpd.root().display());
        let documents = format!("'{}/htdocs'", httpd.root().display());
        expect(
            httpd,
            Request::get("/x"),
            &[
                ("SCRIPT_FILENAME", &script),
                ("DOCUMENT_ROOT", &documents),
                ("mod_wsgi.script_name", "''"),
                ("mod_wsgi.path_info", "'/x'"),
                ("mod_wsgi.callable_object", "'application'"),
                ("mod_wsgi.request_handler", "'wsgi-script'"),
                ("mod_wsgi.handler_script", "''"),
                ("mod_wsgi.version", "(6, 1, 1)"),
            ],
        );
    });
}

#[test]
fn headers_are_in_it_under_their_cgi_names() {
    in_both_modes(KEYS, |httpd| {
        let request = Request::get("/")
            .header("X-One-Two", "three")
            .header("x-lower", "case")
            .header("X-Twice", "a")
            .header("X-Twice", "b")
            .header("X-Empty", "")
            .header("Cookie", "a=b; c=d");
        expect(
            httpd,
            request,
            &[
                ("HTTP_X_ONE_TWO", "'three'"),
                ("HTTP_X_LOWER", "'case'"),
                ("HTTP_X_TWICE", "'a, b'"),
                ("HTTP_X_EMPTY", "''"),
                ("HTTP_COOKIE", "'a=b; c=d'"),
                ("HTTP_HOST", "'wsgi.test'"),
                ("HTTP_X_MISSING", "None"),
            ],
        );
    });
}

#[test]
fn bytes_above_ascii_arrive_as_latin_1() {
    in_both_modes(KEYS, |httpd| {
        let request = Request::get("/%C3%A9?%ff").header("X-Name", "caf\u{e9}");
        expect(
            httpd,
            request,
            &[
                ("PATH_INFO", "'/\u{c3}\u{a9}'"),
                ("HTTP_X_NAME", "'caf\u{e9}'"),
                ("QUERY_STRING", "'%ff'"),
            ],
        );
    });
}

#[test]
fn a_header_that_could_pass_for_another_is_left_out() {
    in_both_modes(KEYS, |httpd| {
        let request = Request::get("/").header("X_Name", "forged").header("Proxy", "evil");
        expect(httpd, request, &[("HTTP_X_NAME", "None"), ("HTTP_PROXY", "None")]);
    });
}

#[test]
fn the_body_is_announced_without_the_http_prefix() {
    in_both_modes(KEYS, |httpd| {
        let request = Request::post("/", "12345").header("Content-Type", "text/x-test");
        expect(
            httpd,
            request,
            &[
                ("CONTENT_LENGTH", "'5'"),
                ("CONTENT_TYPE", "'text/x-test'"),
                ("REQUEST_METHOD", "'POST'"),
            ],
        );
        let absent = [("CONTENT_LENGTH", "None"), ("CONTENT_TYPE", "None")];
        expect(httpd, Request::get("/"), &absent);
    });
}

#[test]
fn what_only_cgi_has_is_not_in_it() {
    in_both_modes(KEYS, |httpd| {
        for key in
            ["PATH_TRANSLATED", "GATEWAY_INTERFACE", "SERVER_SIGNATURE", "PATH", "REMOTE_USER"]
        {
            expect(httpd, Request::get("/"), &[(key, "None")]);
        }
    });
}

#[test]
fn variables_of_the_configuration_are_in_it() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, KEYS)
            .config("SetEnv FROM_SETENV one\nSetEnvIf Request_URI ^/(.*)$ FROM_URI=$1")
            .config("SetEnv QUERY_STRING forged\nSetEnv REQUEST_METHOD FORGED")
            .start();
        expect(
            &httpd,
            Request::get("/path?q"),
            &[
                ("FROM_SETENV", "'one'"),
                ("FROM_URI", "'path'"),
                ("QUERY_STRING", "'q'"),
                ("REQUEST_METHOD", "'GET'"),
            ],
        );
    }
}

#[test]
fn the_scheme_follows_the_variable_https() {
    for (value, scheme) in [("on", "https"), ("1", "https"), ("ON", "https"), ("off", "http")] {
        for mode in [Mode::Embedded, Mode::Daemon] {
            let httpd = Site::app(mode, KEYS).config(&format!("SetEnv HTTPS {value}")).start();
            let scheme = format!("'{scheme}'");
            expect(&httpd, Request::get("/"), &[("wsgi.url_scheme", &scheme), ("HTTPS", "None")]);
        }
    }
}

#[test]
fn the_wsgi_entries_are_those_of_the_pep() {
    in_both_modes(KEYS, |httpd| {
        expect(
            httpd,
            Request::get("/"),
            &[
                ("wsgi.version", "(1, 0)"),
                ("wsgi.run_once", "False"),
                ("wsgi.input_terminated", "True"),
            ],
        );
        let [errors, input, wrapper] =
            entries(httpd, Request::get("/"), ["wsgi.errors", "wsgi.input", "wsgi.file_wrapper"]);
        assert!(errors.contains("TextIOWrapper"), "{errors}");
        assert!(input.contains("mod_wsgi.Input"), "{input}");
        assert!(wrapper.contains("mod_wsgi.FileWrapper"), "{wrapper}");
    });
}

#[test]
fn threads_and_processes_are_told_as_they_are_in_a_daemon_process() {
    for (options, threads, processes) in [
        ("", "True", "False"),
        ("threads=1", "False", "False"),
        ("processes=1", "True", "True"),
        ("processes=2 threads=1", "False", "True"),
    ] {
        let config = format!(
            "WSGIDaemonProcess one {options}\nWSGIProcessGroup one\nWSGIScriptAlias / ${{ROOT}}/app.wsgi"
        );
        let httpd = Site::new(&config).file("app.wsgi", KEYS).start();
        let pairs = [("wsgi.multithread", threads), ("wsgi.multiprocess", processes)];
        expect(&httpd, Request::get("/"), &pairs);
    }
}

#[test]
fn threads_and_processes_are_told_as_the_mpm_has_them() {
    let httpd = Site::app(Mode::Embedded, KEYS).start();
    let threads = if mpm() == "prefork" { "False" } else { "True" };
    let pairs = [("wsgi.multithread", threads), ("wsgi.multiprocess", "True")];
    expect(&httpd, Request::get("/"), &pairs);
}

#[test]
fn the_times_of_the_request_are_in_it() {
    in_both_modes(KEYS, |httpd| {
        let keys =
            ["mod_wsgi.request_start", "mod_wsgi.daemon_start", "mod_wsgi.application_start"];
        let [request, daemon, application] = entries(httpd, Request::get("/"), keys)
            .map(|text| text.parse::<f64>().unwrap_or_else(|_| panic!("{text} is not a float")));
        assert!(request > 1e9 && application >= request, "{request} {application}");
        assert!(daemon == 0.0 || (request..=application).contains(&daemon), "{daemon}");
    });
}

#[test]
fn the_environ_of_each_request_is_a_new_dict() {
    let source = "
def application(environ, start_response):
    assert type(environ) is dict and 'mine' not in environ
    environ['mine'] = environ['QUERY_STRING']
    start_response('200 OK', [])
    return [environ['mine'].encode()]
";
    in_both_modes(source, |httpd| {
        for query in ["one", "two", "three"] {
            assert_eq!(httpd.get(&format!("/?{query}")).ok(), query);
        }
    });
}

#[test]
fn the_validator_of_the_standard_library_finds_no_fault() {
    let source = r#"
from wsgiref.validate import validator
def plain(environ, start_response):
    body = environ['wsgi.input'].read(10) + environ['wsgi.input'].readline()
    for line in environ['wsgi.input']:
        body += line
    environ['wsgi.errors'].flush()
    start_response('200 OK', [('Content-Type', 'text/plain'), ('X-One', 'two')])
    return [b'got ', body]
application = validator(plain)
"#;
    in_both_modes(source, |httpd| {
        assert_eq!(httpd.get("/x?y=z").ok(), "got ");
        let body = "a first line that is long\nsecond\nthird";
        let request = Request::post("/", body).header("Content-Type", "text/plain");
        assert_eq!(httpd.send(&request).ok(), format!("got {body}"));
    });
}
