//! Sentences of PEP 3333 that belong to no other noun; docs/wsgi.md lists all of them.
#![forbid(unsafe_code)]

use crate::harness::{Request, in_both_modes, is_ours};

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
class Result:
    def __getattribute__(self, name):
        if name not in ('__class__', 'close'):
            touched.append(name)
        return object.__getattribute__(self, name)
    def __iter__(self):
        return iter([b'x'])
    def close(self):
        pass
def application(environ, start_response):
    start_response('200 OK', [])
    return [repr(touched).encode()] if environ['QUERY_STRING'] else Result()
";
    in_both_modes(source, |httpd| {
        // One process answers both in daemon mode; embedded, one of two of its children may.
        assert_eq!(httpd.get("/").ok(), "x");
        assert_eq!(httpd.get("/?told").ok(), "[]");
    });
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
