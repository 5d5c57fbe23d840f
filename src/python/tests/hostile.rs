//! Applications that do what nobody should.

mod host;

use host::{HELLO, Request, Setup, app, with_each_python, with_python};
use wsgi_wire::vtable::{outcome, status, write_flags};

#[test]
fn a_module_that_replaces_itself_stays_current() {
    with_each_python("a_module_that_replaces_itself_stays_current", |python| {
        python.start_with(&Setup { reload_in_place: false, ..Setup::default() });
        let script = python.script(
            "proxy.wsgi",
            &format!("import sys\n{HELLO}\nclass Proxy:\n    application = staticmethod(application)\nsys.modules[__name__] = Proxy()\n"),
        );
        for _ in 0..2 {
            let answer = python.run(&Request::get(&script));
            assert_eq!(
                (answer.outcome, &*answer.text()),
                (outcome::DONE, "Hello"),
                "{}",
                answer.log()
            );
        }
        python.stop();
    });
}

#[test]
fn a_script_that_is_gone_serves_on() {
    with_each_python("a_script_that_is_gone_serves_on", |python| {
        python.start_with(&Setup { reload_in_place: false, ..Setup::default() });
        let script = python.script("gone.wsgi", HELLO);
        assert_eq!(python.run(&Request::get(&script)).outcome, outcome::DONE);
        std::fs::remove_file(&script).unwrap();
        assert_eq!(python.run(&Request::get(&script)).outcome, outcome::DONE);
        python.stop();
    });
}

#[test]
fn a_failure_to_load_is_one_line_each() {
    with_python("a_failure_to_load_is_one_line_each", |python| {
        let script = python.script("lines.wsgi", "raise ValueError('one\\ntwo ' + 'x' * 100000)\n");
        for _ in 0..3 {
            let answer = python.run(&Request::get(&script));
            assert_eq!(answer.outcome, outcome::FAILED);
            let longest = answer.exchange.log.iter().map(|(_, line)| line.len()).max();
            assert!(longest < Some(9000), "{longest:?}");
        }
        let script = python.script("new\nline.wsgi", "raise ValueError\n");
        assert_eq!(python.run(&Request::get(&script)).outcome, outcome::FAILED);
    });
}

#[test]
fn an_answer_head_that_no_frame_holds_is_refused() {
    with_python("an_answer_head_that_no_frame_holds_is_refused", |python| {
        for (status, headers, good) in [
            ("'200 OK'", "[('X', 'y')] * 65536", false),
            ("'200 OK'", "[('X', 'y')] * 65534", true),
            ("'200 ' + 'x' * 70000", "[]", false),
            ("'200 OK'", "[('X' * 70000, 'y')]", false),
            ("'200 OK'", "[('X', 'y' * 20000000)]", false),
            ("'200 OK'", "[('X', 'y' * 60000)] * 300", false),
        ] {
            let answer = python.get(&format!(
                "def application(environ, start_response):\n    start_response({status}, {headers})\n    return [b'']\n"
            ));
            let wanted = if good { outcome::DONE } else { outcome::FAILED };
            assert_eq!(answer.outcome, wanted, "{status} {headers}");
            assert!(
                good || answer.log().contains("ValueError"),
                "{status} {headers}: {}",
                answer.log()
            );
        }
    });
}

#[test]
fn input_is_closed_once_the_answer_is_complete() {
    with_python("input_is_closed_once_the_answer_is_complete", |python| {
        let script = python.script(
            "late.wsgi",
            "class Body(list):
    def __init__(self, environ):
        super().__init__([b'ab'])
        self.environ = environ
    def close(self):
        i, errors = self.environ['wsgi.input'], self.environ['wsgi.errors']
        for read in [lambda: i.read(2), i.readline, lambda: i.read(1)]:
            try:
                print(read(), file=errors)
            except OSError as error:
                print(error, file=errors)
def application(environ, start_response):
    environ['wsgi.input'].read(1)
    start_response('200 OK', [('Content-Length', '2')])
    return Body(environ)
",
        );
        let answer = python.run(&Request::get(&script).body(&[b"x", b"yz"]));
        assert_eq!(answer.outcome, outcome::DONE);
        assert_eq!(answer.exchange.reads, 1, "{}", answer.log());
        assert_eq!(answer.log().matches("answer is complete").count(), 3, "{}", answer.log());
        let answer = python.run(&Request::get(&script).body(&[b"xyz\n"]));
        let log = answer.log();
        assert_eq!(log.matches("answer is complete").count(), 3, "{log}");
    });
}

