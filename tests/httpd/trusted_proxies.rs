//! What applications believe of what proxies say (`WSGITrustedProxyHeaders`,
//! `WSGITrustedProxies`).
#![forbid(unsafe_code)]

use crate::harness::{Httpd, Mode, Request, Site, expect_refusal, is_ours, ours_only};

/// Answers with what proxies may say, one `key=repr` a line.
const SAID: &str = r#"
KEYS = ['REMOTE_ADDR', 'HTTP_HOST', 'SERVER_NAME', 'SERVER_PORT', 'SCRIPT_NAME', 'PATH_INFO',
    'mod_wsgi.mount_point', 'mod_wsgi.script_name', 'wsgi.url_scheme', 'HTTPS']
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    keys = KEYS + sorted(key for key in environ if key.lower().startswith('http_x_'))
    return ['\n'.join('%s=%r' % (key, environ.get(key)) for key in keys).encode()]
"#;

/// Runs `test` against [`SAID`] with these directives, in both modes.
fn with(config: &str, test: impl Fn(&Httpd)) {
    for mode in [Mode::Embedded, Mode::Daemon] {
        eprintln!("{mode:?} mode");
        test(&Site::app(mode, SAID).config(config).start());
    }
}

/// What an application sees of a request for `target` with these headers.
#[track_caller]
fn said(httpd: &Httpd, target: &str, headers: &[(&str, &str)]) -> Vec<(String, String)> {
    let request = Request::get(target);
    let add = |request: Request, (name, value): &(&str, &str)| request.header(name, value);
    let text = httpd.send(&headers.iter().fold(request, add)).ok();
    let pair = |line: &str| {
        let (key, value) = line.split_once('=').unwrap();
        (key.to_owned(), value.trim_matches('\'').to_owned())
    };
    text.lines().map(pair).collect()
}

/// The value of `key`, or `None` as Python writes it.
#[track_caller]
fn value(said: &[(String, String)], key: &str) -> String {
    let found = said.iter().find(|(known, _)| known == key);
    found.map_or_else(|| "None".to_owned(), |(_, value)| value.clone())
}

/// The `HTTP_X_` keys.
fn extras(said: &[(String, String)]) -> Vec<&str> {
    let keys = said.iter().map(|(key, _)| key.as_str());
    keys.filter(|key| key.starts_with("HTTP_X_")).collect()
}

/// The client's address, and what is left of `X-Forwarded-For`, for each of these headers.
#[track_caller]
fn expect_clients(httpd: &Httpd, cases: &[(&str, &str, &str)]) {
    for (chain, client, left) in cases {
        let said = said(httpd, "/", &[("X-Forwarded-For", chain)]);
        assert_eq!(value(&said, "REMOTE_ADDR"), *client, "{chain}");
        assert_eq!(value(&said, "HTTP_X_FORWARDED_FOR"), *left, "{chain}");
    }
}

/// One header of each kind, and two more that tell the same as others.
const EVERYTHING: [(&str, &str); 8] = [
    ("X-Forwarded-For", "192.0.2.1"),
    ("X-Forwarded-Host", "shop.example:81"),
    ("X-Forwarded-Server", "front"),
    ("X-Forwarded-Port", "443"),
    ("X-Script-Name", "//shop/"),
    ("X-Forwarded-Proto", "https"),
    ("X-Real-IP", "192.0.2.2"),
    ("X-HTTPS", "off"),
];

#[test]
fn nothing_is_believed_and_nothing_taken_out_by_default() {
    for config in ["", "WSGITrustedProxies 10.0.0.0/8", "WSGITrustedProxyHeaders X-Unknown"] {
        with(config, |httpd| {
            let said = said(httpd, "/x", &EVERYTHING);
            assert_eq!(value(&said, "REMOTE_ADDR"), "127.0.0.1");
            assert_eq!(value(&said, "HTTP_HOST"), "wsgi.test");
            assert_eq!(value(&said, "wsgi.url_scheme"), "http");
            assert_eq!(value(&said, "mod_wsgi.mount_point"), "None");
            assert_eq!(extras(&said).len(), EVERYTHING.len());
        });
    }
}

