//! Steps by which a process becomes one of its group, and what comes of one that fails.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::{Group, User};

use crate::harness::{
    Httpd, Process, Python, Site, can_run, eval, is_root, ours_only, python, skip, wait_until,
};

/// Answers with the value of the Python expression in the query string.
const EVAL: &str = "
import os, resource
from urllib.parse import unquote
def application(environ, start_response):
    text = str(eval(unquote(environ['QUERY_STRING'])))
    start_response('200 OK', [])
    return [text.encode()]
";

/// A server whose application runs in a daemon process group with these options.
fn site(options: &str) -> Site {
    Site::new(&format!(
        "WSGIRestrictEmbedded On\nWSGIDaemonProcess one connect-timeout=1 {options}\n\
         WSGIProcessGroup one\nWSGIApplicationGroup %{{GLOBAL}}\n\
         WSGIScriptAlias / ${{ROOT}}/app.wsgi"
    ))
    .file("app.wsgi", EVAL)
}

/// Starts httpd, none of whose daemon processes can start, and checks that each attempt says so
/// in one line with `code`, `words` and what happens next, that attempts are a second apart at
/// least, and that requests are told before long.
#[track_caller]
fn expect_failing_start(site: Site, code: &str, words: &str) {
    let mut httpd = site.start();
    httpd.expect_error(&format!("{code}: "));
    httpd.allow_error("WSGI0116: ");
    httpd.allow_error("WSGI0081: ");
    let lines = |httpd: &Httpd, text: &str| -> Vec<String> {
        httpd.log().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    };
    let code = format!("{code}: ");
    let attempts = |count| {
        let said = || (lines(&httpd, &code).len() >= count).then_some(());
        wait_until(format!("{count} attempts to fail with {code}"), said);
        Instant::now()
    };
    let first = attempts(1);
    // Where the script lies above the root directory, that is the reason.
    assert!(matches!(httpd.get("/?1").status, 502 | 503));
    let second = attempts(2);
    assert!(second - first > Duration::from_millis(800), "{:?}", second - first);
    let failed = lines(&httpd, &code);
    assert!(failed.iter().all(|line| line.contains("; trying again in ")), "{failed:?}");
    assert!(failed.iter().all(|line| line.contains(words)), "wanted {words}: {failed:?}");
    let all = lines(&httpd, "WSGI");
    let strange = |line: &&String| {
        // Of requests, and of the configuration, which saw it coming.
        let others = [code.as_str(), "WSGI0116", "WSGI0081", "WSGI9207", "WSGI9203"];
        !others.iter().any(|other| line.contains(other))
    };
    assert_eq!(all.iter().find(strange), None);
}

/// A user of this machine other than root and httpd's.
fn other_user() -> Option<User> {
    ["bin", "daemon", "games", "mail"].iter().find_map(|name| User::from_name(name).ok()?)
}

