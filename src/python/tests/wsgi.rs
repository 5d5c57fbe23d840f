//! The Python half under a host that records, with real WSGI scripts.

mod host;

use host::{Fixture, Input, Request, Setup, with_each_python};
use wsgi_wire::head::flags;
use wsgi_wire::vtable::{outcome, status, write_flags};

/// An application that says hello.
const HELLO: &str = "
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'Hello']
";

#[test]
fn an_application_says_hello_in_one_piece() {
    with_each_python("an_application_says_hello_in_one_piece", |python| {
        python.start();
        let answer = python.get(HELLO);
        assert_eq!(answer.outcome, outcome::DONE, "{}", answer.log());
        assert_eq!(answer.exchange.status, "200 OK");
        assert_eq!(answer.header("Content-Type"), Some("text/plain"));
        assert_eq!(answer.header("Content-Length"), Some("5"));
        assert_eq!(answer.exchange.writes, [(b"Hello".to_vec(), write_flags::LAST)]);
        assert!(answer.log().contains("6 Loading WSGI script '"), "{}", answer.log());
        let other = Request::get(&python.script("script.wsgi", HELLO)).group("other");
        assert_eq!(python.run(&other).text(), "Hello");
        python.stop();
    });
}

/// Runs `body` for each Python, started as for embedded mode, and stops it.
fn with_python(name: &str, body: impl FnOnce(&Fixture)) {
    with_each_python(name, |python| {
        python.start();
        body(python);
        python.stop();
    });
}

/// An application whose body of indented lines gives the list `out`.
fn app(body: &str) -> String {
    let body: String = body.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "def application(environ, start_response):\n{body}\n    \
         start_response('200 OK', [])\n    \
         return ['\\n'.join(str(item) for item in out).encode()]\n"
    )
}