#[test]
fn each_header_sets_what_it_tells() {
    let config = "WSGITrustedProxyHeaders X-Forwarded-For X-Forwarded-Host X-Forwarded-Server
        WSGITrustedProxyHeaders X-Forwarded-Port X-Script-Name x-forwarded-proto";
    with(config, |httpd| {
        let said = said(httpd, "/x", &EVERYTHING);
        for (key, expected) in [
            ("REMOTE_ADDR", "192.0.2.1"),
            ("HTTP_HOST", "shop.example:81"),
            ("SERVER_NAME", "front"),
            ("SERVER_PORT", "443"),
            ("SCRIPT_NAME", "//shop/"),
            ("mod_wsgi.mount_point", "//shop/"),
            ("mod_wsgi.script_name", ""),
            ("PATH_INFO", "/x"),
            ("wsgi.url_scheme", "https"),
            ("HTTPS", "None"),
            ("HTTP_X_FORWARDED_FOR", "192.0.2.1"),
        ] {
            assert_eq!(value(&said, key), expected, "{key}");
        }
    });
}

#[test]
fn every_header_of_the_table_is_known() {
    let names = [
        ("X-Forwarded-For", "9.9.9.9", "REMOTE_ADDR", "9.9.9.9"),
        ("X-Client-IP", "9.9.9.9", "REMOTE_ADDR", "9.9.9.9"),
        ("X-Real-IP", "9.9.9.9", "REMOTE_ADDR", "9.9.9.9"),
        ("X-Forwarded-Host", "h", "HTTP_HOST", "h"),
        ("X-Host", "h", "HTTP_HOST", "h"),
        ("X-Forwarded-Server", "s", "SERVER_NAME", "s"),
        ("X-Forwarded-Port", "1", "SERVER_PORT", "1"),
        ("X-Script-Name", "/m", "SCRIPT_NAME", "/m"),
        ("X-Forwarded-Script-Name", "/m", "SCRIPT_NAME", "/m"),
        ("X-Forwarded-Proto", "https", "wsgi.url_scheme", "https"),
        ("X-Forwarded-Scheme", "https", "wsgi.url_scheme", "https"),
        ("X-Scheme", "https", "wsgi.url_scheme", "https"),
        ("X-Forwarded-HTTPS", "on", "wsgi.url_scheme", "https"),
        ("X-Forwarded-SSL", "on", "wsgi.url_scheme", "https"),
        ("X-HTTPS", "on", "wsgi.url_scheme", "https"),
    ];
    let config: String = names
        .iter()
        .map(|(name, ..)| {
            format!("<Location /{name}>\nWSGITrustedProxyHeaders {name}\n</Location>\n")
        })
        .collect();
    with(&config, |httpd| {
        for (name, sent, key, expected) in names {
            let said = said(httpd, &format!("/{name}"), &[(name, sent)]);
            assert_eq!(value(&said, key), expected, "{name}");
        }
    });
}

#[test]
fn what_tells_the_same_as_a_trusted_header_is_taken_out() {
    with("WSGITrustedProxyHeaders X-Forwarded-For X-Forwarded-Proto", |httpd| {
        let left = |headers| extras(&said(httpd, "/", headers)).join(" ");
        assert_eq!(
            left(&EVERYTHING),
            "HTTP_X_FORWARDED_FOR HTTP_X_FORWARDED_HOST HTTP_X_FORWARDED_PORT \
             HTTP_X_FORWARDED_PROTO HTTP_X_FORWARDED_SERVER HTTP_X_SCRIPT_NAME"
        );
        // Also where the trusted one is not there.
        assert_eq!(
            left(&[("X-Real-IP", "192.0.2.2"), ("X-HTTPS", "on"), ("X-Mine", "1")]),
            "HTTP_X_MINE"
        );
    });
}

#[test]
fn a_variable_does_not_smuggle_in_what_is_taken_out() {
    let config = "SetEnv HTTP_X_REAL_IP 9.9.9.9\nSetEnvIf Host . http_x_client_ip=8.8.8.8
        WSGITrustedProxyHeaders X-Forwarded-For";
    with(config, |httpd| {
        let said = said(httpd, "/", &[("X-Forwarded-For", "192.0.2.1")]);
        let keys = said.iter().map(|(key, _)| key.as_str());
        let left: Vec<&str> =
            keys.filter(|key| key.to_lowercase().starts_with("http_x_")).collect();
        assert_eq!(left, ["HTTP_X_FORWARDED_FOR"]);
    });
}

#[test]
fn a_variable_is_as_good_as_a_header() {
    let config = "SetEnv HTTP_X_CLIENT_IP 7.7.7.7\nWSGITrustedProxyHeaders X-Client-IP";
    with(config, |httpd| {
        assert_eq!(value(&said(httpd, "/", &[]), "REMOTE_ADDR"), "7.7.7.7");
        let both = said(httpd, "/", &[("X-Client-IP", "192.0.2.1")]);
        assert_eq!(value(&both, "REMOTE_ADDR"), "192.0.2.1");
    });
}