/// Runs httpd where only the accounts below 34 exist: `setuid` and its like refuse all others.
///
/// It is the root of a user namespace with so short a table. A process outside has to write
/// the table, and httpd's to wait for it.
fn few_accounts(site: Site) -> Site {
    site.through(&[
        "sh",
        "-c",
        "ours=$(readlink /proc/self/ns/user)
        (until [ \"$(readlink /proc/$$/ns/user)\" != \"$ours\" ]; do sleep 0.01; done
        echo 0 0 34 >/proc/$$/gid_map; echo 0 0 34 >/proc/$$/uid_map) &
        exec unshare --user sh -c 'until [ $(id -u) = 0 ]; do sleep 0.01; done; exec \"$@\"' - \"$@\"",
        "-",
    ])
}

#[test]
fn without_its_root_directory_a_process_does_not_start() {
    ours_only!("row 9: the reference tries again every 20 s, with many lines");
    if !is_root() {
        return skip("only root changes the root directory");
    }
    expect_failing_start(site("chroot=/no/such/place"), "WSGI0003", "'/no/such/place'");
}

#[test]
fn without_a_python_below_its_root_directory_a_process_does_not_start() {
    ours_only!("row 9: the reference tries again every 20 s, with many lines");
    if !is_root() {
        return skip("only root changes the root directory");
    }
    expect_failing_start(site("chroot=${ROOT}/htdocs"), "WSGI0028", "ython");
}

#[test]
fn without_its_working_directory_a_process_does_not_start() {
    ours_only!("row 9: the reference tries again every 20 s, with many lines");
    expect_failing_start(site("home=/no/such/place"), "WSGI0009", "'/no/such/place'");
    if !is_root() {
        return skip("only root can start a process that may not enter its home");
    }
    let site = site("home=${ROOT}/closed").file("closed/file", "");
    let closed = site.root().join("closed");
    fs::set_permissions(closed, fs::Permissions::from_mode(0o700)).unwrap();
    expect_failing_start(site, "WSGI0009", "/closed'");
}

#[test]
fn a_user_without_a_home_needs_a_working_directory() {
    ours_only!("row 9: the reference tries again every 20 s, with many lines");
    let homeless = |name: &&str| {
        let user = User::from_name(name).ok().flatten();
        user.is_some_and(|user| !user.dir.exists() && user.dir.to_str() != Some("/nonexistent"))
    };
    let users = ["list", "irc", "lp", "uucp", "news", "gnats", "proxy"];
    let Some(user) = users.iter().find(|name| homeless(name)).filter(|_| is_root()) else {
        return skip("no user without a home, or not root");
    };
    expect_failing_start(site(&format!("user={user}")), "WSGI0009", "home= names another");
    assert_eq!(eval(&site(&format!("user={user} home=/")).start(), "os.getcwd()"), "/");
}

#[test]
fn a_home_that_comes_late_is_found() {
    ours_only!("row 9: the reference waits for 20 s");
    let mut httpd = site("home=${ROOT}/late connect-timeout=30").start();
    httpd.expect_error("WSGI0009");
    httpd.allow_error("WSGI9102");
    httpd.wait_for_log("WSGI0009");
    fs::create_dir(httpd.path("late")).unwrap();
    assert!(eval(&httpd, "os.getcwd()").ends_with("/late"));
}

#[test]
fn what_the_system_refuses_to_become_is_fatal() {
    ours_only!("row 9: the reference tries again every 20 s, with many lines");
    if !is_root() || !can_run(&["unshare", "--user", "true"]) {
        return skip("only root becomes somebody else, and in a user namespace only some");
    }
    let (Ok(Some(user)), Ok(Some(group))) = (User::from_name("list"), Group::from_name("games"))
    else {
        return skip("no user list, or no group games");
    };
    assert!(user.uid.as_raw() >= 34 && group.gid.as_raw() >= 34, "{user:?} {group:?}");
    for (option, code) in [
        ("group=games", "WSGI0004"),
        ("supplementary-groups=games", "WSGI0005"),
        ("user=list home=/", "WSGI0007"),
    ] {
        expect_failing_start(few_accounts(site(option)), code, "cannot");
    }
    // The rest of it works there.
    assert_ne!(eval(&few_accounts(site("user=daemon home=/")).start(), "os.getuid()"), "0");
}

#[test]
fn a_process_that_could_become_root_again_does_not_start() {
    ours_only!("the reference does not look");
    if !is_root() || !can_run(&["setpriv", "--securebits", "+no_setuid_fixup", "true"]) {
        return skip("there is no root to regain, or no setpriv to help");
    }
    let site = site("").through(&["setpriv", "--securebits", "+no_setuid_fixup"]);
    expect_failing_start(site, "WSGI9105", "can become root again");
}

#[test]
fn a_process_keeps_no_privilege_and_gains_none() {
    ours_only!("the reference does not ask for no_new_privs");
    let Some(user) = other_user().filter(|_| is_root()) else {
        return skip("only root becomes somebody else");
    };
    let extra = Group::from_name("games").unwrap().expect("a system has such a group");
    let options =
        format!("user={} group=#{} supplementary-groups={}", user.name, user.gid, extra.name);
    let httpd = site(&options).start();
    let status = eval(&httpd, "open('/proc/self/status').read()");
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let (uid, gid) = (user.uid, user.gid);
    assert_eq!(line("Uid:"), format!("{uid} {uid} {uid} {uid}"));
    assert_eq!(line("Gid:"), format!("{gid} {gid} {gid} {gid}"));
    let mut groups = [gid.as_raw(), extra.gid.as_raw()];
    groups.sort_unstable();
    assert_eq!(line("Groups:"), format!("{} {}", groups[0], groups[1]));
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(line(set).trim_matches('0'), "", "{set} {status}");
    }
    assert_eq!(line("NoNewPrivs:"), "1");
}

#[test]
fn a_priority_that_is_refused_is_a_warning() {
    if !is_root() || !can_run(&["setpriv", "--bounding-set", "-sys_nice", "true"]) {
        return skip("only root has the privilege that is taken away here");
    }
    ours_only!("the reference has another text");
    let site = site("cpu-priority=-5").through(&["setpriv", "--bounding-set", "-sys_nice"]);
    let httpd = site.start();
    let of = |pid| eval(&httpd, &format!("os.getpriority(os.PRIO_PROCESS, {pid})"));
    assert_eq!(of(0), of(httpd.parent().pid), "it is as httpd was started");
    httpd.wait_for_log("WSGI0075: cannot set CPU priority -5");
    assert!(httpd.log().contains("[wsgi:warn]"));
}

