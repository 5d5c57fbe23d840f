//! The directives about Python itself, and what is said of some interpreters only.
#![forbid(unsafe_code)]

use std::net::TcpStream;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{
    Connection, DEADLINE, Httpd, Request, Site, expect_refusal, is_ours, ours_only, python_half,
    wait_for_end, wait_until,
};

/// Answers with the value of the expression that the query is.
const EVAL: &str = "
import os, signal, sys, warnings
from urllib.parse import unquote
def application(environ, start_response):
    start_response('200 OK', [])
    try:
        value = eval(unquote(environ['QUERY_STRING']))
    except Exception as error:
        value = '%s: %s' % (type(error).__name__, error)
    return [str(value).encode()]
";

/// Embedded at `/e/main` and `/e/sub`, in group `one` at `/one/main` and `/one/sub`, in
/// group `two` likewise.
fn site(config: &str) -> Site {
    let mut text = String::new();
    for group in ["one", "two"] {
        text += &format!("WSGIDaemonProcess {group} threads=2\n");
    }
    for (url, group) in [("e", "%{GLOBAL}"), ("one", "one"), ("two", "two")] {
        for (name, application) in [("main", "%{GLOBAL}"), ("sub", "sub")] {
            text += &format!(
                "WSGIScriptAlias /{url}/{name} ${{ROOT}}/app.wsgi process-group={group} \
                 application-group={application}\n"
            );
        }
    }
    Site::new(&(text + config)).file("app.wsgi", EVAL)
}

/// Where an expression is evaluated in [`site`].
const PLACES: [&str; 6] = ["e/main", "e/sub", "one/main", "one/sub", "two/main", "two/sub"];

/// Starts a site where standard output is out of reach: the reference complains of that
/// when it ends.
fn start_restricted(site: Site) -> Httpd {
    let mut httpd = site.start();
    if !is_ours() {
        httpd.allow_error("Exception ignored in: <mod_wsgi.Restricted object");
        httpd.allow_error("OSError: sys.stdout access restricted by mod_wsgi");
    }
    httpd
}

/// The value of an expression at one of [`PLACES`].
#[track_caller]
fn eval(httpd: &Httpd, place: &str, expression: &str) -> String {
    let escaped: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
    httpd.get(&format!("/{place}?{escaped}")).ok()
}

/// The value of an expression at each of [`PLACES`].
#[track_caller]
fn everywhere(httpd: &Httpd, expression: &str) -> [String; 6] {
    PLACES.map(|place| eval(httpd, place, expression))
}

#[test]
fn optimisation_bytecode_and_warnings_are_of_all_interpreters() {
    let httpd = site(
        "WSGIPythonOptimize 2\nWSGIDontWriteBytecode On\n\
         WSGIPythonWarnings error::UserWarning\nWSGIPythonWarnings ignore::ResourceWarning",
    )
    .start();
    let expression = "(sys.flags.optimize, sys.dont_write_bytecode, __debug__, \
        [o for o in sys.warnoptions if '::' in o])";
    let wanted = "(2, True, False, ['error::UserWarning', 'ignore::ResourceWarning'])";
    for value in everywhere(&httpd, expression) {
        assert_eq!(value, wanted);
    }
    for value in everywhere(&httpd, "warnings.warn('x')") {
        assert_eq!(value, "UserWarning: x");
    }
}

#[test]
fn a_level_of_optimisation_below_one_is_none() {
    for level in ["0", "-1"] {
        let httpd = site(&format!("WSGIPythonOptimize {level}\nWSGIDontWriteBytecode Off")).start();
        assert_eq!(eval(&httpd, "e/main", "sys.flags.optimize"), "0");
        assert_eq!(eval(&httpd, "one/sub", "sys.dont_write_bytecode"), "False");
    }
}

#[test]
fn a_fixed_seed_makes_hashes_the_same_in_all_processes() {
    let httpd = site("WSGIPythonHashSeed 4294967295").start();
    let values = everywhere(&httpd, "hash('mod_wsgi')");
    assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
    for value in everywhere(&httpd, "sys.flags.hash_randomization") {
        assert_eq!(value, "1");
    }
    let again = site("WSGIPythonHashSeed 4294967295").start();
    assert_eq!(eval(&again, "two/sub", "hash('mod_wsgi')"), values[0]);
}

