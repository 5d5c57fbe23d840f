//! Many threads, objects that outlive their request, and the end of Python.

mod host;

use host::{HELLO, Input, Request, with_each_python, with_python};
use wsgi_wire::vtable::{outcome, status};

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

#[test]
fn python_ends_while_worker_threads_are_idle() {
    with_each_python("python_ends_while_worker_threads_are_idle", |python| {
        python.start();
        let script = python.script("hello.wsgi", &format!("import threading\n{HELLO}"));
        let barrier = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for group in ["", "one"] {
                    let answer = python.run(&Request::get(&script).group(group));
                    assert_eq!(answer.text(), "Hello");
                }
                barrier.wait();
                barrier.wait();
            });
            barrier.wait();
            python.stop();
            barrier.wait();
        });
    });
}

#[test]
fn a_request_that_runs_while_python_ends_is_answered() {
    with_each_python("a_request_that_runs_while_python_ends_is_answered", |python| {
        python.start();
        let script = python.script(
            "slow.wsgi",
            "import threading, atexit
started, go_on = threading.Event(), threading.Event()
atexit.register(go_on.set)
def application(environ, start_response):
    started.set()
    go_on.wait(10)
    start_response('200 OK', [])
    return [b'busy']
def wait(environ, start_response):
    started.wait(10)
    start_response('200 OK', [])
    return [b'waited']
",
        );
        let request = Request::get(&script);
        let ready = Request { callable: "wait", ..request.clone() };
        std::thread::scope(|scope| {
            assert_eq!(python.load_script("", &script), 0);
            let running = scope.spawn(|| python.run(&request).text());
            assert_eq!(python.run(&ready).text(), "waited");
            python.stop();
            assert_eq!(running.join().unwrap(), "busy");
        });
    });
}

#[test]
fn a_finalizer_may_log_at_any_time() {
    with_python("a_finalizer_may_log_at_any_time", |python| {
        let script = python.script(
            "finalizers.wsgi",
            "import gc, sys
class Cycle:
    def __init__(self, *streams):
        self.streams, self.me = streams, self
    def __del__(self):
        for stream in self.streams:
            try:
                print('gone', file=stream)
            except RuntimeError:
                pass
def make(environ):
    for _ in range(20):
        Cycle(sys.stderr, environ['wsgi.errors'])
def application(environ, start_response):
    gc.set_threshold(1)
    make(environ)
    for wrong in [(), ('x', []), ('200 OK', [('a\\n', 'b')])]:
        try:
            start_response(*wrong)
        except Exception:
            make(environ)
    make(environ)
    read = environ['wsgi.input'].readline()
    make(environ)
    try:
        environ['wsgi.input'].read()
    except OSError:
        make(environ)
    write = start_response('200 OK', [('Content-Length', '8')])
    make(environ)
    write(read)
    make(environ)
    yield b'there'
    make(environ)
",
        );
        let input = vec![Input::Data(b"hi\n".to_vec()), Input::Fault(status::BAD_BODY)];
        let request = Request { input, ..Request::get(&script) };
        for group in ["", "one", ""] {
            let answer = python.run(&request.clone().group(group));
            assert_eq!(answer.text(), "hi\nthere", "{}", answer.log());
            assert!(answer.log().contains("3 gone"));
        }
    });
}
