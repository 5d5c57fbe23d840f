//! Another build of the module takes over at a restart.
#![forbid(unsafe_code)]

use std::fs;

use crate::harness::{Httpd, group, ours_only, python_half, under_test, wait_for_end, wait_until};

/// What begins the name of a build, in the module: the package's version.
const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), "-");

/// A module of another build, with all that belongs to it, in a directory of its own.
fn other_build(httpd: &Httpd) -> std::path::PathBuf {
    let mut module = fs::read(under_test()).unwrap();
    let digits = |at: usize, module: &[u8]| {
        let digits = module.get(at + BUILD.len()..at + BUILD.len() + 16).unwrap_or_default();
        digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit)
    };
    let names: Vec<usize> = (0..module.len())
        .filter(|at| module[*at..].starts_with(BUILD.as_bytes()) && digits(*at, &module))
        .collect();
    assert!(!names.is_empty(), "the module does not say which build it is");
    for at in names {
        let digit = &mut module[at + BUILD.len()];
        *digit = if *digit == b'0' { b'1' } else { b'0' };
    }
    let directory = httpd.path("other");
    fs::create_dir(&directory).unwrap();
    let half = python_half();
    fs::copy(&half, directory.join(half.file_name().unwrap())).unwrap();
    let path = directory.join(under_test().file_name().unwrap());
    fs::write(&path, module).unwrap();
    path
}

#[test]
fn another_build_takes_over_at_a_graceful_restart() {
    ours_only!("the reference starts its processes anew at every restart");
    let httpd = group("processes=2 threads=2").start();
    let old = httpd.daemon();
    let supervisor = httpd.supervisor_of(old.pid).unwrap();
    let (before, after) = (under_test(), other_build(&httpd));
    let config = httpd.read("httpd.conf");
    let changed = config.replace(before.to_str().unwrap(), after.to_str().unwrap());
    assert_ne!(config, changed);
    httpd.write("httpd.conf", changed);
    httpd.graceful();
    let new = httpd.successor_of(&old);
    let its = httpd.supervisor_of(new.pid).unwrap();
    assert_ne!(its.pid, supervisor.pid);
    // The old one is let go, and so ends with its processes.
    wait_for_end(crate::harness::DEADLINE, &[old, supervisor]);
    wait_until("one supervisor and a spare one", || {
        let family = httpd.processes();
        let count = |title: &str| family.iter().filter(|it| it.title() == title).count();
        (count("wsgi: supervisor") == 1 && count("wsgi: spare supervisor") <= 1).then_some(())
    });
    assert!(httpd.get("/").ok().parse::<i32>().is_ok());
}
