//! What `mod_wsgi.process_metrics()` and `request_metrics()` tell.
#![forbid(unsafe_code)]

use crate::harness::{Httpd, Mode, Process, Request, Site, eval, mpm, ours_only, wait_until};

/// Answers with the value of the Python expression in the query string; at `/slow` after
/// so many seconds, at `/status` with that status after reading the body.
const APP: &str = r#"
import mod_wsgi, os, time
from urllib.parse import unquote
def kinds(value):
    return {key: type(value[key]).__name__ for key in value}
def application(environ, start_response):
    query, path = unquote(environ['QUERY_STRING']), environ['PATH_INFO']
    status, answer = '200 OK', ''
    if path == '/slow':
        time.sleep(float(query))
    elif path == '/status':
        status, answer = query, environ['wsgi.input'].read().decode() * 2
    else:
        answer = str(eval(query))
    start_response(status, [('Content-Type', 'text/plain')])
    return [answer.encode()]
"#;

/// A server with [`APP`] in one process.
fn site(mode: Mode) -> Site {
    let site = Site::app(mode, APP).config("WSGIApplicationGroup %{GLOBAL}");
    match mode {
        Mode::Embedded => site.one_child(),
        Mode::Daemon => site,
    }
}

/// Runs `test` in both modes.
fn in_both_modes(test: impl Fn(&Httpd)) {
    for mode in [Mode::Embedded, Mode::Daemon] {
        eprintln!("{mode:?} mode");
        test(&site(mode).start());
    }
}

