//! What `httpd -t` says to configurations that cannot work.
#![forbid(unsafe_code)]

use crate::harness::{Site, expect_refusal, is_root, ours_only};

#[test]
fn a_group_needs_a_name() {
    expect_refusal("WSGIDaemonProcess");
}

#[test]
fn an_unknown_option_of_a_group_is_refused() {
    for options in ["colour=red", "Threads=3", "lonely", "=3", "threads =3", "threads=3 processes"]
    {
        expect_refusal(&format!("WSGIDaemonProcess one {options}"));
    }
}

#[test]
fn a_number_that_cannot_be_meant_is_refused() {
    for option in [
        "processes=0",
        "processes=-1",
        "processes=",
        "processes=\"\"",
        "threads=-1",
        "threads=65534",
        "threads=",
        "umask=9",
        "umask=-22",
        "umask=xyz",
        "listen-backlog=-1",
        "queue-timeout=-1",
        "socket-timeout=-1",
        "connect-timeout=-1",
        "shutdown-timeout=-1",
        "graceful-timeout=-1",
        "eviction-timeout=-1",
        "deadlock-timeout=-1",
        "inactivity-timeout=-1",
        "request-timeout=-1",
        "interrupt-timeout=-1",
        "startup-timeout=-1",
        "restart-interval=-1",
        "maximum-requests=-1",
        "switch-interval=0",
        "switch-interval=fast",
        "stack-size=0",
        "send-buffer-size=511",
        "receive-buffer-size=511",
        "header-buffer-size=8191",
        "response-buffer-size=65535",
        "response-flush-delay=-1",
        "response-socket-timeout=-1",
        "cpu-time-limit=-1",
        "cpu-priority=",
        "memory-limit=-1",
        "virtual-memory-limit=-1",
    ] {
        expect_refusal(&format!("WSGIDaemonProcess one {option}"));
    }
}

#[test]
fn a_word_that_cannot_be_meant_is_refused() {
    for option in [
        "home=relative/path",
        "user=",
        "user=#0",
        "user=#4294967",
        "group=",
        "server-metrics=Maybe",
        "script-user=#4294967",
        "script-group=#4294967",
        "script-user=root script-group=root",
    ] {
        expect_refusal(&format!("WSGIDaemonProcess one {option}"));
    }
}

#[test]
fn a_user_or_group_nobody_knows_is_refused() {
    for option in ["user", "group", "script-user", "script-group"] {
        let option = format!("{option}=no-such-one-here");
        let said = Site::new(&format!("WSGIDaemonProcess one {option}")).refusal();
        assert!(said.contains("no-such-one-here"), "{said}");
    }
}

#[test]
fn a_daemon_process_never_runs_as_root() {
    if !is_root() {
        return crate::harness::skip("only root can name another user");
    }
    expect_refusal("WSGIDaemonProcess one user=root");
    expect_refusal("WSGIDaemonProcess one user=#0");
    ours_only!("row 22: the reference accepts the group of root");
    expect_refusal("WSGIDaemonProcess one group=root");
    expect_refusal("WSGIDaemonProcess one group=#0");
    expect_refusal("WSGIDaemonProcess one supplementary-groups=root");
    expect_refusal("WSGIDaemonProcess one supplementary-groups=daemon,#0");
}

#[test]
fn every_option_of_the_reference_is_accepted() {
    let options = "processes=2 threads=5 umask=0022 home=/ lang=C.UTF-8 locale=C.UTF-8 \
        display-name=%{GROUP} listen-backlog=50 queue-timeout=3 socket-timeout=10 \
        connect-timeout=5 shutdown-timeout=2 graceful-timeout=2 eviction-timeout=1 \
        deadlock-timeout=30 inactivity-timeout=40 request-timeout=50 interrupt-timeout=3 \
        startup-timeout=20 restart-interval=3600 maximum-requests=1000 switch-interval=0.01 \
        stack-size=1048576 send-buffer-size=512 receive-buffer-size=512 \
        header-buffer-size=8192 response-buffer-size=65536 response-flush-delay=0 \
        response-socket-timeout=10 cpu-time-limit=100 cpu-priority=1 memory-limit=1000000000 \
        virtual-memory-limit=0 server-metrics=On python-path=/tmp python-eggs=/tmp";
    let (good, said) = Site::new(&format!("WSGIDaemonProcess one {options}")).configtest();
    assert!(good, "{said}");
}

