//! Restarting and stopping httpd: nothing is lost, nothing is left.
#![forbid(unsafe_code)]

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{
    Httpd, Load, Mode, Process, Request, Site, expect_served, mpm, ours_only, wait_for_end,
    wait_until,
};

/// Answers with its process id and generation, `/slow` after so many seconds as the query says.
const APP: &str = r#"
import os, time
ROOT = os.path.dirname(__file__)
def application(environ, start_response):
    if environ['PATH_INFO'] == '/slow':
        open(ROOT + '/run/slow', 'w').close()
        time.sleep(float(environ['QUERY_STRING']))
    start_response('200 OK', [])
    return [str(os.getpid()).encode()]
"#;

/// A server with [`APP`] in this mode.
fn start(mode: Mode) -> Httpd {
    let site = Site::app(mode, APP);
    site.open_run();
    site.start()
}

#[test]
fn ten_graceful_restarts_cost_no_request_and_no_stall() {
    ours_only!("row 2: the reference ends daemon processes after 3 s and stalls meanwhile");
    let config = "WSGIRestrictEmbedded On\nWSGIDaemonProcess one processes=2 threads=8\nWSGIProcessGroup one";
    let site = Site::new(config)
        .config("WSGIScriptAlias / ${ROOT}/app.wsgi")
        .config(if mpm() == "prefork" { "StartServers 12" } else { "" })
        .file("app.wsgi", APP);
    site.open_run();
    let httpd = site.start();
    httpd.get("/").ok();
    let fast = Load::start(&httpd, 3, "/");
    let slow = Load::start(&httpd, 4, "/slow?3");
    wait_until("slow requests to run", || httpd.path("run/slow").exists().then_some(()));
    for _ in 0..10 {
        httpd.graceful();
        fast.wait_for(50);
    }
    let (slow, fast) = (slow.stop(), fast.stop());
    let stall = Duration::from_secs(1);
    expect_served(&fast, stall);
    expect_served(&slow, Duration::from_secs(3) + stall);
    assert!(slow.len() >= 4, "{} slow requests", slow.len());
}

#[test]
fn a_graceful_restart_does_not_stall_static_files() {
    ours_only!("httpd alone serves nobody for up to a second while all its children drain");
    let site = Site::app(Mode::Daemon, APP)
        .config("Alias /files ${ROOT}/htdocs")
        .file("htdocs/plain.txt", "a file")
        .config(if mpm() == "prefork" { "StartServers 10" } else { "" });
    site.open_run();
    let httpd = site.start();
    let slow = Load::start(&httpd, 2, "/slow?3");
    wait_until("slow requests to run", || httpd.path("run/slow").exists().then_some(()));
    let files = Load::start(&httpd, 1, "/files/plain.txt");
    for _ in 0..5 {
        files.wait_for(50);
        httpd.graceful();
    }
    files.wait_for(50);
    // Measured: 20 to 80 ms on two busy cores; more than 1 s if httpd sleeps.
    expect_served(&files.stop(), Duration::from_millis(700));
    expect_served(&slow.stop(), Duration::from_secs(4));
}

#[test]
fn embedded_applications_survive_graceful_restarts() {
    let httpd = start(Mode::Embedded);
    let slow = Load::start(&httpd, 1, "/slow?1");
    wait_until("a slow request to run", || httpd.path("run/slow").exists().then_some(()));
    for _ in 0..2 {
        httpd.graceful();
        httpd.get("/").ok();
    }
    expect_served(&slow.stop(), Duration::from_secs(5));
}

#[test]
fn a_graceful_restart_brings_new_daemon_processes() {
    let httpd = start(Mode::Daemon);
    let before = httpd.get("/").ok();
    httpd.graceful();
    wait_until("another process to answer", || (httpd.get("/").ok() != before).then_some(()));
    let old = Process::find(before.parse().unwrap());
    wait_for_end(Duration::from_secs(20), &Vec::from_iter(old));
}

