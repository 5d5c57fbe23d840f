//! What a daemon process is given: its limits, its priority, its environment.
#![forbid(unsafe_code)]

use crate::harness::{Site, eval, is_root, ours_only, skip};

/// Answers with the value of the Python expression in the query string.
const EVAL: &str = "
import ctypes, os, resource
from urllib.parse import unquote
def stack():
    # How large the stack of this thread is.
    attributes, size = ctypes.create_string_buffer(256), ctypes.c_size_t()
    libc = ctypes.CDLL(None)
    libc.pthread_self.restype = ctypes.c_void_p
    libc.pthread_getattr_np(ctypes.c_void_p(libc.pthread_self()), attributes)
    libc.pthread_attr_getstacksize(attributes, ctypes.byref(size))
    return size.value
def application(environ, start_response):
    text = str(eval(unquote(environ['QUERY_STRING'])))
    start_response('200 OK', [])
    return [text.encode()]
";

/// A server whose application runs in a daemon process group with these options.
fn site(options: &str) -> Site {
    Site::new(&format!(
        "WSGIRestrictEmbedded On\nWSGIDaemonProcess one {options}\nWSGIProcessGroup one\n\
         WSGIApplicationGroup %{{GLOBAL}}\nWSGIScriptAlias / ${{ROOT}}/app.wsgi"
    ))
    .file("app.wsgi", EVAL)
}

/// What a Python expression is worth in a daemon process with these options.
#[track_caller]
fn with(options: &str, expression: &str) -> String {
    eval(&site(options).start(), expression)
}

#[test]
fn a_limit_on_memory_is_soft_and_hard() {
    let limit = |option: &str, name: &str| with(option, &format!("resource.getrlimit({name})"));
    let (data, all) = ("resource.RLIMIT_DATA", "resource.RLIMIT_AS");
    assert_eq!(limit("memory-limit=3000000000", data), "(3000000000, 3000000000)");
    assert_eq!(limit("virtual-memory-limit=70000000000", all), "(70000000000, 70000000000)");
    let unlimited = limit("", data);
    assert_eq!(limit("memory-limit=0", data), unlimited);
}

#[test]
fn an_application_that_wants_more_memory_than_it_may_is_told() {
    let httpd = site("memory-limit=500000000 threads=2").start();
    httpd.write(
        "app.wsgi",
        "def application(environ, start_response):\n    start_response('200 OK', [])\n    \
         try:\n        return [str(len(bytearray(800000000))).encode()]\n    \
         except MemoryError:\n        return [b'too much']\n",
    );
    assert_eq!(httpd.get("/").ok(), "too much");
}

#[test]
fn a_limit_on_processor_time_leaves_time_to_end() {
    ours_only!("row 57: the reference has a hard limit too, which kills what still runs");
    let limit = "resource.getrlimit(resource.RLIMIT_CPU)";
    let without = with("", limit);
    let hard = without.split_once(", ").unwrap().1;
    assert_eq!(with("cpu-time-limit=50", limit), format!("(50, {hard}"));
}

#[test]
fn the_priority_is_the_one_given() {
    let priority = "os.getpriority(os.PRIO_PROCESS, 0)";
    assert_eq!(with("cpu-priority=7", priority), "7");
    if !is_root() {
        return skip("only root raises a priority");
    }
    assert_eq!(with("cpu-priority=-3", priority), "-3");
}

#[test]
fn the_stack_of_a_worker_is_as_large_as_it_is_told() {
    let size: u64 = with("stack-size=3145728", "stack()").parse().unwrap();
    assert!((3_145_728..3_300_000).contains(&size), "{size}");
    assert_ne!(with("", "stack()"), size.to_string());
}

#[test]
fn eggs_are_unpacked_where_the_group_says() {
    assert_eq!(with("python-eggs=/some/where", "os.environ['PYTHON_EGG_CACHE']"), "/some/where");
}

#[test]
fn a_group_has_variables_of_its_own() {
    ours_only!("row 19: the reference has no such option");
    let httpd = site("env=A=1 env=\"B=two words\" env=C=x=y env=A=3 lang=C.UTF-8").start();
    assert_eq!(eval(&httpd, "[os.environ[name] for name in 'ABC']"), "['3', 'two words', 'x=y']");
    // Python itself obeys those that are for it.
    let httpd = site("env=PYTHONDONTWRITEBYTECODE=1 env=PYTHONPATH=/of/the/group").start();
    let python = "__import__('sys').dont_write_bytecode, '/of/the/group' in __import__('sys').path";
    assert_eq!(eval(&httpd, python), "(True, True)");
}

#[test]
fn a_cleared_environment_keeps_the_basics() {
    ours_only!("row 30: the reference inherits everything");
    let site = site("clear-env=On env=OWN=1");
    let httpd = site.env("FROM_ENVVARS", "gone").env("TZ", "UTC").start();
    let names = "[name for name in ('FROM_ENVVARS', 'TZ', 'PATH', 'OWN') if name in os.environ]";
    assert_eq!(eval(&httpd, names), "['TZ', 'PATH', 'OWN']");
}

#[test]
fn options_of_named_sockets_are_accepted_with_one_notice() {
    ours_only!("the reference has sockets with a name, and gives them to this user");
    let options = "socket-user=daemon send-buffer-size=4096 receive-buffer-size=4096";
    let httpd = site(options).start();
    assert_eq!(eval(&httpd, "1"), "1");
    let log = httpd.log();
    let said: Vec<&str> = log.lines().filter(|it| it.contains("accepted without effect")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    for word in ["[wsgi:notice]", "socket-user", "send-buffer-size", "receive-buffer-size"] {
        assert!(said[0].contains(word), "{word}: {said:?}");
    }
}
