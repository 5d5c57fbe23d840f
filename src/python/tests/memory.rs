//! What requests leave behind: nothing.

mod host;

use host::{Request, with_python};

/// An application for each way through the module.
const SHAPES: &str = "import io, gc, sys, weakref, traceback
def hello(e, s):
    s('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '5')])
    return [b'Hello']
def gen(e, s):
    s('200 OK', [('Content-Type', 'text/plain')])
    yield b'a'
    yield b'b'
def wr(e, s):
    w = s('200 OK', [('X', 'caf\\xe9')])
    w(b'a'); w(b'b')
    return []
def boom(e, s):
    raise ValueError('x')
def boom2(e, s):
    s('200 OK', [])
    yield b'a'
    raise ValueError('x')
def again(e, s):
    s('200 OK', [])
    try:
        raise KeyError
    except KeyError:
        s('500 X', [('A', 'b')], sys.exc_info())
    return (b'x', b'y')
def again2(e, s):
    w = s('200 OK', [])
    w(b'x')
    try:
        raise KeyError
    except KeyError:
        s('500 X', [('A', 'b')], sys.exc_info())
def bad(e, s):
    s('200 OK', [('A', 'b'), ('C', 1)])
def bad2(e, s):
    s('200 \\u1234', [('A', 'b')])
def bad3(e, s):
    s('200 OK', [('A', 'b\\n')])
def body(e, s):
    i = e['wsgi.input']
    i.read(3); i.readline(); i.readlines(); list(i); i.read(0)
    try: i.read('x')
    except TypeError: pass
    s('200 OK', [])
    return [b'x']
def wrap(e, s):
    s('200 OK', [])
    return e['wsgi.file_wrapper'](io.BytesIO(b'x' * 100), 10)
def wrapf(e, s):
    s('200 OK', [])
    return e['wsgi.file_wrapper'](open(__file__, 'rb'))
def log(e, s):
    print('a', file=e['wsgi.errors']); print('b'); print('c', file=sys.stderr, end='')
    e['wsgi.errors'].buffer.write(b'x'); e['wsgi.errors'].buffer.writelines([b'a', memoryview(b'b')])
    s('200 OK', [])
    return [b'x']
def short(e, s):
    s('200 OK', [('Content-Length', '9')])
    return [b'x']
def wrong(e, s):
    s('200 OK', [])
    return ['x']
def none(e, s):
    return None
def exit(e, s):
    raise SystemExit
class C:
    def __init__(self, e, s): s('200 OK', [])
    def __iter__(self): return iter([b'a', b'b'])
    def close(self): raise ValueError
def late(e, s):
    s('200 OK', [('Content-Length', '1')])
    yield b'x'
    e['wsgi.input'].read()
def count(e, s):
    gc.collect()
    types = [type(e['wsgi.input']), type(e['wsgi.errors'].buffer), type(s.__self__), io.TextIOWrapper]
    s('200 OK', [])
    return [b'%d %d %d' % (len(gc.get_objects()), sum(map(sys.getrefcount, types)), sys.getallocatedblocks())]
";

/// The applications but `count`; the last is not there.
const NAMES: &str = "hello gen wr boom boom2 again again2 bad bad2 bad3 body wrap wrapf log short \
                     wrong none exit C late nothing";

#[test]
fn requests_leave_no_object_behind() {
    with_python("requests_leave_no_object_behind", |python| {
        let script = python.script("memory.wsgi", SHAPES);
        for group in ["", "sub"] {
            let request = Request::get(&script).group(group);
            let count = || -> Vec<i64> {
                let answer = python.run(&Request { callable: "count", ..request.clone() });
                let text = answer.text();
                text.split(' ').filter_map(|number| number.parse().ok()).collect()
            };
            for callable in NAMES.split_ascii_whitespace() {
                let sends = Request { callable, ..request.clone() }.body(&[b"ab\nxyz\n", b"rest"]);
                let is_gone = Request { gone_at: Some(1), ..sends.clone() };
                let mut before = Vec::new();
                // Caches fill up first; one leaked block a request would be six hundred.
                for round in 0..450 {
                    if round == 150 {
                        before = count();
                    }
                    python.run(&sends);
                    python.run(&is_gone);
                }
                let after = count();
                let grown: Vec<i64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
                assert_eq!(grown.len(), 3);
                assert!(grown[0] < 20 && grown[1] < 20, "{callable}: {before:?} {after:?}");
                assert!(grown[2] < 500, "{callable}: {before:?} {after:?}");
            }
        }
    });
}
