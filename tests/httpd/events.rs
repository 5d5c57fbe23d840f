//! What subscribers of `mod_wsgi` hear: of requests, of signals, of the end of a process.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{
    Httpd, Mode, Process, Request, Site, eval, is_ours, mpm, ours_only, wait_for_end, wait_until,
};

/// Notes every event, and answers with the value of the Python expression in the query string
/// unless the path names something else to do.
const APP: &str = r#"
import mod_wsgi, os, sys, time
from urllib.parse import unquote
ROOT = os.path.dirname(__file__)
seen = []
def note(text):
    with open(ROOT + '/run/notes', 'a') as file:
        file.write('%s\n' % text)
def event(name, /, **details):
    seen.append((name, details))
def all(name):
    return [details for event, details in seen if event == name]
def kinds(details):
    return sorted((key, type(details[key]).__name__) for key in details)
mod_wsgi.subscribe_events(event)
def application(environ, start_response):
    query, path = unquote(environ['QUERY_STRING']), environ['PATH_INFO']
    if path == '/fail':
        raise KeyError('deliberate')
    if path == '/late':
        start_response('200 OK', [])
        def late():
            yield b'some'
            raise OSError('deliberate')
        return late()
    if path == '/text':
        start_response('200 OK', [])
        return ['not bytes']
    if path == '/close':
        start_response('200 OK', [])
        class Closed(list):
            __slots__ = ()
            def close(self):
                raise KeyError('deliberate')
            def __iter__(self):
                return iter([b'whole'])
        return Closed()
    if path == '/twice':
        start_response('200 OK', [])
        try:
            raise KeyError('deliberate')
        except KeyError:
            start_response('503 Later', [], sys.exc_info())
        return [b'']
    if path == '/read':
        count = len(environ['wsgi.input'].read())
        write = start_response('200 OK', [])
        write(b'%d' % count)
        return [b' bytes']
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [str(eval(query, dict(globals(), environ=environ))).encode()]
"#;

/// A server with [`APP`] in one process, in the main interpreter.
fn site(mode: Mode) -> Site {
    let site = Site::app(mode, APP).config("WSGIApplicationGroup %{GLOBAL}").one_child();
    site.open_run();
    site
}

/// Runs `test` in both modes.
fn in_both_modes(test: impl Fn(&mut Httpd)) {
    for mode in [Mode::Embedded, Mode::Daemon] {
        eprintln!("{mode:?} mode");
        test(&mut site(mode).start());
    }
}