#[test]
fn who_sends_what_it_reads_may_look_for_the_end() {
    with_python("who_sends_what_it_reads_may_look_for_the_end", |python| {
        let script = python.script(
            "echo.wsgi",
            "def application(environ, start_response):
    start_response('200 OK', [('Content-Length', '6')])
    while data := environ['wsgi.input'].read(3):
        yield data
",
        );
        let answer = python.run(&Request::get(&script).body(&[b"abc", b"def"]));
        assert_eq!((answer.outcome, &*answer.text()), (outcome::DONE, "abcdef"));
        assert!(!answer.log().contains("WSGI0174"), "{}", answer.log());
        assert_eq!(
            answer.flags().iter().filter(|flags| *flags & write_flags::LAST != 0).count(),
            1
        );
    });
}

#[test]
fn who_answers_first_may_read_then() {
    with_python("who_answers_first_may_read_then", |python| {
        let script = python.script(
            "first.wsgi",
            "def application(environ, start_response):
    start_response('200 OK', [('Content-Length', '2')])
    yield b'ab'
    assert environ['wsgi.input'].read() == b'abcdef'
",
        );
        for (key, value) in [("CONTENT_LENGTH", "6"), ("HTTP_TRANSFER_ENCODING", "chunked")] {
            let request = Request::get(&script).body(&[b"abc", b"def"]);
            let answer = python.run(&request.variable(key, value.as_bytes()));
            assert_eq!((answer.outcome, &*answer.text()), (outcome::DONE, "ab"));
            assert!(!answer.log().contains("WSGI0174"), "{}", answer.log());
        }
    });
}

#[test]
fn only_bytes_are_sent() {
    with_python("only_bytes_are_sent", |python| {
        for item in ["bytearray(b'a')", "memoryview(b'a')", "'a'", "None", "1", "[b'a']"] {
            for items in [format!("[{item}]"), format!("({item},)"), format!("iter([{item}])")] {
                let answer = python.get(&format!(
                    "def application(environ, start_response):\n    start_response('200 OK', [])\n    return {items}\n"
                ));
                assert_eq!(answer.outcome, outcome::FAILED, "{items}");
                assert!(answer.log().contains("TypeError: the application must yield bytes"));
            }
        }
        let answer = python.get(
            "class B(bytes):
    def __len__(self): return 1
    def __bool__(self): return False
    def __iter__(self): raise ValueError
    def __bytes__(self): return b'no'
class S(str):
    def encode(self, *a): return b'no'
    def __str__(self): return 'no'
    def __len__(self): return 0
    def __eq__(self, other): raise ValueError
    __hash__ = str.__hash__
class T(tuple):
    def __getitem__(self, at): return 'no'
    def __iter__(self): return iter('no')
class L(list):
    def __iter__(self): raise ValueError
    def __len__(self): return 0
    def __getitem__(self, at): raise ValueError
def application(environ, start_response):
    start_response(S('299 Fine'), L([(S('X-A'), S('b')), ]))
    return L([B(b'one')]).__reversed__()
",
        );
        assert_eq!(answer.outcome, outcome::DONE, "{}", answer.log());
        assert_eq!((&*answer.text(), &*answer.exchange.status), ("one", "299 Fine"));
        assert_eq!(answer.header("X-A"), Some("b"));
    });
}

#[test]
fn calls_out_of_order_do_no_harm() {
    with_python("calls_out_of_order_do_no_harm", |python| {
        let answer = python.get(
            "def application(environ, start_response):
    write = start_response('200 OK', [])
    def body():
        yield b'a'
        write(b'b')
        try:
            start_response('201 X', [])
        except RuntimeError as error:
            write(b'c')
        try:
            start_response('201 X', [], (ValueError, ValueError('v'), None))
        except ValueError as error:
            write(b'd')
        for wrong in [(1,), (None, None, None), (ValueError, 1, 2), (int, 1, None)]:
            try:
                start_response('201 X', [], wrong)
            except Exception as error:
                write(b'e')
        try:
            start_response(status='200 OK', headers=[])
        except TypeError:
            write(b'f')
        try:
            yield b'g'
        finally:
            write(b'h')
            print('finally', file=environ['wsgi.errors'])
            write(environ['wsgi.input'].read())
    return body()
",
        );
        assert_eq!(answer.outcome, outcome::DONE, "{}", answer.log());
        assert_eq!(answer.text(), "abcdeeeefgh");
        let answer = python.get(
            "class Body:
    def __init__(self, start_response):
        self.start_response = start_response
    def __iter__(self):
        return iter([b'a'])
    def close(self):
        write = None
        try:
            write = self.start_response('200 OK', [])
        finally:
            print('closing', write)
def application(environ, start_response):
    start_response('200 OK', [])
    return Body(start_response)
",
        );
        assert_eq!((answer.outcome, &*answer.text()), (outcome::DONE, "a"));
        assert!(answer.log().contains("RuntimeError"), "{}", answer.log());
    });
}

