//! `WSGIDispatchScript`: a script that chooses where a request runs.
#![forbid(unsafe_code)]

use crate::harness::{Httpd, Site, expect_refusal, ours_only};

/// Answers with where it runs, each in brackets.
const APPLICATION: &str = r#"
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    keys = ['mod_wsgi.process_group', 'mod_wsgi.application_group', 'mod_wsgi.callable_object']
    return [' '.join('[%s]' % environ[key] for key in keys).encode()]
other = application
"#;

/// Evaluates the three parts of the query.
const SCRIPT: &str = r#"
from urllib.parse import unquote
def part(environ, number):
    if environ['QUERY_STRING']:
        return eval(unquote(environ['QUERY_STRING']).split('/')[number])
def process_group(environ):
    return part(environ, 0)
def application_group(environ):
    return part(environ, 1)
def callable_object(environ):
    return part(environ, 2)
"#;

/// A site with [`APPLICATION`] behind [`SCRIPT`], two groups beside embedded mode.
fn site(config: &str) -> Site {
    Site::new("WSGIDaemonProcess one\nWSGIDaemonProcess two\nWSGIProcessGroup one")
        .one_child()
        .config("WSGIApplicationGroup %{GLOBAL}\nWSGIScriptAlias / ${ROOT}/app.wsgi")
        .config("WSGIDispatchScript ${ROOT}/dispatch.py")
        .config(config)
        .file("app.wsgi", APPLICATION)
        .file("dispatch.py", SCRIPT)
}

/// The status of the answer where the script's functions give these values.
fn status(httpd: &Httpd, values: &str) -> u16 {
    httpd.get(&format!("/?{}", escaped(values))).status
}

/// The answer where they give these.
#[track_caller]
fn answer(httpd: &Httpd, values: &str) -> String {
    httpd.get(&format!("/?{}", escaped(values))).ok()
}

/// An expression as a query.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte == b'/' { "/".into() } else { format!("%{byte:02x}") })
        .collect()
}

#[test]
fn a_script_chooses_where_a_request_runs() {
    let httpd = site("SetEnv GROUP two").start();
    assert_eq!(httpd.get("/").ok(), "[one] [] [application]");
    assert_eq!(answer(&httpd, "'two'/'x'/'other'"), "[two] [x] [other]");
    assert_eq!(answer(&httpd, "b'two'/b'x'/b'other'"), "[two] [x] [other]");
    assert_eq!(answer(&httpd, "'%{GLOBAL}'/None/None"), "[] [] [application]");
    assert_eq!(answer(&httpd, "''/''/None"), "[] [] [application]");
    let server = format!("[two] [wsgi.test:{}] [application]", httpd.port());
    assert_eq!(answer(&httpd, "'%{ENV:GROUP}'/'%{SERVER}'/'%{ENV:NONE}'"), server);
}

#[test]
fn a_script_need_not_choose_everything() {
    let httpd = site("")
        .file("dispatch.py", "def application_group(environ): return 'x'\n")
        .config("<Location /none>\nWSGIDispatchScript ${ROOT}/empty.py\n</Location>")
        .file("empty.py", "x = 1\n")
        .start();
    assert_eq!(httpd.get("/").ok(), "[one] [x] [application]");
    assert_eq!(httpd.get("/none").ok(), "[one] [] [application]");
}

#[test]
fn what_a_script_chooses_may_be_refused() {
    let mut httpd = site("WSGIRestrictProcess one two").start();
    for (values, code) in [
        ("'three'/None/None", "WSGI0149"),
        ("''/None/None", "WSGI0149"),
        ("1/None/None", if crate::harness::is_ours() { "WSGI9511" } else { "WSGI0174" }),
        ("None/nonsense/None", "WSGI0174"),
        (r"None/'\u20ac'/None", "WSGI0174"),
    ] {
        assert_eq!(status(&httpd, values), 500, "{values}");
        assert!(httpd.log().contains(code), "{values}: {}", httpd.log());
        httpd.expect_error(code);
    }
    assert_eq!(answer(&httpd, "'two'/None/None"), "[two] [] [application]");
    httpd.allow_error("NameError");
    httpd.allow_error("UnicodeEncodeError");
    httpd.allow_error("must be a byte string");
    httpd.allow_error("direct cause");
}

