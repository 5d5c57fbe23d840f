//! The directives about Python: what each interpreter gets of them.

mod host;

use host::options::{Plan, Said};
use host::{Fixture, Request, Setup, with_each_python};
use wsgi_wire::options::hash_seed;
use wsgi_wire::vtable::outcome;

/// Answers with the value of the expression in the request.
const EVAL: &str = "import os, sys, signal, warnings
def application(environ, start_response):
    start_response('200 OK', [])
    try:
        value = eval(environ['expression'])
    except Exception as error:
        value = f'{type(error).__name__}: {error}'
    return [str(value).encode()]
";

/// The value of an expression in an application group.
fn eval(python: &Fixture, group: &'static str, expression: &str) -> String {
    let script = python.directory().join("eval.wsgi");
    if !script.exists() {
        python.script("eval.wsgi", EVAL);
    }
    let request = Request::get(&script).group(group);
    let answer = python.run(&request.variable("expression", expression.as_bytes()));
    assert_eq!(answer.outcome, outcome::DONE, "{expression}: {}", answer.log());
    answer.text()
}

/// A start with these options.
fn with(options: Plan) -> Setup {
    Setup { options, ..Setup::default() }
}

/// A layer for all, or for one.
fn said(group: Option<&'static str>) -> Said {
    Said { group, ..Said::default() }
}

/// Whether this Python is one where interpreters can have locks of their own.
fn can_own_gil() -> bool {
    let program = host::program().to_string_lossy().into_owned();
    !program.ends_with("3.10") && !program.ends_with("3.11")
}

#[test]
fn what_holds_for_the_whole_process_holds_in_every_interpreter() {
    let name = "what_holds_for_the_whole_process_holds_in_every_interpreter";
    with_each_python(name, |python| {
        python.start_with(&with(Plan {
            optimize: 2,
            dont_write_bytecode: true,
            warnings: vec!["error::UserWarning", "ignore::ResourceWarning"],
            python_eggs: "/eggs",
            ..Plan::default()
        }));
        for group in ["", "sub"] {
            assert_eq!(eval(python, group, "sys.flags.optimize"), "2");
            assert_eq!(eval(python, group, "sys.dont_write_bytecode"), "True");
            let options = "[o for o in sys.warnoptions if 'Warning' in o]";
            let wanted = "['error::UserWarning', 'ignore::ResourceWarning']";
            assert_eq!(eval(python, group, options), wanted);
            assert_eq!(eval(python, group, "warnings.warn('x')"), "UserWarning: x");
            assert_eq!(eval(python, group, "os.environ['PYTHON_EGG_CACHE']"), "/eggs");
        }
        python.stop();
    });
}

#[test]
fn without_a_word_python_is_as_it_is() {
    with_each_python("without_a_word_python_is_as_it_is", |python| {
        python.start();
        assert_eq!(eval(python, "", "sys.flags.optimize"), "0");
        assert_eq!(eval(python, "", "sys.flags.hash_randomization"), "1");
        assert_eq!(eval(python, "", "sys.stdout.name"), "<stdout>");
        assert_eq!(eval(python, "sub", "'PYTHON_EGG_CACHE' in os.environ"), "False");
        assert_eq!(eval(python, "", "type(signal.signal).__name__"), "SignalIntercept");
        python.stop();
    });
}

#[test]
fn a_seed_makes_hashes_the_same() {
    with_each_python("a_seed_makes_hashes_the_same", |python| {
        python.start_with(&with(Plan { hash_seed: 7, ..Plan::default() }));
        let ours = eval(python, "", "hash('mod_wsgi')");
        assert_eq!(ours, eval(python, "sub", "hash('mod_wsgi')"));
        let output = std::process::Command::new(host::program())
            .args(["-c", "print(hash('mod_wsgi'))"])
            .env("PYTHONHASHSEED", "7")
            .output()
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(ours, String::from_utf8_lossy(&output.stdout).trim());
        python.stop();
    });
}

