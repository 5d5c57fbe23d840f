//! What the processes of a server hold, from its start to its end.
#![forbid(unsafe_code)]

use std::fs;

use nix::sys::signal::Signal;

use crate::harness::{Process, Site, ours_only, wait_until};

/// Answers with its process id.
const APP: &str = "
import os
def application(environ, start_response):
    start_response('200 OK', [])
    return [str(os.getpid()).encode()]
";

#[test]
fn a_daemon_process_maps_no_scoreboard_but_its_own() {
    ours_only!("the reference has no scoreboard of its own");
    let httpd = Site::new(
        "WSGIDaemonProcess one\nWSGIDaemonProcess two\nWSGIDaemonProcess three\n\
         WSGIProcessGroup two\nWSGIScriptAlias / ${ROOT}/app.wsgi",
    )
    .file("app.wsgi", APP)
    .start();
    httpd.get("/").ok();
    let family = httpd.processes();
    let daemons = family.iter().filter(|process| process.title().starts_with("wsgi: daemon"));
    let mut seen = 0;
    for process in daemons {
        let maps = process.maps();
        let shared = maps.lines().filter(|line| line.split(' ').nth(1).unwrap().ends_with('s'));
        assert_eq!(shared.count(), 1, "{}\n{maps}", process.title());
        seen += 1;
    }
    assert!(seen >= 2, "{family:?}");
}

/// What the descriptors of a process refer to.
fn descriptors(process: &Process) -> Vec<String> {
    let numbers = fs::read_dir(format!("/proc/{}/fd", process.pid)).unwrap().flatten();
    numbers
        .filter_map(|number| fs::read_link(number.path()).ok())
        .map(|target| target.display().to_string())
        .collect()
}

#[test]
fn a_rotated_log_is_let_go_of_at_a_graceful_restart() {
    ours_only!("the reference has no supervisor");
    let httpd = Site::new(
        "<VirtualHost *:${PORT}>\nErrorLog ${ROOT}/host.log\nWSGIDaemonProcess one\n\
         WSGIProcessGroup one\nWSGIScriptAlias / ${ROOT}/app.wsgi\n</VirtualHost>",
    )
    .file(
        "app.wsgi",
        "import time\n".to_owned() + &APP.replace("    start", "    time.sleep(1)\n    start"),
    )
    .start();
    let first = Process::find(httpd.get("/").ok().parse().unwrap()).unwrap();
    let supervisor = httpd.supervisor_of(first.pid).unwrap();
    // It keeps the old process for a while.
    let mut slow = httpd.connect();
    slow.write(crate::harness::Request::get("/").head()).unwrap();
    for name in ["error.log", "host.log"] {
        fs::rename(httpd.path(name), httpd.path(&format!("{name}.1"))).unwrap();
    }
    httpd.parent().signal(Signal::SIGUSR1);
    for process in [supervisor, first] {
        wait_until("the old logs to be closed", || {
            let open = if process.is_alive() { descriptors(&process) } else { Vec::new() };
            (!open.iter().any(|target| target.ends_with(".log.1"))).then_some(())
        });
        let open = if process.is_alive() { descriptors(&process) } else { Vec::new() };
        assert!(open.is_empty() || open.iter().any(|target| target.ends_with(".log")), "{open:?}");
    }
    slow.read_response(false).unwrap().ok();
    fs::rename(httpd.path("error.log.1"), httpd.path("error.log")).unwrap();
}

#[test]
fn one_process_for_debugging_serves_daemon_mode() {
    let site = Site::new(
        "WSGIDaemonProcess one\nWSGIProcessGroup one\nWSGIScriptAlias / ${ROOT}/app.wsgi",
    )
    .file("app.wsgi", APP);
    site.write_config();
    let mut httpd = site.command().arg("-X").spawn().unwrap();
    let url = format!("http://127.0.0.1:{}/", site.port());
    let get = || std::process::Command::new("curl").args(["-sf", "-m5", &url]).output().unwrap();
    // Twice: what the start left open may serve the first.
    for _ in 0..2 {
        wait_until("an answer", || get().status.success().then_some(()));
    }
    let daemon = Process::find(String::from_utf8(get().stdout).unwrap().parse().unwrap()).unwrap();
    let parent = Process::find(httpd.id().cast_signed()).unwrap();
    parent.signal(Signal::SIGTERM);
    httpd.wait().unwrap();
    crate::harness::wait_for_end(std::time::Duration::from_secs(5), &[daemon]);
}
