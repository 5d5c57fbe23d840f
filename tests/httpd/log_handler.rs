//! `mod_wsgi.LogHandler`: records of Python's `logging` in httpd's error log.
#![forbid(unsafe_code)]

use crate::harness::{Httpd, Mode, Site, is_ours, ours_only};

/// Logs what the path says and answers with how often the arguments were formatted.
const APP: &str = r#"
import logging, mod_wsgi, threading
class Dear:
    count = 0
    def __str__(self):
        self.count += 1
        return 'dear %d' % self.count
dear = Dear()
log = logging.getLogger('test')
log.setLevel(1)
log.propagate = False
log.addHandler(mod_wsgi.LogHandler())
def application(environ, start_response):
    path = environ['PATH_INFO']
    if path.endswith('/each'):
        for level in (50, 45, 40, 30, 20, 10, 5):
            log.log(level, 'at %d', level)
    if path.endswith('/dear'):
        log.info('%s', dear)
    if path.endswith('/lines'):
        log.error('first\nsecond')
    if path.endswith('/wrong'):
        log.error('%d', 'wrong')
    if path.endswith('/outside'):
        thread = threading.Thread(target=log.error, args=['outside'])
        thread.start()
        thread.join()
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [str(dear.count).encode()]
"#;

/// Runs `test` in both modes, with these directives added.
fn in_both_modes(config: &str, test: impl Fn(&mut Httpd)) {
    for mode in [Mode::Embedded, Mode::Daemon] {
        eprintln!("{mode:?} mode");
        test(&mut Site::app(mode, APP).config(config).one_child().start());
    }
}

/// The record of the log that ends with `text`.
#[track_caller]
fn record(httpd: &Httpd, text: &str) -> String {
    httpd.wait_for_log(&format!("{text}\n"));
    httpd.log().lines().find(|line| line.ends_with(text)).unwrap().to_owned()
}

#[test]
fn levels_become_those_of_httpd() {
    in_both_modes("LogLevel wsgi:debug", |httpd| {
        for level in [50, 45, 40] {
            httpd.expect_error(&format!("at {level}"));
        }
        httpd.get("/each").ok();
        for (level, name) in [
            (50, "crit"),
            (45, "error"),
            (40, "error"),
            (30, "warn"),
            (20, "info"),
            (10, "debug"),
            (5, "debug"),
        ] {
            let record = record(httpd, &format!("at {level}"));
            assert!(record.contains(&format!("[wsgi:{name}]")), "{level}: {record}");
            assert!(record.contains(" 127.0.0.1:"), "{record}");
            assert!(record.contains("/app.wsgi] at "), "{record}");
        }
    });
}

#[test]
fn a_record_says_where_it_comes_from() {
    in_both_modes("LogLevel wsgi:debug\nErrorLogFormat \"[%-m:%l] [%F] %M\"", |httpd| {
        httpd.get("/each").ok();
        let line = 1 + APP.lines().position(|line| line.contains("log.log(")).unwrap();
        for level in [40, 10] {
            let record = record(httpd, &format!("at {level}"));
            assert!(record.contains(&format!("[app.wsgi({line})]")), "{record}");
        }
    });
}

#[test]
fn what_loglevel_drops_is_not_formatted() {
    in_both_modes("LogLevel wsgi:warn", |httpd| {
        assert_eq!(httpd.get("/dear").ok(), "0");
        assert_eq!(httpd.get("/dear").ok(), "0");
    });
    in_both_modes("LogLevel wsgi:info", |httpd| {
        assert_eq!(httpd.get("/dear").ok(), "1");
        record(httpd, "dear 1");
    });
}

#[test]
fn the_level_is_that_of_the_section_of_the_request() {
    let config = "LogLevel wsgi:warn\n<Location /loud>\nLogLevel wsgi:info\n</Location>";
    for mode in [Mode::Embedded, Mode::Daemon] {
        if mode == Mode::Daemon {
            ours_only!("daemon processes of the reference know the server's level only");
        }
        let httpd = Site::app(mode, APP).config(config).one_child().start();
        assert_eq!(httpd.get("/dear").ok(), "0");
        assert_eq!(httpd.get("/loud/dear").ok(), "1");
        record(&httpd, "dear 1");
        assert_eq!(httpd.get("/dear").ok(), "1");
    }
}

#[test]
fn each_line_is_a_record_of_its_own() {
    in_both_modes("", |httpd| {
        httpd.expect_error("first");
        httpd.expect_error("second");
        httpd.get("/lines").ok();
        let [first, second] = ["] first", "] second"].map(|text| record(httpd, text));
        assert!(first.contains("[wsgi:error]") && second.contains("[wsgi:error]"));
    });
}

#[test]
fn a_record_that_cannot_be_formatted_harms_nobody() {
    in_both_modes("", |httpd| {
        // `logging` itself says so on standard error.
        for text in ["--- Logging error ---", "[script ", "File \"", "    ", "Error: ", "Message: "]
        {
            httpd.allow_error(text);
        }
        for text in ["Traceback (most", "Call stack:", "Arguments: "] {
            httpd.allow_error(text);
        }
        assert_eq!(httpd.get("/wrong").ok(), "0");
        if is_ours() {
            httpd.wait_for_log("--- Logging error ---");
        }
    });
}

#[test]
fn a_thread_without_a_request_writes_to_the_log_of_the_process() {
    in_both_modes("", |httpd| {
        httpd.expect_error("outside");
        httpd.get("/outside").ok();
        httpd.wait_for_log("outside");
        let log = httpd.log();
        let record = log.lines().find(|line| line.contains("outside")).unwrap();
        assert!(!record.contains("127.0.0.1"), "{record}");
        assert!(record.contains("[wsgi:error]"), "{record}");
    });
}

#[test]
fn records_go_to_the_log_of_the_virtual_host() {
    for group in ["", "WSGIProcessGroup one"] {
        let config = format!(
            "WSGIDaemonProcess one\n<VirtualHost *:${{PORT}}>\nServerName a.test\n\
             ErrorLog ${{ROOT}}/a.log\n{group}\nWSGIScriptAlias / ${{ROOT}}/app.wsgi\n</VirtualHost>"
        );
        let httpd = Site::new(&config).file("app.wsgi", APP).start();
        httpd.get("/dear").ok();
        httpd.wait_for_file("a.log", "dear 1");
        assert!(!httpd.log().contains("dear 1"), "{}", httpd.log());
    }
}

#[test]
fn the_source_of_a_record_outside_requests_shows_at_level_debug() {
    ours_only!("daemon processes of the reference write with httpd's own format");
    let source = format!("{APP}log.debug('while loading')\n");
    let config = "LogLevel wsgi:debug\nWSGIRestrictEmbedded On\nWSGIDaemonProcess one\n\
                  WSGIImportScript ${ROOT}/app.wsgi process-group=one application-group=%{GLOBAL}";
    let httpd = Site::new(config).file("app.wsgi", source).start();
    httpd.wait_for_log("while loading");
    let line = APP.lines().count() + 1;
    let record = format!("app.wsgi({line}): while loading");
    assert!(httpd.log().contains(&record), "{}", httpd.log());
}
