//! `wsgi.file_wrapper`: a file as an answer.
#![forbid(unsafe_code)]

use crate::harness::{Mode, Request, Site, in_both_modes, is_ours, ours_only, skip};

/// Serves the file `data` beside the script; the query string sets `headers`, `start` and more.
const FILE: &str = r#"
import io, os
DATA = os.path.join(os.path.dirname(__file__), 'data')
def application(environ, start_response):
    query = dict(item.split('=') for item in environ['QUERY_STRING'].split('&') if item)
    headers = [('Content-Length', query['length'])] if 'length' in query else []
    write = start_response('200 OK', headers)
    if 'before' in query:
        write(b'before ')
    f = open(DATA, 'rb') if 'memory' not in query else io.BytesIO(open(DATA, 'rb').read())
    f.seek(int(query.get('start', 0)))
    if 'unbuffered' in query:
        f = open(DATA, 'rb', buffering=0)
        f.seek(int(query.get('start', 0)))
    result = environ['wsgi.file_wrapper'](f, 1000)
    return iter(result) if 'iterated' in query else result
"#;

/// `length` bytes that do not repeat soon.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_file_arrives_byte_by_byte_as_it_is() {
    let data = bytes(300_000);
    for sendfile in ["Off", "On"] {
        for mode in [Mode::Embedded, Mode::Daemon] {
            let config = format!("WSGIEnableSendfile {sendfile}");
            let httpd = Site::app(mode, FILE).config(&config).file("data", &data).start();
            let response = httpd.get("/");
            assert!(response.body == data, "{} bytes", response.body.len());
            assert_eq!(response.header("Content-Length"), Some("300000"));
        }
    }
}

#[test]
fn a_file_is_sent_from_where_it_stands() {
    let data = bytes(50_000);
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, FILE).file("data", &data).start();
        for query in [
            "start=1234",
            "start=1234&unbuffered=1",
            "start=1234&memory=1",
            "start=1234&iterated=1",
        ] {
            let response = httpd.get(&format!("/?{query}"));
            assert!(
                response.body == data[1234..],
                "{mode:?} {query}: {} bytes",
                response.body.len()
            );
        }
        assert_eq!(httpd.get("/?start=1234").header("Content-Length"), Some("48766"));
        assert!(httpd.get("/?start=50000").body.is_empty());
    }
}

#[test]
fn the_announced_length_limits_what_is_sent() {
    let data = bytes(50_000);
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, FILE).file("data", &data).start();
        for query in ["length=100&start=10", "length=100&start=10&memory=1"] {
            let response = httpd.get(&format!("/?{query}"));
            assert_eq!(response.header("Content-Length"), Some("100"));
            assert!(response.body == data[10..110], "{mode:?} {query}");
        }
    }
}

#[test]
fn a_length_beyond_the_end_of_the_file_looks_cut() {
    ours_only!("row 23: the reference leaves the client waiting or out of step");
    for mode in [Mode::Embedded, Mode::Daemon] {
        let mut httpd = Site::app(mode, FILE).file("data", bytes(1000)).start();
        httpd.allow_error("");
        // While nothing was sent, the answer can still be refused as a whole.
        match httpd.try_send(&Request::get("/?length=2000").keep_alive()) {
            Ok(response) => assert_eq!(response.status, 500),
            Err(cut) => assert!(cut.partial.is_none_or(|partial| partial.body.len() <= 1000)),
        }
    }
}

#[test]
fn what_was_written_before_comes_first() {
    let data = bytes(5000);
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, FILE).file("data", &data).start();
        let response = httpd.get("/?before=1");
        assert!(response.body == [b"before ".as_slice(), &data].concat(), "{mode:?}");
    }
}

#[test]
fn an_empty_file_is_an_empty_answer() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, FILE).file("data", "").start();
        assert_eq!(httpd.get("/").ok(), "");
    }
}

#[test]
fn a_pipe_is_read_like_any_other_object() {
    let source = r#"
import os
def application(environ, start_response):
    start_response('200 OK', [])
    r, w = os.pipe()
    os.write(w, b'through a pipe')
    os.close(w)
    return environ['wsgi.file_wrapper'](os.fdopen(r, 'rb'))
"#;
    in_both_modes(source, |httpd| assert_eq!(httpd.get("/").ok(), "through a pipe"));
}