/// The keys of an event and the types of their values, as [`APP`]'s `kinds` gives them.
fn expected(keys: &[(&str, &str)]) -> String {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    let items = keys.iter().map(|(key, kind)| format!("('{key}', '{kind}')"));
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

#[test]
fn the_start_of_a_request_is_told_in_full() {
    let keys = expected(&[
        ("request_id", "str"),
        ("thread_id", "int"),
        ("daemon_connects", "int"),
        ("daemon_restarts", "int"),
        ("server_pid", "int"),
        ("request_start", "float"),
        ("queue_start", "float"),
        ("daemon_start", "float"),
        ("application_object", "function"),
        ("callable_object", "str"),
        ("request_environ", "dict"),
        ("application_start", "float"),
        ("request_data", "dict"),
    ]);
    in_both_modes(|httpd| {
        assert_eq!(eval(httpd, "kinds(all('request_started')[-1])"), keys);
        let same = "[all('request_started')[-1][key] for key in ('request_environ', \
                    'application_object', 'request_id', 'callable_object', 'thread_id')] == \
                    [environ, application, environ['mod_wsgi.request_id'], 'application', \
                    environ['mod_wsgi.thread_id']]";
        assert_eq!(eval(httpd, same), "True");
        let pid = "all('request_started')[-1]['server_pid'] == int(environ['mod_wsgi.server_pid'])";
        assert_eq!(eval(httpd, pid), "True");
        let times = "[all('request_started')[-1][key] == environ['mod_wsgi.' + key] for key in \
                     ('request_start', 'queue_start', 'daemon_start', 'application_start')]";
        assert_eq!(eval(httpd, times), "[True, True, True, True]");
    });
}

#[test]
fn requests_to_daemon_processes_count_their_connections() {
    for (mode, expected) in [(Mode::Embedded, "[0, 0]"), (Mode::Daemon, "[1, 0]")] {
        let httpd = site(mode).start();
        let counts = "[all('request_started')[-1]['daemon_' + key] \
                      for key in ('connects', 'restarts')]";
        assert_eq!(eval(&httpd, counts), expected, "{mode:?}");
    }
}

#[test]
fn a_request_that_met_a_changed_script_counts_that() {
    let httpd = site(Mode::Daemon).start();
    let counts =
        "[all('request_started')[-1]['daemon_' + key] for key in ('connects', 'restarts')]";
    assert_eq!(eval(&httpd, counts), "[1, 0]");
    httpd.write("app.wsgi", format!("{APP}# changed\n"));
    assert_eq!(eval(&httpd, counts), "[2, 1]");
}

#[test]
fn the_start_of_a_response_is_told_before_it_is_checked() {
    let keys = expected(&[
        ("request_id", "str"),
        ("response_status", "str"),
        ("response_headers", "list"),
        ("exception_info", "NoneType"),
        ("request_data", "dict"),
    ]);
    in_both_modes(|httpd| {
        eval(httpd, "0");
        assert_eq!(eval(httpd, "kinds(all('response_started')[-1])"), keys);
        let values = "[all('response_started')[-1][key] \
                      for key in ('response_status', 'response_headers')]";
        assert_eq!(eval(httpd, values), "['200 OK', [('Content-Type', 'text/plain')]]");
        assert_eq!(httpd.get("/twice").status, 503);
        let twice = "[(it['response_status'], it['exception_info'] and it['exception_info'][0]) \
                     for it in all('response_started')[-3:-1]]";
        assert_eq!(eval(httpd, twice), "[('200 OK', None), ('503 Later', <class 'KeyError'>)]");
    });
}

#[test]
fn the_end_of_a_request_is_told_in_full() {
    let keys = expected(&[
        ("request_id", "str"),
        ("thread_id", "int"),
        ("server_pid", "int"),
        ("request_start", "float"),
        ("queue_start", "float"),
        ("daemon_start", "float"),
        ("input_reads", "int"),
        ("input_length", "int"),
        ("input_time", "float"),
        ("output_length", "int"),
        ("output_writes", "int"),
        ("output_time", "float"),
        ("cpu_user_time", "float"),
        ("cpu_system_time", "float"),
        ("cpu_time", "float"),
        ("application_finish", "float"),
        ("application_time", "float"),
        ("status", "int"),
        ("gil_wait_time", "float"),
        ("gil_wait_count", "int"),
        ("request_data", "dict"),
    ]);
    in_both_modes(|httpd| {
        eval(httpd, "mod_wsgi.request_data().update(mine=1)");
        assert_eq!(eval(httpd, "kinds(all('request_finished')[-1])"), keys);
        let values = "[all('request_finished')[0][key] for key in ('status', 'request_data', \
                      'output_length', 'output_writes', 'input_length')]";
        assert_eq!(eval(httpd, values), "[200, {'mine': 1}, 4, 1, 0]");
        let times = "[it['application_finish'] - it['application_time'] - \
                     all('request_started')[0]['application_start'] < 0.001 \
                     for it in all('request_finished')[:1]]";
        assert_eq!(eval(httpd, times), "[True]");
        let waited = "sum(it['gil_wait_count'] for it in all('request_finished')) > 0";
        assert_eq!(eval(httpd, waited), "True");
    });
}

#[test]
fn what_a_request_reads_and_writes_is_counted() {
    in_both_modes(|httpd| {
        eval(httpd, "0");
        assert_eq!(httpd.send(&Request::post("/read", b"eleven here")).ok(), "11 bytes");
        let counts = "[all('request_finished')[-1][key] \
                      for key in ('input_length', 'output_length', 'output_writes')]";
        assert_eq!(eval(httpd, counts), "[11, 8, 2]");
        let times = "[all('request_finished')[-2][key] > 0 for key in \
                     ('input_time', 'output_time', 'input_reads')]";
        assert_eq!(eval(httpd, times), "[True, True, True]");
    });
}

#[test]
fn exceptions_are_told_and_requests_finish_with_their_status() {
    in_both_modes(|httpd| {
        for text in ["WSGI0174", "deliberate", "Traceback", "app.wsgi"] {
            httpd.allow_error(text);
        }
        httpd.allow_error("raise ");
        eval(httpd, "0");
        assert_eq!(httpd.get("/fail").status, 500);
        let last = "[(name, details.get('status')) for name, details in seen[-5:-2]]";
        let expected =
            "[('request_started', None), ('request_exception', None), ('request_finished', 500)]";
        assert_eq!(eval(httpd, last), expected);
        let kind = "[[type(it).__name__ for it in all('request_exception')[-1][key]] \
                    for key in ('exception_info',)], sorted(all('request_exception')[-1])";
        let expected = "([['type', 'KeyError', 'traceback']], \
                        ['exception_info', 'request_data', 'request_id'])";
        assert_eq!(eval(httpd, kind), expected);
        drop(httpd.try_send(&Request::get("/late")));
        let late = "(all('request_exception')[-1]['exception_info'][0].__name__, \
                    all('request_finished')[-1]['status'])";
        assert_eq!(eval(httpd, late), "('OSError', 200)");
        assert_eq!(httpd.get("/close").ok(), "whole");
        assert_eq!(eval(httpd, late), "('KeyError', 200)");
    });
}

#[test]
fn what_a_callback_returns_is_told_to_the_next() {
    let app = r#"
import mod_wsgi
seen = []
mod_wsgi.subscribe_events(lambda event, **details: {'added': event})
mod_wsgi.subscribe_events(lambda event, **details: seen.append(details['added']))
mod_wsgi.subscribe_events(lambda event, **details: seen.append(details['added']))
def application(environ, start_response):
    start_response('200 OK', [])
    return [' '.join(seen).encode()]
"#;
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, app).start();
        let twice = "request_started request_started response_started response_started";
        assert_eq!(httpd.get("/").ok(), twice, "{mode:?}");
    }
}

