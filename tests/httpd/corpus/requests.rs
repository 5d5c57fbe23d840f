//! Requests nobody should send: each gets the answer its file says and no other, and does no
//! harm to what comes after it.
//!
//! `CORPUS_SHOW=file` adds what came of each case to that file.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use super::answers::{Answer, exchange, outcome, split};
use super::format::{Case, Way, read};
use crate::harness::{Httpd, Mode, Process, Site, is_ours};

/// How much a process may grow over all cases together.
const GROWTH_KB: u64 = 64 << 10;

/// What httpd logs as an error when it refuses a request, and we.
const ALLOWED: [&str; 6] =
    ["[core:error]", "WSGI0135", "WSGI0138", "WSGI0139", "WSGI0174", "raise RuntimeError"];

/// The server all the cases of one mode are sent to.
fn site(mode: Mode) -> Site {
    let source = include_str!("requests.wsgi");
    Site::app(mode, source).one_child().config(
        "Timeout 10\nWSGIChunkedRequest On\n<Location /limited>\nLimitRequestBody 1048576\n</Location>\n\
         <VirtualHost *:${PORT}>\nServerName wsgi.test:${PORT}\n</VirtualHost>\n\
         <VirtualHost *:${PORT}>\nServerName decoded.test\nAllowEncodedSlashes On\n\
         </VirtualHost>\n\
         <VirtualHost *:${PORT}>\nServerName kept.test\nAllowEncodedSlashes NoDecode\n\
         </VirtualHost>\n\
         <VirtualHost *:${PORT}>\nServerName lengths.test\nWSGIChunkedRequest Off\n\
         </VirtualHost>\n",
    )
}

/// The cases.
fn cases() -> Vec<Case> {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/requests"))
}

/// A process, and what it has in memory, in kB.
pub type Servant = (Process, u64);

/// The processes of `httpd`, by number.
pub fn servants(httpd: &Httpd) -> Vec<Servant> {
    let resident = |process: &Process| {
        process.status("VmRSS").split(' ').next().unwrap_or_default().parse().unwrap_or(0)
    };
    let mut found = httpd.processes();
    found.sort_by_key(|process| process.pid);
    found.into_iter().map(|process| (process.clone(), resident(&process))).collect()
}

/// Adds `text` to the file that `CORPUS_SHOW` names, if there is one.
pub fn note(text: &str) {
    if let Some(file) = std::env::var_os("CORPUS_SHOW") {
        let mut file = File::options().create(true).append(true).open(file).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}

/// What is wrong with the answer to `bytes`, the whole of `case` or the beginning of it.
fn judge(httpd: &Httpd, case: &Case, bytes: &[u8]) -> Result<Vec<String>, String> {
    let received = exchange(httpd.port(), case, bytes);
    let answers = split(&received, case.is_head);
    let outcome = outcome(&answers, case.way);
    let is_smuggled = |answer: &Answer| answer.text().contains("PATH_INFO '/echo/smuggled'");
    if answers.iter().any(is_smuggled) {
        return Err(format!("a request was smuggled: {outcome:?}"));
    }
    if !case.allows(&outcome) {
        let shown: String = received.escape_ascii().map(char::from).take(700).collect();
        return Err(format!("{outcome:?}, not {:?}: {shown}", case.expected));
    }
    let is_final = |answer: &&Answer| !answer.status.starts_with('1');
    let text = answers.iter().find(is_final).map(Answer::text).unwrap_or_default();
    for line in &case.present {
        if !text.lines().any(|found| found == line) {
            return Err(format!("no {line} in {text}"));
        }
    }
    for key in &case.absent {
        if text.lines().any(|found| found.split(' ').next() == Some(key)) {
            return Err(format!("{key} in {text}"));
        }
    }
    Ok(outcome)
}

/// What is wrong with the answers to `case`, sent as it says.
fn judge_each(httpd: &Httpd, case: &Case) -> Result<Vec<String>, String> {
    if case.way != Way::Cut {
        return judge(httpd, case, &case.bytes);
    }
    let mut last = Vec::new();
    for end in 1..case.bytes.len() {
        last = judge(httpd, case, &case.bytes[..end])
            .map_err(|why| format!("cut after {end} bytes: {why}"))?;
    }
    Ok(last)
}

/// Sends every case to `httpd` and gives what is wrong.
fn send_all(httpd: &Httpd) -> String {
    let mut complaints = String::new();
    for case in cases() {
        let judged = judge_each(httpd, &case);
        note(&format!("{}\t{judged:?}\n", case.name));
        if let Err(why) = judged {
            let _ = writeln!(complaints, "{}: {why}", case.name);
        }
        assert_eq!(httpd.get("/good").status, 200, "after {}", case.name);
    }
    complaints
}

/// Sends every case in `mode`.
fn withstand(mode: Mode) {
    let mut httpd = site(mode).start();
    ALLOWED.iter().for_each(|text| httpd.allow_error(text));
    httpd.expect_error("RuntimeError: as asked");
    if !is_ours() {
        // It takes the faults of clients for errors (row 27).
        httpd.allow_error("[wsgi:error]");
    }
    assert_eq!(httpd.get("/good").status, 200);
    let before = servants(&httpd);
    let complaints = send_all(&httpd);
    assert!(complaints.is_empty(), "{mode:?} mode:\n{complaints}");
    expect_same(&httpd, &before);
    // httpd cuts lines at their end: no path is so long that the reason does not fit.
    let unfit = httpd.log().matches("WSGI0135").count();
    assert!(!is_ours() || unfit == 2, "{unfit} lines of paths that are too long");
}

/// Fails unless the processes are still those of `before` and have not grown beyond bounds.
pub fn expect_same(httpd: &Httpd, before: &[Servant]) {
    let after = servants(httpd);
    let pids = |all: &[Servant]| all.iter().map(|(it, _)| it.pid).collect::<Vec<_>>();
    // The states of processes differ from one look to the next.
    assert_eq!(pids(&after), pids(before), "a process died; log:\n{}", httpd.log());
    assert!(before.iter().all(|(it, _)| it.is_alive()), "a process died; log:\n{}", httpd.log());
    for ((process, size), (_, old)) in after.iter().zip(before) {
        let growth = size.saturating_sub(*old);
        assert!(growth < GROWTH_KB, "{} grew {growth} kB", process.title());
    }
}

#[test]
fn hostile_requests_do_no_harm_in_embedded_mode() {
    withstand(Mode::Embedded);
}

#[test]
fn hostile_requests_do_no_harm_in_daemon_mode() {
    withstand(Mode::Daemon);
}
