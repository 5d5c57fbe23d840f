//! Sentences of PEP 3333 that belong to no other noun; docs/wsgi.md lists all of them.
#![forbid(unsafe_code)]

use crate::harness::{Mode, Request, Site, in_both_modes, is_ours};

#[test]
fn the_application_is_called_with_two_positional_arguments() {
    let source = "
class Application:
    def __call__(self, *args, **kwargs):
        environ, start_response = args
        write = start_response('200 OK', [('Content-Type', 'text/plain')])
        return [repr((len(args), kwargs, type(environ) is dict, callable(write))).encode()]
application = Application()
";
    in_both_modes(source, |httpd| assert_eq!(httpd.get("/").ok(), "(2, {}, True, True)"));
}

#[test]
fn any_iterable_is_a_result() {
    for result in
        ["(b'a', b'b')", "{b'ab': 1}", "iter([b'a', b'b'])", "Old()", "map(bytes, [b'ab'])"]
    {
        let source = format!(
            "
class Old:
    def __getitem__(self, at):
        return [b'a', b'', b'b'][at]
def application(environ, start_response):
    start_response('200 OK', [])
    return {result}
"
        );
        in_both_modes(&source, |httpd| assert_eq!(httpd.get("/").ok(), "ab", "{result}"));
    }
}

#[test]
fn bytes_are_sent_as_they_are() {
    let source = "
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [bytes(range(256)), b'\\r\\n\\n\\r', b'\\x00']
";
    in_both_modes(source, |httpd| {
        let expected: Vec<u8> = (0..=255).chain(*b"\r\n\n\r\0").collect();
        assert_eq!(httpd.get("/").body, expected);
    });
}

#[test]
fn nothing_else_of_the_result_is_used() {
    let source = "
touched = []
calls = []
class Result:
    def __getattribute__(self, name):
        if name not in ('__class__', 'close'):
            touched.append(name)
        return object.__getattribute__(self, name)
    def __iter__(self):
        return iter([b'x'])
    def close(self):
        calls.append('close')
def application(environ, start_response):
    start_response('200 OK', [])
    return [repr(touched + calls).encode()] if environ['QUERY_STRING'] else Result()
";
    // That it was closed shows that the same process is asked.
    let told = "['close']";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, source).one_child().start();
        assert_eq!(httpd.get("/").ok(), "x");
        assert_eq!(httpd.get("/?told").ok(), told, "{mode:?}");
    }
}

#[test]
fn headers_wait_for_the_first_byte_of_the_body() {
    let source = "
import sys
def application(environ, start_response):
    start_response('200 OK', [('X-Try', 'first')])
    yield b''
    try:
        raise KeyError
    except KeyError:
        start_response('503 Sorry', [('X-Try', 'second')], sys.exc_info())
    yield b'sorry'
";
    in_both_modes(source, |httpd| {
        let response = httpd.get("/");
        assert_eq!((response.status, response.text()), (503, "sorry".to_owned()));
        assert_eq!(response.all("X-Try"), ["second"]);
    });
}

#[test]
fn a_body_without_start_response_is_an_error_of_the_server() {
    for body in ["return [b'x']", "return []", "yield b'x'"] {
        let source = format!("def application(environ, start_response):\n    {body}\n");
        in_both_modes(&source, |httpd| {
            httpd.allow_error("WSGI0174");
            httpd.allow_error("rror");
            assert_eq!(httpd.get("/").status, 500, "{body}");
        });
    }
}

#[test]
fn what_http_requires_is_added_and_what_is_there_is_left() {
    let source = "
def application(environ, start_response):
    headers = [('X-Mine', 'a'), ('x-mine', 'b'), ('ETag', '\"v1\"'), ('cache-control', 'no-cache')]
    start_response('200 OK', headers)
    return [b'x']
";
    in_both_modes(source, |httpd| {
        let response = httpd.get("/");
        assert!(response.header("Date").is_some() && response.header("Server").is_some());
        assert_eq!(response.header("ETag"), Some("\"v1\""));
        assert_eq!(response.header("Cache-Control"), Some("no-cache"));
        if is_ours() {
            assert_eq!(response.all("X-Mine"), ["a", "b"]);
        }
    });
}