#[test]
fn what_a_callback_returns_is_passed_on_only_under_names() {
    ours_only!("row 112: the reference passes on keys that are no names");
    let app = r"
import mod_wsgi
seen = {}
mod_wsgi.subscribe_events(lambda event, **details: {1: 2, 'good': 3})
mod_wsgi.subscribe_events(lambda event, **details: {'event': 'mine', b'': 0})
mod_wsgi.subscribe_events(lambda event, **details: {'fine': 4})
@mod_wsgi.subscribe_events
def last(event, **details):
    seen[event] = [details.get(name) for name in ('good', 'event', 'fine')]
def application(environ, start_response):
    start_response('200 OK', [])
    return [repr(seen['request_started']).encode()]
";
    for mode in [Mode::Embedded, Mode::Daemon] {
        let mut httpd = Site::app(mode, app).start();
        // As often as the process is stopped.
        httpd.allow_error("WSGI9471: a callback for 'process_stopping'");
        assert_eq!(httpd.get("/").ok(), "[None, None, 4]", "{mode:?}");
        for event in ["request_started", "response_started", "request_finished"] {
            for keys in ["of type int", "'event', of type bytes"] {
                httpd.expect_error(&format!(
                    "WSGI9471: a callback for '{event}' returned a dict with a key that is no \
                     name of a detail: {keys}; nothing of it is passed on"
                ));
            }
        }
    }
}

#[test]
fn a_callback_may_put_another_application_in_the_place_of_one() {
    let app = r#"
import mod_wsgi
@mod_wsgi.subscribe_events
def replace(event, **details):
    if event == 'request_started' and details['request_environ']['PATH_INFO'] == '/other':
        def other(environ, start_response):
            start_response('200 OK', [])
            return [b'other']
        return {'application_object': other}
def application(environ, start_response):
    start_response('200 OK', [])
    return [b'own']
"#;
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = Site::app(mode, app).start();
        assert_eq!(httpd.get("/other").ok(), "other", "{mode:?}");
        assert_eq!(httpd.get("/").ok(), "own", "{mode:?}");
    }
}