#[test]
fn a_random_seed_is_another_in_each_process() {
    ours_only!("row 13: the reference has seed 0");
    let httpd = site("WSGIPythonHashSeed random").env("PYTHONHASHSEED", "5").start();
    let values = everywhere(&httpd, "hash('mod_wsgi')");
    for (one, other) in [(0, 2), (0, 4), (2, 4)] {
        assert_ne!(values[one], values[other], "{values:?}");
    }
    // The interpreters of a process share theirs.
    assert_eq!(values[2], values[3]);
}

#[test]
fn the_egg_cache_of_the_server_is_for_embedded_mode() {
    let httpd = site("WSGIPythonEggs ${ROOT}/eggs").start();
    let eggs = httpd.path("eggs").display().to_string();
    let values = everywhere(&httpd, "os.environ.get('PYTHON_EGG_CACHE')");
    assert_eq!(values, [&*eggs, &*eggs, "None", "None", "None", "None"]);
}

#[test]
fn standard_input_and_output_are_out_of_reach_where_that_is_said() {
    let httpd = start_restricted(site(
        "WSGIRestrictStdin On\n\
         <WSGIInterpreterOptions process-group=one>\nWSGIRestrictStdin Off\n\
         WSGIRestrictStdout On\n</WSGIInterpreterOptions>",
    ));
    for (place, value) in PLACES.iter().zip(everywhere(&httpd, "sys.stdin.read()")) {
        let is_restricted = !place.starts_with("one");
        assert_eq!(value.starts_with("OSError: "), is_restricted, "{place}: {value}");
    }
    let kind = "type(sys.stdout).__module__ + '.' + type(sys.stdout).__name__";
    for (place, value) in PLACES.iter().zip(everywhere(&httpd, kind)) {
        let is_restricted = place.starts_with("one");
        assert_eq!(value == "mod_wsgi.Restricted", is_restricted, "{place}: {value}");
    }
    assert!(eval(&httpd, "one/main", "print('x')").starts_with("OSError: "));
    assert!(eval(&httpd, "one/sub", "sys.stdout.closed").contains("stdout"));
    assert_eq!(eval(&httpd, "e/sub", "sys.stdin.__class__.__name__ if 0 else 1"), "1");
}

#[test]
fn whoever_handles_signals_is_named_and_nothing_is_installed() {
    let httpd = site("LogLevel wsgi:info").start();
    let set = "signal.signal(signal.SIGTERM, signal.SIG_IGN).name, \
        signal.getsignal(signal.SIGTERM) is signal.SIG_IGN";
    for value in everywhere(&httpd, set) {
        assert_eq!(value, "('SIG_IGN', False)");
    }
    let log = httpd.log();
    assert_eq!(log.matches("registration for signal 15").count(), 6, "{log}");
    assert!(log.contains("in application"), "{log}");
    assert!(eval(&httpd, "e/main", "signal.signal('x', 1)").starts_with("TypeError"));
}

#[test]
fn a_process_the_application_forks_handles_signals() {
    let source = "
import os, signal
def application(environ, start_response):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        os._exit(int(signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN))
    status = os.waitpid(pid, 0)[1]
    start_response('200 OK', [])
    return [str(os.waitstatus_to_exitcode(status)).encode()]
";
    for options in ["", "process-group=one"] {
        let config = format!(
            "WSGIDaemonProcess one threads=2\n\
             WSGIScriptAlias / ${{ROOT}}/app.wsgi {options}\nWSGIApplicationGroup %{{GLOBAL}}"
        );
        let httpd = Site::new(&config).file("app.wsgi", source).start();
        assert_eq!(httpd.get("/").ok(), "1");
    }
}

#[test]
fn signals_are_handled_where_that_is_not_restricted() {
    let source = "
import os, signal
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
def application(environ, start_response):
    start_response('200 OK', [])
    said = [signal.getsignal(signal.SIGUSR2), type(signal.signal).__name__]
    return [str(text).encode() for text in said]
";
    let config = "WSGIDaemonProcess one threads=2\n\
        WSGIScriptAlias / ${ROOT}/app.wsgi process-group=one application-group=%{GLOBAL}\n\
        <WSGIInterpreterOptions process-group=one>\nWSGIRestrictSignal Off\n\
        </WSGIInterpreterOptions>";
    let httpd = Site::new(config).file("app.wsgi", source).start();
    let answer = httpd.get("/").ok();
    assert!(answer.ends_with("function"), "{answer}");
    assert!(answer.contains("SIG_IGN") || answer.starts_with('1'), "{answer}");
}

