//! The options of `WSGIDaemonProcess` that a daemon process can be asked about.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{Group, User};

use crate::harness::{
    Process, Request, Site, eval, is_root, ours_only, skip, wait_for_end, wait_until,
};

/// Answers with the value of the Python expression in the query string.
const EVAL: &str = r#"
import grp, locale, mod_wsgi, os, pwd, resource, sys, threading, time
from urllib.parse import unquote
ROOT = os.path.dirname(__file__)
def application(environ, start_response):
    if environ['PATH_INFO'] == '/slow':
        open(ROOT + '/run/slow', 'w').close()
        time.sleep(float(environ['QUERY_STRING']))
    text = str(eval(unquote(environ['QUERY_STRING'])))
    start_response('200 OK', [])
    return [text.encode()]
"#;

/// A server whose application runs in a daemon process group with these options.
fn site(options: &str) -> Site {
    let config = format!(
        "WSGIRestrictEmbedded On\nWSGIDaemonProcess one {options}\nWSGIProcessGroup one\n\
         WSGIApplicationGroup %{{GLOBAL}}\nWSGIScriptAlias / ${{ROOT}}/app.wsgi"
    );
    let site = Site::new(&config).file("app.wsgi", EVAL);
    site.open_run();
    site
}

/// What a Python expression is worth in a daemon process with these options.
#[track_caller]
fn with(options: &str, expression: &str) -> String {
    eval(&site(options).start(), expression)
}

/// A user of this machine other than root and httpd's, with its group.
fn other_user() -> Option<(User, Group)> {
    ["bin", "daemon", "games", "mail"].iter().find_map(|name| {
        let user = User::from_name(name).ok()??;
        let group = Group::from_gid(user.gid).ok()??;
        Some((user, group))
    })
}

#[test]
fn the_module_tells_processes_and_threads() {
    let sizes = "mod_wsgi.process_group, mod_wsgi.maximum_processes, mod_wsgi.threads_per_process";
    assert_eq!(with("processes=2 threads=7", sizes), "('one', 2, 7)");
    assert_eq!(with("", sizes), "('one', 1, 15)");
}

#[test]
fn as_many_requests_run_at_once_as_there_are_threads() {
    let httpd = site("threads=4").start();
    httpd.write(
        "app.wsgi",
        "import threading\nall_here = threading.Barrier(4)\n\
         def application(environ, start_response):\n    all_here.wait(20)\n    \
         start_response('200 OK', [])\n    return [b'together']\n",
    );
    let mut connections: Vec<_> = (0..4).map(|_| httpd.connect()).collect();
    for connection in &mut connections {
        connection.write(Request::get("/").head()).unwrap();
    }
    for mut connection in connections {
        assert_eq!(connection.read_response(false).unwrap().ok(), "together");
    }
}

#[test]
fn a_request_that_computes_for_long_lets_others_run() {
    let httpd = site("threads=4").start();
    httpd.write(
        "app.wsgi",
        "import time\ncame = []\n\
         def application(environ, start_response):\n    \
         end = time.monotonic() + 20\n    \
         while environ['PATH_INFO'] == '/compute' and not came and time.monotonic() < end: pass\n    \
         start_response('200 OK', [])\n    \
         came.append(1)\n    \
         return [b'together' if time.monotonic() < end else b'alone']\n",
    );
    let mut computing = httpd.connect();
    computing.write(Request::get("/compute").head()).unwrap();
    assert_eq!(httpd.get("/").ok(), "together");
    assert_eq!(computing.read_response(false).unwrap().ok(), "together");
}

#[test]
fn a_daemon_process_runs_as_the_user_of_httpd() {
    if !is_root() {
        return skip("only root can become another user");
    }
    let httpd = site("").start();
    let parent = httpd.parent().pid;
    let pid: i32 = eval(&httpd, "os.getpid()").parse().unwrap();
    let mut children = httpd.processes().into_iter().filter(|it| it.parent == parent);
    let child = children.find(|it| it.pid != pid && !it.title().contains("wsgi: ")).unwrap();
    let daemon = Process::find(pid).unwrap();
    assert_eq!(daemon.status("Uid"), child.status("Uid"));
    assert_eq!(daemon.status("Gid"), child.status("Gid"));
    assert!(!daemon.status("Uid").split_whitespace().any(|id| id == "0"));
}

