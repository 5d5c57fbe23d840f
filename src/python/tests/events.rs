//! Events, `request_data` and `LogHandler`, under each Python.

mod host;

use host::{Request, Setup, with_each_python};
use wsgi_wire::vtable::{level, outcome};

/// Notes every event in a list that the answer shows; other callbacks see what is added.
const NOTES: &str = "import mod_wsgi
seen = []
@mod_wsgi.subscribe_events
def note(event, /, **details):
    seen.append((event, details))
    return {'added': 1}
@mod_wsgi.subscribe_events
def second(event, **details):
    assert details['added'] == 1
def application(environ, start_response):
    path = environ.get('path', '')
    if path == 'raise':
        raise KeyError('x')
    if path == 'read':
        while environ['wsgi.input'].read(2):
            pass
    mod_wsgi.request_data()['own'] = 1
    assert mod_wsgi.active_requests == {'abc': mod_wsgi.request_data()}, mod_wsgi.active_requests
    start_response('201 Created', [('X-A', 'b')])
    return [b'ab', b'c']
def show(environ, start_response):
    start_response('200 OK', [])
    mod_wsgi.event_callbacks.clear()
    return [repr(eval(environ['path'])).encode()]
";

#[test]
fn each_event_has_its_details() {
    with_each_python("each_event_has_its_details", |python| {
        python.start_with(&Setup { process_group: "one", ..Setup::default() });
        for group in ["", "sub"] {
            let script = python.script(&format!("notes{group}.wsgi"), NOTES);
            let request = |path: &'static str| {
                Request::get(&script)
                    .group(group)
                    .variable("mod_wsgi.request_id", b"abc")
                    .server_pid(4711)
                    .variable("path", path.as_bytes())
            };
            let answer = python.run(&request("read").body(&[b"defg"]));
            assert_eq!(answer.exchange.status, "201 Created", "{}", answer.log());
            let show = "[(event, sorted(details)) for event, details in seen]";
            let answer = python.run(&Request { callable: "show", ..request(show) });
            let text = answer.text();
            for wanted in [
                "('request_started', ['application_object', 'application_start', \
                 'callable_object', 'daemon_connects', 'daemon_restarts', 'daemon_start', \
                 'queue_start', 'request_data', 'request_environ', 'request_id', \
                 'request_start', 'server_pid', 'thread_id'])",
                "('response_started', ['exception_info', 'request_data', 'request_id', \
                 'response_headers', 'response_status'])",
                "('request_finished', ['application_finish', 'application_time', \
                 'cpu_system_time', 'cpu_time', 'cpu_user_time', 'daemon_start', \
                 'gil_wait_count', 'gil_wait_time', 'input_length', 'input_reads', \
                 'input_time', 'output_length', 'output_time', 'output_writes', 'queue_start', \
                 'request_data', 'request_id', 'request_start', 'server_pid', 'status', \
                 'thread_id'])",
            ] {
                assert!(text.contains(wanted), "{wanted}\n{text}");
            }
            assert_eq!(answer.log(), "");
        }
        python.stop();
    });
}

#[test]
fn values_have_the_types_of_the_reference() {
    with_each_python("values_have_the_types_of_the_reference", |python| {
        python.start();
        let script = python.script("notes.wsgi", NOTES);
        let request = |path: &'static str| {
            Request::get(&script)
                .variable("mod_wsgi.request_id", b"abc")
                .server_pid(4711)
                .variable("path", path.as_bytes())
        };
        // The first finds out that waits for Python are to be counted.
        python.run(&request("read").body(&[b"defg"]));
        python.run(&request("read").body(&[b"defg"]));
        let show = "[sorted((key, type(value).__name__) for key, value in details.items()) \
                    for event, details in seen if event == 'request_finished'][-1]";
        let types = python.run(&Request { callable: "show", ..request(show) }).text();
        for key in ["input_reads", "input_length", "output_writes", "status", "gil_wait_count"] {
            assert!(types.contains(&format!("('{key}', 'int')")), "{key}: {types}");
        }
        for key in ["request_start", "cpu_time", "application_finish", "gil_wait_time"] {
            assert!(types.contains(&format!("('{key}', 'float')")), "{key}: {types}");
        }
        let values = "[[seen[at][1][key] for key in ('input_reads', 'input_length', \
                      'output_writes', 'output_length', 'status', 'server_pid')] \
                      for at in (2, 5)], seen[5][1]['gil_wait_count'] > 0, \
                      [seen[0][1][key] for key in ('daemon_connects', 'daemon_restarts')], \
                      seen[5][1]['request_data']";
        let first = python.run(&request("read"));
        assert_eq!(first.outcome, outcome::DONE);
        let values = python.run(&Request { callable: "show", ..request(values) }).text();
        // `show` emptied the list before it noted its own answer.
        let expected = "([[3, 4, 2, 3, 201, 4711], [3, 4, 2, 3, 201, 4711]], True, [1, 2], \
                        {'own': 1})";
        assert_eq!(values, expected);
        python.stop();
    });
}

