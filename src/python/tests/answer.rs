//! What the application answers, as the host gets it.

mod host;

use host::{HELLO, Request, with_each_python, with_python};
use wsgi_wire::vtable::{outcome, write_flags};

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
            assert!(answer.log().contains("3 WSGI9401: "), "{}", answer.log());
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

/// Results that count how often they are closed.
const CLOSING: &str = "closed = []
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
";

#[test]
fn close_is_called_once_on_every_path() {
    with_python("close_is_called_once_on_every_path", |python| {
        let script = python.script("paths.wsgi", CLOSING);
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
                "3 WSGI9410: the application",
            ),
            ("return None", outcome::FAILED, "TypeError"),
            ("return []", outcome::FAILED, "start_response() has not been called"),
            ("start_response('200 OK', [])(b'a'); raise ValueError", outcome::CUT, "3 ValueError"),
            (
                "start_response('200 OK', [])(b'a'); raise __import__('mod_wsgi').RequestTimeout",
                outcome::CUT,
                "3 WSGI9410: the application",
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

/// Results around a file, `FILE`, and around what is none.
const WRAPPING: &str = "import io
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
";

#[test]
fn a_file_is_sent_without_being_read() {
    with_python("a_file_is_sent_without_being_read", |python| {
        let file = python.script("data.bin", "0123456789");
        let script =
            python.script("file.wsgi", &WRAPPING.replace("FILE", &file.display().to_string()));
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
