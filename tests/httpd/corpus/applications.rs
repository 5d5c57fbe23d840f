//! Applications nobody should write: each gives its client what its file says, and the next
//! request is served.
//!
//! Above each function of `tests/corpus/applications/*.py` stands what must come of it:
//!
//! | line | means |
//! |---|---|
//! | `# -> 500 close` | as in the files of requests; `any` for the connection's end says that both will do; `left` for a client that does not wait |
//! | `# body: text` | the whole body of the answer |
//! | `# header: name value` | a header of the answer |
//! | `# log: text` | what the error log says in the end |
//! | `# method: POST` | instead of GET; POST brings `hello` |
//! | `# daemon only` | it would do this to httpd itself |
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::path::Path;

use super::answers::{exchange, outcome, split};
use super::format::{Case, Way, words};
use super::requests::{expect_same, note, servants};
use crate::harness::{DEADLINE, Httpd, Mode, Request, Site, ours_only, poll, wait_until};

/// What every file of applications ends with.
const DISPATCHER: &str = r"

def good(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'good']


def application(environ, start_response):
    return globals()[environ['PATH_INFO'].strip('/')](environ, start_response)
";

/// Answers the request behind each.
const MARKER: &str = r"
def application(environ, start_response):
    start_response('200 OK', [('X-Path', environ['SCRIPT_NAME'])])
    return [b'marker']
";

/// One application, and what must come of it.
#[derive(Debug, Default)]
struct Application {
    /// The name of its function.
    name: String,
    /// What is sent, and what must come back.
    case: Case,
    /// The body, if it is to be looked at.
    body: Option<String>,
    /// Names and values of headers.
    headers: Vec<(String, String)>,
    /// What the error log says in the end.
    log: Vec<String>,
    /// Whether it is for daemon mode only.
    is_for_daemons: bool,
}

/// The applications in `source`, in order.
fn parse(file: &str, source: &str) -> Vec<Application> {
    let mut found = Vec::new();
    let mut next = Application::default();
    let mut method = "GET";
    for line in source.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let (kind, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            match kind {
                "->" => next.case.expected = words(rest),
                "body:" => next.body = Some(rest.to_owned()),
                "log:" => next.log.push(rest.to_owned()),
                "header:" => {
                    let (name, value) = rest.split_once(' ').unwrap();
                    next.headers.push((name.to_owned(), value.to_owned()));
                }
                "method:" => method = rest,
                "daemon" => next.is_for_daemons = true,
                _ => {}
            }
        } else if let Some(rest) = line.strip_prefix("def ")
            && !next.case.expected.is_empty()
        {
            next.name = rest.split('(').next().unwrap().to_owned();
            next.case.is_head = method == "HEAD";
            next.case.bytes = request(method, &format!("/{file}/{}", next.name));
            if next.case.expected == ["left"] {
                next.case.way = Way::Leave;
            }
            found.push(std::mem::take(&mut next));
            method = "GET";
        }
    }
    found
}

/// A request with this method.
fn request(method: &str, target: &str) -> Vec<u8> {
    let body = if method == "POST" { "Content-Length: 5\r\n\r\nhello" } else { "\r\n" };
    format!("{method} {target} HTTP/1.1\r\nHost: wsgi.test\r\n{body}").into_bytes()
}

/// The files and what is in them.
fn files() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/applications");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "py"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// A server that has each of `files`.
fn site(mode: Mode, files: &[(String, String)]) -> Httpd {
    let mut site = Site::new(mode.config()).one_child().file("marker.wsgi", MARKER);
    site = site.config("Timeout 10\nWSGIScriptAlias /marker ${ROOT}/marker.wsgi");
    for (name, source) in files {
        site = site
            .file(&format!("{name}.wsgi"), format!("{source}{DISPATCHER}"))
            .config(&format!("WSGIScriptAlias /{name} ${{ROOT}}/{name}.wsgi"));
    }
    let mut httpd = site.start();
    // Their tracebacks are what they are made for; that each line is one is seen below.
    httpd.allow_error("[wsgi:error]");
    httpd
}