#[test]
fn an_exception_is_an_event() {
    with_each_python("an_exception_is_an_event", |python| {
        python.start();
        let script = python.script("notes.wsgi", NOTES);
        let request = |path: &'static str| Request::get(&script).variable("path", path.as_bytes());
        assert_eq!(python.run(&request("raise")).outcome, outcome::FAILED);
        let show = "[(event, details.get('status'), details.get('exception_info', (0,))[0]) \
                    for event, details in seen[1:3]], 'request_id' in seen[0][1]";
        let answer = python.run(&Request { callable: "show", ..request(show) });
        assert_eq!(
            answer.text(),
            "([('request_exception', None, <class 'KeyError'>), ('request_finished', 500, 0)], \
             False)"
        );
        python.stop();
    });
}

#[test]
fn a_callback_may_replace_the_application() {
    with_each_python("a_callback_may_replace_the_application", |python| {
        python.start();
        let answer = python.get(
            "import mod_wsgi
@mod_wsgi.subscribe_events
def other(event, **details):
    if event == 'request_started':
        def application(environ, start_response):
            start_response('200 OK', [])
            return [b'another than ', details['application_object'].__name__.encode()]
        return {'application_object': application}
def application(environ, start_response):
    raise RuntimeError
",
        );
        assert_eq!(answer.text(), "another than application");
        python.stop();
    });
}

#[test]
fn a_callback_that_fails_is_logged_and_disturbs_nothing() {
    with_each_python("a_callback_that_fails_is_logged_and_disturbs_nothing", |python| {
        python.start();
        let answer = python.get(
            "import mod_wsgi
@mod_wsgi.subscribe_events
def fails(event, **details):
    raise ValueError('deliberate')
@mod_wsgi.subscribe_events
def leaves(event, **details):
    raise SystemExit(3)
mod_wsgi.event_callbacks.append(5)
def application(environ, start_response):
    start_response('200 OK', [])
    return [b'served']
",
        );
        assert_eq!(answer.text(), "served");
        let log = answer.log();
        for event in ["request_started", "response_started", "request_finished"] {
            assert!(log.contains(&format!("3 WSGI0112: exception in a callback for '{event}'")));
            assert!(log.contains(&format!("3 WSGI0190: a callback for '{event}' called exit")));
        }
        assert_eq!(log.matches("3 ValueError: deliberate").count(), 3, "{log}");
        assert_eq!(log.matches("3 TypeError: 'int' object is not callable").count(), 3, "{log}");
        python.stop();
    });
}

#[test]
fn signals_and_the_end_reach_every_interpreter() {
    with_each_python("signals_and_the_end_reach_every_interpreter", |python| {
        python.start_with(&Setup { process_group: "one", ..Setup::default() });
        let source = "import mod_wsgi
group = mod_wsgi.application_group or 'main'
@mod_wsgi.subscribe_events
@mod_wsgi.subscribe_signals
@mod_wsgi.subscribe_shutdown
def note(event, **details):
    print(group, event, *details.items())
";
        for group in ["", "sub"] {
            let script = python.script(&format!("events{group}.wsgi"), source);
            assert_eq!(python.load_script(group, &script), 0);
        }
        python.process_log().clear();
        std::thread::scope(|scope| scope.spawn(|| python.signal(libc::SIGUSR2)).join())
            .unwrap_or_else(|_| panic!("it ends"));
        python.stopping("graceful_signal");
        let log = python.process_text();
        let signal = format!("process_signal ('signame', 'SIGUSR2') ('signum', {})", libc::SIGUSR2);
        for group in ["main", "sub"] {
            // Both of its lists.
            assert_eq!(log.matches(&format!("{group} {signal}")).count(), 2, "{log}");
            let end = format!("{group} process_stopping ('shutdown_reason', 'graceful_signal')");
            assert_eq!(log.matches(&end).count(), 2, "{log}");
        }
        python.stop();
    });
}