#[test]
fn a_stranger_is_not_believed() {
    let config = "WSGITrustedProxies 10.0.0.0/8 2001:db8::/32
        WSGITrustedProxyHeaders X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Script-Name";
    with(config, |httpd| {
        let said = said(httpd, "/", &EVERYTHING);
        assert_eq!(value(&said, "REMOTE_ADDR"), "127.0.0.1");
        assert_eq!(value(&said, "HTTP_HOST"), "wsgi.test");
        assert_eq!(value(&said, "SCRIPT_NAME"), "");
        assert_eq!(value(&said, "wsgi.url_scheme"), "http");
        assert_eq!(extras(&said), ["HTTP_X_FORWARDED_PORT", "HTTP_X_FORWARDED_SERVER"]);
    });
}

#[test]
fn the_last_of_several_trusted_headers_wins_and_stays() {
    let headers = [("X-Forwarded-For", "192.0.2.1"), ("X-Real-IP", "192.0.2.2")];
    for (order, client, left) in [
        ("X-Forwarded-For X-Real-IP", "192.0.2.2", "HTTP_X_REAL_IP"),
        ("X-Real-IP X-Forwarded-For", "192.0.2.1", "HTTP_X_FORWARDED_FOR"),
    ] {
        with(&format!("WSGITrustedProxyHeaders {order}"), |httpd| {
            let both = said(httpd, "/", &headers);
            assert_eq!((value(&both, "REMOTE_ADDR").as_str(), extras(&both)), (client, vec![left]));
            let one = said(httpd, "/", &headers[..1]);
            assert_eq!(value(&one, "REMOTE_ADDR"), "192.0.2.1");
            assert_eq!(extras(&one), ["HTTP_X_FORWARDED_FOR"]);
        });
    }
}

#[test]
fn the_client_is_left_of_the_trusted_proxies() {
    let config = "WSGITrustedProxies 127.0.0.1 10.0.0.0/8 172.16.0.0/255.240.0.0 192.168
        WSGITrustedProxies 2001:db8::/32
        WSGITrustedProxyHeaders X-Forwarded-For";
    with(config, |httpd| {
        expect_clients(
            httpd,
            &[
                ("1.1.1.1, 2.2.2.2, 10.0.0.1", "2.2.2.2", "2.2.2.2, 10.0.0.1"),
                ("6.6.6.6,1.1.1.1,172.31.0.1,10.0.0.1", "1.1.1.1", "1.1.1.1, 172.31.0.1, 10.0.0.1"),
                ("1.1.1.1, 2.2.2.2", "2.2.2.2", "2.2.2.2"),
                ("10.0.0.2 , 10.0.0.1,", "10.0.0.2", "10.0.0.2, 10.0.0.1"),
                ("1.1.1.1, junk, 10.0.0.1", "junk", "junk, 10.0.0.1"),
                ("1.1.1.1, 10.0.0.1:80", "10.0.0.1:80", "10.0.0.1:80"),
                ("1.1.1.1,2001:db8::7", "1.1.1.1", "1.1.1.1, 2001:db8::7"),
                ("1.1.1.1,::ffff:10.0.0.1", "1.1.1.1", "1.1.1.1, ::ffff:10.0.0.1"),
                ("1.1.1.1, 172.32.0.1, 192.168.7.7", "172.32.0.1", "172.32.0.1, 192.168.7.7"),
                ("", "127.0.0.1", ""),
                (", ,", "127.0.0.1", ", ,"),
            ],
        );
    });
}

#[test]
fn without_known_proxies_the_client_is_the_first() {
    with("WSGITrustedProxyHeaders X-Forwarded-For", |httpd| {
        expect_clients(
            httpd,
            &[
                ("1.1.1.1, 2.2.2.2", "1.1.1.1", "1.1.1.1, 2.2.2.2"),
                (", 1.1.1.1, 2.2.2.2", "1.1.1.1", ", 1.1.1.1, 2.2.2.2"),
                ("", "127.0.0.1", ""),
            ],
        );
    });
}

#[test]
fn names_in_a_chain_are_not_looked_up() {
    ours_only!("mod_wsgi 6.1.1 looks them up");
    let config = "WSGITrustedProxies 127.0.0.1 10.0.0.0/8\nWSGITrustedProxyHeaders X-Forwarded-For";
    with(config, |httpd| {
        expect_clients(
            httpd,
            &[("1.1.1.1, localhost", "localhost", "localhost"), ("1.1.1.1, 10.1", "10.1", "10.1")],
        );
    });
}