#[test]
fn blanks_before_a_value_and_repeated_options_are_fine() {
    let (good, said) =
        Site::new("WSGIDaemonProcess one threads= 5 threads=3 home=\"/\"").configtest();
    assert!(good, "{said}");
}

#[test]
fn a_switch_is_on_or_off() {
    for name in [
        "WSGIRestrictEmbedded",
        "WSGIPassAuthorization",
        "WSGIScriptReloading",
        "WSGIChunkedRequest",
        "WSGIEnableSendfile",
        "WSGISocketRotation",
    ] {
        for word in ["On", "off", "ON"] {
            let (good, said) = Site::new(&format!("{name} {word}")).configtest();
            assert!(good, "{name} {word}: {said}");
        }
        for line in [format!("{name} Yes"), name.to_owned(), format!("{name} On Off")] {
            expect_refusal(&line);
        }
        let said = Site::new(&format!("{name} Perhaps")).refusal();
        assert!(said.contains("Off") && said.contains("On"), "{said}");
    }
}

#[test]
fn directives_for_named_sockets_are_accepted() {
    let lines = "WSGISocketPrefix ${ROOT}/run/x\nWSGISocketRotation Off\nWSGIAcceptMutex default";
    let (good, said) = Site::new(lines).configtest();
    assert!(good, "{said}");
    expect_refusal("WSGIAcceptMutex rubbish");
}

#[test]
fn directives_for_the_whole_server_are_refused_in_a_virtual_host() {
    for line in [
        "WSGIPythonHome /usr",
        "WSGIPythonPath /tmp",
        "WSGIRestrictEmbedded On",
        "WSGISocketPrefix run/wsgi",
        "WSGISocketRotation On",
        "WSGIAcceptMutex default",
    ] {
        expect_refusal(&format!("<VirtualHost *:${{PORT}}>\n{line}\n</VirtualHost>"));
    }
}

#[test]
fn directives_for_servers_are_refused_in_a_section() {
    for line in ["WSGIDaemonProcess one", "WSGIScriptAlias /a /b", "WSGIPythonHome /usr"] {
        expect_refusal(&format!("<Location />\n{line}\n</Location>"));
    }
}

#[test]
fn directives_take_as_many_words_as_they_need() {
    for name in [
        "WSGIProcessGroup",
        "WSGIApplicationGroup",
        "WSGICallableObject",
        "WSGIPythonHome",
        "WSGIPythonPath",
        "WSGISocketPrefix",
    ] {
        expect_refusal(name);
        expect_refusal(&format!("{name} one two"));
    }
}

/// The status of `/` where a `.htaccess` holds `line`.
fn status_with_htaccess(line: &str) -> u16 {
    let mut httpd = Site::new("<Directory ${ROOT}/htdocs>\nAllowOverride FileInfo\n</Directory>")
        .file("htdocs/.htaccess", line)
        .file("htdocs/index.html", "fine")
        .start();
    httpd.allow_error(".htaccess");
    httpd.get("/index.html").status
}

#[test]
fn what_a_htaccess_file_may_set_is_limited() {
    for line in [
        "WSGICallableObject other",
        "WSGIPassAuthorization On",
        "WSGIScriptReloading Off",
        "WSGIChunkedRequest On",
        "WSGIEnableSendfile On",
    ] {
        assert_eq!(status_with_htaccess(line), 200, "{line}");
    }
    for line in [
        "WSGIProcessGroup one",
        "WSGIApplicationGroup one",
        "WSGIRestrictProcess one",
        "WSGIDaemonProcess one",
        "WSGIScriptAlias /a /b",
        "WSGIPythonHome /usr",
        "WSGIRestrictEmbedded On",
    ] {
        assert_eq!(status_with_htaccess(line), 500, "{line}");
    }
}

#[test]
fn a_python_home_that_is_not_one_is_refused() {
    ours_only!("row 14: the reference starts and fails later");
    expect_refusal("WSGIPythonHome /nowhere/to/be/found\nWSGIScriptAlias / ${ROOT}/app.wsgi");
    expect_refusal("WSGIDaemonProcess one python-home=/nowhere/to/be/found");
}

#[test]
fn a_script_that_is_missing_is_mentioned() {
    ours_only!("row 14: the reference says nothing");
    let (_, said) = Site::new("WSGIScriptAlias / ${ROOT}/missing.wsgi").configtest();
    assert!(said.contains("missing.wsgi"), "{said}");
}