#[test]
fn a_daemon_process_runs_as_the_user_and_group_it_is_told() {
    let Some((user, group)) = other_user().filter(|_| is_root()) else {
        return skip("only root can become another user");
    };
    let (uid, gid) = (user.uid, group.gid);
    let httpd = site(&format!("user={} group={}", user.name, group.name)).start();
    assert_eq!(eval(&httpd, "os.getresuid()"), format!("({uid}, {uid}, {uid})"));
    assert_eq!(eval(&httpd, "os.getresgid()"), format!("({gid}, {gid}, {gid})"));
    let httpd = site(&format!("user=#{uid} group=#{gid}")).start();
    assert_eq!(eval(&httpd, "os.getuid(), os.getgid()"), format!("({uid}, {gid})"));
}

#[test]
fn a_user_alone_does_not_change_the_group() {
    let Some((user, _)) = other_user().filter(|_| is_root()) else {
        return skip("only root can become another user");
    };
    let expected = with("", "os.getgid()");
    assert_eq!(with(&format!("user={}", user.name), "os.getgid()"), expected);
}

#[test]
fn supplementary_groups_replace_those_of_the_user() {
    let Some((user, group)) = other_user().filter(|_| is_root()) else {
        return skip("only root can become another user");
    };
    let extra = ["games", "mail", "audio"].iter().find_map(|name| Group::from_name(name).ok()?);
    let extra = extra.expect("a system has such a group");
    let options =
        format!("user={} group={} supplementary-groups={}", user.name, group.name, extra.name);
    let mut expected = vec![group.gid.as_raw(), extra.gid.as_raw()];
    expected.sort_unstable();
    assert_eq!(with(&options, "sorted(set(os.getgroups()))"), format!("{expected:?}"));
    let options = options.replace(&extra.name, &format!("#{}", extra.gid));
    assert_eq!(with(&options, "sorted(set(os.getgroups()))"), format!("{expected:?}"));
}

#[test]
fn root_cannot_be_regained() {
    if !is_root() {
        return skip("there is no root to regain");
    }
    let httpd = site("").start();
    httpd.write(
        "app.wsgi",
        "import os\ndef application(environ, start_response):\n    \
         start_response('200 OK', [])\n    got = []\n    \
         for call in ('os.setuid(0)', 'os.setgid(0)', 'os.setgroups([0])', 'os.seteuid(0)'):\n        \
         try:\n            eval(call)\n            got.append(call)\n        \
         except PermissionError:\n            pass\n    return [str(got).encode()]\n",
    );
    assert_eq!(httpd.get("/").ok(), "[]");
    ours_only!("the reference does not ask for no_new_privs");
    httpd.write("app.wsgi", EVAL);
    let daemon = Process::find(eval(&httpd, "os.getpid()").parse().unwrap()).unwrap();
    assert_eq!(daemon.status("NoNewPrivs"), "1");
    assert_eq!(daemon.status("CapEff").trim_matches('0'), "");
}

#[test]
fn the_umask_is_the_one_given() {
    assert_eq!(with("umask=0027", "oct(os.umask(0))"), "0o27");
    assert_eq!(with("umask=2", "oct(os.umask(0))"), "0o2");
}

#[test]
fn the_home_is_the_working_directory_and_first_on_the_path() {
    let site = site("home=${ROOT}/htdocs").file("htdocs/local_module.py", "value = 'imported'");
    let home = site.root().join("htdocs").display().to_string();
    let httpd = site.start();
    assert_eq!(eval(&httpd, "os.getcwd()"), home);
    assert_eq!(eval(&httpd, "sys.path[0]"), home);
    assert_eq!(eval(&httpd, "__import__('local_module').value"), "imported");
}

