//! Pythons that can do without their lock.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::harness::{
    DEADLINE, Httpd, Load, Python, Request, Site, expect_served, free_threaded, mpm, ours_only,
    pythons, skip, wait_for_end,
};

/// Does what the path says.
const APPLICATION: &str = r"
import atexit, gc, json, mod_wsgi, os, sys, threading, time
ROOT = os.path.dirname(__file__)
shared = {'dict': {}, 'list': [], 'count': 0}
turns = [0, 0]

def note(text):
    with open(ROOT + '/run/end', 'a') as file:
        file.write(text + '\n')

atexit.register(note, 'atexit ' + mod_wsgi.application_group)

def has_lock(query):
    return str(getattr(sys, '_is_gil_enabled', lambda: True)())

def pair(query):
    # Who waits for a lock gets it never: the other one keeps it.
    sys.setswitchinterval(1000)
    own = int(query)
    for turn in range(1, 1000):
        turns[own] = turn
        end = time.monotonic() + 20
        while turns[1 - own] < turn and time.monotonic() < end:
            pass
    return 'at once' if min(turns) == 999 else str(turns)

def mixed(query):
    ring = []
    ring.append(ring)
    shared['dict'][query] = json.dumps(list(range(50)))
    shared['list'].append(query)
    del shared['list'][:-100]
    shared['dict'].pop(next(iter(list(shared['dict'])), None), None)
    mod_wsgi.request_data()['x'] = query
    list(mod_wsgi.active_requests.items())
    print(query, file=sys.stderr) if query == 'say' else None
    thread = threading.Thread(target=gc.collect if query == 'collect' else time.time)
    thread.start()
    thread.join()
    return query

def spin(query):
    end = time.monotonic() + float(query)
    while time.monotonic() < end:
        pass
    return query

def daemon_thread(query):
    threading.Thread(target=spin, args=(query,), daemon=True).start()
    return query

DEEDS = {'lock': has_lock, 'pair': pair, 'mixed': mixed, 'spin': spin, 'thread': daemon_thread,
    'version': lambda _: sys.version, 'pid': lambda _: str(os.getpid())}

def application(environ, start_response):
    body = environ['wsgi.input'].read()
    said = DEEDS[environ['PATH_INFO'].strip('/')](environ['QUERY_STRING'].split('&')[0])
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [said.encode()]
";

/// Its applications run at `/main` and `/sub` of a group, and at `/child` embedded.
fn site(python: &Python, options: &str, directives: &str) -> Site {
    let home = python.home.display();
    let config = format!(
        "WSGIPythonHome {home}\nWSGIDaemonProcess one {options}\n{directives}\n\
         WSGIScriptAlias /main ${{ROOT}}/app.wsgi process-group=one application-group=%{{GLOBAL}}\n\
         WSGIScriptAlias /sub ${{ROOT}}/app.wsgi process-group=one application-group=sub\n\
         WSGIScriptAlias /child ${{ROOT}}/app.wsgi process-group=%{{GLOBAL}} \
         application-group=%{{GLOBAL}}"
    );
    let site = Site::new(&config).file("app.wsgi", APPLICATION).one_child();
    site.open_run();
    site
}

/// Whether the interpreters of `site` have a lock.
fn locks(httpd: &Httpd) -> [String; 3] {
    ["/main/lock", "/sub/lock", "/child/lock"].map(|target| httpd.get(target).ok())
}

#[test]
fn a_python_keeps_its_lock_unless_it_is_told_to_do_without() {
    ours_only!("the reference is built for one Python");
    let Some(python) = free_threaded() else { return };
    for (directive, lock) in
        [("", "True"), ("WSGIFreeThreading Off", "True"), ("WSGIFreeThreading On", "False")]
    {
        let httpd = site(&python, "threads=2", directive).start();
        assert_eq!(locks(&httpd), [lock; 3], "{directive}");
        assert!(!httpd.log().contains("WSGI0200"), "{}", httpd.log());
    }
    let block = "<WSGIInterpreterOptions process-group=one>\nWSGIFreeThreading On\n\
        </WSGIInterpreterOptions>";
    let httpd = site(&python, "threads=2", block).start();
    assert_eq!(locks(&httpd), ["False", "False", "True"]);
}