#[test]
fn a_list_that_is_gone_silences_requests_and_is_said_at_the_end() {
    with_each_python("a_list_that_is_gone_silences_requests_and_is_said_at_the_end", |python| {
        python.start();
        let script = python.script(
            "gone.wsgi",
            "import mod_wsgi
mod_wsgi.subscribe_events(lambda event, **details: print('told of', event))
mod_wsgi.subscribe_shutdown(lambda event, **details: print('the end:', event))
def application(environ, start_response):
    mod_wsgi.event_callbacks = environ['path']
    start_response('200 OK', [])
    return [b'served']
def delete(environ, start_response):
    del mod_wsgi.event_callbacks
    start_response('200 OK', [])
    return [b'served']
",
        );
        let request = Request::get(&script).variable("path", b"a text");
        let answer = python.run(&request);
        assert_eq!(answer.text(), "served", "{}", answer.log());
        assert_eq!(answer.log().matches("told of").count(), 1, "{}", answer.log());
        let answer = python.run(&request);
        assert_eq!((answer.text(), answer.log()), ("served".to_owned(), String::new()));
        let answer = python.run(&Request { callable: "delete", ..request.clone() });
        assert_eq!((answer.text(), answer.log()), ("served".to_owned(), String::new()));
        python.process_log().clear();
        python.stopping("");
        let log = python.process_text();
        assert!(log.contains("3 WSGI0114: a list of subscribers is missing"), "{log}");
        assert!(log.contains("the end: process_stopping"), "{log}");
        python.stop();
    });
}

#[test]
fn the_data_of_a_request_belongs_to_its_thread() {
    with_each_python("the_data_of_a_request_belongs_to_its_thread", |python| {
        python.start();
        let answer = python.get(
            "import mod_wsgi, threading
def ask():
    try:
        return mod_wsgi.request_data()
    except RuntimeError as error:
        return str(error)
loading = ask()
def application(environ, start_response):
    data = mod_wsgi.request_data()
    data['kept'] = loading is data
    found = []
    thread = threading.Thread(target=lambda: found.append(ask()))
    thread.start()
    thread.join()
    start_response('200 OK', [])
    return [repr((data, found, mod_wsgi.active_requests)).encode()]
",
        );
        assert_eq!(answer.text(), "({'kept': True}, ['no active request for thread'], {})");
        let script = python.script(
            "load.wsgi",
            "import mod_wsgi\ntry:\n    mod_wsgi.request_data()\nexcept RuntimeError:\n    \
             print('none while loading')\n",
        );
        assert_eq!(python.load_script("", &script), 0);
        assert!(python.process_text().contains("none while loading"));
        python.stop();
    });
}

/// Logs at each level, by a handler.
const LOGS: &str = "import logging, mod_wsgi, threading
class Dear:
    def __init__(self):
        self.count = 0
    def __str__(self):
        self.count += 1
        return 'dear'
dear = Dear()
log = logging.getLogger('test')
log.setLevel(1)
log.addHandler(mod_wsgi.LogHandler())
assert isinstance(log.handlers[0], logging.Handler)
assert repr(mod_wsgi.LogHandler(logging.ERROR)) == '<LogHandler (ERROR)>'
assert repr(mod_wsgi.LogHandler) == \"<class 'mod_wsgi.LogHandler'>\"
def application(environ, start_response):
    log.critical('c\\n\\nsecond \\udc80')
    log.error('e')
    log.warning('w')
    log.info('i')
    log.log(5, '%s', dear)
    log.error('%d', 'wrong')
    thread = threading.Thread(target=lambda: log.error('outside'))
    thread.start()
    thread.join()
    start_response('200 OK', [])
    return [str(dear.count).encode()]
";

#[test]
fn a_log_handler_writes_to_the_log_of_the_request() {
    with_each_python("a_log_handler_writes_to_the_log_of_the_request", |python| {
        python.start();
        let script = python.script("logs.wsgi", LOGS);
        for group in ["", "sub"] {
            let request = Request::get(&script).group(group);
            let answer = python.run(&request);
            let log = answer.log();
            for line in [
                "2 logs.wsgi:16: c\n2 logs.wsgi:16: second \\udc80\n3 logs.wsgi:17: e\n",
                "4 logs.wsgi:18: w\n6 logs.wsgi:19: i\n7 logs.wsgi:20: dear\n",
                // What `logging` does with a record that cannot be formatted.
                "3 --- Logging error ---",
            ] {
                assert!(log.contains(line), "{line}\n{log}");
            }
            assert_eq!(answer.text(), "1");
            assert!(python.process_text().contains("3 logs.wsgi:22: outside"));
            let quiet = Request { log_level: level::WARN as u8, ..request };
            let answer = python.run(&quiet);
            assert!(!answer.log().contains("6 logs"), "{}", answer.log());
            // What nobody reads is not formatted.
            assert_eq!(answer.text(), "1");
        }
        python.stop();
    });
}