#[test]
fn a_callback_that_fails_is_logged_and_ignored() {
    let app = r#"
import mod_wsgi
@mod_wsgi.subscribe_events
def fails(event, **details):
    if event == 'request_started':
        raise ValueError('deliberate')
@mod_wsgi.subscribe_events
def leaves(event, **details):
    if event == 'request_started':
        raise SystemExit('deliberate')
seen = []
mod_wsgi.subscribe_events(lambda event, **details: seen.append(event))
def application(environ, start_response):
    start_response('200 OK', [])
    return [' '.join(seen).encode()]
"#;
    for mode in [Mode::Embedded, Mode::Daemon] {
        let mut httpd = Site::app(mode, app).start();
        httpd.expect_error("WSGI0112");
        httpd.expect_error("WSGI0190");
        httpd.expect_error("ValueError: deliberate");
        httpd.expect_error("SystemExit: deliberate");
        for line in ["Traceback", "app.wsgi", "raise "] {
            httpd.allow_error(line);
        }
        assert_eq!(httpd.get("/").ok(), "request_started response_started", "{mode:?}");
    }
}

#[test]
fn who_leaves_the_list_hears_no_more() {
    in_both_modes(|httpd| {
        assert_eq!(eval(httpd, "len(seen) > 0"), "True");
        eval(httpd, "mod_wsgi.event_callbacks.remove(event)");
        assert_eq!(eval(httpd, "len(seen)"), eval(httpd, "len(seen)"));
        eval(httpd, "mod_wsgi.subscribe_events(event)");
        assert_eq!(eval(httpd, "all('request_started')[-1]['request_environ'] is environ"), "True");
    });
}

#[test]
fn a_request_interrupted_in_a_callback_ends_as_any_other() {
    ours_only!("6.1.1 logs the interruption as a failure of the callback, and goes on");
    let app = "
import mod_wsgi, os, time
@mod_wsgi.subscribe_events
def slow(event, **details):
    if event == 'request_started' and details['request_environ']['PATH_INFO'] == '/slow':
        end = time.monotonic() + 60
        while time.monotonic() < end:
            pass
def application(environ, start_response):
    start_response('200 OK', [])
    return [b'%d' % os.getpid()]
";
    let config = "WSGIRestrictEmbedded On\n\
                  WSGIDaemonProcess one threads=1 request-timeout=1 interrupt-timeout=10\n\
                  WSGIProcessGroup one\nWSGIScriptAlias / ${ROOT}/app.wsgi";
    let mut httpd = Site::new(config).file("app.wsgi", app).start();
    httpd.expect_error("WSGI9410: the application was interrupted for time; answering 504");
    httpd.allow_error("[script ");
    let pid = httpd.get("/").ok();
    assert_eq!(httpd.get("/slow").status, 504);
    assert_eq!(httpd.get("/").ok(), pid);
}

#[test]
fn the_status_of_a_finished_request_is_what_the_client_gets() {
    ours_only!("6.1.1 has the one given to start_response");
    in_both_modes(|httpd| {
        httpd.allow_error("[script ");
        eval(httpd, "0");
        assert_eq!(httpd.get("/text").status, 500);
        assert_eq!(eval(httpd, "all('request_finished')[-1]['status']"), "500");
    });
}

/// Notes the end of its process, and signals to it.
const NOTES: &str = "
@mod_wsgi.subscribe_shutdown
@mod_wsgi.subscribe_signals
def told(name, /, **details):
    group = mod_wsgi.application_group or 'main'
    note('%d %s %s %r' % (os.getpid(), group, name, details))
";

/// A server with [`APP`] and [`NOTES`] in two interpreters of one daemon process; gives that.
fn two_interpreters(options: &str) -> (Httpd, Process) {
    let config = format!(
        "WSGIRestrictEmbedded On\nWSGIDaemonProcess one {options}\n\
         WSGIScriptAlias /main ${{ROOT}}/app.wsgi process-group=one application-group=%{{GLOBAL}}\n\
         WSGIScriptAlias /sub ${{ROOT}}/app.wsgi process-group=one application-group=sub"
    );
    let site = Site::new(&config).file("app.wsgi", [APP, NOTES].concat());
    site.open_run();
    let httpd = site.start();
    let pid = |target| httpd.get(target).ok().parse::<i32>().unwrap();
    let (main, sub) = (pid("/main?os.getpid()"), pid("/sub?os.getpid()"));
    assert_eq!(main, sub);
    let process = Process::find(main).unwrap();
    (httpd, process)
}