#[test]
fn directories_of_blocks_add_up_with_the_most_specific_first() {
    let site = site(
        "WSGIPythonPath ${ROOT}/server\n\
         <WSGIInterpreterOptions process-group=one application-group=sub>\n\
         WSGIPythonPath ${ROOT}/both\n</WSGIInterpreterOptions>\n\
         <WSGIInterpreterOptions application-group=sub>\n\
         WSGIPythonPath ${ROOT}/sub\n</WSGIInterpreterOptions>\n\
         <WSGIInterpreterOptions process-group=one>\n\
         WSGIPythonPath ${ROOT}/one\n</WSGIInterpreterOptions>\n\
         <WSGIInterpreterOptions>\n\
         WSGIPythonPath ${ROOT}/all:${ROOT}/all2\n</WSGIInterpreterOptions>",
    );
    let names = ["server", "both", "sub", "one", "all", "all2", "linked"];
    let site = names.iter().fold(site, |site, name| site.file(&format!("{name}/x"), ""));
    let link = format!("{}\n", site.root().join("linked").display());
    let httpd = site.file("sub/l.pth", link).start();
    let expression = format!(
        "' '.join(os.path.basename(p) for p in sys.path if p.startswith('{}'))",
        httpd.root().display()
    );
    assert_eq!(
        everywhere(&httpd, &expression),
        [
            "all all2 server",
            "sub linked all all2 server",
            "one all all2",
            "both one sub linked all all2",
            "all all2",
            "sub linked all all2",
        ]
    );
}

#[test]
fn an_interval_is_one_of_a_lock() {
    let httpd = site(
        "WSGISwitchInterval 0.25\n\
         <WSGIInterpreterOptions process-group=two>\nWSGISwitchInterval 0.125\n\
         </WSGIInterpreterOptions>\n\
         <WSGIInterpreterOptions process-group=one application-group=sub>\n\
         WSGISwitchInterval 0.5\n</WSGIInterpreterOptions>",
    )
    .start();
    let values = everywhere(&httpd, "sys.getswitchinterval()");
    assert_eq!(values, ["0.25", "0.25", "0.25", "0.25", "0.125", "0.125"]);
    assert_eq!(httpd.logged("WSGI0199"), 1, "{}", httpd.log());
}

#[test]
fn the_option_of_a_group_holds_before_the_directive() {
    let config = "WSGISwitchInterval 0.25\nWSGIDaemonProcess one threads=1 switch-interval=0.5\n\
        WSGIScriptAlias /e ${ROOT}/app.wsgi application-group=%{GLOBAL}\n\
        WSGIScriptAlias /d ${ROOT}/app.wsgi process-group=one application-group=%{GLOBAL}";
    let httpd = Site::new(config).file("app.wsgi", EVAL).start();
    assert_eq!(eval(&httpd, "e", "sys.getswitchinterval()"), "0.25");
    assert_eq!(eval(&httpd, "d", "sys.getswitchinterval()"), "0.5");
}

#[test]
fn scripts_that_differ_in_case_are_one_application_where_case_does_not_count() {
    let source = "
def application(environ, start_response):
    start_response('200 OK', [])
    group = environ['mod_wsgi.application_group']
    return [(group + ' ' + __name__).encode()]
";
    for (word, same) in [("Off", true), ("On", false)] {
        let config = format!(
            "WSGICaseSensitivity {word}\nWSGIDaemonProcess one threads=1\n\
             WSGIScriptAlias /e ${{ROOT}}/scripts\nAddHandler wsgi-script .wsgi\n\
             WSGIScriptAlias /d ${{ROOT}}/scripts process-group=one"
        );
        let site = Site::new(&config).file("scripts/One.wsgi", source);
        // One file under two names, as a file system that ignores case has it.
        let scripts = site.root().join("scripts");
        std::fs::hard_link(scripts.join("One.wsgi"), scripts.join("one.wsgi")).unwrap();
        let httpd = site.start();
        for mode in ["e", "d"] {
            let [one, other] =
                ["One", "one"].map(|name| httpd.get(&format!("/{mode}/{name}.wsgi")));
            assert_eq!(one.ok() == other.ok(), same, "{mode} {word}");
        }
    }
}