#[test]
fn a_random_seed_is_random_whatever_the_environment_says() {
    let name = "a_random_seed_is_random_whatever_the_environment_says";
    with_each_python(name, |python| {
        // SAFETY: this process has one thread yet.
        unsafe { std::env::set_var("PYTHONHASHSEED", "7") };
        python.start_with(&with(Plan { hash_seed: hash_seed::RANDOM, ..Plan::default() }));
        let ours = eval(python, "", "hash('mod_wsgi')");
        let output = std::process::Command::new(host::program())
            .args(["-c", "print(hash('mod_wsgi'))"])
            .output()
            .unwrap_or_else(|error| panic!("{error}"));
        assert_ne!(ours, String::from_utf8_lossy(&output.stdout).trim());
        assert_eq!(eval(python, "", "sys.flags.hash_randomization"), "1");
        python.stop();
    });
}

#[test]
fn restricted_streams_raise_in_the_interpreters_they_are_said_of() {
    let name = "restricted_streams_raise_in_the_interpreters_they_are_said_of";
    with_each_python(name, |python| {
        let layers = vec![
            Said { restrict_stdin: Some(true), ..said(None) },
            Said { restrict_stdout: Some(true), restrict_stdin: Some(false), ..said(Some("sub")) },
        ];
        python.start_with(&with(Plan { layers, ..Plan::default() }));
        let stdin = "OSError: sys.stdin access restricted by mod_wsgi";
        let stdout = "OSError: sys.stdout access restricted by mod_wsgi";
        assert_eq!(eval(python, "", "sys.stdin.read()"), stdin);
        assert_eq!(eval(python, "", "sys.stdin.closed"), stdin);
        assert_eq!(eval(python, "", "print('x')"), "None");
        assert_eq!(eval(python, "sub", "print('x')"), stdout);
        assert_eq!(eval(python, "sub", "type(sys.stdin).__name__"), "TextIOWrapper");
        let kind = "type(sys.stdout).__module__ + '.' + type(sys.stdout).__name__";
        assert_eq!(eval(python, "sub", kind), "mod_wsgi.Restricted");
        python.process_log().clear();
        python.stop();
        assert!(python.process_text().is_empty(), "{}", python.process_text());
    });
}

#[test]
fn signals_are_handled_where_that_is_not_restricted() {
    with_each_python("signals_are_handled_where_that_is_not_restricted", |python| {
        let layers = vec![
            Said { restrict_signal: Some(false), ..said(None) },
            Said { restrict_signal: Some(true), ..said(Some("sub")) },
        ];
        python.start_with(&with(Plan { layers, ..Plan::default() }));
        let set = "int(signal.signal(signal.SIGUSR1, signal.SIG_IGN))";
        // This thread started Python.
        assert_eq!(eval(python, "", set), "0");
        assert_eq!(eval(python, "", "signal.getsignal(signal.SIGUSR1).name"), "SIG_IGN");
        assert_eq!(eval(python, "sub", set), "1");
        let text = python.process_text();
        assert!(!text.contains("Callback registration"), "{text}");
        python.stop();
    });
}

#[test]
fn who_debugs_keeps_the_streams() {
    with_each_python("who_debugs_keeps_the_streams", |python| {
        let layers =
            vec![Said { restrict_stdin: Some(true), restrict_stdout: Some(true), ..said(None) }];
        python.start_with(&with(Plan { layers, is_debugged: true, ..Plan::default() }));
        assert_eq!(eval(python, "", "sys.stdout.fileno(), sys.stdin.fileno()"), "(1, 0)");
        assert_eq!(eval(python, "", "sys.stderr.name"), "<stderr>");
        python.stop();
    });
}

#[test]
fn directories_of_layers_come_before_those_below() {
    with_each_python("directories_of_layers_come_before_those_below", |python| {
        let place = |name: &str| {
            let place = python.directory().join(name);
            std::fs::create_dir_all(&place).unwrap_or_else(|error| panic!("{error}"));
            place.to_string_lossy().into_owned()
        };
        let (base, all, linked, sub) = (place("base"), place("all"), place("linked"), place("s"));
        std::fs::write(format!("{all}/x.pth"), format!("{linked}\n"))
            .unwrap_or_else(|error| panic!("{error}"));
        let layers = vec![
            Said { python_path: all.clone(), ..said(None) },
            Said { python_path: sub.clone(), ..said(Some("sub")) },
        ];
        let setup = with(Plan { layers, ..Plan::default() });
        python.start_with(&Setup { python_path: base.clone(), home: "/".to_owned(), ..setup });
        let first = |group, count| eval(python, group, &format!("':'.join(sys.path[:{count}])"));
        assert_eq!(first("", 4), format!("/:{all}:{linked}:{base}"));
        assert_eq!(first("sub", 5), format!("/:{sub}:{all}:{linked}:{base}"));
        python.stop();
    });
}