#[test]
fn a_daemon_process_of_another_user_starts_in_its_home() {
    let Some((user, _)) = other_user().filter(|_| is_root()) else {
        return skip("only root can become another user");
    };
    let home = std::fs::canonicalize(&user.dir).unwrap().display().to_string();
    assert_eq!(with(&format!("user={}", user.name), "os.getcwd()"), home);
}

#[test]
fn language_and_locale_are_set_before_python_starts() {
    assert_eq!(with("lang=C.UTF-8", "os.environ.get('LANG')"), "C.UTF-8");
    let both = "os.environ.get('LC_ALL'), locale.setlocale(locale.LC_ALL)";
    assert_eq!(with("locale=C.UTF-8", both), "('C.UTF-8', 'C.UTF-8')");
}

#[test]
fn the_python_path_comes_before_the_rest() {
    let site = site("python-path=${ROOT}/one:${ROOT}/two")
        .file("one/both.py", "value = 'one'")
        .file("two/both.py", "value = 'two'")
        .file("two/only_two.py", "value = 'only two'");
    let httpd = site.start();
    assert_eq!(eval(&httpd, "__import__('both').value"), "one");
    assert_eq!(eval(&httpd, "__import__('only_two').value"), "only two");
}

#[test]
fn the_standard_streams_have_the_levels_they_are_given() {
    ours_only!("row 18");
    let mut httpd = site("stdout-level=info stderr-level=warn").start();
    httpd.expect_error("still an error");
    let write = |stream: &str, text: &str| eval(&httpd, &format!("{stream}.write('{text}\\n')"));
    write("sys.stdout", "for information");
    write("sys.stderr", "a warning");
    let thread = "threading.Thread(target=print,args=('from elsewhere',))";
    eval(&httpd, &format!("[t.start()or(t.join())for(t)in[{thread}]]"));
    eval(&httpd, "environ['wsgi.errors'].write('still an error\\n')");
    for (level, text) in [
        ("[wsgi:info]", "for information"),
        ("[wsgi:warn]", "a warning"),
        ("[wsgi:info]", "from elsewhere"),
        ("[wsgi:error]", "still an error"),
    ] {
        httpd.wait_for_log(text);
        let log = httpd.log();
        let line = log.lines().find(|line| line.contains(text)).unwrap();
        assert!(line.contains(level), "{line}");
    }
}

#[test]
fn threads_take_turns_as_often_as_they_are_told() {
    assert_eq!(with("switch-interval=0.001", "sys.getswitchinterval()"), "0.001");
}

#[test]
fn a_process_is_called_as_the_configuration_says() {
    let title = |options: &str| {
        let httpd = site(options).start();
        let pid = eval(&httpd, "os.getpid()").parse().unwrap();
        Process::find(pid).unwrap().title()
    };
    assert!(title("display-name=my-app").starts_with("my-app"));
    assert!(title("display-name=%{GROUP}").starts_with("(wsgi:one)"));
}

#[test]
fn our_processes_say_what_they_are() {
    ours_only!("the reference looks like httpd unless it is told otherwise");
    let httpd = site("processes=2").start();
    let pid = eval(&httpd, "os.getpid()").parse().unwrap();
    let title = Process::find(pid).unwrap().title();
    assert!(title.starts_with("wsgi: daemon") && title.contains("one"), "{title}");
    let title = httpd.supervisor_of(pid).unwrap().title();
    assert!(title.starts_with("wsgi: supervisor"), "{title}");
}

#[test]
fn variables_of_httpd_reach_a_daemon_process() {
    let httpd = site("").env("FROM_ENVVARS", "kept").env("SUDO_USER", "somebody").start();
    assert_eq!(eval(&httpd, "os.environ.get('FROM_ENVVARS')"), "kept");
    ours_only!("row 30: the reference keeps the session of who started httpd");
    assert_eq!(eval(&httpd, "os.environ.get('SUDO_USER')"), "None");
}

#[test]
fn setenv_does_not_reach_the_environment_of_a_process() {
    let httpd = site("").config("SetEnv FROM_SETENV value").start();
    assert_eq!(eval(&httpd, "os.environ.get('FROM_SETENV')"), "None");
    assert_eq!(eval(&httpd, "environ['FROM_SETENV']"), "value");
}