/// The keys of a dict and the types of their values, as Python shows them.
fn expected(keys: &[(&str, &str)]) -> String {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    let items = keys.iter().map(|(key, kind)| format!("('{key}', '{kind}')"));
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

/// Evaluates to the same for the dict `value`.
fn keys_of(value: &str) -> String {
    format!("sorted(kinds({value}).items())")
}

/// Whether a Python expression is true.
#[track_caller]
fn assert_true(httpd: &Httpd, expression: &str) {
    assert_eq!(eval(httpd, expression), "True", "{expression}");
}

#[test]
fn process_metrics_have_their_keys_and_types() {
    let keys = expected(&[
        ("pid", "int"),
        ("request_busy_time", "float"),
        ("request_count", "int"),
        ("memory_max_rss", "int"),
        ("memory_rss", "int"),
        ("cpu_user_time", "float"),
        ("cpu_system_time", "float"),
        ("cpu_time", "float"),
        ("restart_time", "float"),
        ("current_time", "float"),
        ("running_time", "int"),
        ("request_threads", "int"),
        ("active_requests", "int"),
        ("threads", "list"),
    ]);
    in_both_modes(|httpd| {
        // Without this the reference has none.
        eval(httpd, "mod_wsgi.start_recording_metrics()");
        assert_eq!(eval(httpd, &keys_of("mod_wsgi.process_metrics()")), keys);
        let threads = "[sorted(thread) for thread in mod_wsgi.process_metrics()['threads']][0]";
        assert_eq!(eval(httpd, threads), "['request_count', 'thread_id']");
        assert_true(httpd, "mod_wsgi.process_metrics()['pid'] == os.getpid()");
        assert_true(httpd, "mod_wsgi.process_metrics()['memory_rss'] > 1000000");
        assert_true(httpd, "abs(mod_wsgi.process_metrics()['current_time'] - time.time()) < 5");
    });
}

#[test]
fn a_process_counts_its_requests_without_being_asked() {
    ours_only!("row 91: the reference has no process_metrics() until recording begins");
    in_both_modes(|httpd| {
        let metric = |key: &str| eval(httpd, &format!("mod_wsgi.process_metrics()['{key}']"));
        let before: u64 = metric("request_count").parse().unwrap();
        let busy: f64 = metric("request_busy_time").parse().unwrap();
        httpd.get("/slow?0.2").ok();
        httpd.get("/slow?0.2").ok();
        // It counts when it has ended: its client may hear of the answer sooner.
        wait_until("the requests to be counted", || {
            let count: u64 = metric("request_count").parse().unwrap();
            (count >= before + 3).then_some(())
        });
        assert!(metric("request_busy_time").parse::<f64>().unwrap() >= busy + 0.4);
        assert_eq!(metric("active_requests"), "1");
        let sum = "sum(t['request_count'] for t in mod_wsgi.process_metrics()['threads'])";
        assert_true(httpd, &format!("{sum} > mod_wsgi.process_metrics()['request_count']"));
    });
}

#[test]
fn request_metrics_are_none_until_somebody_asks_for_them() {
    in_both_modes(|httpd| {
        assert_eq!(eval(httpd, "mod_wsgi.request_metrics()"), "None");
        assert_eq!(eval(httpd, "mod_wsgi.start_recording_metrics()"), "None");
        assert_eq!(eval(httpd, "type(mod_wsgi.request_metrics())"), "<class 'dict'>");
    });
}

/// What each phase of a request is called, and whether there is none when embedded.
const PHASES: [(&str, bool); 8] = [
    ("server_time", false),
    ("queue_time", true),
    ("daemon_time", true),
    ("application_time", false),
    ("request_time", false),
    ("gil_wait_time", false),
    ("input_read_time", false),
    ("output_write_time", false),
];

/// The keys of `request_metrics()` that do not belong to a phase.
const KEYS: [(&str, &str); 37] = [
    ("pid", "int"),
    ("start_time", "float"),
    ("stop_time", "float"),
    ("sample_period", "float"),
    ("cpu_user_utilization", "float"),
    ("cpu_user_time", "float"),
    ("cpu_system_utilization", "float"),
    ("cpu_system_time", "float"),
    ("cpu_utilization", "float"),
    ("cpu_time", "float"),
    ("memory_max_rss", "int"),
    ("memory_rss", "int"),
    ("request_threads_maximum", "int"),
    ("request_threads_started", "int"),
    ("request_threads_active", "int"),
    ("capacity_utilization", "float"),
    ("request_count", "int"),
    ("request_throughput", "float"),
    ("status_1xx", "int"),
    ("status_2xx", "int"),
    ("status_3xx", "int"),
    ("status_4xx", "int"),
    ("status_5xx", "int"),
    ("input_bytes", "int"),
    ("input_reads", "int"),
    ("output_bytes", "int"),
    ("output_writes", "int"),
    ("request_threads_completed", "list"),
    ("request_threads_buckets", "list"),
    ("request_threads_busy_time", "list"),
    ("request_threads_cpu_time", "list"),
    ("request_threads_current_elapsed", "list"),
    ("request_threads_max_duration", "list"),
    ("gil_wait_count", "int"),
    // In place of a phase's mean, which the modes differ in.
    ("server_time", "float"),
    ("application_time", "float"),
    ("request_time", "float"),
];

#[test]
fn request_metrics_have_their_keys_and_types() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        eprintln!("{mode:?} mode");
        let httpd = site(mode).start();
        let mut keys: Vec<(String, &str)> =
            KEYS.iter().map(|(key, kind)| ((*key).to_owned(), *kind)).collect();
        for (phase, is_daemons) in PHASES {
            let is_there = mode == Mode::Daemon || !is_daemons;
            let (mean, end) = if is_there { ("float", "int") } else { ("NoneType", "NoneType") };
            if !keys.iter().any(|(key, _)| key == phase) {
                keys.push((phase.to_owned(), mean));
            }
            keys.push((format!("{phase}_min_us"), end));
            keys.push((format!("{phase}_max_us"), end));
            keys.push((format!("{phase}_buckets"), "list"));
        }
        let keys: Vec<_> = keys.iter().map(|(key, kind)| (&**key, *kind)).collect();
        eval(&httpd, "mod_wsgi.start_recording_metrics()");
        httpd.get("/slow?0").ok();
        wait_until("a period with a request", || {
            let found = eval(
                &httpd,
                "(lambda m: m['request_count'] and kinds(m))(mod_wsgi.request_metrics())",
            );
            (found != "0").then_some(())
        });
        // Of the request that has just asked, which has surely ended when this one runs.
        httpd.get("/slow?0").ok();
        assert_eq!(eval(&httpd, &keys_of("mod_wsgi.request_metrics()")), expected(&keys));
    }
}