#[test]
fn without_a_lock_requests_compute_at_the_same_time() {
    ours_only!("the reference is built for one Python");
    if mpm() == "prefork" {
        return skip("the one child process of prefork has one request at a time");
    }
    let Some(python) = free_threaded() else { return };
    let httpd = site(&python, "threads=3", "WSGIFreeThreading On").start();
    for place in ["main", "sub", "child"] {
        httpd.get(&format!("/{place}/lock")).ok();
        let [mut one, mut other] = [0, 1].map(|own| {
            let mut connection = httpd.connect();
            connection.write(Request::get(&format!("/{place}/pair?{own}")).head()).unwrap();
            connection
        });
        assert_eq!(one.read_response(false).unwrap().ok(), "at once", "{place}");
        assert_eq!(other.read_response(false).unwrap().ok(), "at once", "{place}");
    }
}

#[test]
fn an_ordinary_python_runs_beside_a_free_threaded_one() {
    ours_only!("row 16: the reference has one Python");
    let Some(python) = free_threaded() else { return };
    let Some(ordinary) = pythons().into_iter().next() else { return };
    let directives = format!(
        "WSGIDaemonProcess other python-home={}\nWSGIDaemonProcess named python={}\n\
         WSGIScriptAlias /other ${{ROOT}}/app.wsgi process-group=other\n\
         WSGIScriptAlias /named ${{ROOT}}/app.wsgi process-group=named",
        ordinary.home.display(),
        python.home.join("bin").join(format!("python{}", python.version)).display()
    );
    let httpd = site(&python, "", &directives).start();
    let version = |place: &str| httpd.get(&format!("/{place}/version")).ok();
    for place in ["main", "child", "named"] {
        assert!(version(place).contains("free-threading"), "{}", version(place));
    }
    let other = version("other");
    assert!(other.starts_with(&ordinary.version) && !other.contains("free-threading"), "{other}");
}

#[test]
fn a_virtual_environment_of_a_free_threaded_python_is_a_python_home() {
    ours_only!("row 16: the reference has one Python");
    let Some(python) = free_threaded() else { return };
    let directives = "WSGIDaemonProcess env python-home=${ROOT}/env\n\
        WSGIScriptAlias /env ${ROOT}/where.wsgi process-group=env";
    let site = site(&python, "", directives).file(
        "where.wsgi",
        "import sys\ndef application(environ, start_response):\n    \
         start_response('200 OK', [])\n    return [sys.prefix.encode()]\n",
    );
    python.environment(&site.root().join("env"));
    let httpd = site.start();
    assert_eq!(httpd.get("/env/").ok(), httpd.path("env").display().to_string());
}

#[test]
fn what_is_about_a_lock_is_not_used_without_one_and_said_so() {
    ours_only!("the reference is built for one Python");
    let Some(python) = free_threaded() else { return };
    let directives = "WSGIFreeThreading On\nWSGIPerInterpreterGIL On\nWSGISwitchInterval 0.5\n\
        <WSGIInterpreterOptions application-group=sub>\nWSGISwitchInterval 0.25\n\
        </WSGIInterpreterOptions>";
    let httpd = site(&python, "switch-interval=0.75", directives).start();
    assert_eq!(locks(&httpd), ["False"; 3]);
    for (code, whose) in [
        ("WSGI0202: WSGIPerInterpreterGIL", "[application group 'sub']"),
        ("WSGI0203: WSGISwitchInterval", "is not used"),
        ("WSGI0204: switch-interval", "[group 'one'"),
        ("WSGI0205: WSGISwitchInterval for interpreter 'sub'", "is not used"),
    ] {
        httpd.wait_for_log(code);
        let log = httpd.log();
        let line = log.lines().find(|line| line.contains(code)).unwrap_or_default();
        assert!(line.contains(whose) && line.contains("[wsgi:warn]"), "{line}");
    }
}

#[test]
fn a_free_threaded_python_with_its_lock_has_interpreters_with_locks_of_their_own() {
    ours_only!("the reference is built for one Python");
    let Some(python) = free_threaded() else { return };
    let httpd = site(&python, "threads=3", "WSGIPerInterpreterGIL On").start();
    assert_eq!(locks(&httpd), ["True"; 3]);
    let load = Load::start(&httpd, 6, "/sub/mixed?x");
    load.wait_for(200);
    expect_served(&load.stop(), Duration::from_secs(20));
    assert!(!httpd.log().contains("WSGI0202"), "{}", httpd.log());
}

#[test]
fn many_requests_share_what_an_application_keeps() {
    ours_only!("the reference is built for one Python");
    let Some(python) = free_threaded() else { return };
    let httpd = site(&python, "threads=8", "WSGIFreeThreading On").start();
    let pid = httpd.get("/main/pid").ok();
    let loads = ["/main/mixed?a", "/sub/mixed?collect", "/child/mixed?b", "/main/mixed?c"]
        .map(|target| Load::start(&httpd, 3, target));
    for load in &loads {
        load.wait_for(400);
    }
    for load in loads {
        expect_served(&load.stop(), Duration::from_secs(20));
    }
    assert_eq!(httpd.get("/main/pid").ok(), pid);
}