#[test]
fn an_interval_is_set_where_there_is_a_lock() {
    with_each_python("an_interval_is_set_where_there_is_a_lock", |python| {
        let layers = vec![
            Said { switch_interval: 0.25, ..said(None) },
            Said { switch_interval: 0.5, ..said(Some("shares")) },
            Said { switch_interval: 0.125, own_gil: Some(true), ..said(Some("own")) },
        ];
        python.start_with(&with(Plan { layers, ..Plan::default() }));
        let interval = "sys.getswitchinterval()";
        assert_eq!(eval(python, "shares", interval), "0.25");
        assert_eq!(eval(python, "other", interval), "0.25");
        let own = if can_own_gil() { "0.125" } else { "0.25" };
        assert_eq!(eval(python, "own", interval), own);
        assert_eq!(eval(python, "", interval), "0.25");
        let text = python.process_text();
        let skipped = if can_own_gil() { 1 } else { 2 };
        assert_eq!(text.matches("WSGI0199").count(), skipped, "{text}");
        assert_eq!(text.contains("WSGI0198"), !can_own_gil(), "{text}");
        python.stop();
    });
}

#[test]
fn interpreters_are_left_as_they_are_where_that_is_wanted() {
    with_each_python("interpreters_are_left_as_they_are_where_that_is_wanted", |python| {
        python.start_with(&with(Plan { keeps_interpreters: true, ..Plan::default() }));
        let register = "__import__('atexit').register(print, 'at the end')";
        eval(python, "", register);
        eval(python, "sub", register);
        python.stop();
        assert!(!python.process_text().contains("at the end"));
    });
}

#[test]
fn a_wish_for_no_lock_is_told_to_be_in_vain() {
    with_each_python("a_wish_for_no_lock_is_told_to_be_in_vain", |python| {
        let layers = vec![Said { free_threading: Some(true), ..said(None) }];
        python.start_with(&with(Plan { layers, ..Plan::default() }));
        assert!(python.process_text().contains("WSGI0200"), "{}", python.process_text());
        python.stop();
    });
}

#[test]
fn scripts_whose_paths_differ_in_case_only_are_one_where_that_is_wanted() {
    let name = "scripts_whose_paths_differ_in_case_only_are_one_where_that_is_wanted";
    with_each_python(name, |python| {
        python.start_with(&with(Plan { ignores_case: true, ..Plan::default() }));
        let source = "import sys
def application(environ, start_response):
    start_response('200 OK', [])
    return [__name__.encode()]
";
        let names = ["One.wsgi", "oNE.wsgi"].map(|name| {
            let script = python.script(name, source);
            python.run(&Request::get(&script)).text()
        });
        assert_eq!(names[0], names[1]);
        python.stop();
    });
}

#[test]
fn modules_that_refuse_sub_interpreters_are_explained() {
    with_each_python("modules_that_refuse_sub_interpreters_are_explained", |python| {
        let layers = vec![Said { own_gil: Some(true), ..said(Some("own")) }];
        python.start_with(&with(Plan { layers, ..Plan::default() }));
        let source = "raise ImportError('cannot load module more than once per process')\n";
        for (group, count) in [("", 0), ("sub", 1)] {
            let script = python.script("numpy.wsgi", source);
            let log = python.run(&Request::get(&script).group(group)).log();
            assert_eq!(log.matches("WSGI9413").count(), count, "{log}");
            assert!(count == 0 || log.contains("WSGIApplicationGroup %{GLOBAL}"), "{log}");
        }
        if can_own_gil() {
            // Not one of those of 3.12 and 3.13.
            let script = python.script("refuses.wsgi", "import _testsinglephase\n");
            let log = python.run(&Request::get(&script).group("own")).log();
            let is_there = !log.contains("No module named");
            assert_eq!(log.contains("WSGIPerInterpreterGIL Off"), is_there, "{log}");
        }
        python.stop();
    });
}
