//! What a small request costs, counted rather than timed: system calls and wake-ups.
//!
//! Counts are the same on a busy machine, so that whoever adds a call to the way of
//! every request meets a red test instead of a slow site.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{
    Connection, Httpd, Mode, Request, Site, can_run, mpm, ours_only, skip, wait_until,
};

const HELLO: &str = r"
import os

def application(environ, start_response):
    body = b'Hello, world!'
    if environ['QUERY_STRING'] == 'pid':
        body = b'%d' % os.getpid()
    elif environ['REQUEST_METHOD'] == 'POST':
        total = 0
        while piece := environ['wsgi.input'].read(65536):
            total += len(piece)
        body = b'%d' % total
    start_response('200 OK', [('Content-Length', str(len(body)))])
    return [body]
";

/// Requests that are counted: enough that what happens once a second does not show.
const REQUESTS: usize = 200;

/// What happens beside the requests may add this many calls to each.
const BESIDE: f64 = 0.4;

/// A system call tracer attached to a process.
struct Tracer {
    strace: Child,
    calls: std::path::PathBuf,
}

impl Tracer {
    /// Attaches to every thread of `pid`; none if that is not allowed here.
    fn attach(httpd: &Httpd, pid: i32) -> Option<Self> {
        let calls = httpd.path(&format!("calls-{pid}"));
        let said = httpd.path(&format!("strace-{pid}"));
        let strace = Command::new("strace")
            .args(["-f", "-o"])
            .arg(&calls)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(fs::File::create(&said).unwrap())
            .spawn()
            .unwrap();
        let mut tracer = Self { strace, calls };
        let is_attached = wait_until("strace to attach", || {
            let ended = tracer.strace.try_wait().unwrap().is_some();
            let attached = fs::read_to_string(&said).unwrap().contains("attached");
            (ended || attached).then_some(!ended)
        });
        is_attached.then_some(tracer)
    }

    /// Lets go of the process: how often each system call was made.
    fn finish(mut self) -> BTreeMap<String, usize> {
        kill(Pid::from_raw(self.strace.id().cast_signed()), Signal::SIGINT).unwrap();
        self.strace.wait().unwrap();
        let text = fs::read_to_string(&self.calls).unwrap();
        let mut calls = BTreeMap::new();
        for line in text.lines() {
            // "4711 read(5, …"; not "4711 <... read resumed>", "4711 +++ exited …".
            let call = line.split_once(' ').and_then(|(_, rest)| rest.trim().split_once('('));
            if let Some((name, _)) = call.filter(|(name, _)| !name.contains([' ', '<', '-', '+'])) {
                *calls.entry(name.to_owned()).or_insert(0) += 1;
            }
        }
        calls
    }
}

/// Asks for `target` again and again on a kept connection.
fn ask(connection: &mut Connection, target: &str, times: usize) {
    for _ in 0..times {
        let answer = connection.exchange(&Request::get(target).keep_alive()).unwrap();
        assert!(matches!(answer.status, 200 | 204), "{answer:?}");
    }
}

/// How long the body of [`post`] is.
const BODY: usize = 100 * 1024;

/// Sends a body to the application again and again on a kept connection.
fn post(connection: &mut Connection, target: &str, times: usize) {
    let body = vec![b'x'; BODY];
    for _ in 0..times {
        let answer = connection.exchange(&Request::post(target, &body).keep_alive()).unwrap();
        assert_eq!(answer.text(), BODY.to_string());
    }
}

/// How many system calls `pid` makes for a request for `target`: in all, without those
/// on futexes, and by name.
fn calls(httpd: &Httpd, pid: i32, target: &str) -> Option<(f64, f64, String)> {
    calls_of(httpd, pid, target, ask)
}

/// [`calls`] for requests that `send` sends.
fn calls_of(
    httpd: &Httpd,
    pid: i32,
    target: &str,
    send: fn(&mut Connection, &str, usize),
) -> Option<(f64, f64, String)> {
    let mut connection = httpd.connect();
    // What is made once is made now: interpreters, connections, buffers.
    send(&mut connection, target, 30);
    let tracer = Tracer::attach(httpd, pid)?;
    send(&mut connection, target, REQUESTS);
    let calls = tracer.finish();
    let each = |count: usize| count as f64 / REQUESTS as f64;
    let all = calls.values().sum::<usize>();
    let futexes = calls.get("futex").copied().unwrap_or(0);
    Some((each(all), each(all - futexes), format!("{calls:?}")))
}

/// The process that answers for the application.
fn application(httpd: &Httpd) -> i32 {
    httpd.get("/app?pid").text().parse().unwrap()
}

/// The only child process of httpd that answers requests.
fn child(httpd: &Httpd, mode: Mode) -> i32 {
    let application = application(httpd);
    if mode == Mode::Embedded {
        return application;
    }
    let parent = httpd.parent().pid;
    let children = httpd.processes().into_iter().filter(|process| process.parent == parent);
    // Whatever else httpd has started has few threads.
    children.map(|process| process.pid).max_by_key(|pid| threads(*pid)).unwrap()
}

