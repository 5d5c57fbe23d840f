//! What the processes of a server hold, from its start to its end.
#![forbid(unsafe_code)]

use crate::harness::{Site, ours_only};

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