#[test]
fn close_is_called_once_whatever_raises() {
    with_python("close_is_called_once_whatever_raises", |python| {
        for error in [
            "ValueError",
            "SystemExit",
            "KeyboardInterrupt",
            "GeneratorExit",
            "StopIteration",
            "MemoryError",
            "RecursionError",
        ] {
            for place in ["iter", "next", "late", "close", "none", "lookup"] {
                let answer = python.get(&format!(
                    "class Body:
    count = 0
    def __iter__(self):
        if {place:?} == 'iter': raise {error}
        return self
    def __next__(self):
        self.count += 1
        if {place:?} == 'next' or {place:?} == 'late' and self.count == 2: raise {error}
        if self.count == 2: raise StopIteration
        return b'x'
    @property
    def close(self):
        print('lookup')
        if {place:?} == 'lookup': raise {error}
        def close():
            print('closed')
            if {place:?} == 'close': raise {error}
        return close
def application(environ, start_response):
    start_response('200 OK', [])
    return Body()
"
                ));
                let log = answer.log();
                assert_eq!(log.matches("3 lookup").count(), 1, "{error} {place}: {log}");
                let closed = if place == "lookup" { 0 } else { 1 };
                assert_eq!(log.matches("3 closed").count(), closed, "{error} {place}: {log}");
                let wanted = match place {
                    "next" if error == "StopIteration" => outcome::DONE,
                    "iter" | "next" if error == "MemoryError" => outcome::NO_MEMORY,
                    "iter" | "next" => outcome::FAILED,
                    "late" if error == "StopIteration" => outcome::DONE,
                    "late" if error == "MemoryError" => outcome::CUT_NO_MEMORY,
                    "late" => outcome::CUT,
                    _ => outcome::DONE,
                };
                assert_eq!(answer.outcome, wanted, "{error} {place}: {log}");
            }
        }
        assert_eq!(python.get(HELLO).text(), "Hello");
    });
}

