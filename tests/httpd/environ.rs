//! The environ an application is called with (PEP 3333 and what mod_wsgi adds).
#![forbid(unsafe_code)]

use crate::harness::{Httpd, Mode, Request, Site, in_both_modes, is_ours, mpm};

/// Answers with the `repr` of the entries that the header `X-Keys` lists, one a line.
pub const KEYS: &str = r#"
def application(environ, start_response):
    names = environ['HTTP_X_KEYS'].split(',')
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return ['\n'.join(repr(environ.get(name)) for name in names).encode()]
"#;

/// The `repr` of these environ entries for `request`.
#[track_caller]
pub fn entries<const N: usize>(httpd: &Httpd, request: Request, keys: [&str; N]) -> [String; N] {
    let text = httpd.send(&request.header("X-Keys", keys.join(","))).ok();
    let values: Vec<String> = text.lines().map(str::to_owned).collect();
    values.try_into().unwrap_or_else(|values| panic!("{keys:?}: {values:?}"))
}

/// Each key has the value beside it.
#[track_caller]
pub fn expect(httpd: &Httpd, request: Request, pairs: &[(&str, &str)]) {
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
fn names_of_headers_hold_letters_digits_and_hyphens_only() {
    let source = "
def application(environ, start_response):
    start_response('200 OK', [])
    return [' '.join(sorted(key for key in environ if 'ODD' in key.upper())).encode()]
";
    in_both_modes(source, |httpd| {
        let mut request = Request::get("/").header("X-Odd-1", "kept");
        for name in ["X_Odd", "X.Odd", "X~Odd", "X!Odd", "X$Odd", "X`Odd", "X|Odd", "X-Odd_"] {
            request = request.header(name, "forged");
        }
        assert_eq!(httpd.send(&request).ok(), "HTTP_X_ODD_1");
    });
}

#[test]
fn the_server_is_called_as_the_configuration_says() {
    for (setting, name, port) in [
        ("UseCanonicalName Off", "'other.test'", "'81'"),
        ("UseCanonicalName On", "'wsgi.test'", ""),
    ] {
        for mode in [Mode::Embedded, Mode::Daemon] {
            let httpd =
                Site::app(mode, KEYS).config(setting).config("ServerAdmin ops@wsgi.test").start();
            let own = format!("'{}'", httpd.port());
            let request = Request::get("/").header("Host", "other.test:81");
            let port = if port.is_empty() { own.as_str() } else { port };
            expect(
                &httpd,
                request,
                &[
                    ("SERVER_NAME", name),
                    ("SERVER_PORT", port),
                    ("HTTP_HOST", "'other.test:81'"),
                    ("SERVER_ADMIN", "'ops@wsgi.test'"),
                    ("mod_wsgi.listener_port", &own),
                ],
            );
        }
    }
}

#[test]
fn variables_of_modules_are_in_it() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, KEYS)
            .config("LoadModule unique_id_module ${MODULES}/mod_unique_id.so")
            .config("SetEnv PATH /nowhere\nSetEnv HTTPS off")
            .start();
        let [unique, path, https] =
            entries(&httpd, Request::get("/"), ["UNIQUE_ID", "PATH", "HTTPS"]);
        assert!(unique.len() > 20, "{unique}");
        assert_eq!([path, https], ["None", "None"]);
    }
}

#[test]
fn the_request_and_its_process_have_names() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd =
            Site::app(mode, KEYS).config("CustomLog ${ROOT}/ids.log \"'%L' '%{c}L' '%P'\"").start();
        let keys = ["mod_wsgi.request_id", "mod_wsgi.connection_id", "mod_wsgi.server_pid"];
        let [request, connection, pid] = entries(&httpd, Request::get("/"), keys);
        // httpd makes these ids when something is logged: none of its own is compared.
        assert!(request.len() > 2 && connection.len() > 2, "{request} {connection}");
        httpd.wait_for_file("ids.log", &pid);
        let [thread] = entries(&httpd, Request::get("/"), ["mod_wsgi.thread_id"]);
        assert!(thread.parse::<u32>().is_ok(), "{thread}");
    }
}

#[test]
fn each_value_has_its_type() {
    let source = "
def application(environ, start_response):
    start_response('200 OK', [])
    own = {'wsgi.version': tuple, 'wsgi.multithread': bool, 'wsgi.multiprocess': bool,
        'wsgi.run_once': bool, 'wsgi.input_terminated': bool, 'mod_wsgi.version': tuple,
        'mod_wsgi.thread_id': int, 'mod_wsgi.request_start': float,
        'mod_wsgi.queue_start': float, 'mod_wsgi.daemon_start': float,
        'mod_wsgi.application_start': float, 'apache.version': tuple}
    objects = ('wsgi.input', 'wsgi.errors', 'wsgi.file_wrapper')
    wrong = [key for key, value in environ.items()
        if type(key) is not str or key not in objects and type(value) is not own.get(key, str)]
    wrong += [key for key in environ if key.startswith('mod_wsgi.x-')]
    wrong += [key for key in own if key not in environ]
    return [' '.join(wrong).encode()]
";
    in_both_modes(source, |httpd| assert_eq!(httpd.get("/x?y").ok(), ""));
}

#[test]
fn a_process_for_one_request_runs_once() {
    let config = "WSGIDaemonProcess one threads=1 maximum-requests=1\nWSGIProcessGroup one
        WSGIScriptAlias / ${ROOT}/app.wsgi";
    let httpd = Site::new(config).file("app.wsgi", KEYS).start();
    expect(&httpd, Request::get("/"), &[("wsgi.run_once", "True")]);
}

#[test]
fn variables_of_the_configuration_are_in_it() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, KEYS)
            .config("SetEnv FROM_SETENV one\nSetEnvIf Request_URI ^/(.*)$ FROM_URI=$1")
            .config("SetEnv QUERY_STRING forged\nSetEnv REQUEST_METHOD FORGED")
            .config(if is_ours() { "SetEnv Path_Info forged" } else { "" })
            .start();
        expect(
            &httpd,
            Request::get("/path?q"),
            &[
                ("FROM_SETENV", "'one'"),
                ("FROM_URI", "'path'"),
                ("QUERY_STRING", "'q'"),
                ("REQUEST_METHOD", "'GET'"),
                // One that differs in its letters' case does not stand beside it.
                ("PATH_INFO", "'/path'"),
                ("Path_Info", "None"),
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