#[test]
fn a_script_that_is_not_there_chooses_nothing() {
    let mut httpd = site("<Location /missing>\nWSGIDispatchScript ${ROOT}/missing.py\n</Location>")
        .config("<Location /broken>\nWSGIDispatchScript ${ROOT}/broken.py\n</Location>")
        .file("broken.py", "1 / 0\n")
        .start();
    assert_eq!(httpd.get("/missing").ok(), "[one] [] [application]");
    assert_eq!(httpd.get("/broken").ok(), "[one] [] [application]");
    httpd.expect_error("WSGI0105");
    httpd.expect_error("WSGI0109");
    httpd.allow_error("WSGI0174");
    httpd.allow_error("missing.py");
    httpd.allow_error("ZeroDivisionError");
}

#[test]
fn a_script_chooses_over_the_options_of_aliases_and_handlers() {
    let httpd = site("WSGIScriptAlias /alias ${ROOT}/app.wsgi process-group=one")
        .config("WSGIHandlerScript x ${ROOT}/app.wsgi process-group=one application-group=y")
        .config("<Location /handler>\nSetHandler x\n</Location>")
        .file(
            "dispatch.py",
            "def process_group(environ): return 'two'\ndef callable_object(environ): return 'other'\n",
        )
        .start();
    assert_eq!(httpd.get("/alias").ok(), "[two] [] [other]");
    assert_eq!(httpd.get("/handler").ok(), "[two] [y] [other]");
}

#[test]
fn a_script_is_asked_where_no_application_may_run_and_sees_the_request() {
    let script = "
def process_group(environ):
    import mod_wsgi
    here = [environ['mod_wsgi.process_group'], environ['mod_wsgi.application_group'],
            mod_wsgi.application_group]
    print(here, environ['MINE'], environ['SCRIPT_FILENAME'][-9:], file=environ['wsgi.errors'])
    return environ['MINE']
";
    let mut httpd = site("WSGIRestrictEmbedded On\nSetEnv MINE two")
        .config("<Location />\nWSGIDispatchScript ${ROOT}/dispatch.py application-group=%{SERVER}\n</Location>")
        .file("dispatch.py", script)
        .start();
    assert_eq!(httpd.get("/").ok(), "[two] [] [application]");
    let group = format!("wsgi.test:{}", httpd.port());
    httpd.expect_error(&format!(", '{group}'] two /app.wsgi"));
}

#[test]
fn a_dispatch_script_in_the_wrong_form_is_refused() {
    for arguments in ["", "/s.py process-group=x", "/s.py application-group=", "/s.py lonely"] {
        expect_refusal(&format!("WSGIDispatchScript {arguments}"));
    }
}

/// Answers with what C code gets out of `apache.request_rec`, now and after the request.
const CAPSULE: &str = r#"
import ctypes
pointer = ctypes.pythonapi.PyCapsule_GetPointer
pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
kept = []
def found(capsule):
    try:
        return bool(pointer(capsule, None))
    except ValueError:
        return 'refused'
def application(environ, start_response):
    start_response('200 OK', [])
    capsule = environ.get('apache.request_rec')
    answer = [found(old) for old in kept], capsule and found(capsule)
    if capsule:
        kept[:] = [capsule]
    return [repr(answer).encode()]
"#;

#[test]
fn the_record_of_a_request_is_passed_to_embedded_applications_that_want_it() {
    let httpd = Site::new("WSGIDaemonProcess d\nWSGIApplicationGroup %{GLOBAL}")
        .one_child()
        .config("WSGIScriptAlias / ${ROOT}/app.wsgi\n<Location /on>\nWSGIPassApacheRequest On\n</Location>")
        .config("<Location /daemon>\nWSGIPassApacheRequest On\nWSGIProcessGroup d\n</Location>")
        .file("app.wsgi", CAPSULE)
        .start();
    assert_eq!(httpd.get("/").ok(), "([], None)");
    assert_eq!(httpd.get("/on").ok(), "([], True)");
    assert_eq!(httpd.get("/daemon").ok(), "([], None)");
    ours_only!("row 75: the reference's capsule leads to freed memory by now");
    assert_eq!(httpd.get("/on").ok(), "(['refused'], True)");
}

#[test]
fn the_record_of_a_request_is_a_matter_of_the_main_configuration() {
    expect_refusal("WSGIPassApacheRequest maybe");
    let mut httpd = Site::new("<Directory ${ROOT}/htdocs>\nAllowOverride All\n</Directory>")
        .file("htdocs/.htaccess", "WSGIPassApacheRequest On\n")
        .file("htdocs/a.txt", "a")
        .start();
    httpd.allow_error("WSGIPassApacheRequest not allowed here");
    assert_eq!(httpd.get("/a.txt").status, 500);
}