#[test]
fn a_group_that_keeps_its_processes_keeps_them_until_it_changes() {
    ours_only!("graceful= is ours");
    let config = |threads: u32| {
        format!(
            "WSGIDaemonProcess one graceful=keep threads={threads}\n\
             WSGIScriptAlias / ${{ROOT}}/app.wsgi process-group=one"
        )
    };
    let mut httpd = Site::new(&config(3)).file("app.wsgi", APP).start();
    let before = httpd.get("/").ok();
    httpd.graceful();
    httpd.graceful();
    assert_eq!(httpd.get("/").ok(), before);
    httpd.reconfigure(&config(4));
    httpd.graceful();
    wait_until("another process to answer", || (httpd.get("/").ok() != before).then_some(()));
}

#[test]
fn the_supervisor_outlives_graceful_restarts() {
    ours_only!("the reference has no supervisor");
    let httpd = start(Mode::Daemon);
    let supervisor = |text: String| httpd.supervisor_of(text.parse().unwrap()).unwrap();
    let before = supervisor(httpd.get("/").ok());
    for _ in 0..3 {
        httpd.graceful();
        assert_eq!(supervisor(httpd.get("/").ok()).pid, before.pid);
    }
}

#[test]
fn a_hard_restart_brings_applications_back() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let httpd = start(mode);
        httpd.get("/").ok();
        for _ in 0..2 {
            httpd.restart();
            httpd.get("/").ok();
        }
    }
}

#[test]
fn a_hard_restart_spares_daemon_processes_that_load() {
    ours_only!("the reference starts them anew");
    let config = "WSGIDaemonProcess one\n\
        WSGIScriptAlias / ${ROOT}/app.wsgi process-group=one application-group=%{GLOBAL}";
    let source = "
import os, time
os.write(os.open(os.path.dirname(__file__) + '/run/loads', os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), b'x')
time.sleep(0.5)
".to_owned() + APP;
    let site = Site::new(config).file("app.wsgi", source);
    site.open_run();
    let httpd = site.start();
    httpd.get("/").ok();
    // One that ended before it was ready would be an error in the log.
    for loads in ["xx", "xxx"] {
        httpd.restart();
        httpd.wait_for_file("run/loads", loads);
    }
    httpd.get("/").ok();
}

#[test]
fn a_restart_adds_and_removes_groups() {
    let config = |name: &str| {
        format!(
            "WSGIDaemonProcess {name}\nWSGIProcessGroup {name}\nWSGIScriptAlias / ${{ROOT}}/app.wsgi"
        )
    };
    let mut httpd = Site::new(&config("one")).file("app.wsgi", APP).start();
    let first = Process::find(httpd.get("/").ok().parse().unwrap()).unwrap();
    httpd.reconfigure(&config("two"));
    httpd.graceful();
    let second = wait_until("the second group to answer", || {
        let text = httpd.try_send(&Request::get("/")).ok()?.text();
        (text != first.pid.to_string()).then_some(text)
    });
    wait_for_end(Duration::from_secs(20), &[first]);
    assert!(Process::find(second.parse().unwrap()).is_some());
}

#[test]
fn requests_that_wait_for_a_group_outlive_its_removal() {
    ours_only!("row 2: the reference ends daemon processes after 3 s");
    let config = |name: &str| {
        format!(
            "WSGIDaemonProcess {name} threads=1\nWSGIProcessGroup {name}\n\
             WSGIScriptAlias / ${{ROOT}}/app.wsgi"
        )
    };
    let site = Site::new(&config("one")).file("app.wsgi", APP);
    site.open_run();
    let mut httpd = site.start();
    let old = Process::find(httpd.get("/").ok().parse().unwrap()).unwrap();
    let mut clients: Vec<_> = (0..3).map(|_| httpd.connect()).collect();
    for client in &mut clients {
        client.write(Request::get("/slow?0.7").head()).unwrap();
    }
    wait_until("a slow request to run", || httpd.path("run/slow").exists().then_some(()));
    httpd.reconfigure(&config("two"));
    httpd.graceful();
    for client in &mut clients {
        assert_eq!(client.read_response(false).unwrap().ok(), old.pid.to_string());
    }
    assert_ne!(httpd.get("/").ok(), old.pid.to_string());
    wait_for_end(Duration::from_secs(5), &[old]);
}