#[test]
fn python_is_not_ended_where_that_is_not_wanted() {
    let source = "
import atexit, os
def note(name):
    with open(os.path.dirname(__file__) + '/run/ends', 'a') as file:
        file.write(name + '\\n')
def application(environ, start_response):
    atexit.register(note, environ['SCRIPT_NAME'])
    start_response('200 OK', [])
    return [b'']
";
    for (word, ends) in [("Off", false), ("On", true)] {
        let config = format!(
            "WSGIDestroyInterpreter {word}\nWSGIDaemonProcess one threads=1\n\
             WSGIScriptAlias /main ${{ROOT}}/app.wsgi application-group=%{{GLOBAL}} \
             process-group=one\nWSGIScriptAlias /sub ${{ROOT}}/app.wsgi process-group=one"
        );
        let site = Site::new(&config).file("app.wsgi", source);
        site.open_run();
        let mut httpd = site.start();
        httpd.get("/main").ok();
        httpd.get("/sub").ok();
        let family = httpd.processes();
        httpd.end_by(Signal::SIGTERM);
        wait_for_end(DEADLINE, &family);
        let mut ended: Vec<String> = httpd.read("run/ends").lines().map(str::to_owned).collect();
        ended.sort();
        let wanted: &[&str] = if ends { &["/main", "/sub"] } else { &[] };
        assert_eq!(ended, wanted, "{word}");
    }
}

#[test]
fn words_and_numbers_that_cannot_be_meant_are_refused() {
    for line in [
        "WSGIDontWriteBytecode 1",
        "WSGIPythonHashSeed -1",
        "WSGIPythonHashSeed 4294967296",
        "WSGIPythonHashSeed sometimes",
        "WSGISwitchInterval 0",
        "WSGISwitchInterval -1",
        "WSGISwitchInterval fast",
        "WSGIDestroyInterpreter Never",
        "WSGIPerInterpreterGIL Yes",
        "WSGIFreeThreading Yes",
        "WSGIRestrictStdin Yes",
        "WSGIRestrictStdout Yes",
        "WSGIRestrictSignal Yes",
        "WSGICaseSensitivity Yes",
        "WSGIVerboseDebugging Yes",
    ] {
        expect_refusal(line);
    }
    ours_only!("row 37: the reference takes what is no number for 0");
    expect_refusal("WSGIPythonOptimize high");
}

#[test]
fn what_is_said_of_python_is_said_of_the_whole_server() {
    for line in [
        "WSGIPythonOptimize 1",
        "WSGIDontWriteBytecode On",
        "WSGIPythonWarnings default",
        "WSGIPythonHashSeed 1",
        "WSGIPythonEggs /tmp",
        "WSGISwitchInterval 1",
        "WSGIDestroyInterpreter On",
        "WSGIPerInterpreterGIL On",
        "WSGIFreeThreading Off",
        "WSGIRestrictStdin On",
        "WSGIRestrictStdout On",
        "WSGIRestrictSignal On",
        "WSGICaseSensitivity On",
        "WSGIVerboseDebugging Off",
        "<WSGIInterpreterOptions>\n</WSGIInterpreterOptions>",
    ] {
        for section in ["VirtualHost *:1", "Location /x"] {
            let name = section.split_once(' ').map_or(section, |(name, _)| name);
            let text = format!("<{section}>\n{line}\n</{name}>");
            let said = Site::new(&text).refusal();
            assert!(said.contains("WSGI"), "{text}: {said}");
        }
    }
}

#[test]
fn selectors_that_cannot_be_meant_are_refused() {
    for selectors in [
        " process-group=one process-group=two>",
        " process-group>",
        " group=one>",
        " one>",
        " process-group=one",
    ] {
        let text = format!("<WSGIInterpreterOptions{selectors}\n</WSGIInterpreterOptions>");
        let said = Site::new(&text).refusal();
        assert!(said.contains("WSGIInterpreterOptions"), "{text}: {said}");
    }
    let inside = "<WSGIInterpreterOptions>\nWSGISwitchInterval fast\n</WSGIInterpreterOptions>";
    let said = Site::new(inside).refusal();
    assert!(said.contains("WSGISwitchInterval") || !is_ours(), "{said}");
}

