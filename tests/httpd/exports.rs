//! What the two libraries export: one symbol each, so that nothing of ours meets a symbol of
//! httpd, of Python or of another module.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;

use crate::harness::{ours_only, python_half, under_test};

/// The names a library defines for others.
fn exported(library: &Path) -> Vec<String> {
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(library).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect()
}

/// The names a library expects others to define.
fn wanted(library: &Path) -> String {
    let output = Command::new("nm").args(["-D", "--undefined-only"]).arg(library).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_apache_half_exports_its_module_record_only() {
    ours_only!("the reference has its own idea");
    assert_eq!(exported(&under_test()), ["wsgi_module"]);
}

#[test]
fn the_python_half_exports_its_entry_point_only() {
    ours_only!("the reference has one library");
    assert_eq!(exported(&python_half()), ["wsgi_python_runtime"]);
}

#[test]
fn the_apache_half_does_without_python() {
    ours_only!("the reference is linked to one Python");
    let wanted = wanted(&under_test());
    assert!(!wanted.lines().any(|line| line.contains(" Py") || line.contains(" _Py")), "{wanted}");
}

#[test]
fn the_python_half_does_without_httpd() {
    ours_only!("the reference has one library");
    let wanted = wanted(&python_half());
    assert!(
        !wanted.lines().any(|line| line.contains(" ap_") || line.contains(" apr_")),
        "{wanted}"
    );
}
