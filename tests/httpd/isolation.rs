//! What keeps daemon processes of different groups, and httpd, apart.
#![forbid(unsafe_code)]

use crate::harness::{Httpd, Process, Site, ours_only};

/// Answers with its process id, its session and its process group.
const APP: &str = "
import os
def application(environ, start_response):
    start_response('200 OK', [])
    return [('%d %d %d' % (os.getpid(), os.getsid(0), os.getpgrp())).encode()]
";

/// A server with two groups, at `/one` and `/two`.
fn two_groups() -> Httpd {
    let mut config = "WSGIRestrictEmbedded On\n".to_owned();
    for name in ["one", "two"] {
        config.push_str(&format!(
            "WSGIDaemonProcess {name}\n\
             WSGIScriptAlias /{name} ${{ROOT}}/app.wsgi process-group={name}\n"
        ));
    }
    Site::new(&config).file("app.wsgi", APP).start()
}

#[test]
fn a_daemon_process_maps_its_own_scoreboard_only() {
    ours_only!("the reference has another scoreboard");
    let httpd = two_groups();
    for group in ["/one", "/two"] {
        let answer = httpd.get(group).ok();
        let pid = answer.split(' ').next().unwrap().parse().unwrap();
        let maps = Process::find(pid).expect("it has just answered").maps();
        let boards = maps.lines().filter(|line| line.contains("wsgi-scoreboard")).count();
        assert_eq!(boards, 1, "{maps}");
    }
}

#[test]
fn a_daemon_process_has_a_session_of_its_own() {
    ours_only!("the reference's daemon processes share httpd's process group");
    let httpd = two_groups();
    let answer = httpd.get("/one").ok();
    let ids: Vec<&str> = answer.split(' ').collect();
    assert_eq!((ids[1], ids[2]), (ids[0], ids[0]));
}