#[test]
fn the_scheme_is_what_the_last_word_says() {
    let config = "WSGITrustedProxyHeaders X-Forwarded-Proto X-HTTPS
        <Location /secure>\nSetEnv HTTPS on\n</Location>";
    with(config, |httpd| {
        for (name, sent, plain, secure) in [
            ("X-Forwarded-Proto", "HTTPS", "https", "https"),
            ("X-Forwarded-Proto", "http", "http", "http"),
            ("X-Forwarded-Proto", "ftp", "http", "https"),
            ("X-HTTPS", "On", "https", "https"),
            ("X-HTTPS", "1", "https", "https"),
            ("X-HTTPS", "true", "https", "https"),
            ("X-HTTPS", "off", "http", "http"),
            ("X-HTTPS", "0", "http", "http"),
            ("X-HTTPS", "False", "http", "http"),
            ("X-HTTPS", "https", "http", "https"),
        ] {
            for (target, expected) in [("/", plain), ("/secure", secure)] {
                let said = said(httpd, target, &[(name, sent)]);
                assert_eq!(value(&said, "wsgi.url_scheme"), expected, "{target} {name}: {sent}");
            }
        }
        let two = said(httpd, "/", &[("X-Forwarded-Proto", "https"), ("X-HTTPS", "off")]);
        assert_eq!(value(&two, "wsgi.url_scheme"), "http");
    });
}

#[test]
fn what_is_believed_is_what_is_shown() {
    ours_only!("mod_wsgi 6.1.1 believes the first and shows the last");
    let config = "RequestHeader add X-Real-IP 6.6.6.6\nWSGITrustedProxyHeaders X-Real-IP";
    with(config, |httpd| {
        let said = said(httpd, "/", &[("X-Real-IP", "4.4.4.4")]);
        assert_eq!(value(&said, "REMOTE_ADDR"), "6.6.6.6");
        assert_eq!(value(&said, "HTTP_X_REAL_IP"), "6.6.6.6");
    });
}

#[test]
fn an_inner_section_replaces_the_list_of_the_outer() {
    let config = "WSGITrustedProxyHeaders X-Real-IP\nWSGITrustedProxies 127.0.0.0/8
        <Location /port>\nWSGITrustedProxyHeaders X-Forwarded-Port\n</Location>
        <Location /none>\nWSGITrustedProxyHeaders\n</Location>
        <Location /other>\nWSGITrustedProxies 10.0.0.1\n</Location>
        <Location /nobody>\nWSGITrustedProxies\n</Location>";
    let headers = [("X-Real-IP", "4.4.4.4"), ("X-Forwarded-Port", "7")];
    with(config, |httpd| {
        let port = httpd.port().to_string();
        for (target, client, port, left) in [
            ("/", "4.4.4.4", port.as_str(), 2),
            ("/port", "127.0.0.1", "7", 2),
            ("/none", "127.0.0.1", &port, 2),
            ("/other", "127.0.0.1", &port, 1),
            ("/nobody", "127.0.0.1", &port, 1),
        ] {
            let said = said(httpd, target, &headers);
            assert_eq!(value(&said, "REMOTE_ADDR"), client, "{target}");
            assert_eq!(value(&said, "SERVER_PORT"), port, "{target}");
            assert_eq!(extras(&said).len(), left, "{target}");
        }
    });
}

#[test]
fn a_virtual_host_replaces_the_list_of_the_main_server() {
    let config = "WSGITrustedProxyHeaders X-Real-IP
        <VirtualHost *>\nServerName one.test\nWSGIScriptAlias / ${ROOT}/app.wsgi\n</VirtualHost>
        <VirtualHost *>\nServerName two.test\nWSGIScriptAlias / ${ROOT}/app.wsgi
        WSGITrustedProxyHeaders X-Host\n</VirtualHost>";
    with(config, |httpd| {
        for (host, client) in [("one.test", "4.4.4.4"), ("two.test", "127.0.0.1")] {
            let said = said(httpd, "/", &[("Host", host), ("X-Real-IP", "4.4.4.4")]);
            assert_eq!(value(&said, "REMOTE_ADDR"), client, "{host}");
        }
    });
}