#[test]
fn a_daemon_process_holds_no_descriptor_of_httpd() {
    ours_only!("the reference keeps what httpd had open");
    let httpd = site("threads=2").start();
    let pid = eval(&httpd, "os.getpid()");
    let listening = format!("{:04X}", httpd.port());
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let ours =
        table.lines().filter(|line| line.contains(&format!(":{listening} 00000000:0000 0A")));
    let inodes: Vec<_> = ours.filter_map(|line| line.split_whitespace().nth(9)).collect();
    assert_eq!(inodes.len(), 1);
    let supervisor = httpd.supervisor_of(pid.parse().unwrap()).unwrap().pid.to_string();
    for process in [pid, supervisor] {
        let entries = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
        let links: Vec<_> = entries.filter_map(|it| std::fs::read_link(it.path()).ok()).collect();
        let held =
            links.iter().any(|link| link.to_string_lossy() == format!("socket:[{}]", inodes[0]));
        assert!(!held, "{process} holds the listener of httpd: {links:?}");
        let access = links.iter().any(|link| link.ends_with("access.log"));
        assert!(!access, "{process} holds a log of httpd: {links:?}");
    }
}

#[test]
fn a_stuck_request_is_cut_at_the_end_of_the_shutdown_timeout() {
    let mut httpd = site("threads=2 shutdown-timeout=1").start();
    let daemon = Process::find(eval(&httpd, "os.getpid()").parse().unwrap()).unwrap();
    let mut slow = httpd.connect();
    slow.write(Request::get("/slow?20").head()).unwrap();
    wait_until("the slow request to run", || httpd.path("run/slow").exists().then_some(()));
    let start = Instant::now();
    daemon.signal(Signal::SIGTERM);
    wait_for_end(Duration::from_secs(10), &[daemon]);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    httpd.expect_error("WSGI014");
    // It did not end as it should have.
    httpd.allow_error("WSGI9101");
    httpd.allow_stacks();
    assert_eq!(slow.read_response(false).unwrap().status, 502);
}

#[test]
fn a_daemon_process_told_to_end_lets_its_requests_finish() {
    for signal in [Signal::SIGTERM, Signal::SIGUSR1] {
        let httpd = site("threads=2").start();
        let daemon = Process::find(eval(&httpd, "os.getpid()").parse().unwrap()).unwrap();
        let mut slow = httpd.connect();
        slow.write(Request::get("/slow?1").head()).unwrap();
        wait_until("the slow request to run", || httpd.path("run/slow").exists().then_some(()));
        daemon.signal(signal);
        assert_eq!(slow.read_response(false).unwrap().ok(), "1");
        wait_for_end(Duration::from_secs(5), &[daemon]);
        eval(&httpd, "os.getpid()");
    }
}

#[test]
fn graceful_timeout_limits_how_long_an_old_process_stays() {
    ours_only!("row 2: the reference gives everything 3 seconds");
    let mut httpd = site("threads=2 graceful-timeout=1 shutdown-timeout=1").start();
    httpd.expect_error("WSGI014");
    httpd.allow_error("WSGI9101");
    httpd.allow_stacks();
    let daemon = Process::find(eval(&httpd, "os.getpid()").parse().unwrap()).unwrap();
    let mut slow = httpd.connect();
    slow.write(Request::get("/slow?20").head()).unwrap();
    wait_until("the slow request to run", || httpd.path("run/slow").exists().then_some(()));
    httpd.graceful();
    wait_for_end(Duration::from_secs(6), &[daemon]);
    assert_eq!(slow.read_response(false).unwrap().status, 502);
}

#[test]
fn exit_functions_of_python_run_when_a_daemon_process_ends() {
    let source = EVAL.to_owned()
        + "\nimport atexit\ndef end():\n    time.sleep(1.2)\n    open(ROOT + '/run/exited', 'w').write('yes')\n"
        + "atexit.register(end)\n";
    let mut httpd = site("").file("app.wsgi", &source).start();
    eval(&httpd, "1");
    httpd.end_by(Signal::SIGTERM);
    httpd.wait_for_file("run/exited", "yes");
}