#[test]
fn the_file_is_closed_once() {
    let source = r#"
import os
ROOT = os.path.dirname(__file__)
class File:
    def __init__(self, f):
        self.f = f
    def __getattr__(self, name):
        return getattr(self.f, name)
    def close(self):
        self.f.close()
        with open(ROOT + '/run/closed.log', 'a') as f:
            f.write('closed\n')
def application(environ, start_response):
    start_response('200 OK', [])
    return environ['wsgi.file_wrapper'](File(open(ROOT + '/data', 'rb')))
"#;
    for mode in [Mode::Embedded, Mode::Daemon] {
        let site = Site::app(mode, source).file("data", "a file");
        site.open_run();
        let httpd = site.start();
        assert_eq!(httpd.get("/").ok(), "a file");
        httpd.wait_for_file("run/closed.log", "closed\n");
        assert_eq!(httpd.get("/").ok(), "a file");
        httpd.wait_for_file("run/closed.log", "closed\nclosed\n");
        assert_eq!(httpd.read("run/closed.log"), "closed\nclosed\n");
    }
}

#[test]
fn the_wrapper_is_what_the_pep_says() {
    let source = r#"
import io, mod_wsgi
def application(environ, start_response):
    wrapper = environ['wsgi.file_wrapper']
    assert wrapper is mod_wsgi.FileWrapper
    f = io.BytesIO(b'abcdefg')
    w = wrapper(f, 3)
    assert w.filelike is f and w.blksize == 3
    assert wrapper(f).blksize == 8192
    assert list(w) == [b'abc', b'def', b'g']
    w.close()
    assert f.closed
    for call in (lambda: next(iter(w)), lambda: wrapper(f, -1)):
        try:
            call()
        except ValueError:
            pass
        else:
            assert False
    class Own(wrapper):
        pass
    start_response('200 OK', [])
    return Own(io.BytesIO(b'a subclass'))
"#;
    in_both_modes(source, |httpd| assert_eq!(httpd.get("/").ok(), "a subclass"));
}

#[test]
fn a_head_request_for_a_file_has_its_length() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, FILE).file("data", bytes(777)).start();
        let response = httpd.send(&Request::new("HEAD", "/"));
        assert_eq!(response.header("Content-Length"), Some("777"));
        assert!(response.body.is_empty());
    }
}

#[test]
fn a_large_file_goes_by_its_descriptor() {
    // Sparse: what is measured is who carries the bytes, not the disk.
    const LENGTH: u64 = 100 << 20;
    let source = r#"
import os
DATA = os.path.join(os.path.dirname(__file__), 'data')
def application(environ, start_response):
    start_response('200 OK', [])
    if environ['PATH_INFO'] == '/pid':
        return [str(os.getpid()).encode()]
    return environ['wsgi.file_wrapper'](open(DATA, 'rb'))
"#;
    let site = Site::app(Mode::Daemon, source);
    let mut data = bytes(4096);
    std::fs::write(site.root().join("data"), &data).unwrap();
    std::fs::File::options()
        .write(true)
        .open(site.root().join("data"))
        .unwrap()
        .set_len(LENGTH)
        .unwrap();
    let httpd = site.start();
    let pid = httpd.get("/pid").ok();
    let before = bytes_read(&pid);
    let response = httpd.get("/");
    assert_eq!(response.body.len() as u64, LENGTH);
    data.resize(response.body.len(), 0);
    assert!(response.body == data);
    ours_only!("the reference reads the file in the daemon process");
    let (Some(before), Some(after)) = (before, bytes_read(&pid)) else {
        return skip("only root may see what a daemon process read");
    };
    assert!(after - before < 1 << 20, "the daemon process read {} bytes", after - before);
}

/// How many bytes a process has read so far, if this user may know.
fn bytes_read(pid: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok())
}

/// Sets the length of a file without writing what is in it.
fn set_length(path: &std::path::Path, length: u64) {
    std::fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

#[test]
fn a_client_gets_the_ranges_it_asks_for() {
    ours_only!("row 96: the reference sends all of a file in daemon mode");
    let data = bytes(50_000);
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, FILE).file("data", &data).start();
        for (query, range, part) in [
            ("", "bytes=100-199", &data[100..200]),
            ("", "bytes=-10", &data[49_990..]),
            ("start=1000", "bytes=5-", &data[1005..]),
        ] {
            let request = Request::get(&format!("/?{query}")).header("Range", range);
            let response = httpd.send(&request);
            assert_eq!(response.status, 206, "{mode:?} {query} {range}");
            assert!(response.body == part, "{mode:?} {query} {range}");
        }
        let request = Request::get("/").header("Range", "bytes=60000-");
        assert_eq!(httpd.send(&request).status, 416, "{mode:?}");
    }
}