#[test]
fn signals_reach_subscribers_in_every_interpreter() {
    ours_only!("6.1.1 tells a sub-interpreter twice and the main interpreter never");
    let (httpd, process) = two_interpreters("threads=2");
    for (signal, name) in [(Signal::SIGHUP, "SIGHUP"), (Signal::SIGUSR2, "SIGUSR2")] {
        process.signal(signal);
        for group in ["main", "sub"] {
            let number = signal as i32;
            httpd.wait_for_file(
                "run/notes",
                &format!(
                    "{} {group} process_signal {{'signame': '{name}', 'signum': {number}}}",
                    process.pid
                ),
            );
        }
    }
    // `event_callbacks` hears of them as well.
    let seen = "/main?[it[%22signame%22]%20for%20it%20in%20all(%22process_signal%22)]";
    assert_eq!(httpd.get(seen).ok(), "['SIGHUP', 'SIGUSR2']");
    assert!(process.is_alive());
}

/// Waits until both interpreters of `process` have been told that it ends for this reason.
#[track_caller]
fn expect_end(httpd: &Httpd, process: &Process, reason: &str) {
    for group in ["main", "sub"] {
        let details = format!("process_stopping {{'shutdown_reason': '{reason}'}}");
        httpd.wait_for_file("run/notes", &format!("{} {group} {details}", process.pid));
    }
    wait_for_end(Duration::from_secs(10), std::slice::from_ref(process));
}

#[test]
fn the_end_of_a_daemon_process_is_told_in_every_interpreter() {
    for (signal, reason) in
        [(Signal::SIGTERM, "shutdown_signal"), (Signal::SIGUSR1, "graceful_signal")]
    {
        let (httpd, process) = two_interpreters("threads=2");
        process.signal(signal);
        expect_end(&httpd, &process, reason);
    }
    let (httpd, process) = two_interpreters("threads=2 eviction-timeout=5");
    process.signal(Signal::SIGUSR1);
    expect_end(&httpd, &process, "eviction_signal");
}

#[test]
fn the_reason_is_the_one_the_process_ends_for() {
    let (httpd, process) = two_interpreters("threads=2 maximum-requests=3");
    httpd.get("/main?0").ok();
    expect_end(&httpd, &process, "maximum_requests");

    let (httpd, process) = two_interpreters("threads=2 restart-interval=2");
    expect_end(&httpd, &process, "restart_interval");

    let (httpd, process) = two_interpreters("threads=2 inactivity-timeout=2");
    expect_end(&httpd, &process, "inactivity_timeout");

    let (httpd, process) = two_interpreters("threads=2");
    httpd.write("app.wsgi", [APP, NOTES, "# changed\n"].concat());
    httpd.get("/main?0").ok();
    expect_end(&httpd, &process, "script_reload");

    let (httpd, process) = two_interpreters("threads=2");
    httpd.graceful();
    expect_end(&httpd, &process, "shutdown_signal");
}

#[test]
fn requests_run_on_while_subscribers_hear_of_the_end() {
    let config = "WSGIRestrictEmbedded On\nWSGIDaemonProcess one threads=2 shutdown-timeout=8\n\
                  WSGIScriptAlias / ${ROOT}/app.wsgi process-group=one application-group=%{GLOBAL}";
    let source = [APP, "mod_wsgi.subscribe_shutdown(lambda *_, **__: note('told'))\n"].concat();
    let site = Site::new(config).file("app.wsgi", source);
    site.open_run();
    let httpd = site.start();
    let process = Process::find(eval(&httpd, "os.getpid()").parse().unwrap()).unwrap();
    let mut slow = httpd.connect();
    slow.write(Request::get("/?note('runs'),time.sleep(2),os.getpid()").head()).unwrap();
    httpd.wait_for_file("run/notes", "runs");
    process.signal(Signal::SIGTERM);
    httpd.wait_for_file("run/notes", "told");
    assert!(process.is_alive());
    let answer = slow.read_response(false).unwrap().ok();
    assert_eq!(answer, format!("(None, None, {})", process.pid));
}