#[test]
fn limits_that_are_refused_are_warnings() {
    if !is_root() || !can_run(&["setpriv", "--bounding-set", "-sys_resource", "true"]) {
        return skip("only root has the privilege that is taken away here");
    }
    ours_only!("the reference has other texts");
    let options = "cpu-time-limit=7000 memory-limit=9000000000 virtual-memory-limit=90000000000";
    let httpd = site(options)
        .through(&[
            "setpriv",
            "--bounding-set",
            "-sys_resource",
            "prlimit",
            "--cpu=6000",
            "--data=8000000000",
            "--as=80000000000",
        ])
        .start();
    let limit = |name: &str| eval(&httpd, &format!("resource.getrlimit(resource.{name})[1]"));
    assert_eq!(limit("RLIMIT_CPU"), "6000");
    assert_eq!(limit("RLIMIT_DATA"), "8000000000");
    assert_eq!(limit("RLIMIT_AS"), "80000000000");
    for text in ["WSGI0076: cannot limit CPU time", "WSGI0077: cannot limit data", "WSGI0078: "] {
        httpd.wait_for_log(text);
    }
}

#[test]
fn a_locale_nobody_has_is_a_warning() {
    ours_only!("the reference has another text");
    let httpd = site("locale=xx_YY.NOWHERE").start();
    assert_eq!(eval(&httpd, "os.environ['LC_ALL']"), "xx_YY.NOWHERE");
    httpd.wait_for_log("WSGI0079: the system has no locale 'xx_YY.NOWHERE'");
}

#[test]
fn a_group_without_a_process_answers_after_the_connect_timeout() {
    ours_only!("the reference's sockets are there before its processes");
    let mut httpd = site("home=/no/such/place").start();
    httpd.expect_error("WSGI0009");
    httpd.expect_error("WSGI0116");
    httpd.allow_error("WSGI9102");
    let start = Instant::now();
    assert_eq!(httpd.get("/?1").status, 503);
    let waited = start.elapsed();
    assert!(waited > Duration::from_millis(900), "{waited:?}");
    assert!(waited < Duration::from_secs(8), "{waited:?}");
}

/// A site whose group has the directory `jail` as its root, with a Python in it.
fn jail(python: &Python, lines: &str) -> Site {
    let config = format!(
        "WSGIRestrictEmbedded On\nWSGIPythonHome /nowhere/but/below\n\
         WSGIDaemonProcess one chroot=${{ROOT}}/jail/ python-home=/python threads=2\n\
         WSGIProcessGroup one\nWSGIApplicationGroup %{{GLOBAL}}\n{lines}"
    );
    let site = Site::new(&config).file("jail/app.wsgi", EVAL).file("outside.wsgi", EVAL);
    let home = site.root().join("jail/python");
    let copied = Command::new("cp").arg("-a").arg(&python.home).arg(&home).status().unwrap();
    assert!(copied.success());
    site
}

#[test]
fn a_process_sees_its_root_directory_and_nothing_above() {
    if !is_root() {
        return skip("only root changes the root directory");
    }
    ours_only!("the reference finds its Python before it changes the root directory");
    let Some(python) = python("3.12") else { return };
    let lines =
        "WSGIScriptAlias /out ${ROOT}/outside.wsgi\nWSGIScriptAlias / ${ROOT}/jail/app.wsgi";
    let mut httpd = jail(&python, lines).start();
    assert_eq!(eval(&httpd, "sorted(os.listdir('/'))"), "['app.wsgi', 'python']");
    assert_eq!(eval(&httpd, "os.getcwd(), __import__('sys').prefix"), "('/', '/python')");
    assert_eq!(eval(&httpd, "environ['SCRIPT_FILENAME']"), "/app.wsgi");
    assert_eq!(eval(&httpd, "'DOCUMENT_ROOT' in environ"), "False");
    assert_eq!(eval(&httpd, "__file__"), "/app.wsgi");
    // Nothing leads out of it: no descriptor of a directory.
    let pid: i32 = eval(&httpd, "os.getpid()").parse().unwrap();
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links: Vec<_> = entries.filter_map(|it| fs::read_link(it.path()).ok()).collect();
    assert!(!links.iter().any(|link| link.is_dir()), "{links:?}");
    httpd.write("jail/app.wsgi", EVAL.replace("str(eval(", "'new ' + str(eval("));
    assert_eq!(eval(&httpd, "1"), "new 1");
    httpd.expect_error("WSGI0081");
    assert_eq!(httpd.get("/out?1").status, 502);
}