#[test]
fn a_file_may_be_longer_than_four_gigabytes() {
    ours_only!("row 96: the reference sends all of it in daemon mode, to HEAD and ranges too");
    const FOUR: u64 = 4 << 30;
    for mode in [Mode::Embedded, Mode::Daemon] {
        let site = Site::app(mode, FILE).config("WSGIEnableSendfile On").file("data", "");
        let data = site.root().join("data");
        set_length(&data, FOUR + 7);
        let file = std::fs::File::options().write(true).open(&data).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"before|after!!", FOUR - 7).unwrap();
        let httpd = site.start();
        let head = httpd.send(&Request::new("HEAD", "/"));
        assert_eq!(head.header("Content-Length"), Some("4294967303"), "{mode:?}");
        let range = format!("bytes={}-{}", FOUR - 7, FOUR + 4);
        let part = httpd.send(&Request::get("/").header("Range", range));
        assert_eq!((part.status, part.text().as_str()), (206, "before|after"), "{mode:?}");
        assert_eq!(httpd.get(&format!("/?start={}", FOUR - 7)).text(), "before|after!!");
        assert_eq!(httpd.get(&format!("/?start={FOUR}&length=5")).text(), "after");
    }
}

/// As long as no socket buffers hold it.
const LONG: usize = 40 << 20;

#[test]
fn a_file_that_shrinks_while_it_is_sent_looks_cut() {
    ours_only!("row 1: the reference makes it look complete");
    for sendfile in ["Off", "On"] {
        for mode in [Mode::Embedded, Mode::Daemon] {
            let site = Site::app(mode, FILE).config(&format!("WSGIEnableSendfile {sendfile}"));
            let mut httpd = site.file("data", vec![b'x'; LONG]).one_child().start();
            httpd.allow_error("[core:error]");
            httpd.allow_error("WSGI");
            let mut connection = httpd.connect();
            connection.write(Request::get("/").keep_alive().head()).unwrap();
            assert_eq!(connection.read_head().unwrap().header("Content-Length"), Some("41943040"));
            set_length(&httpd.path("data"), 1000);
            let mut body = Vec::new();
            let end = connection.read_exactly(LONG as u64, &mut body);
            assert!(end.is_err(), "{mode:?} {sendfile}: it looks whole");
            // sendfile shares pages with the file: the system empties them with it.
            assert!(body.iter().all(|byte| [b'x', 0].contains(byte)), "{mode:?} {sendfile}");
            // Nobody was killed by a mapping that lost its file.
            assert_eq!(httpd.get("/").body.len(), 1000);
        }
    }
}

#[test]
fn a_file_that_grows_is_sent_as_long_as_it_was_announced() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, FILE).file("data", vec![b'x'; LONG]).start();
        let mut connection = httpd.connect();
        connection.write(Request::get("/").keep_alive().head()).unwrap();
        assert_eq!(connection.read_head().unwrap().header("Content-Length"), Some("41943040"));
        set_length(&httpd.path("data"), LONG as u64 + 1000);
        let mut body = Vec::new();
        connection.read_exactly(LONG as u64, &mut body).unwrap();
        assert!(body.iter().all(|byte| *byte == b'x'), "{mode:?}");
        // The next answer follows at once.
        let request = Request::new("HEAD", "/").keep_alive();
        let length = connection.exchange(&request).unwrap();
        assert_eq!(length.header("Content-Length"), Some("41944040"), "{mode:?}");
    }
}

#[test]
fn a_wrapper_that_is_not_returned_sends_nothing() {
    let source = r#"
def application(environ, start_response):
    start_response('200 OK', [])
    f = open(__file__, 'rb')
    unused = environ['wsgi.file_wrapper'](f)
    upper = (block.upper() for block in environ['wsgi.file_wrapper'](f, 10))
    return upper if environ['PATH_INFO'] == '/upper' else [b'something else']
"#;
    in_both_modes(source, |httpd| {
        assert_eq!(httpd.get("/").ok(), "something else");
        assert!(httpd.get("/upper").ok().contains("DEF APPLICATION(ENVIRON"));
    });
}

#[test]
fn an_object_without_close_needs_none() {
    let source = r#"
class File:
    parts = [b'one ', b'two', b'']
    def __init__(self):
        self.rest = list(self.parts)
    def read(self, size=-1):
        return self.rest.pop(0)
def application(environ, start_response):
    start_response('200 OK', [])
    return environ['wsgi.file_wrapper'](File(), 100)
"#;
    in_both_modes(source, |httpd| {
        if !is_ours() {
            // Row 97.
            httpd.allow_error("AttributeError");
        }
        assert_eq!(httpd.get("/").ok(), "one two");
    });
}