#[test]
fn the_list_of_headers_stays_the_applications() {
    let source = "
def application(environ, start_response):
    headers = [('X-One', '1')]
    start_response('200 OK', headers)
    headers.append(('X-Late', '2'))
    headers[0] = ('X-One', 'changed')
    return [repr(len(headers)).encode()]
";
    in_both_modes(source, |httpd| {
        let response = httpd.get("/");
        assert_eq!((response.text(), response.header("X-Late")), ("2".to_owned(), None));
        assert_eq!(response.header("X-One"), Some("1"));
    });
}

#[test]
fn the_same_application_may_be_called_while_it_runs() {
    let source = "
def application(environ, start_response):
    if environ['PATH_INFO'] != '/inner':
        inner = dict(environ, PATH_INFO='/inner')
        return application(inner, start_response)
    start_response('200 OK', [])
    return [environ['PATH_INFO'].encode()]
";
    in_both_modes(source, |httpd| assert_eq!(httpd.get("/outer").ok(), "/inner"));
}

#[test]
fn the_environ_may_be_changed() {
    let source = "
def application(environ, start_response):
    environ.clear()
    environ['mine'] = object()
    start_response('200 OK', [])
    return [str(len(environ)).encode()]
";
    in_both_modes(source, |httpd| {
        for _ in 0..3 {
            assert_eq!(httpd.send(&Request::post("/", "unread")).ok(), "1");
        }
    });
}

#[test]
fn the_application_is_called_once_for_each_request() {
    let source = "
calls = []
def application(environ, start_response):
    calls.append(environ['PATH_INFO'])
    start_response('200 OK', [])
    return [' '.join(calls).encode()]
";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, source).one_child().start();
        httpd.get("/1").ok();
        httpd.send(&Request::post("/2", "a body")).ok();
        assert_eq!(httpd.send(&Request::new("HEAD", "/3")).status, 200);
        assert_eq!(httpd.get("/4").ok(), "/1 /2 /3 /4", "{mode:?}");
    }
}

#[test]
fn what_is_missing_is_left_out_of_the_environ() {
    let source = "
def application(environ, start_response):
    start_response('200 OK', [])
    keys = ('REMOTE_USER', 'AUTH_TYPE', 'CONTENT_TYPE', 'CONTENT_LENGTH', 'HTTP_COOKIE',
        'HTTP_REFERER', 'HTTPS', 'REDIRECT_URL')
    there = [key for key in keys if key in environ]
    there += [key for key, value in environ.items() if value is None]
    return [' '.join(there).encode()]
";
    in_both_modes(source, |httpd| assert_eq!(httpd.get("/").ok(), ""));
}

#[test]
fn variables_of_the_server_have_a_name_of_its_own() {
    let source = "
import re
def application(environ, start_response):
    start_response('200 OK', [])
    lower = [key for key in environ if key.upper() != key]
    odd = [key for key in lower if not re.fullmatch(r'(wsgi|mod_wsgi|apache)\\.[a-z0-9_]+', key)]
    return [' '.join(odd).encode() or b'%d' % (len(lower) > 15)]
";
    in_both_modes(source, |httpd| assert_eq!(httpd.get("/").ok(), "1"));
}

#[test]
fn strings_have_no_character_above_255() {
    let source = "
def application(environ, start_response):
    start_response('200 OK', [])
    # The file system's names are in its encoding, as mod_wsgi has them.
    wide = [key for key, value in environ.items() if isinstance(value, str)
        and max(map(ord, value), default=0) > 255 and key not in ('SCRIPT_FILENAME', 'DOCUMENT_ROOT')]
    return [repr((wide, environ['HTTP_X_NAME'])).encode('utf-8')]
";
    in_both_modes(source, |httpd| {
        // UTF-8, and bytes that are not.
        let request = Request::get("/%E2%82%AC/%FF?\u{e2}\u{82}\u{ac}");
        let request = request.header("X-Name", "\u{e2}\u{82}\u{ac}\u{ff}");
        assert_eq!(httpd.send(&request).ok(), "([], '\u{e2}\\x82\u{ac}\u{ff}')");
    });
}