#[test]
fn both_work_in_htaccess() {
    for mode in [Mode::Embedded, Mode::Daemon] {
        let config = "AddHandler wsgi-script .wsgi
            <Directory ${ROOT}/htdocs>\nOptions ExecCGI\nAllowOverride FileInfo\n</Directory>";
        let mut httpd = Site::new(mode.config())
            .config(config)
            .file("htdocs/app.wsgi", SAID)
            .file(
                "htdocs/.htaccess",
                "WSGITrustedProxyHeaders X-Real-IP\nWSGITrustedProxies 127.1\n",
            )
            .start();
        let client = |httpd: &Httpd| {
            value(&said(httpd, "/app.wsgi", &[("X-Real-IP", "4.4.4.4")]), "REMOTE_ADDR")
        };
        assert_eq!(client(&httpd), "127.0.0.1");
        httpd.write(
            "htdocs/.htaccess",
            "WSGITrustedProxyHeaders X-Real-IP\nWSGITrustedProxies 127\n",
        );
        assert_eq!(client(&httpd), "4.4.4.4");
        if is_ours() {
            httpd.write("htdocs/.htaccess", "WSGITrustedProxyHeaders X_Real_IP\n");
            assert_eq!(httpd.get("/app.wsgi").status, 500);
            httpd.allow_error("X_Real_IP");
            // The children are as they were.
            httpd.write("htdocs/.htaccess", "WSGITrustedProxyHeaders X-Real-IP\n");
            assert_eq!(client(&httpd), "4.4.4.4");
        }
    }
}

#[test]
fn mod_remoteip_comes_first() {
    let config = "LoadModule remoteip_module ${MODULES}/mod_remoteip.so
        RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 127.0.0.1
        WSGITrustedProxyHeaders X-Forwarded-Proto X-Real-IP\nWSGITrustedProxies 192.0.2.0/24";
    with(config, |httpd| {
        // The peer is who mod_remoteip says it is.
        let inside =
            said(httpd, "/", &[("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https")]);
        assert_eq!(value(&inside, "REMOTE_ADDR"), "192.0.2.7");
        assert_eq!(value(&inside, "wsgi.url_scheme"), "https");
        let outside = said(
            httpd,
            "/",
            &[
                ("X-Forwarded-For", "1.1.1.1"),
                ("X-Forwarded-Proto", "https"),
                ("X-Real-IP", "2.2.2.2"),
            ],
        );
        assert_eq!(value(&outside, "REMOTE_ADDR"), "1.1.1.1");
        assert_eq!(value(&outside, "wsgi.url_scheme"), "http");
        assert_eq!(extras(&outside), [] as [&str; 0]);
    });
}

#[test]
fn a_bad_name_of_a_header_is_refused_and_quoted() {
    ours_only!("mod_wsgi 6.1.1 crashes at the first request");
    for name in ["X_Bad", "X-For,X-By", "X.Y", "X:"] {
        let line = format!("WSGITrustedProxyHeaders X-Real-IP {name}");
        let said = Site::new(&line).refusal();
        assert!(said.contains(&format!("found '{name}'")), "{said}");
        assert!(said.contains("on line"), "{said}");
    }
}

#[test]
fn a_header_that_nothing_follows_from_is_named_at_configtest() {
    ours_only!("mod_wsgi 6.1.1 says nothing");
    let (good, said) =
        Site::new("<Location /x>\nWSGITrustedProxyHeaders Forwarded\n</Location>").configtest();
    assert!(good, "{said}");
    assert!(said.contains("WSGI9220") && said.contains("'Forwarded'"), "{said}");
}

#[test]
fn what_is_no_network_is_refused() {
    for word in [
        "localhost",
        "256.1.1.1",
        "1.2.3.4.5",
        "10.1/16",
        "10.0.0.0/33",
        "0.0.0.0/0",
        "::1/0",
        "10.0.0.0/8/8",
        "10.0.0.1,10.0.0.2",
        "::ffff:a00:1",
        "2001:db8::/129",
        "fe80::1%lo",
    ] {
        expect_refusal(&format!("WSGITrustedProxies 127.0.0.1 {word}"));
    }
}

#[test]
fn networks_may_be_written_in_every_way_of_httpd() {
    let config = "WSGITrustedProxyHeaders X-Real-IP\nWSGITrustedProxies 10 10.1. 1.2.3 2001:db8::1
        WSGITrustedProxies 10.0.0.0/255.0.255.0 0.0.0.0/0.0.0.0 10.1.2.3/8 ::/1 \"10.0.0.0/08\"";
    with(config, |httpd| {
        assert_eq!(value(&said(httpd, "/", &[("X-Real-IP", "4.4.4.4")]), "REMOTE_ADDR"), "4.4.4.4");
    });
}