#[test]
fn blocks_that_do_not_do_what_they_seem_to_are_named() {
    ours_only!("the reference says less");
    let lines = "<WSGIInterpreterOptions process-group=nobody>\n</WSGIInterpreterOptions>\n\
        <WSGIInterpreterOptions application-group=a>\nWSGIFreeThreading On\n\
        WSGIPythonOptimize 1\nWSGIPythonPath /no/such/place\n</WSGIInterpreterOptions>\n\
        WSGIVerboseDebugging On";
    let (is_good, said) = Site::new(lines).configtest();
    assert!(is_good, "{said}");
    for text in [
        "WSGI9222: ",
        "'nobody', which is not defined",
        "WSGI0201: ",
        "WSGI9221: ",
        "WSGIPythonOptimize in a WSGIInterpreterOptions block",
        "WSGI9212: ",
        "'/no/such/place'",
        "WSGIVerboseDebugging has no effect",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    ours_only!("a block in a block");
    let nested = "<WSGIInterpreterOptions>\n<WSGIInterpreterOptions>\n\
        </WSGIInterpreterOptions>\n</WSGIInterpreterOptions>";
    let said = Site::new(nested).refusal();
    assert!(said.contains("cannot stand inside another one"), "{said}");
}

#[test]
fn what_a_block_does_not_keep_to_itself_holds_for_the_server() {
    let httpd = site(
        "<WSGIInterpreterOptions process-group=two>\nWSGIPythonOptimize 1\n\
         </WSGIInterpreterOptions>",
    )
    .start();
    for value in everywhere(&httpd, "sys.flags.optimize") {
        assert_eq!(value, "1");
    }
}

#[test]
fn blocks_work_in_macros_and_with_definitions() {
    let modules = "LoadModule macro_module ${MODULES}/mod_macro.so\n";
    let httpd = start_restricted(site(&format!(
        "{modules}Define GROUP one\n\
         <Macro Quiet $group>\n<WSGIInterpreterOptions process-group=$group>\n\
         WSGIRestrictStdout On\n</WSGIInterpreterOptions>\n</Macro>\n\
         Use Quiet ${{GROUP}}\nUse Quiet two\n\
         <IfDefine GROUP>\n<WSGIInterpreterOptions process-group=two application-group=sub>\n\
         WSGIRestrictStdout Off\n</WSGIInterpreterOptions>\n</IfDefine>"
    )));
    let values = everywhere(&httpd, "type(sys.stdout).__name__ == 'Restricted'");
    assert_eq!(values, ["False", "False", "True", "True", "True", "False"]);
}

#[test]
fn a_block_is_shown_with_the_configuration() {
    let config = "LoadModule info_module ${MODULES}/mod_info.so\n\
        <WSGIInterpreterOptions process-group=%{GLOBAL}>\nWSGIRestrictStdin On\n\
        </WSGIInterpreterOptions>";
    let site = Site::new(config);
    site.write_config();
    let output = site.command().args(["-t", "-D", "DUMP_CONFIG"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for text in ["<WSGIInterpreterOptions process-group=%{GLOBAL}>", "WSGIRestrictStdin On"] {
        assert!(said.contains(text), "{text}: {said}");
    }
}

#[test]
fn who_debugs_httpd_keeps_the_terminal() {
    ours_only!("the harness waits for our Python half");
    let _ = python_half();
    let site = Site::new(
        "WSGIRestrictStdin On\nWSGIRestrictStdout On\nWSGIScriptAlias / ${ROOT}/app.wsgi",
    )
    .file("app.wsgi", EVAL);
    site.write_config();
    let mut command: Command = site.command();
    let mut child = command.arg("-X").stdin(Stdio::null()).spawn().unwrap();
    let port = site.port();
    wait_until("httpd -X to listen", || TcpStream::connect(("127.0.0.1", port)).ok());
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut connection = Connection::new(stream);
    let expression = "sys.stdin.fileno(),sys.stdout.fileno()";
    let request = Request::get(&format!("/?{expression}"));
    let answer = connection.exchange(&request);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    wait_until("httpd to end", || child.try_wait().unwrap());
    assert_eq!(answer.map(|answer| answer.text()).ok().as_deref(), Some("(0, 1)"));
}