#[test]
fn the_url_of_a_request_can_be_put_together_again() {
    // The algorithm of the PEP's section "URL Reconstruction".
    let source = "
from urllib.parse import quote
def application(environ, start_response):
    url = environ['wsgi.url_scheme'] + '://'
    if environ.get('HTTP_HOST'):
        url += environ['HTTP_HOST']
    else:
        url += environ['SERVER_NAME'] + ':' + environ['SERVER_PORT']
    url += quote(environ.get('SCRIPT_NAME', ''), encoding='latin-1')
    url += quote(environ.get('PATH_INFO', ''), encoding='latin-1')
    if environ.get('QUERY_STRING'):
        url += '?' + environ['QUERY_STRING']
    start_response('200 OK', [])
    return [url.encode()]
";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::new(mode.config())
            .config("WSGIScriptAlias /caf%C3%A9 ${ROOT}/not.wsgi")
            .config("WSGIScriptAlias /some/app ${ROOT}/app.wsgi")
            .file("app.wsgi", source)
            .start();
        let port = httpd.port();
        for target in
            ["/some/app", "/some/app/", "/some/app/a%20b/%C3%A9%FF?x=%20&y", "/some/app/%3Fx"]
        {
            let request = Request::get(target).header("Host", "wsgi.test:1234");
            assert_eq!(httpd.send(&request).ok(), format!("http://wsgi.test:1234{target}"));
        }
        let mut old = httpd.connect();
        old.write("GET /some/app/x HTTP/1.0\r\n\r\n").unwrap();
        let url = old.read_response(false).unwrap().ok();
        assert_eq!(url, format!("http://wsgi.test:{port}/some/app/x"));
    }
}

#[test]
fn the_application_may_be_run_in_one_thread_at_a_time() {
    let source = "
import time
inside = []
def application(environ, start_response):
    inside.append(1)
    time.sleep(0.01)
    seen = len(inside)
    inside.pop()
    start_response('200 OK', [])
    return [b'%d %d' % (seen, environ['wsgi.multithread'])]
";
    let config = "WSGIDaemonProcess one threads=1\nWSGIProcessGroup one
        WSGIScriptAlias / ${ROOT}/app.wsgi";
    let httpd = Site::new(config).file("app.wsgi", source).start();
    let load = crate::harness::Load::start(&httpd, 8, "/");
    load.wait_for(60);
    for answer in load.stop() {
        assert_eq!(answer.result.expect("an answer").ok(), "1 0");
    }
}

#[test]
fn no_reference_to_a_reported_exception_is_kept() {
    // A list of the frame would keep the traceback, and that the frame, until a collection.
    let source = "
import gc, sys, weakref
gc.disable()
kept = []
class Lost(Exception):
    pass
def failing(start_response):
    try:
        raise Lost
    except Lost as error:
        kept.append(weakref.ref(error))
        start_response('500 Lost', [], sys.exc_info())
def application(environ, start_response):
    failing(start_response)
    gone = [ref() is None for ref in kept]
    start_response('200 OK', [])
    return [repr(all(gone)).encode()]
";
    in_both_modes(source, |httpd| assert_eq!(httpd.get("/").ok(), "True"));
}

#[test]
fn more_than_was_announced_is_taken_and_not_sent() {
    // PEP 3333 would rather have iteration stop; mod_wsgi goes on, and applications may count
    // on code behind their last `yield`.
    let source = "
import os
ROOT = os.path.dirname(__file__)
def application(environ, start_response):
    write = start_response('200 OK', [('Content-Length', '4')])
    write(b'ab')
    for part in (b'cd', b'ef', b'gh'):
        yield part
    with open(ROOT + '/run/end', 'w') as f:
        f.write('reached')
";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let site = Site::app(mode, source);
        site.open_run();
        let httpd = site.start();
        let mut connection = httpd.connect();
        for _ in 0..2 {
            let response = connection.exchange(&Request::get("/").keep_alive()).unwrap();
            assert_eq!(response.ok(), "abcd", "{mode:?}");
        }
        httpd.wait_for_file("run/end", "reached");
    }
}