#[test]
fn a_script_that_changes_under_load_costs_no_request() {
    ours_only!("the reference is built for one Python");
    let Some(python) = free_threaded() else { return };
    let httpd = site(&python, "threads=6", "WSGIFreeThreading On").start();
    httpd.get("/main/pid").ok();
    let load = Load::start(&httpd, 6, "/main/mixed?x");
    let embedded = Load::start(&httpd, 3, "/child/mixed?x");
    for round in 0..5 {
        httpd.write("app.wsgi", format!("{APPLICATION}\n# {round}\n"));
        load.wait_for(60);
        embedded.wait_for(30);
    }
    expect_served(&load.stop(), Duration::from_secs(20));
    expect_served(&embedded.stop(), Duration::from_secs(20));
}

#[test]
fn a_request_in_a_loop_is_interrupted_without_a_lock() {
    ours_only!("the texts");
    let Some(python) = free_threaded() else { return };
    let options = "threads=3 request-timeout=1 interrupt-timeout=10";
    let mut httpd = site(&python, options, "WSGIFreeThreading On").start();
    httpd.expect_error("WSGI9410: the application was interrupted for time; answering 504");
    httpd.allow_error("[script ");
    for place in ["main", "sub"] {
        let pid = httpd.get(&format!("/{place}/pid")).ok();
        assert_eq!(httpd.get(&format!("/{place}/spin?60")).status, 504);
        assert_eq!(httpd.get(&format!("/{place}/pid")).ok(), pid);
    }
    let log = httpd.log();
    assert!(log.contains("Dumping stack trace of thread"), "{log}");
    assert!(log.contains(", in spin"), "{log}");
    assert!(!log.contains("WSGI0067"), "{log}");
}

#[test]
fn stacks_are_shown_without_a_lock_before_a_process_is_ended_for_time() {
    ours_only!("the texts");
    let Some(python) = free_threaded() else { return };
    let options = "threads=3 request-timeout=1 shutdown-timeout=1 interrupt-timeout=0";
    let mut httpd = site(&python, options, "WSGIFreeThreading On").start();
    httpd.allow_stacks();
    for text in ["WSGI9", "WSGI0", "  File "] {
        httpd.allow_error(text);
    }
    httpd.get("/sub/pid").ok();
    assert!(httpd.get("/sub/spin?60").status >= 500);
    let log = httpd.log();
    assert!(log.contains("WSGI9409") && log.contains(", in spin"), "{log}");
}

#[test]
fn python_is_ended_in_order_without_a_lock() {
    ours_only!("row 16: the reference has one Python");
    let Some(python) = free_threaded() else { return };
    for thread in ["", "/sub/thread?60", "/main/thread?60"] {
        let options = "threads=3 shutdown-timeout=60";
        let httpd = site(&python, options, "WSGIFreeThreading On").start();
        for place in ["main", "sub", "child"] {
            httpd.get(&format!("/{place}/mixed?x")).ok();
        }
        if !thread.is_empty() {
            httpd.get(thread).ok();
        }
        let old = httpd.processes().into_iter().filter(|it| it.maps().contains("libpython"));
        let old: Vec<_> = old.collect();
        assert_eq!(old.len(), 2);
        httpd.graceful();
        wait_for_end(DEADLINE, &old);
        let end = httpd.read("run/end");
        assert_eq!(end.lines().filter(|line| *line == "atexit sub").count(), 1, "{end}");
        assert_eq!(end.lines().filter(|line| *line == "atexit ").count(), 2, "{end}");
    }
}

#[test]
fn who_has_not_built_what_runs_a_free_threaded_python_is_told_how() {
    ours_only!("the reference is built for one Python");
    let site = Site::new("WSGIDaemonProcess one python-home=${ROOT}/python")
        .file("python/bin/python3", "")
        .file("python/lib/python3.99t/os.py", "")
        .file("python/lib/libpython3.99t.so.1.0", "");
    let program = site.root().join("python/bin/python3").display().to_string();
    let (is_good, said) = site.configtest();
    assert!(!is_good, "{said}");
    for text in ["WSGI9440: ", "'wsgi_python.cpython-399t.so'", &format!("make PYTHON={program}`")]
    {
        assert!(said.contains(text), "{text}: {said}");
    }
}