#[test]
fn objects_of_the_server_cannot_be_bent() {
    with_python("objects_of_the_server_cannot_be_bent", |python| {
        let answer = python.get(&app("import copy, pickle
i, log, sr = environ['wsgi.input'], environ['wsgi.errors'].buffer, start_response
out = []
def change(one, other):
    one.__class__ = type(other)
for call in [lambda: change(i, log), lambda: change(i, sr.__self__), lambda: change(sr.__self__, i),
             lambda: type(i)(), lambda: object.__new__(type(i)), lambda: copy.copy(i),
             lambda: pickle.dumps(i, 0), lambda: copy.deepcopy(sr.__self__),
             lambda: type(i).read(log), lambda: type('Sub', (type(i),), {}),
             lambda: type(i).__new__(type(i)), lambda: type(log).name.__get__(i),
             lambda: type(i).__next__(log)]:
    try:
        out.append(call())
    except Exception as error:
        out.append('no' if isinstance(error, (TypeError, AttributeError, pickle.PicklingError)) else error)"));
        assert_eq!(answer.text(), ["no"; 13].join("\n"), "{}", answer.log());
    });
}

#[test]
fn deep_recursion_costs_one_request() {
    with_python("deep_recursion_costs_one_request", |python| {
        for (source, wanted) in [
            ("def f(): f()\nf()\n".to_owned(), "RecursionError"),
            (format!("x = {}1{}\n", "(".repeat(100_000), ")".repeat(100_000)), "WSGI0105"),
            (format!("x = {}1\n", "-".repeat(100_000)), "WSGI0105"),
            (format!("x = 1{}\n", "+1".repeat(100_000)), "WSGI0"),
            ("def application(e, s):\n    return application(e, s)\n".to_owned(), "RecursionError"),
            ("class A:\n    def __iter__(self): return iter(self)\ndef application(e, s):\n    s('200 OK', [])\n    return A()\n".to_owned(), "RecursionError"),
            ("def application(e, s):\n    s('200 OK', [])\n    def f(n):\n        yield from f(n + 1)\n    return f(0)\n".to_owned(), "RecursionError"),
            ("class E(Exception):\n    def __str__(self): return str(self)\ndef application(e, s):\n    raise E\n".to_owned(), "WSGI0174"),
            ("class E(Exception):\n    def __str__(self): raise SystemExit\ndef application(e, s):\n    raise E\n".to_owned(), "WSGI0174"),
            ("class M(type):\n    def __getattribute__(self, name): raise SystemExit\nclass E(metaclass=M): pass\ndef application(e, s):\n    s(E(), E())\n".to_owned(), "WSGI017"),
            ("def __getattr__(name): raise SystemExit\n".to_owned(), "SystemExit"),
        ] {
            let answer = python.get(&source);
            let start: String = source.chars().take(60).collect();
            assert_eq!(answer.outcome, outcome::FAILED, "{start}: {}", answer.log());
            assert!(answer.log().contains(wanted), "{start}: {}", answer.log());
        }
        assert_eq!(python.get(HELLO).text(), "Hello");
    });
}

#[test]
fn streams_of_the_process_may_be_replaced() {
    with_python("streams_of_the_process_may_be_replaced", |python| {
        for source in [
            "import sys, io\nsys.stdout = sys.stderr = io.StringIO()\nprint(1)",
            "import sys\ndel sys.stdout, sys.stderr\nprint(1) if 0 else None",
            "import sys\nsys.stdout = sys.stderr = None\nprint(1)",
            "import sys\nsys.stdout = sys.stderr = environ['wsgi.errors']\nprint(1)",
            "print(2)",
            "raise ValueError",
        ] {
            let answer = python.get(&app(&format!("{source}\nout = [1]")));
            let failed = source.starts_with("raise") || source == "print(2)";
            assert_eq!(answer.outcome == outcome::FAILED, failed, "{source}: {}", answer.log());
        }
    });
}

#[test]
fn a_forked_child_ends_with_its_request() {
    with_python("a_forked_child_ends_with_its_request", |python| {
        let script = python.script(
            "fork.wsgi",
            "import os, sys
def application(environ, start_response):
    write = start_response('200 OK', [])
    pid = os.fork()
    if pid:
        status = os.waitpid(pid, 0)[1]
        return [str(os.waitstatus_to_exitcode(status)).encode()]
    print('in the child')
    if environ['how'] == 'exit':
        sys.exit(0)
    if environ['how'] == 'three':
        sys.exit(3)
    if environ['how'] == 'raise':
        raise ValueError
    if environ['how'] == 'write':
        write(b'from the child')
    if environ['how'] == 'read':
        environ['wsgi.input'].read()
    return [b'from the child']
",
        );
        for (how, status) in [
            ("return", "0"),
            ("exit", "0"),
            ("three", "3"),
            ("raise", "1"),
            ("write", "1"),
            ("read", "1"),
        ] {
            let answer = python.run(&Request::get(&script).variable("how", how.as_bytes()));
            assert_eq!((answer.outcome, &*answer.text()), (outcome::DONE, status), "{how}");
        }
        let script = python.script(
            "forked_load.wsgi",
            &format!(
                "import os\npid = os.fork()\nif pid:\n    print(os.waitpid(pid, 0)[1])\n{HELLO}"
            ),
        );
        assert_eq!(python.load_script("", &script), 0);
        assert_eq!(python.process_log().last().unwrap().1, "0");
    });
}

#[test]
fn a_forked_child_that_could_not_run_ends_at_once() {
    with_python("a_forked_child_that_could_not_run_ends_at_once", |python| {
        let script = python.script(
            "fork.wsgi",
            "import os, subprocess, sys
def application(environ, start_response):
    start_response('200 OK', [])
    pid = os.fork()
    if not pid:
        sys.exit(7)
    out = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]
    out.append(subprocess.run(['true']).returncode)
    out.append(subprocess.run(['true'], start_new_session=True, close_fds=False).returncode)
    return [repr(out).encode()]
",
        );
        let get = |group| python.run(&Request::get(&script).group(group)).text();
        assert_eq!(get(""), "[7, 0, 0]");
        assert_eq!(get("sub"), "[1, 0, 0]");
        assert_eq!(get(""), "[1, 0, 0]");
    });
}

#[test]
fn a_list_that_shrinks_under_start_response_is_read_safely() {
    with_python("a_list_that_shrinks_under_start_response_is_read_safely", |python| {
        let answer = python.get(&app("import gc
headers = [('X-%d' % n, 'v\\xe9') for n in range(2000)]
class Trap:
    def __del__(self):
        headers.clear()
for n in range(2000):
    t = Trap(); t.t = t; del t
gc.set_threshold(1)
try:
    start_response('200 OK', headers)
    start_response('200 OK', headers + ['x'])
except TypeError:
    pass
gc.set_threshold(700)
out = [1]"));
        assert_eq!(answer.outcome, outcome::DONE, "{}", answer.log());
    });
}

#[test]
fn a_reading_that_memory_cannot_hold_raises_memory_error() {
    with_python("a_reading_that_memory_cannot_hold_raises_memory_error", |python| {
        let script = python.script(
            "memory.wsgi",
            &app("import resource, mmap
size = int(open('/proc/self/statm').read().split()[0]) * mmap.PAGESIZE
resource.setrlimit(resource.RLIMIT_AS, (size + 40 * 2**20, resource.RLIM_INFINITY))
try:
    data = environ['wsgi.input'].read()
    out = [len(data)]
except MemoryError:
    out = ['MemoryError']
finally:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))"),
        );
        let body = vec![b'x'; 64 << 20];
        let pieces: Vec<&[u8]> = body.chunks(1 << 20).collect();
        let answer = python.run(&Request::get(&script).body(&pieces));
        assert_eq!(answer.text(), "MemoryError", "{}", answer.log());
    });
}

/// Does things to `wsgi.errors`, and looks for what the next request sees of it.
const STREAMS: &str = "import io, weakref
kept = []
class Sub(io.TextIOWrapper):
    pass
def change(errors):
    errors.__class__ = Sub
def fail(errors):
    raise ValueError
HOW = {
    'nothing': lambda errors: None,
    'kept': kept.append,
    'below': lambda errors: kept.append(errors.buffer),
    'method': lambda errors: kept.append(errors.buffer.write),
    'frame': lambda errors: kept.append(iter_of(errors)),
    'weak': lambda errors: kept.append(weakref.ref(errors)),
    'named': lambda errors: setattr(errors, 'mine', 1),
    'mode': lambda errors: setattr(errors, 'mode', 'x'),
    'ascii': lambda errors: errors.reconfigure(encoding='ascii'),
    'class': change,
    'again': lambda errors: errors.__init__(errors.buffer, 'ascii'),
    'other': lambda errors: errors.__init__(io.BytesIO(), 'ascii'),
    'closed': lambda errors: errors.close(),
    'detached': lambda errors: kept.append(errors.detach()),
    'written': lambda errors: errors.write('part'),
    'fail': fail,
}
def iter_of(errors):
    generator = (errors for _ in [1, 2])
    next(generator)
    return generator
first = None
def use(environ, start_response):
    global first
    start_response('200 OK', [])
    first = id(environ['wsgi.errors'])
    try:
        HOW[environ['how']](environ['wsgi.errors'])
    except TypeError:
        pass
    return [b'']
def look(environ, start_response):
    errors = environ['wsgi.errors']
    out = [type(errors) is io.TextIOWrapper, errors.encoding, errors.__dict__, errors.closed]
    out += [weakref.getweakrefcount(errors), type(errors.buffer).__name__, id(errors) == first]
    for old in kept:
        if isinstance(old, weakref.ref):
            out.append(old() is None)
            continue
        write = getattr(old, 'write', old)
        try:
            out.append(write('x') if isinstance(old, io.TextIOBase) else write(b'x'))
        except (RuntimeError, TypeError) as error:
            out.append(type(error).__name__)
    kept.clear()
    errors.write('whole')
    start_response('200 OK', [])
    return [repr(out).encode()]
";

#[test]
fn a_stream_of_errors_serves_again_only_if_nobody_can_tell() {
    with_python("a_stream_of_errors_serves_again_only_if_nobody_can_tell", |python| {
        let script = python.script("errors.wsgi", STREAMS);
        let fresh = "[True, 'utf-8', {}, False, 0, 'Log'";
        for (how, reused, late) in [
            ("nothing", true, ""),
            ("kept", false, ", 'RuntimeError'"),
            ("below", false, ", 'RuntimeError'"),
            ("method", false, ", 'RuntimeError'"),
            ("frame", false, ", 'TypeError'"),
            ("weak", false, ", True"),
            ("named", false, ""),
            ("mode", false, ""),
            ("ascii", false, ""),
            ("class", false, ""),
            ("again", false, ""),
            ("other", false, ""),
            ("closed", false, ""),
            ("detached", false, ", 'RuntimeError'"),
            ("written", false, ""),
            ("fail", false, ""),
        ] {
            // The second request of a kind could meet what the first left.
            for _ in 0..2 {
                let request = Request::get(&script).variable("how", how.as_bytes());
                python.run(&Request { callable: "use", ..request.clone() });
                let answer = python.run(&Request { callable: "look", ..request });
                let text = answer.text();
                let rest = text.strip_prefix(fresh);
                let rest = rest.unwrap_or_else(|| panic!("{how}: {text} {}", answer.log()));
                assert!(rest.ends_with(&format!("{late}]")), "{how}: {text}");
                assert!(!reused || rest.starts_with(", True"), "{how}: {text}");
                assert_eq!(answer.exchange.log.last().unwrap().1, "whole", "{how}");
            }
        }
    });
}

#[test]
fn a_thread_that_cannot_be_stopped_does_not_abort_the_end() {
    with_python("a_thread_that_cannot_be_stopped_does_not_abort_the_end", |python| {
        let answer = python.get(
            "import sys, threading
class Number:
    def __index__(self):
        started.set()
        while True:
            pass
started = threading.Event()
def application(environ, start_response):
    start_response('200 OK', [])
    read = environ['wsgi.input'].read
    threading.Thread(target=read, args=(Number(),), daemon=True).start()
    started.wait()
    return [b'started']
",
        );
        assert_eq!(answer.text(), "started");
    });
}

#[test]
fn a_head_that_the_host_refuses_is_a_failure() {
    with_python("a_head_that_the_host_refuses_is_a_failure", |python| {
        for items in
            ["[b'a']", "iter([b'a'])", "[]", "environ['wsgi.file_wrapper'](open(__file__, 'rb'))"]
        {
            let script = python.script(
                "refused.wsgi",
                &format!("def application(environ, start_response):\n    start_response('200 OK', [])\n    return {items}\n"),
            );
            let request = Request::get(&script);
            let answer = python.run(&Request { head_status: status::FAILED, ..request.clone() });
            assert_eq!(answer.outcome, outcome::FAILED, "{items}");
            assert!(answer.log().contains("3 WSGI9407: "), "{items}: {}", answer.log());
            assert!(answer.exchange.writes.is_empty(), "{items}");
            let answer = python.run(&Request { head_status: status::GONE, ..request });
            assert_eq!(answer.outcome, outcome::GONE, "{items}");
        }
    });
}

#[test]
fn a_file_that_cannot_be_read_is_not_announced() {
    with_python("a_file_that_cannot_be_read_is_not_announced", |python| {
        let answer = python.get(
            "def application(environ, start_response):
    start_response('200 OK', [])
    return environ['wsgi.file_wrapper'](open(__file__ + '.new', 'wb'))
",
        );
        assert_eq!(answer.outcome, outcome::FAILED);
        assert!(answer.log().contains("UnsupportedOperation"), "{}", answer.log());
    });
}

#[test]
fn many_lines_at_once_are_logged_in_order() {
    with_python("many_lines_at_once_are_logged_in_order", |python| {
        let answer = python.get(&app("errors = environ['wsgi.errors']
errors.buffer.write(b'a\\nb')
errors.buffer.write(b'c\\n\\nd\\n')
errors.buffer.write(b'e\\n' * 3 + b'f')
errors.buffer.write(b'\\n')
errors.buffer.write(b'g')
out = [1]"));
        let lines: Vec<_> = answer.exchange.log[1..].iter().map(|(_, line)| &line[..]).collect();
        assert_eq!(lines, ["a", "bc", "", "d", "e", "e", "e", "f", "g"]);
    });
}