/// How many threads a process has.
fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// As distributions have it: otherwise httpd looks for `.htaccess` and for symbolic links
/// in every directory above the script.
const LIKE_DEBIAN: &str = "
WSGIScriptAlias /app ${ROOT}/app.wsgi
Redirect 204 /nothing
MaxKeepAliveRequests 0
<Directory />
    AllowOverride None
    Options FollowSymLinks
</Directory>
";

/// A site that says hello, with one child process; `/nothing` is the least httpd can answer.
fn hello(mode: Mode) -> Httpd {
    Site::new(mode.config()).config(LIKE_DEBIAN).file("app.wsgi", HELLO).one_child().start()
}

/// Whether system calls can be counted here.
fn can_count() -> bool {
    let can = can_run(&["strace", "-V"]) && mpm() == "event";
    if !can {
        skip("needs strace, and the event MPM");
    }
    can
}

#[test]
fn a_hello_costs_three_system_calls_in_its_daemon_process() {
    ours_only!("the reference makes more");
    if !can_count() {
        return;
    }
    let httpd = hello(Mode::Daemon);
    let Some((each, _, calls)) = calls(&httpd, application(&httpd), "/app/page") else {
        return skip("strace may not attach here");
    };
    // Wait, read, write.
    assert!((2.0..=3.0 + BESIDE).contains(&each), "{each} a request: {calls}");
}

#[test]
fn a_hello_costs_four_system_calls_more_in_httpd_than_nothing_does() {
    ours_only!("the reference makes more");
    if !can_count() {
        return;
    }
    // To look for the script, name the request, send it, have its answer.
    for (mode, more) in [(Mode::Daemon, 4.0), (Mode::Embedded, 2.0)] {
        let httpd = hello(mode);
        let pid = child(&httpd, mode);
        let nothing = calls(&httpd, pid, "/nothing");
        let hello = calls(&httpd, pid, "/app/page");
        // httpd's own threads meet at a lock, the oftener the busier the machine is.
        let (Some((_, nothing, _)), Some((all, hello, calls))) = (nothing, hello) else {
            return skip("strace may not attach here");
        };
        let message = format!("{mode:?}: {hello} a request, {nothing} without: {calls}");
        assert!(nothing >= 4.0 && hello <= nothing + more + BESIDE, "{message}");
        assert!(all <= 20.0, "{message}");
    }
}

#[test]
fn a_post_of_100_kb_costs_no_more_calls_than_its_pieces() {
    ours_only!("the reference makes more");
    if !can_count() {
        return;
    }
    let httpd = hello(Mode::Daemon);
    let Some((_, daemon, calls)) = calls_of(&httpd, application(&httpd), "/app/page", post) else {
        return skip("strace may not attach here");
    };
    // A hello's five, and the body: what did not come with the head in two calls, each
    // in two when httpd is still sending it.
    assert!((6.0..=10.0 + BESIDE).contains(&daemon), "{daemon} a request: {calls}");
    let child = child(&httpd, Mode::Daemon);
    let Some((_, _, calls)) = calls_of(&httpd, child, "/app/page", post) else {
        return skip("strace may not attach here");
    };
    // One for head and body, one for the answer: the process is not asked whether it
    // wants the body, and no memory is given back to be taken again.
    for (call, most) in [("sendmsg", 1.0), ("recvmsg", 1.0), ("madvise", 0.0)] {
        let count = calls_named(&calls, call) / REQUESTS as f64;
        assert!(count <= most + BESIDE, "{count} of {call} a request: {calls}");
    }
}

/// How often `name` is among `calls`, as [`calls`] lists them.
fn calls_named(calls: &str, name: &str) -> f64 {
    let (_, rest) = calls.split_once(&format!("\"{name}\": ")).unwrap_or(("", "0"));
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap()
}

#[test]
fn a_post_of_100_kb_faults_no_pages_in_httpd() {
    ours_only!("how the reference keeps its memory is its own");
    let httpd = hello(Mode::Daemon);
    let pid = child(&httpd, Mode::Daemon);
    let mut connection = httpd.connect();
    post(&mut connection, "/app/page", 30);
    let before = faults(pid);
    post(&mut connection, "/app/page", REQUESTS);
    let each = (faults(pid) - before) as f64 / REQUESTS as f64;
    assert!(each <= BESIDE, "{each} page faults a request");
}

/// How many pages were made for the threads of `pid`.
fn faults(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    // Field 10 of proc(5), minflt; what follows the name begins with field 3.
    fields.split_whitespace().nth(7).unwrap().parse().unwrap()
}

#[test]
fn a_hello_wakes_one_thread_of_its_daemon_process() {
    ours_only!("the reference wakes more");
    let httpd = hello(Mode::Daemon);
    let pid = application(&httpd);
    let mut connection = httpd.connect();
    ask(&mut connection, "/app/page", 30);
    let before = sleeps(pid);
    ask(&mut connection, "/app/page", REQUESTS);
    let each = (sleeps(pid) - before) as f64 / REQUESTS as f64;
    assert!((0.5..=1.0 + BESIDE).contains(&each), "{each} sleeps a request");
}

/// How often the threads of `pid` went to sleep.
fn sleeps(pid: i32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let counts = threads.map(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.map_or(0, |count| count.trim().parse().unwrap())
    });
    counts.sum()
}
