//! What is there when the first request comes, and what comes later.

mod host;

use host::{Request, Setup, app, with_each_python};
use std::path::PathBuf;
use std::process::Command;
use wsgi_wire::vtable::outcome;

/// The modules of an interpreter nobody has asked for anything.
fn bare() -> Vec<String> {
    let ask = ["-c", "import sys; print('\\n'.join(sys.modules))"];
    let output = Command::new(host::program()).args(ask).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn an_empty_application_finds_what_a_bare_python_has_imported() {
    with_each_python("an_empty_application_finds_what_a_bare_python_has_imported", |python| {
        let bare = bare();
        python.start_with(&Setup { python_path: String::new(), ..Setup::default() });
        for group in ["", "other"] {
            let script = python.script("empty.wsgi", &app("import sys; out = [*sys.modules]"));
            let answer = python.run(&Request::get(&script).group(group));
            let is_new =
                |name: &&str| !bare.iter().any(|it| it == name) && !name.starts_with("_mod_wsgi_");
            let text = answer.text();
            let mut new: Vec<_> = text.lines().filter(is_new).collect();
            new.sort_unstable();
            // `atexit`, `faulthandler` and their like are part of libpython.
            new.retain(|name| !["atexit", "faulthandler", "gc", "itertools"].contains(name));
            assert_eq!(new, ["apache", "mod_wsgi"], "{}", answer.log());
        }
        python.stop();
    });
}

/// What `body` puts into `out`, run by a worker and not by the thread that started Python.
fn run_beside(python: &host::Fixture, group: &'static str, body: &str) -> String {
    let script: PathBuf = python.script("beside.wsgi", &app(body));
    let request = Request::get(&script).group(group);
    let answer = std::thread::scope(|scope| scope.spawn(|| python.run(&request)).join());
    let answer = answer.unwrap_or_else(|_| panic!("the request panicked"));
    assert_eq!(answer.outcome, outcome::DONE, "{}", answer.log());
    answer.text()
}

#[test]
fn the_main_thread_is_the_one_that_started_python() {
    with_each_python("the_main_thread_is_the_one_that_started_python", |python| {
        python.start();
        // Of every Python but those whose `.pth` files import it.
        let body = "import _thread, os
pid = os.fork()
if pid == 0:
    # Here it is the only one there is.
    import threading
    is_main = threading.main_thread() is threading.current_thread()
    os._exit(0 if is_main and threading.main_thread().is_alive() else 1)
forked = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
import threading
main = threading.main_thread()
own = threading.current_thread()
assert own is not main and own.ident == _thread.get_ident() != main.ident, (own, main)
assert main in threading.enumerate() and own in threading.enumerate()
main.join(0.01)
out = [forked, main.name, main.is_alive(), main.daemon, own.name.startswith('Dummy')]
out += [main.ident, main.native_id]
if (pid := os.fork()) == 0:
    is_main = threading.main_thread() is threading.current_thread()
    os._exit(0 if is_main and not main.is_alive() else 1)
out.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
def last():
    threading.main_thread().join()
    print('the main thread is over')
threading.Thread(target=last, daemon=False).start()";
        let text = run_beside(python, "", body);
        // SAFETY: asks for a number.
        let ident = unsafe { libc::pthread_self() };
        // SAFETY: as above.
        let native = unsafe { libc::gettid() };
        let wanted = format!("0\nMainThread\nTrue\nFalse\nTrue\n{ident}\n{native}\n0");
        assert_eq!(text, wanted);
        // It waits for the thread, and that for it.
        python.stop();
        let text = python.process_text();
        assert!(text.contains("the main thread is over"), "{text}");
    });
}

#[test]
fn modules_that_are_changed_when_they_are_imported_do_not_show_it() {
    with_each_python("modules_that_are_changed_when_they_are_imported_do_not_show_it", |python| {
        python.start();
        let body = "import importlib.util, sys
were_there = {*sys.modules}
specs = [importlib.util.find_spec(name) for name in ('signal', 'threading', 'sched')]
assert specs[0].loader.get_source('signal') and specs[1].loader.is_package('threading') is False
assert 'signal' in were_there or 'signal' not in sys.modules
import inspect, sched, signal, threading
for module in (signal, threading, sched):
    assert type(module.__loader__) is type(sched.__loader__), module.__loader__
    assert module.__spec__.loader is module.__loader__
    assert inspect.getsource(module).strip()
before = signal.signal
importlib.reload(signal)
out = [type(before).__name__, type(signal.signal).__name__]
try:
    import there_is_no_such_module
except ModuleNotFoundError as error:
    out.append(error.name)";
        for group in ["", "other"] {
            let wanted = "SignalIntercept\nSignalIntercept\nthere_is_no_such_module";
            assert_eq!(run_beside(python, group, body), wanted);
        }
        python.stop();
    });
}
