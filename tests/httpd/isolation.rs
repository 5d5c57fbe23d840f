//! What keeps daemon processes of different groups, and httpd, apart.
#![forbid(unsafe_code)]

use nix::sys::signal::Signal;

use crate::harness::{Httpd, Process, Site, is_root, ours_only, skip, wait_until};
use crate::identity::memory_holds;

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

/// A configuration in which each of two groups, at `/one` and `/two`, has a secret.
fn secrets(one: &str, two: &str) -> String {
    let group = |name, secret| {
        format!(
            "WSGIDaemonProcess {name} env=SECRET={secret} env=\"QUOTED=a \\\"{secret}\\\" b\"\n\
             WSGIScriptAlias /{name} ${{ROOT}}/app.wsgi process-group={name}\n"
        )
    };
    ["WSGIRestrictEmbedded On\n".to_owned(), group("one", one), group("two", two)].concat()
}

/// Answers with its process id and its variables.
const TELLS: &str = "
import os
def application(environ, start_response):
    start_response('200 OK', [])
    return [' '.join([str(os.getpid()), os.environ['SECRET'], os.environ['QUOTED']]).encode()]
";

/// The process that answers at `path`, if it is not `old`; its variables are those of `secret`.
fn process_with(httpd: &Httpd, path: &str, secret: &str, old: i32) -> Option<i32> {
    let answer = httpd.get(path).ok();
    let (pid, variables) = answer.split_once(' ').unwrap();
    let pid = pid.parse().unwrap();
    (pid != old && variables == format!("{secret} a \"{secret}\" b")).then_some(pid)
}

#[test]
fn what_env_says_of_one_group_is_in_no_memory_of_another() {
    ours_only!("daemon processes of the reference have httpd's configuration in their memory");
    if !is_root() {
        return skip("only root may look into the memory of others");
    }
    let of_one = ["FirstOfOneAndNobodyElse", "SecondOfOneAndNobodyElse"];
    let of_two = ["FirstOfTwoAndNobodyElse", "SecondOfTwoAndNobodyElse"];
    let mut httpd = Site::new(&secrets(of_one[0], of_two[0])).file("app.wsgi", TELLS).start();
    let expect_apart = |httpd: &Httpd, round: usize, old: (i32, i32)| {
        let find = |path: &str, secret, old| {
            wait_until(format!("a new process at {path}"), || {
                process_with(httpd, path, secret, old)
            })
        };
        let one = find("/one", of_one[round], old.0);
        let two = find("/two", of_two[round], old.1);
        let holds = |pid, secret: &str| memory_holds(pid, secret.as_bytes());
        assert!(holds(one, of_one[round]) && holds(two, of_two[round]), "looked for in vain");
        assert!(!holds(one, of_two[round]) && !holds(two, of_one[round]));
        (one, two)
    };
    // Of the first supervisor, then after it has had another configuration.
    let first = expect_apart(&httpd, 0, (0, 0));
    httpd.reconfigure(&secrets(of_one[1], of_two[1]));
    httpd.graceful();
    let mut last = expect_apart(&httpd, 1, first);
    // Of the spare one, then of one that is forked from a parent that has long had both.
    for _ in 0..2 {
        httpd.expect_error("WSGI9305");
        let lost = httpd.logged("WSGI9305");
        httpd.supervisor_of(last.0).unwrap().signal(Signal::SIGKILL);
        wait_until("httpd to notice", || (httpd.logged("WSGI9305") > lost).then_some(()));
        last = expect_apart(&httpd, 1, last);
    }
}