#[test]
fn environ_holds_what_pep_3333_and_mod_wsgi_promise() {
    with_python("environ_holds_what_pep_3333_and_mod_wsgi_promise", |python| {
        let script = python.script(
            "caf\u{e9}.wsgi",
            &app("import io, sys, mod_wsgi, apache
e = environ
out = [type(e) is dict, e['wsgi.version'], e['wsgi.url_scheme'], e['wsgi.multithread']]
out += [e['wsgi.multiprocess'], e['wsgi.run_once'], e['wsgi.input_terminated']]
out += [e['wsgi.file_wrapper'] is mod_wsgi.FileWrapper, type(e['wsgi.errors']) is io.TextIOWrapper]
out += [type(e['wsgi.input']).__module__ + '.' + type(e['wsgi.input']).__name__]
out += [e['mod_wsgi.version'], e['apache.version'], apache.version, mod_wsgi.version]
out += [ascii(e['HTTP_X_NAME']), ascii(e['HTTP_COOKIE']), type(e['mod_wsgi.thread_id'])]
out += [e['mod_wsgi.request_start'], e['mod_wsgi.queue_start'], e['mod_wsgi.daemon_start']]
out += [type(e['mod_wsgi.application_start'])]
out += [e['mod_wsgi.process_group'] == '', e['mod_wsgi.application_group'], __name__[:10]]
out += [e['SCRIPT_FILENAME'] == __file__, ascii(e['DOCUMENT_ROOT']), type(__mtime__)]
out += [mod_wsgi.implementation, mod_wsgi.maximum_processes, mod_wsgi.threads_per_process]
out += [mod_wsgi.application_group, mod_wsgi.process_group, mod_wsgi.RequestTimeout.__mro__[1]]
out += [sys.argv, sys.stderr.name, sys.stdout.name, e['wsgi.errors'].name]"),
        );
        let request = Request::get(&script)
            .group("site")
            .variable("HTTP_X_NAME", b"caf\xe9")
            .variable("HTTP_COOKIE", b"a=\xff")
            .variable("DOCUMENT_ROOT", b"/srv/\xff");
        let answer = python.run(&request);
        assert_eq!(answer.outcome, outcome::DONE, "{}", answer.log());
        let expected = "True\n(1, 0)\nhttp\nTrue\nTrue\nFalse\nTrue\nTrue\nTrue\nmod_wsgi.Input\n\
            (6, 1, 1)\n(2, 4, 99)\n(2, 4, 99)\n(6, 1, 1)\n'caf\\xe9'\n'a=\\xff'\n<class 'int'>\n\
            1.5\n0.0\n0.0\n<class 'float'>\nTrue\nsite\n_mod_wsgi_\nTrue\n'/srv/\\udcff'\n\
            <class 'int'>\nmod_wsgi_rs\n3\n15\nsite\n\n<class 'BaseException'>\n['mod_wsgi']\n\
            <stderr>\n<stdout>\n<wsgi.errors>";
        assert_eq!(answer.text(), expected);
        let secure = Request { flags: flags::HTTPS, ..request };
        assert!(python.run(&secure).text().starts_with("True\n(1, 0)\nhttps\n"));
    });
}

#[test]
fn wsgiref_finds_nothing_to_object_to() {
    with_python("wsgiref_finds_nothing_to_object_to", |python| {
        let script = python.script(
            "validated.wsgi",
            "from wsgiref.validate import validator
@validator
def application(environ, start_response):
    body = environ['wsgi.input'].read(7)
    body += environ['wsgi.input'].readline(100) + environ['wsgi.input'].read(10)
    body += b''.join(environ['wsgi.input'].readlines(10)) + b''.join(environ['wsgi.input'])
    environ['wsgi.errors'].write('noted\\n')
    environ['wsgi.errors'].writelines(['one\\n', 'two\\n'])
    environ['wsgi.errors'].flush()
    write = start_response('200 OK', [('Content-Type', 'text/plain')])
    write(b'<')
    return iter([body, b'>'])
",
        );
        let answer = python.run(
            &Request::get(&script)
                .body(&[b"0123456789\n", b"abc\n"])
                .variable("CONTENT_LENGTH", b"15"),
        );
        assert_eq!(answer.outcome, outcome::DONE, "{}", answer.log());
        assert_eq!(answer.text(), "<0123456789\nabc\n>");
        assert!(answer.log().ends_with("3 noted\n3 one\n3 two"), "{}", answer.log());
    });
}

#[test]
fn input_reads_like_a_binary_file() {
    with_python("input_reads_like_a_binary_file", |python| {
        let script = python.script(
            "input.wsgi",
            &app("i = environ['wsgi.input']
out = [i.read(0), i.read(2), i.readline(), i.readline(2), i.readline(), i.readline(-1)]
out += [i.read(None), i.read(), i.read(5), i.readline(), i.readlines(), list(i)]
for wrong in [('1',), (1, 2), (1.5,)]:
    try:
        out.append(i.read(*wrong))
    except TypeError:
        out.append('TypeError')
out.append(hasattr(i, 'fileno') or hasattr(i, 'seek'))
out.append(i.close())"),
        );
        let request =
            Request::get(&script).body(&[b"a", b"bcd", b"e\nfghi\njk\nrest", b" of it\nend"]);
        let answer = python.run(&request);
        let expected = "b''\nb'ab'\nb'cde\\n'\nb'fg'\nb'hi\\n'\nb'jk\\n'\nb'rest of it\\nend'\nb''\n\
            b''\nb''\n[]\n[]\nTypeError\nTypeError\nTypeError\nFalse\nNone";
        assert_eq!(answer.text(), expected, "{}", answer.log());
        let lines = python.script(
            "lines.wsgi",
            &app("i = environ['wsgi.input']\nout = [i.readlines(3), next(i), i.readlines(), list(i)]"),
        );
        let answer = python.run(&Request::get(&lines).body(&[b"a\nb\nc", b"\nd\ne"]));
        assert_eq!(answer.text(), "[b'a\\n', b'b\\n']\nb'c\\n'\n[b'd\\n', b'e']\n[]");
    });
}

#[test]
fn a_long_body_arrives_whole() {
    with_python("a_long_body_arrives_whole", |python| {
        let script = python.script(
            "long.wsgi",
            &app("import hashlib
i, digest, lines = environ['wsgi.input'], hashlib.md5(), 0
for line in i:
    digest.update(line)
    lines += 1
out = [lines, digest.hexdigest()]"),
        );
        let body: Vec<u8> = (0..400_000u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        let pieces: Vec<&[u8]> = body.chunks(7001).collect();
        let answer = python.run(&Request::get(&script).body(&pieces));
        assert!(answer.text().starts_with("400000\n"), "{}", answer.text());
        let whole = python.script("whole.wsgi", &app("out = [len(environ['wsgi.input'].read())]"));
        let answer = python.run(&Request::get(&whole).body(&pieces));
        assert_eq!(answer.text(), body.len().to_string());
    });
}

#[test]
fn a_fault_of_the_client_is_not_the_applications() {
    with_python("a_fault_of_the_client_is_not_the_applications", |python| {
        let read = python.script("read.wsgi", &app("out = [environ['wsgi.input'].read()]"));
        for (fault, wanted) in [
            (status::BAD_BODY, outcome::BAD_BODY),
            (status::TIMED_OUT, outcome::BODY_TIMED_OUT),
            (status::GONE, outcome::GONE),
            (status::FAILED, outcome::FAILED),
        ] {
            let input = vec![Input::Data(b"abc".to_vec()), Input::Fault(fault)];
            let answer = python.run(&Request { input, ..Request::get(&read) });
            assert_eq!(answer.outcome, wanted);
            let last = answer.exchange.log.last().unwrap();
            assert_eq!(last.0, 6, "{}", answer.log());
            assert!(answer.exchange.log.iter().all(|(level, _)| *level == 6), "{}", answer.log());
        }
        let again = python.script(
            "again.wsgi",
            &app("out = []
for _ in range(2):
    try:
        environ['wsgi.input'].read()
    except OSError as error:
        out.append(error)"),
        );
        let input = vec![Input::Fault(status::BAD_BODY)];
        let answer = python.run(&Request { input, ..Request::get(&again) });
        assert_eq!(answer.outcome, outcome::DONE);
        assert!(answer.text().contains("malformed"), "{}", answer.text());
        assert!(answer.text().contains("already in error state"), "{}", answer.text());
    });
}

#[test]
fn start_response_checks_what_it_is_given() {
    with_python("start_response_checks_what_it_is_given", |python| {
        let script = python.script(
            "checks.wsgi",
            r#"
class Headers(list):
    pass

CASES = [
    ((), TypeError), (('200 OK',), TypeError), (('200 OK', ()), TypeError),
    (('200 OK', [], None, None), TypeError), (('200 OK', [], 5), RuntimeError),
    ((200, []), TypeError), ((b'200 OK', []), TypeError), (('200 \u20ac', []), UnicodeEncodeError),
    (('20 OK', []), ValueError), (('2000 OK', []), ValueError), (('abc', []), ValueError),
    (('200OK', []), ValueError), (('200 O\nK', []), ValueError), (('200 O\0K', []), ValueError),
    (('100 Continue', []), ValueError), (('', []), ValueError),
    (('200 OK', [['a', 'b']]), TypeError), (('200 OK', [('a',)]), ValueError),
    (('200 OK', [('a', 'b', 'c')]), ValueError), (('200 OK', [('a', 5)]), TypeError),
    (('200 OK', [(b'a', 'b')]), TypeError), (('200 OK', [('a', '\u20ac')]), UnicodeEncodeError),
    (('200 OK', [('', 'b')]), ValueError), (('200 OK', [('a b', 'b')]), ValueError),
    (('200 OK', [('a\n', 'b')]), ValueError), (('200 OK', [('a', 'b\r\nc')]), ValueError),
    (('200 OK', [('a', 'b\0c')]), ValueError), (('200 OK', [('Connection', 'close')]), ValueError),
    (('200 OK', [('Transfer-Encoding', 'chunked')]), ValueError),
    (('200 OK', [('a', '\ud800')]), UnicodeEncodeError),
    (('200', []), None), (('200 ', []), None), (('200 OK', [('a:', 'b\tc')]), None),
    (('299 caf\xe9', Headers([('A', 'caf\xe9'), ('B', ''), ('A', '2')])), None),
]

def application(environ, start_response):
    out = []
    for args, wanted in CASES:
        try:
            start_response(*args)
        except Exception as error:
            found = type(error)
        else:
            found = None
        if found is not wanted:
            out.append(f'{args}: {found}, not {wanted}')
    return ['\n'.join(out).encode()]
"#,
        );
        let answer = python.run(&Request::get(&script));
        assert_eq!(answer.text(), "");
        assert_eq!(answer.outcome, outcome::DONE, "{}", answer.log());
        assert_eq!(answer.exchange.status, "299 caf\u{e9}");
        let headers: Vec<_> =
            answer.exchange.headers.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(headers, ["A=caf\u{e9}", "B=", "A=2", "Content-Length=0"]);
    });
}

#[test]
fn a_second_start_response_replaces_until_something_was_sent() {
    with_python("a_second_start_response_replaces_until_something_was_sent", |python| {
        let answer = python.get(
            "import sys
def application(environ, start_response):
    start_response('200 OK', [('A', 'b')])
    start_response('201 Made', [])
    try:
        raise KeyError('x')
    except KeyError:
        write = start_response('500 Oops', [('C', 'd')], sys.exc_info())
    write(b'')
    try:
        start_response('200 OK', [])
    except RuntimeError as error:
        yield str(error).encode()
    try:
        raise LookupError('mine')
    except LookupError:
        start_response('500 Oops', [], sys.exc_info())
",
        );
        assert_eq!(answer.exchange.status, "500 Oops");
        assert_eq!(answer.header("C"), Some("d"));
        assert_eq!(answer.text(), "headers have already been sent");
        assert_eq!(answer.outcome, outcome::CUT);
        assert!(answer.log().contains("WSGI0174"), "{}", answer.log());
        assert!(answer.log().contains("3 LookupError: mine"), "{}", answer.log());
    });
}

#[test]
fn the_announced_length_is_kept() {
    with_python("the_announced_length_is_kept", |python| {
        let source = |status: &str, length: &str, items: &str| {
            format!(
                "def application(environ, start_response):
    start_response('{status}', [{length}])
    return {items}
"
            )
        };
        let length = |n: &str| format!("('Content-Length', '{n}')");
        let get = |source: String| python.get(&source);
        let (flush, last) = (write_flags::FLUSH, write_flags::LAST);
        let answer = get(source("200 OK", &length("3"), "iter([b'ab', b'cd', b'ef'])"));
        assert_eq!((answer.outcome, answer.text().as_str()), (outcome::DONE, "abc"));
        assert_eq!(answer.flags(), [flush, flush | last]);
        let answer = get(source("200 OK", &length("3"), "[b'ab', b'cd']"));
        assert_eq!((answer.outcome, answer.text().as_str()), (outcome::DONE, "abc"));
        assert_eq!(answer.flags(), [0, last]);
        for items in ["[b'ab']", "[b'']", "[]", "iter([b'ab'])", "()"] {
            let answer = get(source("200 OK", &length("3"), items));
            assert_eq!(answer.outcome, outcome::CUT, "{items}");
            assert!(answer.log().contains("3 WSGI0602: "), "{}", answer.log());
            assert!(answer.flags().iter().all(|flags| flags & last == 0), "{items}");
        }
        let answer = get(source("304 Not Modified", &length("3"), "[b'']"));
        assert_eq!((answer.outcome, answer.flags()), (outcome::DONE, vec![last]));
        let answer = get(source("204 No Content", "", "[b'']"));
        assert_eq!((answer.outcome, answer.header("Content-Length")), (outcome::DONE, None));
        let script = python.script("head.wsgi", &source("200 OK", &length("3"), "[]"));
        let answer = python.run(&Request::get(&script).method("HEAD"));
        assert_eq!((answer.outcome, answer.header("Content-Length")), (outcome::DONE, Some("3")));
        let script = python.script("head2.wsgi", &source("200 OK", "", "[b'']"));
        let answer = python.run(&Request::get(&script).method("HEAD"));
        assert_eq!((answer.outcome, answer.header("Content-Length")), (outcome::DONE, None));
        for wrong in ["-1", "x", "", "1, 2", "+5", "99999999999999999999"] {
            let answer = get(source("200 OK", &length(wrong), "[b'a']"));
            assert_eq!(answer.outcome, outcome::FAILED, "{wrong}");
            assert!(
                answer.log().contains("ValueError: invalid Content-Length"),
                "{}",
                answer.log()
            );
        }
        let two = format!("{}, {}", length("1"), length("2"));
        assert_eq!(get(source("200 OK", &two, "[b'a']")).outcome, outcome::FAILED);
        let same = format!("{}, {}", length("1"), length("1"));
        assert_eq!(get(source("200 OK", &same, "[b'a']")).outcome, outcome::DONE);
    });
}

#[test]
fn pieces_are_sent_as_they_come_and_the_end_before_close() {
    with_python("pieces_are_sent_as_they_come_and_the_end_before_close", |python| {
        let (flush, last) = (write_flags::FLUSH, write_flags::LAST);
        let script = python.script(
            "close.wsgi",
            "class Result:
    def __iter__(self):
        yield b'a'
        yield b''
        yield b'b'
    def close(self):
        self.errors.write('closed\\n')

class Plain:
    def __init__(self):
        self.items = [b'a', b'b']
    def __iter__(self):
        return self
    def __next__(self):
        if not self.items:
            raise StopIteration
        return self.items.pop(0)

def application(environ, start_response):
    start_response('200 OK', [])
    result = Result()
    result.errors = environ['wsgi.errors']
    return result

def plain(environ, start_response):
    start_response('200 OK', [])
    return Plain()

def several(environ, start_response):
    start_response('200 OK', [])
    return (b'a', b'', b'b', b'')

def late(environ, start_response):
    yield b''
    start_response('200 OK', [])
    yield b'a'
",
        );
        let run = |callable| python.run(&Request { callable, ..Request::get(&script) });
        let answer = run("application");
        assert_eq!(
            (answer.outcome, answer.flags()),
            (outcome::DONE, vec![flush, flush, flush | last])
        );
        assert!(answer.log().ends_with("3 closed"), "{}", answer.log());
        let answer = run("plain");
        assert_eq!((answer.outcome, answer.flags()), (outcome::DONE, vec![flush, flush, last]));
        assert_eq!(run("late").text(), "a");
        let answer = run("several");
        assert_eq!((answer.outcome, answer.flags()), (outcome::DONE, vec![0, last]));
        assert_eq!(answer.header("Content-Length"), None);
    });
}

#[test]
fn close_is_called_once_on_every_path() {
    with_python("close_is_called_once_on_every_path", |python| {
        let script = python.script(
            "paths.wsgi",
            "closed = []
class Result:
    def __init__(self, items, error=None):
        self.items, self.error = items, error
    def __iter__(self):
        for item in self.items:
            if isinstance(item, BaseException):
                raise item
            yield item
    def close(self):
        closed.append(1)
        if self.error:
            raise self.error

def make(name, *args):
    def application(environ, start_response):
        start_response('200 OK', [])
        return Result(*args)
    globals()[name] = application

make('fine', [b'a'])
make('early', [ValueError('early')])
make('later', [b'a', ValueError('later')])
make('wrong', ['text'])
make('failing', [b'a'], KeyError('in close'))
make('exits', [SystemExit(3)])

class NotIterable:
    close = Result.close
    error = None
def notiterable(environ, start_response):
    start_response('200 OK', [])
    return NotIterable()

class Odd:
    def __iter__(self):
        return iter([b'a'])
    @property
    def close(self):
        closed.append(1)
        raise ZeroDivisionError('odd')
def odd(environ, start_response):
    start_response('200 OK', [])
    return Odd()

def count(environ, start_response):
    start_response('200 OK', [])
    n = len(closed)
    closed.clear()
    return [str(n).encode()]
",
        );
        let run = |callable| python.run(&Request { callable, ..Request::get(&script) });
        for (callable, wanted, logged) in [
            ("fine", outcome::DONE, ""),
            ("early", outcome::FAILED, "3 ValueError: early"),
            ("later", outcome::CUT, "3 ValueError: later"),
            ("wrong", outcome::FAILED, "must yield bytes, not str"),
            ("failing", outcome::DONE, "3 KeyError: 'in close'"),
            ("exits", outcome::FAILED, "3 WSGI0175: "),
            ("notiterable", outcome::FAILED, "not iterable"),
            ("odd", outcome::DONE, "3 WSGI0194: "),
        ] {
            let answer = run(callable);
            assert_eq!(answer.outcome, wanted, "{callable}: {}", answer.log());
            assert!(answer.log().contains(logged), "{callable}: {}", answer.log());
            assert_eq!(run("count").text(), "1", "{callable}");
        }
        let gone = Request { callable: "fine", gone_at: Some(0), ..Request::get(&script) };
        let answer = python.run(&gone);
        assert_eq!((answer.outcome, answer.log().as_str()), (outcome::GONE, ""));
        assert_eq!(run("count").text(), "1");
    });
}

#[test]
fn errors_end_as_the_right_outcome() {
    with_python("errors_end_as_the_right_outcome", |python| {
        for (source, wanted, logged) in [
            ("raise ValueError('x')", outcome::FAILED, "3 WSGI0174: "),
            ("raise SystemExit(1)", outcome::FAILED, "3 WSGI0175: "),
            (
                "raise __import__('mod_wsgi').RequestTimeout",
                outcome::TIMED_OUT,
                "6 the application",
            ),
            ("return None", outcome::FAILED, "TypeError"),
            ("return []", outcome::FAILED, "start_response() has not been called"),
            ("start_response('200 OK', [])(b'a'); raise ValueError", outcome::CUT, "3 ValueError"),
            (
                "start_response('200 OK', [])(b'a'); raise __import__('mod_wsgi').RequestTimeout",
                outcome::CUT,
                "6 the application",
            ),
            ("start_response('200 OK', [])('a')", outcome::FAILED, "write() takes bytes, not str"),
            ("start_response('200 OK', [])()", outcome::FAILED, "takes exactly one argument"),
        ] {
            let source = format!("def application(environ, start_response):\n    {source}\n");
            let answer = python.get(&source);
            assert_eq!(answer.outcome, wanted, "{source}: {}", answer.log());
            assert!(answer.log().contains(logged), "{source}: {}", answer.log());
        }
        let answer =
            python.get("def application(environ, start_response):\n    return missing_piece\n");
        let log = answer.log();
        assert!(log.contains("3 Traceback (most recent call last):"), "{log}");
        assert!(log.contains("script.wsgi\", line 2, in application"), "{log}");
        assert!(log.contains("3 NameError: name 'missing_piece' is not defined"), "{log}");
    });
}

#[test]
fn write_to_a_client_that_is_gone_raises_oserror() {
    with_python("write_to_a_client_that_is_gone_raises_oserror", |python| {
        let script = python.script(
            "gone.wsgi",
            "def application(environ, start_response):
    write = start_response('200 OK', [])
    write(b'a')
    try:
        write(b'b')
    except OSError as error:
        environ['wsgi.errors'].write(f'{error}\\n')
        raise
",
        );
        let answer = python.run(&Request { gone_at: Some(1), ..Request::get(&script) });
        assert_eq!(answer.outcome, outcome::GONE);
        assert!(answer.log().contains("3 cannot send the answer: "), "{}", answer.log());
        assert!(!answer.log().contains("WSGI0174"), "{}", answer.log());
    });
}

#[test]
fn a_file_is_sent_without_being_read() {
    with_python("a_file_is_sent_without_being_read", |python| {
        let file = python.script("data.bin", "0123456789");
        let script = python.script(
            "file.wsgi",
            &"import io
class Wrapped:
    def __init__(self, file):
        self.file = file
    def read(self, size):
        return self.file.read(size)
    def close(self):
        events.append('closed')
events = []
def make(name, headers, body):
    def application(environ, start_response):
        start_response('200 OK', headers)
        return body(environ['wsgi.file_wrapper'])
    globals()[name] = application
def opened(at=0):
    file = open('FILE', 'rb')
    file.read(at)
    return file
class Sub:
    def __new__(cls, wrapper, file):
        kind = type('Sub', (wrapper,), {})
        return kind(file)
make('whole', [], lambda wrap: wrap(opened()))
make('part', [], lambda wrap: wrap(opened(3)))
make('length', [('Content-Length', '4')], lambda wrap: wrap(opened(3)))
make('beyond', [('Content-Length', '40')], lambda wrap: wrap(opened()))
make('end', [], lambda wrap: wrap(opened(10)))
make('sub', [], lambda wrap: Sub(wrap, opened()))
make('memory', [], lambda wrap: wrap(io.BytesIO(b'in memory'), 4))
make('like', [], lambda wrap: wrap(Wrapped(opened()), 4))
make('pipe', [], lambda wrap: wrap(Pipe()))
class Pipe:
    def fileno(self):
        import os
        return os.pipe()[0]
    def tell(self):
        return 0
    def read(self, size, pieces=[b'piped']):
        return pieces.pop() if pieces else b''
def misuse(environ, start_response):
    wrap, out = environ['wsgi.file_wrapper'], []
    for args in [(), (opened(), -1), (opened(), 'x')]:
        try:
            wrap(*args)
        except Exception as error:
            out.append(type(error).__name__)
    wrapper = wrap(Wrapped(io.StringIO('text')), 7)
    out += [wrapper.blksize, type(wrapper.filelike).__name__]
    for use in [wrapper.__next__, wrapper.close, wrapper.__next__, lambda: setattr(wrapper, 'blksize', 1)]:
        try:
            out.append(use())
        except Exception as error:
            out.append(type(error).__name__)
    start_response('200 OK', [])
    return [' '.join(map(str, out + events)).encode()]
"
            .replace("FILE", &file.display().to_string()),
        );
        let run = |callable| python.run(&Request { callable, ..Request::get(&script) });
        let end = write_flags::FLUSH | write_flags::LAST;
        for (callable, body, length) in [
            ("whole", "0123456789", "10"),
            ("part", "3456789", "7"),
            ("length", "3456", "4"),
            ("sub", "0123456789", "10"),
        ] {
            let answer = run(callable);
            assert_eq!(answer.outcome, outcome::DONE, "{callable}: {}", answer.log());
            assert_eq!(answer.text(), body);
            assert_eq!(answer.header("Content-Length"), Some(length));
            assert_eq!(answer.flags(), [u32::MAX, end], "{callable}");
        }
        let answer = run("end");
        assert_eq!((answer.flags(), answer.header("Content-Length")), (vec![end], Some("0")));
        let answer = run("beyond");
        assert_eq!((answer.outcome, answer.flags()), (outcome::CUT, vec![u32::MAX]));
        for (callable, body) in [("memory", "in memory"), ("like", "0123456789"), ("pipe", "piped")]
        {
            let answer = run(callable);
            assert_eq!((answer.outcome, answer.text().as_str()), (outcome::DONE, body));
            assert_eq!(answer.header("Content-Length"), None, "{callable}");
        }
        let wanted = "TypeError ValueError TypeError 7 Wrapped TypeError None ValueError \
                      AttributeError closed closed";
        assert_eq!(run("misuse").text(), wanted);
    });
}

#[test]
fn a_changed_script_is_loaded_again_in_place() {
    with_python("a_changed_script_is_loaded_again_in_place", |python| {
        let source = |text: &str| app(&format!("out = ['{text}']"));
        let touch = |seconds| {
            let path = python.directory().join("script.wsgi");
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        };
        let path = python.script("script.wsgi", &source("one"));
        touch(1000);
        let request = Request::get(&path);
        assert_eq!(python.load_script("", &path), 0);
        assert!(python.process_log()[0].1.starts_with("Loading WSGI script '"));
        let answer = python.run(&request);
        assert_eq!((answer.text().as_str(), answer.log().as_str()), ("one", ""));
        python.script("script.wsgi", &source("two"));
        touch(999);
        assert_eq!(python.run(&Request { flags: 0, ..request.clone() }).text(), "one");
        let answer = python.run(&request);
        assert_eq!(answer.text(), "two");
        assert!(answer.log().starts_with("6 Reloading WSGI script '"), "{}", answer.log());
        assert_eq!(python.run(&request).log(), "");
        std::fs::remove_file(&path).unwrap();
        let answer = python.run(&request);
        assert_eq!(answer.outcome, outcome::FAILED);
        assert!(answer.log().contains("3 WSGI0105: script '"), "{}", answer.log());
    });
}

#[test]
fn a_changed_script_is_left_to_a_new_daemon_process() {
    with_each_python("a_changed_script_is_left_to_a_new_daemon_process", |python| {
        python.start_with(&Setup {
            reload_in_place: false,
            process_group: "blog",
            ..Setup::default()
        });
        let path = python.script("script.wsgi", &app("out = [environ['mod_wsgi.process_group']]"));
        let request = Request::get(&path);
        assert_eq!(python.run(&request).text(), "blog");
        let time = std::time::SystemTime::UNIX_EPOCH;
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        let answer = python.run(&request);
        assert_eq!((answer.outcome, answer.log().as_str()), (outcome::STALE, ""));
        assert!(answer.exchange.writes.is_empty());
        assert_eq!(python.run(&Request { flags: 0, ..request }).outcome, outcome::DONE);
        python.stop();
    });
}

#[test]
fn a_script_that_fails_is_reported_once_and_tried_again() {
    with_python("a_script_that_fails_is_reported_once_and_tried_again", |python| {
        let path = python.script("script.wsgi", "import no_such_module\n");
        let request = Request::get(&path);
        let answer = python.run(&request);
        assert_eq!(answer.outcome, outcome::FAILED);
        let log = answer.log();
        assert!(log.contains("3 WSGI0109: script '"), "{log}");
        assert!(log.contains("3 Traceback (most recent call last):"), "{log}");
        assert!(log.contains(&format!("3   File \"{}\", line 1, in <module>", path.display())));
        assert!(!log.contains("mod_wsgi setup"), "{log}");
        for count in 2..4 {
            let answer = python.run(&request);
            let lines: Vec<_> =
                answer.exchange.log.iter().filter(|(level, _)| *level == 3).collect();
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(lines[0].1.contains(&format!("{count} times")), "{lines:?}");
            assert!(lines[0].1.contains("ModuleNotFoundError: No module named"), "{lines:?}");
        }
        for (source, code) in [
            ("raise SystemExit('bye')", "WSGI0107"),
            ("def broken(:", "WSGI0105"),
            ("# coding: nonsense\nx = 1", "WSGI0105"),
        ] {
            let answer = python.get(source);
            assert_eq!(answer.outcome, outcome::FAILED);
            assert!(answer.log().contains(&format!("3 {code}: ")), "{}", answer.log());
            assert!(answer.exchange.log.len() > 2, "{}", answer.log());
        }
        let answer = python.get("applications = 1");
        assert_eq!(answer.outcome, outcome::FAILED);
        assert!(answer.log().contains("3 WSGI0089: script '"), "{}", answer.log());
        assert_eq!(python.get(HELLO).text(), "Hello");
        assert_eq!(python.load_script("x", std::path::Path::new("/nonexistent/x.wsgi")), -1);
    });
}

#[test]
fn an_interpreter_is_set_up_as_configured() {
    with_each_python("an_interpreter_is_set_up_as_configured", |python| {
        let directory = |name: &str| {
            let path = python.directory().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path.display().to_string()
        };
        let (one, two, extra, home) =
            (directory("one"), directory("two"), directory("extra"), directory("home"));
        directory("one/mod_wsgi");
        python.script("one/mod_wsgi/__init__.py", "raise RuntimeError('not to be imported')\n");
        python.script("one/mod_wsgi/express.py", "name = 'express'\n");
        python.script("two/some.pth", &format!("{extra}\n"));
        python.start_with(&Setup {
            python_path: format!("{one}:{two}"),
            home: home.clone(),
            user: ("joe", "/home/joe"),
            ..Setup::default()
        });
        let script = python.script(
            "setup.wsgi",
            &app("import os, sys, signal, mod_wsgi
from mod_wsgi import express
out = sys.path[:4] + [express.name, mod_wsgi.version]
out += [os.environ['HOME'], os.environ['USER'], os.environ.get('LOGNAME')]
before = signal.getsignal(signal.SIGTERM)
out += [signal.signal(signal.SIGTERM, print) is print, signal.getsignal(signal.SIGTERM) is before]
out += [repr(signal.signal)[:32]]
pid = os.fork() if mod_wsgi.application_group == '' else 0
if pid == 0 and mod_wsgi.application_group == '':
    os._exit(0 if signal.signal(signal.SIGTERM, signal.SIG_IGN) is before else 1)
out += [os.waitpid(pid, 0)[1] if pid else 0]"),
        );
        for group in ["", "other"] {
            let answer = python.run(&Request::get(&script).group(group));
            let wanted = format!(
                "{home}\n{one}\n{two}\n{extra}\nexpress\n(6, 1, 1)\n/home/joe\njoe\nNone\nTrue\n\
                 True\n<mod_wsgi.SignalIntercept object\n0"
            );
            assert_eq!(answer.text(), wanted, "{}", answer.log());
            assert!(
                answer.log().contains("6 Callback registration for signal 15"),
                "{}",
                answer.log()
            );
        }
        python.stop();
    });
}

#[test]
fn prints_go_to_the_log_of_the_request_that_runs() {
    with_python("prints_go_to_the_log_of_the_request_that_runs", |python| {
        let script = python.script(
            "log.wsgi",
            &app("import sys, threading, warnings
print('to', 'stdout')
print('to stderr', file=sys.stderr)
sys.stderr.write('part ')
sys.stderr.write('whole\\nend')
errors = environ['wsgi.errors']
errors.write('caf\\xe9 \\udc80\\n')
errors.buffer.write(b'raw \\xff\\n')
errors.buffer.write(memoryview(b'view\\n'))
errors.buffer.writelines([b'l', bytearray(b'm\\n')])
errors.write('cut' + chr(0) + 'here\\n')
errors.write('x' * 10000 + '\\n')
out = [errors.encoding, errors.errors, errors.closed, errors.readable(), errors.isatty()]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    out += [errors.buffer.write('text\\n'), errors.buffer.write('more\\n'), len(caught)]
thread = threading.Thread(target=lambda: (print('aside'), errors.write('from a thread\\n')))
thread.start()
thread.join()
try:
    errors.fileno()
except OSError as error:
    out += [type(error).__name__]
errors.write('without newline')"),
        );
        let answer = python.run(&Request::get(&script));
        assert_eq!(answer.text(), "utf-8\nreplace\nFalse\nFalse\nFalse\n5\n5\n1\nOSError");
        let lines: Vec<_> = answer.exchange.log.iter().skip(1).map(|(_, line)| &line[..]).collect();
        let long = "x".repeat(8192);
        let wanted = [
            "to stdout",
            "to stderr",
            "part whole",
            "end",
            "caf\u{e9} ?",
            "raw \u{fffd}",
            "view",
            "lm",
            "cut",
            &long,
            "text",
            "more",
            "from a thread",
            "without newline",
        ];
        assert_eq!(lines, wanted);
        assert_eq!(python.process_log().as_slice(), [(3, "aside".to_owned())]);
    });
}

#[test]
fn objects_of_a_request_are_of_no_use_after_it() {
    with_python("objects_of_a_request_are_of_no_use_after_it", |python| {
        let script = python.script(
            "late.wsgi",
            "import threading
kept = []
def application(environ, start_response):
    write = start_response('200 OK', [])
    e = environ
    kept.extend([e['wsgi.input'].read, e['wsgi.input'].readline, e['wsgi.input'].readlines])
    kept.extend([e['wsgi.input'].__next__, e['wsgi.input'].close])
    kept.extend([lambda: e['wsgi.errors'].write('x\\n'), lambda: write(b'x')])
    kept.append(lambda: start_response('200 OK', []))
    return [b'']

def late(environ, start_response):
    out = []
    def use():
        for call in kept:
            try:
                out.append(str(call()))
            except RuntimeError as error:
                out.append('RuntimeError')
    use()
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    kept.clear()
    start_response('200 OK', [])
    return [' '.join(out).encode()]
",
        );
        assert_eq!(python.run(&Request::get(&script)).outcome, outcome::DONE);
        let answer = python.run(&Request { callable: "late", ..Request::get(&script) });
        assert_eq!(answer.text(), ["RuntimeError"; 16].join(" "));
    });
}

#[test]
fn threads_of_one_request_take_turns() {
    with_python("threads_of_one_request_take_turns", |python| {
        let script = python.script(
            "threads.wsgi",
            "import threading
def application(environ, start_response):
    write = start_response('200 OK', [])
    i, total, lock = environ['wsgi.input'], [], threading.Lock()
    def work():
        while True:
            data = i.read(100)
            if not data:
                break
            write(data)
            print('.', file=environ['wsgi.errors'])
            with lock:
                total.append(len(data))
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [f':{sum(total)}'.encode()]
",
        );
        let data = vec![b'x'; 50_000];
        let pieces: Vec<&[u8]> = data.chunks(37).collect();
        let answer = python.run(&Request::get(&script).body(&pieces));
        assert_eq!(answer.outcome, outcome::DONE, "{}", answer.log());
        assert!(answer.text().ends_with("x:50000"));
        assert_eq!(answer.body().len(), 50_006);
    });
}

#[test]
fn many_threads_serve_many_interpreters_and_python_ends_in_order() {
    with_each_python("many_threads_serve_many_interpreters_and_python_ends_in_order", |python| {
        python.start();
        let script = python.script(
            "many.wsgi",
            "import atexit, threading, sys
local = threading.local()
def bye():
    print('atexit of', NAME)
def application(environ, start_response):
    global NAME
    if 'NAME' not in globals():
        NAME = environ['mod_wsgi.application_group']
        atexit.register(bye)
    local.count = getattr(local, 'count', 0) + 1
    start_response('200 OK', [])
    yield f\"{environ['mod_wsgi.application_group']} {local.count}\".encode()
",
        );
        let groups = ["", "one", "two", "three"];
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for count in 1..60 {
                        for group in groups {
                            let answer = python.run(&Request::get(&script).group(group));
                            assert_eq!(
                                answer.text(),
                                format!("{group} {count}"),
                                "{}",
                                answer.log()
                            );
                        }
                    }
                });
            }
        });
        python.stop();
        let log: Vec<_> = python.process_log().iter().map(|(_, line)| line.clone()).collect();
        for group in groups {
            let line = format!("atexit of {group}").trim_end().to_owned();
            assert_eq!(log.iter().filter(|known| known.trim_end() == line).count(), 1, "{log:?}");
        }
    });
}

#[test]
fn python_ends_although_applications_left_threads_behind() {
    with_each_python("python_ends_although_applications_left_threads_behind", |python| {
        python.start();
        let script = python.script(
            "left.wsgi",
            "import atexit, threading, time, concurrent.futures
pool = concurrent.futures.ThreadPoolExecutor(2)
waiting = threading.Event()
atexit.register(lambda: print('atexit'))
def daemon():
    while True:
        time.sleep(0.001)
def application(environ, start_response):
    pool.submit(int).result()
    threading.Thread(target=daemon, daemon=environ['daemon'] == 'yes' or None).start() if (
        environ['daemon'] == 'yes') else threading.Thread(target=waiting.wait, args=(0.05,)).start()
    start_response('200 OK', [])
    return [b'started']
",
        );
        for (group, daemon) in [("", &b"no"[..]), ("a", b"no"), ("b", b"yes")] {
            let request = Request::get(&script).group(group).variable("daemon", daemon);
            let answer = python.run(&request);
            assert_eq!(answer.text(), "started", "{}", answer.log());
        }
        python.stop();
        let log = python.process_log();
        assert_eq!(log.iter().filter(|(_, line)| line == "atexit").count(), 3, "{log:?}");
    });
}