#[test]
fn scripts_below_another_root_are_loaded_early() {
    if !is_root() {
        return skip("only root changes the root directory");
    }
    ours_only!("the reference finds its Python before it changes the root directory");
    let Some(python) = python("3.12") else { return };
    let lines = "WSGIScriptAlias / ${ROOT}/jail/app.wsgi process-group=one \
        application-group=%{GLOBAL}\n\
        WSGIImportScript /import.py process-group=one application-group=%{GLOBAL}";
    let site = jail(&python, lines).file("jail/import.py", "import sys\nsys.imported = 'early'");
    let httpd = site.start();
    assert_eq!(eval(&httpd, "__import__('sys').imported"), "early");
    assert!(!httpd.log().contains("WSGI9203"), "{}", httpd.log());
}

#[test]
fn a_handler_script_below_another_root_has_either_of_its_names() {
    if !is_root() {
        return skip("only root changes the root directory");
    }
    ours_only!("the reference finds its Python before it changes the root directory");
    let Some(python) = python("3.12") else { return };
    let lines = "WSGIHandlerScript outer ${ROOT}/jail/app.wsgi\nWSGIHandlerScript inner /app.wsgi\n\
        <Location /outer>\nSetHandler outer\n</Location>\n\
        <Location /inner>\nSetHandler inner\n</Location>";
    let site = jail(&python, lines);
    let httpd =
        site.file("jail/app.wsgi", EVAL.to_owned() + "\nhandle_request = application\n").start();
    for path in ["/outer", "/inner"] {
        assert_eq!(httpd.get(&format!("{path}?__file__")).ok(), "/app.wsgi", "{path}");
    }
    assert!(!httpd.log().contains("WSGI9203"), "{}", httpd.log());
}

#[test]
fn an_environment_file_is_read_by_root_whenever_a_process_starts() {
    ours_only!("the reference has no such option");
    if !is_root() {
        return skip("only root may read what others may not");
    }
    let site = site("env-file=${ROOT}/env env=B=2").file("env", "A=1\nB=1\nC='x y'\n");
    let file = site.root().join("env");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let mut httpd = site.start();
    let names = "[os.environ.get(name) for name in 'ABC']";
    assert_eq!(eval(&httpd, names), "['1', '2', 'x y']");
    // The next process has what is in it by then.
    httpd.write("env", "A=new");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let pid: i32 = eval(&httpd, "os.getpid()").parse().unwrap();
    Process::find(pid).unwrap().signal(nix::sys::signal::Signal::SIGUSR1);
    wait_until("the next process to answer", || {
        (eval(&httpd, names) == "['new', '2', None]").then_some(())
    });
    // What others may write is not used, and the process not started without it.
    httpd.expect_error("WSGI9206");
    httpd.allow_error("WSGI9102");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    httpd.graceful();
    httpd.wait_for_log("WSGI9206");
    assert_eq!(eval(&httpd, names), "['new', '2', None]");
}

#[test]
fn a_secret_of_one_group_is_not_in_the_memory_of_another() {
    ours_only!("the reference has no such option");
    if !is_root() {
        return skip("only root may look into the memory of others");
    }
    let secret = "NoBodyElseIsToKnowThis";
    let config = "WSGIDaemonProcess one env-file=${ROOT}/env\nWSGIDaemonProcess two\n\
        WSGIScriptAlias /one ${ROOT}/app.wsgi process-group=one application-group=%{GLOBAL}\n\
        WSGIScriptAlias /two ${ROOT}/app.wsgi process-group=two application-group=%{GLOBAL}";
    let site = Site::new(config).file("app.wsgi", EVAL).file("env", format!("SECRET={secret}"));
    let httpd = site.start();
    let pid = |path: &str| -> i32 {
        let expression = "os.getpid()".bytes().map(|byte| format!("%{byte:02x}"));
        httpd.get(&format!("{path}?{}", expression.collect::<String>())).ok().parse().unwrap()
    };
    let (one, two) = (pid("/one"), pid("/two"));
    let supervisor = httpd.supervisor_of(one).unwrap().pid;
    assert!(memory_holds(one, secret.as_bytes()));
    let secret = secret.as_bytes();
    assert!(!memory_holds(two, secret) && !memory_holds(supervisor, secret));
    assert!(!memory_holds(httpd.parent().pid, secret));
}

/// Whether the memory a process may write holds these bytes.
pub fn memory_holds(pid: i32, secret: &[u8]) -> bool {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.lines().filter(|line| line.contains(" rw")).any(|line| {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let start = u64::from_str_radix(start, 16).unwrap();
        let length = u64::from_str_radix(end, 16).unwrap() - start;
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        // A stack that only looks as large as this cannot be read whole.
        let _ = memory.read_exact_at(&mut bytes, start);
        bytes.windows(secret.len()).any(|window| window == secret)
    })
}