#[test]
fn a_period_tells_what_its_requests_were() {
    in_both_modes(|httpd| {
        eval(httpd, "mod_wsgi.start_recording_metrics()");
        httpd.send(&Request::post("/status?404%20Gone", "hello"));
        httpd.send(&Request::post("/status?302%20There", "hello"));
        httpd.get("/slow?0.3").ok();
        // The request that began to record is one of them, the one that asks is not.
        let ended = "mod_wsgi.process_metrics()['request_count'] >= 4";
        wait_until("the requests to be counted", || (eval(httpd, ended) == "True").then_some(()));
        eval(httpd, "globals().update(m=mod_wsgi.request_metrics())");
        for (key, least) in [("status_2xx", 2), ("status_3xx", 1), ("status_4xx", 1)] {
            assert_true(httpd, &format!("m['{key}'] >= {least}"));
        }
        assert_eq!(eval(httpd, "m['status_1xx'], m['status_5xx']"), "(0, 0)");
        assert_true(
            httpd,
            "m['request_count'] == sum(m[f'status_{c}xx'] for c in range(1, 6)) \
             == sum(m['application_time_buckets']) == sum(m['request_threads_completed'])",
        );
        assert_true(httpd, "m['input_bytes'] == 10 and m['input_reads'] >= 2");
        assert_true(httpd, "m['output_bytes'] >= 20 and m['output_writes'] >= 3");
        assert_true(httpd, "len(m['request_time_buckets']) == 65");
        // 256 to 320 ms are one place; a busy machine may make it later.
        assert_true(httpd, "sum(m['application_time_buckets'][32:]) == 1");
        assert_true(httpd, "m['application_time_max_us'] >= 300000");
        assert_true(httpd, "m['request_time_max_us'] >= m['application_time_max_us']");
        assert_true(httpd, "max(m['request_threads_max_duration']) >= 0.3");
        assert_true(httpd, "sum(m['request_threads_busy_time']) >= 0.3");
        assert_true(httpd, "0 < m['capacity_utilization'] <= 1");
        assert_true(httpd, "m['gil_wait_count'] > 0");
        assert_true(httpd, "len(m['request_threads_completed']) == m['request_threads_maximum']");
    });
}

#[test]
fn each_call_begins_another_period() {
    ours_only!("row 90: the reference's periods have no beginning");
    in_both_modes(|httpd| {
        eval(httpd, "mod_wsgi.start_recording_metrics()");
        let stop: f64 = eval(httpd, "mod_wsgi.request_metrics()['stop_time']").parse().unwrap();
        let next = "(lambda m: [m['start_time'], m['stop_time'] - m['start_time'], \
             m['sample_period'], m['request_count']])(mod_wsgi.request_metrics())";
        let answer = eval(httpd, next);
        let numbers: Vec<f64> =
            answer.trim_matches(['[', ']']).split(", ").map(|it| it.parse().unwrap()).collect();
        assert!((numbers[0] - stop).abs() < 1e-5, "{answer}");
        assert!(numbers[1] > 0.0 && (numbers[1] - numbers[2]).abs() < 1e-5, "{answer}");
        assert!(numbers[3] <= 2.0, "{answer}");
    });
}

#[test]
fn a_request_that_runs_is_seen_from_another() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        eprintln!("{mode:?} mode");
        if mode == Mode::Embedded && mpm() == "prefork" {
            // A child process has but one.
            continue;
        }
        let httpd = &site(mode).start();
        eval(httpd, "mod_wsgi.start_recording_metrics()");
        let mut connection = httpd.connect();
        connection.write(Request::get("/slow?3").head()).unwrap();
        wait_until("the request to run", || {
            let active = eval(httpd, "mod_wsgi.process_metrics()['active_requests']");
            (active == "2").then_some(())
        });
        let elapsed = "max(mod_wsgi.request_metrics()['request_threads_current_elapsed'])";
        wait_until("it to have run for a while", || {
            let elapsed: f64 = eval(httpd, elapsed).parse().unwrap();
            (elapsed > 0.5).then_some(())
        });
        connection.read_response(false).unwrap().ok();
    }
}