#[test]
fn a_broken_configuration_does_not_stop_what_runs() {
    let mut httpd = start(Mode::Daemon);
    httpd.get("/").ok();
    httpd.reconfigure("WSGIDaemonProcess one threads=-1");
    let (good, _) = Site::new("WSGIDaemonProcess one threads=-1").configtest();
    assert!(!good);
    // As apachectl does: it asks before it signals.
    httpd.get("/").ok();
}

#[test]
fn stopping_leaves_no_process() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let mut httpd = start(mode);
        httpd.get("/").ok();
        let family = httpd.processes();
        assert!(family.len() >= 2, "{family:?}");
        httpd.end_by(Signal::SIGTERM);
        wait_for_end(Duration::from_secs(2), &family);
    }
}

#[test]
fn a_child_process_does_not_wait_for_a_busy_application() {
    if mpm() != "prefork" {
        return crate::harness::skip("with threads httpd itself waits for them, for ten seconds");
    }
    ours_only!("what the reference does is not known");
    let source = "
import os, time
def application(environ, start_response):
    open(os.path.dirname(__file__) + '/run/slow', 'w').close()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        pass
";
    let site = Site::app(Mode::Embedded, source);
    site.open_run();
    let mut httpd = site.start();
    let mut busy = httpd.connect();
    busy.write(Request::get("/").head()).unwrap();
    wait_until("the request to run", || httpd.path("run/slow").exists().then_some(()));
    let (start, family) = (std::time::Instant::now(), httpd.processes());
    httpd.end_by(Signal::SIGTERM);
    wait_for_end(Duration::from_secs(2), &family);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_graceful_stop_lets_requests_finish() {
    let modes = if crate::harness::is_ours() {
        vec![Mode::Embedded, Mode::Daemon]
    } else {
        // The reference ends daemon processes while children still wait for them.
        vec![Mode::Embedded]
    };
    for mode in modes {
        let mut httpd = start(mode);
        httpd.get("/").ok();
        let mut slow = httpd.connect();
        slow.write(Request::get("/slow?2").head()).unwrap();
        wait_until("the slow request to run", || httpd.path("run/slow").exists().then_some(()));
        let family = httpd.processes();
        httpd.parent().signal(Signal::SIGWINCH);
        slow.read_response(false).unwrap().ok();
        httpd.end_by(Signal::SIGWINCH);
        wait_for_end(Duration::from_secs(3), &family);
    }
}

#[test]
fn stopping_right_after_the_start_leaves_nothing() {
    for _ in 0..5 {
        let mut httpd = start(Mode::Daemon);
        let family = httpd.processes();
        httpd.end_by(Signal::SIGTERM);
        wait_for_end(Duration::from_secs(3), &family);
    }
}

#[test]
fn a_broken_script_does_not_displace_a_good_one() {
    ours_only!("row 9: the reference starts processes that cannot serve");
    let config = "WSGIDaemonProcess one\nWSGIScriptReloading Off\n\
        WSGIScriptAlias / ${ROOT}/app.wsgi process-group=one application-group=%{GLOBAL}";
    let mut httpd = Site::new(config).file("app.wsgi", APP).start();
    httpd.allow_error("WSGI");
    httpd.expect_error("SyntaxError");
    httpd.allow_error("app.wsgi");
    let before = httpd.get("/").ok();
    httpd.write("app.wsgi", "def application(:\n");
    httpd.graceful();
    httpd.wait_for_log("SyntaxError");
    assert_eq!(httpd.get("/").ok(), before);
}

#[test]
fn a_group_that_outgrows_its_scoreboard_loses_no_request() {
    ours_only!("the reference has no queue over restarts");
    let config = |threads: u32| {
        format!(
            "WSGIRestrictEmbedded On\nWSGIDaemonProcess one threads={threads}\n\
             WSGIProcessGroup one\nWSGIScriptAlias / ${{ROOT}}/app.wsgi"
        )
    };
    let site = Site::new(&config(1)).file("app.wsgi", APP);
    site.open_run();
    let mut httpd = site.start();
    httpd.get("/").ok();
    // One runs, the others wait for the only thread while the group changes.
    let slow = Load::start(&httpd, 4, "/slow?1.5");
    wait_until("a slow request to run", || httpd.path("run/slow").exists().then_some(()));
    httpd.reconfigure(&config(100));
    httpd.graceful();
    httpd.get("/").ok();
    expect_served(&slow.stop(), Duration::from_secs(12));
}

/// Announces that `app.wsgi` cannot be loaded, and that replacements say so.
fn allow_a_broken_script(httpd: &mut Httpd) {
    for text in ["WSGI9104", "WSGI9102", "WSGI01", "Traceback", "app.wsgi", "broken"] {
        httpd.allow_error(text);
    }
}

#[test]
fn a_replacement_that_failed_serves_where_the_old_process_has_stopped_to() {
    ours_only!("row 9: the reference starts processes that cannot serve");
    let config = "WSGIDaemonProcess one\nWSGIScriptAlias / ${ROOT}/app.wsgi \
        process-group=one application-group=%{GLOBAL}";
    let mut httpd = Site::new(config).file("app.wsgi", APP).start();
    allow_a_broken_script(&mut httpd);
    let old = Process::find(httpd.get("/").ok().parse().unwrap()).unwrap();
    // The replacement takes long enough to fail that the old process is gone by then.
    let broken = "import time\ntime.sleep(1.5)\nraise KeyError('broken')\n";
    httpd.write("app.wsgi", broken);
    httpd.graceful();
    old.signal(Signal::SIGTERM);
    wait_for_end(Duration::from_secs(10), &[old]);
    assert_eq!(httpd.get("/").status, 500, "not 503");
    httpd.write("app.wsgi", APP);
    wait_until("the mended script", || (httpd.get("/").status == 200).then_some(()));
}

#[test]
fn a_process_that_cannot_load_its_script_does_not_serve_beside_one_that_could() {
    ours_only!("row 9: the reference starts processes that cannot serve");
    let config = "WSGIDaemonProcess one processes=2\nWSGIScriptReloading Off\n\
        WSGIScriptAlias / ${ROOT}/app.wsgi process-group=one application-group=%{GLOBAL}";
    let site = Site::new(config).file("app.wsgi", APP);
    site.open_run();
    let mut httpd = site.start();
    allow_a_broken_script(&mut httpd);
    httpd.expect_error("WSGI9101");
    httpd.get("/").ok();
    let load = Load::start(&httpd, 4, "/slow?0.1");
    load.wait_for_texts(2);
    load.stop();
    httpd.write("app.wsgi", "raise KeyError('broken')\n");
    let pid = httpd.get("/").ok().parse().unwrap();
    Process::find(pid).unwrap().signal(Signal::SIGKILL);
    httpd.wait_for_log("WSGI9104");
    for _ in 0..12 {
        assert_eq!(httpd.get("/").status, 200);
    }
}

#[test]
fn an_old_process_lives_by_the_options_it_was_started_with() {
    ours_only!("row 2: the reference ends old processes at once");
    let config = |options: &str| {
        format!(
            "WSGIRestrictEmbedded On\nWSGIDaemonProcess one threads=3 {options}\n\
             WSGIProcessGroup one\nWSGIScriptAlias / ${{ROOT}}/app.wsgi"
        )
    };
    let site = Site::new(&config("deadlock-timeout=300")).file("app.wsgi", APP);
    site.open_run();
    let mut httpd = site.start();
    httpd.get("/").ok();
    let slow = Load::start(&httpd, 1, "/slow?6");
    wait_until("the slow request to run", || httpd.path("run/slow").exists().then_some(()));
    // Its heart beats for a timeout of 300 s: too seldom for one of a second.
    httpd.reconfigure(&config("deadlock-timeout=1"));
    httpd.graceful();
    expect_served(&slow.stop(), Duration::from_secs(12));
}