#[test]
fn a_subscriber_that_never_ends_does_not_keep_the_process() {
    let config = "WSGIRestrictEmbedded On\nWSGIDaemonProcess one threads=2 shutdown-timeout=1\n\
                  WSGIScriptAlias / ${ROOT}/app.wsgi process-group=one application-group=%{GLOBAL}";
    let source = [APP, "mod_wsgi.subscribe_shutdown(lambda *_, **__: time.sleep(60))\n"].concat();
    let mut httpd = Site::new(config).file("app.wsgi", source).start();
    httpd.allow_stacks();
    httpd.allow_error("  File \"");
    let process = Process::find(eval(&httpd, "os.getpid()").parse().unwrap()).unwrap();
    let begin = Instant::now();
    process.signal(Signal::SIGTERM);
    wait_for_end(Duration::from_secs(10), std::slice::from_ref(&process));
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    wait_until("another process", || {
        (eval(&httpd, "os.getpid()") != process.pid.to_string()).then_some(())
    });
}

#[test]
fn the_end_of_a_child_is_told_without_a_reason() {
    if mpm() == "prefork" && !is_ours() {
        return crate::harness::skip("httpd may kill a child before it comes to that");
    }
    let config = "WSGIScriptAlias /main ${ROOT}/app.wsgi application-group=%{GLOBAL}\n\
                  WSGIScriptAlias /sub ${ROOT}/app.wsgi application-group=sub";
    // One that crashes in httpd's own code, of which the harness is the judge, tells nothing.
    let ended = (0..5).find_map(|_| {
        let site = Site::new(config).one_child().file("app.wsgi", [APP, NOTES].concat());
        site.open_run();
        let mut httpd = site.start();
        let pid = httpd.get("/main?os.getpid()").ok();
        assert_eq!(httpd.get("/sub?os.getpid()").ok(), pid);
        httpd.end_by(Signal::SIGTERM);
        (!httpd.log().contains("exit signal Segmentation fault")).then_some((httpd, pid))
    });
    let (httpd, pid) = ended.expect("one child of five ends as it should");
    let notes = httpd.read("run/notes");
    for group in ["main", "sub"] {
        let told = format!("{pid} {group} process_stopping {{'shutdown_reason': ''}}");
        assert!(notes.contains(&told), "{notes}");
    }
}

#[test]
fn subscribers_to_signals_are_dropped_in_embedded_mode() {
    let httpd = site(Mode::Embedded).start();
    let subscribe = "mod_wsgi.subscribe_signals(application) is application, \
                     mod_wsgi.signal_callbacks";
    assert_eq!(eval(&httpd, subscribe), "(True, [])");
    httpd.wait_for_log("aemon mode");
    let log = httpd.log();
    let place = log.lines().find(|line| line.contains("app.wsgi\", line")).unwrap();
    assert!(place.contains("[wsgi:info]"), "{place}");
}

#[test]
fn a_service_hears_of_signals_and_of_its_end() {
    ours_only!("6.1.1 has nothing that listens in a service");
    let config = "WSGIRestrictEmbedded On\nWSGIDaemonProcess task threads=0\n\
                  WSGIImportScript ${ROOT}/app.wsgi process-group=task \
                  application-group=%{GLOBAL}";
    let run = "note('runs %d' % os.getpid())\nwhile True:\n    time.sleep(0.05)\n";
    let site = Site::new(config).file("app.wsgi", [APP, NOTES, run].concat());
    site.open_run();
    let httpd = site.start();
    httpd.wait_for_file("run/notes", "runs");
    let notes = httpd.read("run/notes");
    let pid: i32 = notes.trim().rsplit(' ').next().unwrap().parse().unwrap();
    let process = Process::find(pid).unwrap();
    process.signal(Signal::SIGHUP);
    httpd.wait_for_file("run/notes", &format!("{pid} main process_signal {{'signame': 'SIGHUP'"));
    process.signal(Signal::SIGUSR1);
    let told = format!("{pid} main process_stopping {{'shutdown_reason': 'graceful_signal'}}");
    httpd.wait_for_file("run/notes", &told);
}