#[test]
fn all_interpreters_of_a_process_share_the_figures() {
    let config = "WSGIDaemonProcess app threads=2\nWSGIProcessGroup app\n\
        WSGIScriptAlias /one ${ROOT}/app.wsgi application-group=one\n\
        WSGIScriptAlias / ${ROOT}/app.wsgi application-group=%{GLOBAL}";
    let httpd = Site::new(config).file("app.wsgi", APP).start();
    httpd.get("/one/?mod_wsgi.start_recording_metrics()").ok();
    httpd.get("/one/slow?0.1").ok();
    let ended = "mod_wsgi.process_metrics()['request_count'] >= 2";
    wait_until("the requests to be counted", || (eval(&httpd, ended) == "True").then_some(()));
    assert_true(&httpd, "mod_wsgi.request_metrics()['application_time_max_us'] >= 100000");
}

#[test]
fn the_functions_take_no_arguments() {
    let httpd = site(Mode::Daemon).start();
    for name in ["process_metrics", "request_metrics", "start_recording_metrics"] {
        let expression = format!(
            "(lambda: exec('try:\\n mod_wsgi.{name}(1)\\nexcept TypeError: t=1', globals()))() or t"
        );
        assert_eq!(eval(&httpd, &expression), "1", "{name}");
    }
}

/// A site in this mode whose application may see the server, or not.
fn observer(mode: Mode, may_see: bool) -> Site {
    let switch = if may_see { "On" } else { "Off" };
    let config = match mode {
        Mode::Embedded => format!("WSGIServerMetrics {switch}"),
        Mode::Daemon => format!(
            "WSGIRestrictEmbedded On\nWSGIDaemonProcess app server-metrics={switch}\n\
             WSGIProcessGroup app"
        ),
    };
    Site::new(&config)
        .config("ExtendedStatus On\nWSGIApplicationGroup %{GLOBAL}")
        .config("WSGIScriptAlias / ${ROOT}/app.wsgi")
        .file("app.wsgi", APP)
        .one_child()
}

/// Waits until the application sees the server.
#[track_caller]
fn wait_for_metrics(httpd: &Httpd) {
    wait_until("server_metrics()", || {
        (eval(httpd, "mod_wsgi.server_metrics() is None") == "False").then_some(())
    });
}

#[test]
fn server_metrics_are_for_those_who_may_see_them() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        eprintln!("{mode:?} mode");
        let httpd = observer(mode, false).start();
        assert_eq!(eval(&httpd, "mod_wsgi.server_metrics()"), "None");
        wait_for_metrics(&observer(mode, true).start());
    }
}

#[test]
fn server_metrics_have_their_keys_and_types() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        eprintln!("{mode:?} mode");
        let httpd = observer(mode, true).start();
        wait_for_metrics(&httpd);
        let keys = expected(&[
            ("server_limit", "int"),
            ("thread_limit", "int"),
            ("running_generation", "int"),
            ("restart_time", "float"),
            ("current_time", "float"),
            ("running_time", "int"),
            ("processes", "list"),
        ]);
        assert_eq!(eval(&httpd, &keys_of("mod_wsgi.server_metrics()")), keys);
        let keys = expected(&[
            ("process_num", "int"),
            ("pid", "int"),
            ("generation", "int"),
            ("quiescing", "bool"),
            ("workers", "list"),
        ]);
        assert_eq!(eval(&httpd, &keys_of("mod_wsgi.server_metrics()['processes'][0]")), keys);
        let keys = expected(&[
            ("thread_num", "int"),
            ("generation", "int"),
            ("status", "str"),
            ("access_count", "int"),
            ("bytes_served", "int"),
            ("start_time", "float"),
            ("stop_time", "float"),
            ("last_used", "float"),
            ("client", "str"),
            ("request", "str"),
            ("vhost", "str"),
        ]);
        let worker = "mod_wsgi.server_metrics()['processes'][0]['workers'][0]";
        assert_eq!(eval(&httpd, &keys_of(worker)), keys);
    }
}