/// What is wrong with the answer to `it`.
fn judge(httpd: &Httpd, it: &Application) -> Result<Vec<String>, String> {
    let received = exchange(httpd.port(), &it.case, &it.case.bytes);
    let shown = || received.escape_ascii().map(char::from).take(700).collect::<String>();
    let answers = split(&received, it.case.is_head);
    let mut found = outcome(&answers, it.case.way);
    let expected = &it.case.expected;
    if expected.last().is_some_and(|end| end == "any") {
        found.pop();
        found.push("any".to_owned());
    }
    if !it.case.allows(&found) {
        return Err(format!("{found:?}, not {expected:?}: {}", shown()));
    }
    let Some(answer) = answers.first() else { return Ok(found) };
    if answer.header("x-evil").is_some() {
        return Err(format!("a header was injected: {}", shown()));
    }
    if it.body.as_ref().is_some_and(|body| *body != answer.text()) {
        return Err(format!("the body is not {:?}: {}", it.body, shown()));
    }
    for (name, value) in &it.headers {
        if answer.header(name) != Some(value) {
            return Err(format!("{name} is not {value:?}: {}", shown()));
        }
    }
    Ok(found)
}

/// Runs all of `applications`, and gives what is wrong; `is_served` says whether a good
/// request is answered after it.
fn run(
    httpd: &Httpd,
    mode: Mode,
    files: &[(String, String)],
    is_served: impl Fn(&str) -> bool,
) -> String {
    let mut complaints = String::new();
    for (file, source) in files {
        for it in parse(file, source) {
            if it.is_for_daemons && mode == Mode::Embedded {
                continue;
            }
            let judged = judge(httpd, &it);
            note(&format!("{file}: {}\t{judged:?}\n", it.name));
            if let Err(why) = judged {
                let _ = writeln!(complaints, "{file}: {}: {why}", it.name);
            }
            if !is_served(&format!("/{file}/good")) {
                let _ = writeln!(complaints, "{file}: {}: nothing is served after it", it.name);
            }
            for text in &it.log {
                // What runs at its end may have its say after the client has the answer.
                if poll(DEADLINE, || httpd.log().contains(text).then_some(())).is_none() {
                    let _ = writeln!(complaints, "{file}: {}: the log lacks {text}", it.name);
                }
            }
        }
    }
    complaints
}

/// Has no line in the log that httpd did not write as one of its own.
fn expect_whole_lines(log: &str) {
    let is_record = |line: &&str| line.starts_with('[') && line.get(20..21) == Some(".");
    let odd = |line: &&str| line.len() > 9000 || line.contains(|c: char| c.is_control());
    // Python's and libc's own last words have no prefix of httpd's.
    let injected = log.lines().find(|line| line.contains("evil") && !is_record(line));
    assert_eq!(injected, None);
    assert_eq!(log.lines().find(odd), None);
}

/// Runs every application that leaves its process alive.
fn withstand(mode: Mode) {
    ours_only!("it crashes, hangs or lets pass what we do not");
    let mut files = files();
    files.retain(|(name, _)| name != "deadly");
    let httpd = site(mode, &files);
    for (name, _) in &files {
        httpd.get(&format!("/{name}/good")).ok();
    }
    let before = servants(&httpd);
    let complaints = run(&httpd, mode, &files, |path| httpd.get(path).status == 200);
    assert!(complaints.is_empty(), "{mode:?} mode:\n{complaints}");
    expect_same(&httpd, &before);
    expect_whole_lines(&httpd.log());
}

/// Runs every application that ends its process.
fn recover(mode: Mode) {
    ours_only!("it loses requests where a process ends");
    let mut files = files();
    files.retain(|(name, _)| name == "deadly");
    let mut httpd = site(mode, &files);
    for text in ["exit signal", "ended by", "Fatal Python error", "[wsgi:", "[core:"] {
        httpd.allow_error(text);
    }
    httpd.allow_stacks();
    let complaints = run(&httpd, mode, &files, |path| {
        wait_until(format!("an answer after {path}"), || {
            let answer = httpd.try_send(&Request::get(path)).ok()?;
            (answer.status == 200).then_some(true)
        })
    });
    assert!(complaints.is_empty(), "{mode:?} mode:\n{complaints}");
}

#[test]
fn hostile_applications_do_no_harm_in_embedded_mode() {
    withstand(Mode::Embedded);
}

#[test]
fn hostile_applications_do_no_harm_in_daemon_mode() {
    withstand(Mode::Daemon);
}

#[test]
fn deadly_applications_cost_their_own_request_in_embedded_mode() {
    recover(Mode::Embedded);
}

#[test]
fn deadly_applications_cost_their_own_request_in_daemon_mode() {
    recover(Mode::Daemon);
}
