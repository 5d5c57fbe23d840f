//! Interpreters with locks of their own, their modules and their end.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::harness::{
    DEADLINE, Httpd, Load, Python, Request, Site, expect_served, ours_only, python, pythons, texts,
    wait_for_end,
};

/// Does what the path says, in the application group `a` to `d` that it begins with.
const APPLICATION: &str = r"
import gc, hashlib, io, json, logging, os, re, sys, threading, time
import mod_wsgi
ROOT = os.path.dirname(__file__)
GROUP = mod_wsgi.application_group
local = threading.local()

def note(name, text):
    with open(ROOT + '/run/' + name, 'a') as file:
        file.write(text + '\n')

def loop(seconds):
    busy = os.open(ROOT + '/run/busy', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    # Whoever sees this comes too late for the lock: it is given back no more.
    os.write(busy, (GROUP + '\n').encode())
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        pass
    os.close(busy)
    note('done', GROUP)

def mixed(_):
    local.count = getattr(local, 'count', 0) + 1
    ring = []
    ring.append(ring)
    json.loads(json.dumps(list(range(200))))
    out = []
    thread = threading.Thread(target=lambda: out.append(hashlib.md5(b'x').hexdigest()))
    thread.start()
    thread.join()
    try:
        re.compile('(')
    except re.error:
        pass
    if local.count % 20 == 0:
        gc.collect()

def fork(_):
    pid = os.fork()
    if pid == 0:
        os._exit(77)
    return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

DEEDS = {'loop': loop, 'mixed': mixed, 'fork': fork, 'pid': lambda _: str(os.getpid())}

def application(environ, start_response):
    deed = DEEDS.get(environ['PATH_INFO'].strip('/'), lambda _: None)
    said = deed(environ['QUERY_STRING'].split('&')[0])
    environ['wsgi.input'].read()
    start_response('200 OK', [])
    return [(said or GROUP).encode()]
";

/// The Pythons in which interpreters can have locks of their own.
fn with_own_locks() -> Vec<Python> {
    ["3.12", "3.13", "3.14", "3.15"].iter().filter_map(|version| python(version)).collect()
}

/// A group with this Python, its applications at `/main`, `/a`, `/b` and `/c`.
fn site(python: &Python, options: &str, directives: &str) -> Site {
    let mut config = format!(
        "WSGIRestrictEmbedded On\nWSGIDaemonProcess one python-home={} {options}\n\
         WSGIProcessGroup one\n{directives}\n",
        python.home.display()
    );
    for (url, group) in [("main", "%{GLOBAL}"), ("a", "a"), ("b", "b"), ("c", "c")] {
        config += &format!("WSGIScriptAlias /{url} ${{ROOT}}/app.wsgi application-group={group}\n");
    }
    let site = Site::new(&config).file("app.wsgi", APPLICATION);
    site.open_run();
    site
}

/// Waits until `group` computes.
fn wait_until_busy(httpd: &Httpd, group: &str) {
    httpd.wait_for_file("run/busy", &format!("{group}\n"));
}

#[test]
fn applications_with_locks_of_their_own_compute_at_the_same_time() {
    ours_only!("a module of the reference has one Python");
    for (word, at_once) in [("On", true), ("Off", false)] {
        for python in with_own_locks() {
            // A thread that computes keeps its lock.
            let directives = format!("WSGISwitchInterval 1000\nWSGIPerInterpreterGIL {word}");
            let httpd = site(&python, "threads=4 deadlock-timeout=0", &directives).start();
            for url in ["/main", "/a", "/b"] {
                httpd.get(url).ok();
            }
            let mut busy = httpd.connect();
            busy.write(Request::get("/a/loop?4").head()).unwrap();
            wait_until_busy(&httpd, "a");
            let start = Instant::now();
            assert_eq!(httpd.get("/b").ok(), "b");
            httpd.get("/main").ok();
            if at_once {
                assert_eq!(httpd.read("run/done"), "", "Python {}", python.version);
            } else {
                let waited = start.elapsed();
                assert!(waited > Duration::from_secs(2), "Python {}: {waited:?}", python.version);
            }
            busy.read_response(false).unwrap().ok();
        }
    }
}

#[test]
fn many_requests_to_applications_with_locks_of_their_own_are_answered() {
    ours_only!("a module of the reference has one Python");
    for python in with_own_locks() {
        let directives = "WSGIPerInterpreterGIL On\n\
            <WSGIInterpreterOptions process-group=one application-group=c>\n\
            WSGIPerInterpreterGIL Off\n</WSGIInterpreterOptions>";
        let httpd = site(&python, "processes=2 threads=4", directives).start();
        let urls = ["/main/mixed", "/a/mixed", "/b/mixed", "/c/mixed"];
        let loads: Vec<_> = urls.iter().map(|url| Load::start(&httpd, 2, url)).collect();
        loads.iter().for_each(|load| load.wait_for(30));
        let before = httpd.processes();
        httpd.graceful();
        loads.iter().for_each(|load| load.wait_for(30));
        for load in loads {
            let answers = load.stop();
            expect_served(&answers, DEADLINE);
            assert_eq!(texts(&answers).len(), 1);
        }
        let daemons: Vec<_> =
            before.into_iter().filter(|it| it.title().contains("daemon \"one\"")).collect();
        assert!(!daemons.is_empty());
        // Those of before end without a crash, which the log would tell.
        wait_for_end(DEADLINE, &daemons);
    }
}

#[test]
fn a_lock_of_its_own_that_is_kept_is_a_deadlock() {
    ours_only!("the reference looks at the main interpreter's lock");
    for python in with_own_locks() {
        let options = "threads=2 deadlock-timeout=1 shutdown-timeout=1";
        let directives = "WSGIPerInterpreterGIL On\n\
            <WSGIInterpreterOptions application-group=a>\nWSGISwitchInterval 1000\n\
            </WSGIInterpreterOptions>";
        let mut httpd = site(&python, options, directives).start();
        let pid = httpd.get("/a/pid").ok();
        for text in ["WSGI0146", "WSGI9116"] {
            httpd.expect_error(text);
        }
        httpd.allow_stacks();
        httpd.allow_error("File \"");
        let status = httpd.get("/a/loop?60").status;
        assert_eq!(status, 502, "{}", python.version);
        assert!(httpd.log().contains("deadlock-timeout passed"), "{}", httpd.log());
        assert_ne!(httpd.get("/a/pid").ok(), pid);
    }
}

#[test]
fn a_request_that_computes_in_a_lock_of_its_own_is_interrupted() {
    ours_only!("row 32");
    for python in with_own_locks() {
        let options = "threads=2 request-timeout=1 interrupt-timeout=10";
        let mut httpd = site(&python, options, "WSGIPerInterpreterGIL On").start();
        httpd.expect_error("WSGI9410");
        httpd.allow_error("[script ");
        let pid = httpd.get("/a/pid").ok();
        assert_eq!(httpd.get("/a/loop?60").status, 504, "{}", python.version);
        assert_eq!(httpd.get("/a/pid").ok(), pid);
    }
}

#[test]
fn an_older_python_shares_its_lock_and_says_so() {
    ours_only!("row 16: the reference has one Python");
    let Some(python) = python("3.11") else { return };
    let httpd = site(&python, "threads=2", "WSGIPerInterpreterGIL On").start();
    for url in ["/a", "/b", "/main"] {
        httpd.get(url).ok();
    }
    assert_eq!(httpd.logged("WSGI0198"), 1, "{}", httpd.log());
}

#[test]
fn embedded_applications_have_locks_of_their_own() {
    ours_only!("row 16: the reference has one Python");
    for python in with_own_locks() {
        let config = format!(
            "WSGIPythonHome {}\nWSGIPerInterpreterGIL On\n\
             WSGIScriptAlias /a ${{ROOT}}/app.wsgi application-group=a\n\
             WSGIScriptAlias /main ${{ROOT}}/app.wsgi application-group=%{{GLOBAL}}",
            python.home.display()
        );
        let site = Site::new(&config).file("app.wsgi", APPLICATION);
        site.open_run();
        let httpd = site.one_child().start();
        let loads = ["/a/mixed", "/main/mixed"].map(|url| Load::start(&httpd, 2, url));
        loads.iter().for_each(|load| load.wait_for(30));
        for load in loads {
            expect_served(&load.stop(), DEADLINE);
        }
    }
}

#[test]
fn forks_in_a_process_with_several_interpreters_end_at_once() {
    ours_only!("row 35: the child hangs");
    for python in pythons() {
        let directives = "WSGIPerInterpreterGIL On";
        let httpd = site(&python, "threads=3", directives).start();
        // It alone is in the process.
        assert_eq!(httpd.get("/main/fork").ok(), "77", "{}", python.version);
        httpd.get("/a").ok();
        let start = Instant::now();
        for url in ["/main/fork", "/a/fork"] {
            assert_eq!(httpd.get(url).ok(), "1", "{} {url}", python.version);
        }
        assert!(start.elapsed() < Duration::from_secs(20));
        assert_eq!(httpd.logged("WSGI9408"), 2, "{}", httpd.log());
    }
}

#[test]
fn modules_that_refuse_sub_interpreters_are_explained() {
    ours_only!("the reference shows the traceback only");
    let source = "
def application(environ, start_response):
    import refuses
";
    let refuses = "raise ImportError('cannot load module more than once per process')\n";
    for options in ["", "process-group=one"] {
        let config = format!(
            "WSGIDaemonProcess one threads=2 python-path=${{ROOT}}/lib\n\
             WSGIPythonPath ${{ROOT}}/lib\n\
             WSGIScriptAlias /sub ${{ROOT}}/app.wsgi {options}\n\
             WSGIScriptAlias /main ${{ROOT}}/app.wsgi {options} application-group=%{{GLOBAL}}"
        );
        let mut httpd =
            Site::new(&config).file("app.wsgi", source).file("lib/refuses.py", refuses).start();
        httpd.expect_error("WSGI9413");
        httpd.allow_error("WSGI0174");
        httpd.allow_error("ImportError");
        assert_eq!(httpd.get("/main").status, 500);
        assert_eq!(httpd.logged("WSGI9413"), 0, "{}", httpd.log());
        assert_eq!(httpd.get("/sub").status, 500);
        assert_eq!(httpd.logged("WSGI9413"), 1, "{}", httpd.log());
        let log = httpd.log();
        let hint = log.lines().find(|line| line.contains("WSGI9413")).unwrap_or_default();
        assert!(hint.contains("WSGIApplicationGroup %{GLOBAL}"), "{hint}");
    }
}

#[test]
fn a_module_that_needs_the_shared_lock_is_explained() {
    ours_only!("the reference shows the traceback only");
    let Some(python) = python("3.12") else { return };
    let mut httpd = site(&python, "threads=2", "WSGIPerInterpreterGIL On")
        .config("WSGIScriptAlias /ctypes ${ROOT}/ctypes.wsgi application-group=d")
        .file("ctypes.wsgi", "import ctypes\n")
        .start();
    for text in ["WSGI9413", "does not support loading in subinterpreters"] {
        httpd.expect_error(text);
    }
    httpd.allow_error("WSGI0109");
    assert_eq!(httpd.get("/ctypes").status, 500);
    assert!(httpd.log().contains("WSGIPerInterpreterGIL Off may do"), "{}", httpd.log());
}

/// Leaves a thread that ends, one that does not, and something to do at the end.
const ENDS: &str = "
import atexit, os, threading, time
import mod_wsgi
ROOT = os.path.dirname(__file__)
GROUP = mod_wsgi.application_group
def note(text):
    with open(ROOT + '/run/ends', 'a') as file:
        file.write('%s %s\\n' % (text, GROUP))
def work():
    time.sleep(0.5)
    note('worked')
def linger():
    while True:
        time.sleep(0.01)
def application(environ, start_response):
    atexit.register(note, 'left')
    threading.Thread(target=work, daemon=False).start()
    if environ['QUERY_STRING']:
        threading.Thread(target=linger, daemon=True).start()
    start_response('200 OK', [])
    return [b'']
";

#[test]
fn threads_are_waited_for_and_callbacks_run_at_the_end() {
    ours_only!("row 16: the reference has one Python");
    for python in pythons() {
        for (word, query) in [("Off", ""), ("Off", "?daemon"), ("On", ""), ("On", "?daemon")] {
            let directives = format!("WSGIPerInterpreterGIL {word}");
            let httpd = site(&python, "threads=2", &directives).file("app.wsgi", ENDS).start();
            for url in ["/main", "/a", "/b"] {
                httpd.get(&format!("{url}{query}")).ok();
            }
            let daemons: Vec<_> = httpd.processes();
            let daemons: Vec<_> =
                daemons.into_iter().filter(|it| it.title().contains("daemon \"one\"")).collect();
            httpd.graceful();
            wait_for_end(DEADLINE, &daemons);
            let ends = httpd.read("run/ends");
            for group in ["", "a", "b"] {
                for text in ["worked", "left"] {
                    let line = format!("{text} {group}");
                    let found = ends.lines().any(|known| known == line);
                    assert!(found, "{} {word} {query}: {line}: {ends}", python.version);
                }
            }
        }
    }
}