#[test]
fn a_request_that_runs_is_in_the_server_metrics() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        eprintln!("{mode:?} mode");
        let site = observer(mode, true);
        // Under prefork the one who asks needs a child of its own.
        let httpd = site.config("MaxRequestWorkers 20\nStartServers 2").start();
        let mut connection = httpd.connect();
        connection.write(Request::get("/slow?5").head()).unwrap();
        let found = "[(p['pid'] > 0, w['client'], w['vhost']) for p in \
            (mod_wsgi.server_metrics() or {'processes': []})['processes'] for w in p['workers'] \
            if w['status'] == 'W' and w['request'].startswith('GET /slow?5')]";
        let port = httpd.port();
        wait_until("the request to be seen", || {
            let seen = eval(&httpd, found);
            seen.starts_with("[(True, '127.0.0.1', '").then_some(()).inspect(|()| {
                assert!(seen.contains(&format!(":{port}'")), "{seen}");
            })
        });
        connection.read_response(false).unwrap().ok();
    }
}

#[test]
fn a_thread_sees_the_server_without_any_request() {
    let source = "
import mod_wsgi, os, threading, time
path = os.path.dirname(__file__) + '/run/seen'
def look():
    last = 0
    while True:
        metrics = mod_wsgi.server_metrics()
        if metrics and metrics['current_time'] != last:
            last = metrics['current_time']
            with open(path, 'a') as file:
                print(last, file=file)
        time.sleep(0.05)
threading.Thread(target=look, daemon=True).start()
def application(environ, start_response):
    start_response('200 OK', [])
    return [b'']
";
    let config = "WSGIRestrictEmbedded On\n\
        WSGIDaemonProcess one server-metrics=On graceful=keep\n\
        WSGIScriptAlias / ${ROOT}/app.wsgi process-group=one application-group=%{GLOBAL}";
    let config = match crate::harness::is_ours() {
        true => config.to_owned(),
        false => config.replace(" graceful=keep", ""),
    };
    let site = Site::new(&config).file("app.wsgi", source);
    site.open_run();
    let httpd = site.start();
    httpd.get("/").ok();
    let lines = || std::fs::read_to_string(httpd.path("run/seen")).unwrap_or_default();
    let count = || lines().lines().count();
    wait_until("three looks", || (count() >= 3).then_some(()));
    if crate::harness::is_ours() {
        // The process stays, the children that copied for it do not.
        httpd.graceful();
        let before = count();
        wait_until("looks after a restart", || (count() >= before + 3).then_some(()));
    }
}

#[test]
fn only_groups_that_may_see_the_server_have_its_memory() {
    ours_only!("the reference shares httpd's scoreboard with all");
    let config = "WSGIRestrictEmbedded On\nWSGIDaemonProcess one server-metrics=On\n\
        WSGIDaemonProcess two\n\
        WSGIScriptAlias /one ${ROOT}/app.wsgi process-group=one application-group=%{GLOBAL}\n\
        WSGIScriptAlias /two ${ROOT}/app.wsgi process-group=two application-group=%{GLOBAL}";
    let httpd = Site::new(config).file("app.wsgi", APP).start();
    let process = |path: &str| {
        let pid = httpd.get(&format!("{path}/?os.getpid()")).ok().parse().unwrap();
        Process::find(pid).expect("it has just answered")
    };
    let of = |process: &Process| -> Vec<String> {
        let maps = process.maps();
        maps.lines().filter(|line| line.contains("wsgi-snapshot")).map(str::to_owned).collect()
    };
    let seen = of(&process("/one"));
    assert!(seen.len() == 1 && seen[0].contains(" r--s "), "{seen:?}");
    assert_eq!(of(&process("/two")), Vec::<String>::new());
    // A descriptor could be opened again, to write.
    let open = "[os.readlink('/proc/self/fd/' + fd) for fd in os.listdir('/proc/self/fd') \
        if os.path.lexists('/proc/self/fd/' + fd)]";
    let escaped: String = open.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let descriptors = httpd.get(&format!("/one/?{escaped}")).ok();
    assert!(descriptors.contains("socket:") && !descriptors.contains("snapshot"), "{descriptors}");
}
