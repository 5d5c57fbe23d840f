//! `httpd -t` names what is wrong with a configuration, and the file and line to mend it in.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{Site, is_root, ours_only, python, skip};

/// Has httpd check the site: whether it is good, and what was said of the line of the
/// configuration that holds `culprit`.
#[track_caller]
fn said_of(site: Site, culprit: &str) -> (bool, Vec<String>) {
    site.write_config();
    let file = site.root().join("httpd.conf").display().to_string();
    let text = fs::read_to_string(&file).unwrap();
    let line = 1 + text.lines().position(|line| line.contains(culprit)).expect("it is in there");
    let (good, said) = site.configtest();
    let place = format!("{file}:{line}: ");
    let mut found: Vec<String> =
        said.lines().filter(|said| said.contains(&place)).map(str::to_owned).collect();
    // What httpd says of a line that its directive refuses: the place, then the reason.
    let refusal = format!("on line {line} of {file}:");
    let mut lines = said.lines().skip_while(|said| !said.ends_with(&refusal));
    found.extend(lines.next().and(lines.next()).map(str::to_owned));
    assert!(!found.is_empty(), "nothing names {place}\n{said}");
    (good, found)
}

/// Checks that httpd refuses the site, or only warns about it, with a sentence about the line
/// with `culprit` that holds all of `words`.
#[track_caller]
fn expect(site: Site, is_refused: bool, culprit: &str, words: &[&str]) {
    let (good, found) = said_of(site, culprit);
    let is_named = found.iter().any(|said| words.iter().all(|word| said.contains(word)));
    assert!(is_named, "wanted {words:?}, found {found:?}");
    assert_eq!(!good, is_refused, "{found:?}");
}

/// [`expect`] of something httpd must not start with.
#[track_caller]
fn refused(lines: &str, culprit: &str, words: &[&str]) {
    expect(Site::new(lines), true, culprit, words);
}

/// [`expect`] of something that will not work, or not yet.
#[track_caller]
fn warned(lines: &str, culprit: &str, words: &[&str]) {
    expect(Site::new(lines), false, culprit, words);
}

/// A virtual host.
fn vhost(name: &str, lines: &str) -> String {
    format!("<VirtualHost *:${{PORT}}>\nServerName {name}\n{lines}\n</VirtualHost>\n")
}

#[test]
fn an_option_that_is_not_one_is_named_with_its_line() {
    ours_only!("row 37: the reference does not say which word it was");
    for (options, word) in [
        ("colour=red", "'colour'"),
        ("Threads=3", "'Threads'"),
        ("lonely", "'lonely'"),
        ("=3", "'=3'"),
        ("threads =3", "'threads'"),
        ("server-metrics=Maybe", "'Maybe'"),
        ("graceful=never", "'never'"),
        ("reload=never", "'never'"),
        ("stdout-level=loud", "'loud'"),
        ("stderr-level=", "stderr-level"),
        ("home=srv", "'srv'"),
        ("python=three", "'three'"),
        ("env=NAME", "'NAME'"),
    ] {
        let line = format!("WSGIDaemonProcess one {options}");
        refused(&format!("# above\n{line}\n# below"), &line, &["WSGIDaemonProcess", word]);
    }
}

#[test]
fn junk_in_a_number_is_quoted_with_its_option_and_line() {
    ours_only!("row 37: the reference reads as far as it makes sense");
    for option in [
        "processes",
        "threads",
        "umask",
        "switch-interval",
        "stack-size",
        "maximum-requests",
        "startup-timeout",
        "shutdown-timeout",
        "deadlock-timeout",
        "inactivity-timeout",
        "request-timeout",
        "interrupt-timeout",
        "graceful-timeout",
        "eviction-timeout",
        "restart-interval",
        "connect-timeout",
        "socket-timeout",
        "queue-timeout",
        "listen-backlog",
        "send-buffer-size",
        "receive-buffer-size",
        "header-buffer-size",
        "response-buffer-size",
        "response-socket-timeout",
        "response-flush-delay",
        "cpu-time-limit",
        "cpu-priority",
        "memory-limit",
        "virtual-memory-limit",
        "max-rss",
    ] {
        for junk in ["5x", "10s", "x", "1.5.1", "99999999999999999999999"] {
            let line = format!("WSGIDaemonProcess one {option}={junk}");
            refused(&line, &line, &[&format!("'{option}'"), &format!("'{junk}'")]);
        }
    }
}

#[test]
fn both_lines_of_a_group_defined_twice_are_named() {
    ours_only!("row 15: the reference names one line");
    let site = Site::new("WSGIDaemonProcess one\nWSGIDaemonProcess one threads=3");
    site.write_config();
    let text = fs::read_to_string(site.root().join("httpd.conf")).unwrap();
    let first = 1 + text.lines().position(|line| line == "WSGIDaemonProcess one").unwrap();
    let first = format!("already defined at {}/httpd.conf:{first}", site.root().display());
    expect(site, true, "one threads=3", &["WSGI9201", "'one'", &first]);
}

#[test]
fn the_twin_that_certbot_writes_is_accepted_with_a_notice() {
    ours_only!("row 15: the reference refuses what certbot writes");
    let plain = vhost("a.test", "WSGIDaemonProcess one threads=3");
    let tls = "<VirtualHost *:443>\nServerName a.test\nWSGIDaemonProcess one  threads=3\n\
        </VirtualHost>";
    warned(&(plain + tls), "one  threads=3", &["is defined again", "both are one group"]);
}

#[test]
fn a_group_nobody_defines_is_named_wherever_it_is_used() {
    ours_only!("the reference says nothing before the first request");
    let line = "WSGIProcessGroup shop";
    for section in [
        line.to_owned(),
        format!("<Directory />\n{line}\n</Directory>"),
        format!("<Location /x>\n{line}\n</Location>"),
        format!("<Files x.wsgi>\n{line}\n</Files>"),
        format!("<If \"true\">\n{line}\n</If>"),
        vhost("a.test", &format!("<LocationMatch x>\n{line}\n</LocationMatch>")),
    ] {
        let lines = format!("WSGIDaemonProcess blog\n{section}");
        warned(&lines, line, &["WSGI9204", "'shop'"]);
    }
    let alias = "WSGIScriptAlias /x ${ROOT}/httpd.conf process-group=shop";
    warned(&format!("WSGIDaemonProcess blog\n{alias}"), alias, &["WSGI9204", "'shop'"]);
    let alias = format!("{alias} application-group=%{{GLOBAL}}");
    refused(&format!("WSGIDaemonProcess blog\n{alias}"), &alias, &["WSGI9202", "'shop'"]);
    let import = "WSGIImportScript ${ROOT}/httpd.conf process-group=shop application-group=x";
    refused(&format!("WSGIDaemonProcess blog\n{import}"), import, &["WSGI9202", "'shop'"]);
}

#[test]
fn a_group_of_another_virtual_host_is_named_with_both_places() {
    ours_only!("the reference says nothing before the first request");
    let owner = vhost("a.test", "WSGIDaemonProcess blog");
    for (line, is_refused, code) in [
        ("WSGIProcessGroup blog", false, "WSGI9209"),
        ("WSGIScriptAlias /x ${ROOT}/httpd.conf process-group=blog", false, "WSGI9209"),
        (
            "WSGIScriptAlias /x ${ROOT}/httpd.conf process-group=blog application-group=x",
            true,
            "WSGI9202",
        ),
    ] {
        let lines = owner.clone() + &vhost("b.test", line);
        let words = [code, "'blog'", "'a.test'", "httpd.conf:"];
        expect(Site::new(&lines), is_refused, line, &words);
    }
}

#[test]
fn a_misspelt_variable_is_named_with_what_is_known() {
    ours_only!("the reference says nothing");
    for text in ["%{ENV:x", "%{Env:x}", "%{server}", "app-%{SERVER}"] {
        let (quoted, known) = (format!("'{text}'"), "%{GLOBAL}, %{SERVER}, %{HOST}");
        let line = format!("WSGIProcessGroup {text}");
        warned(&line, &line, &["WSGI9204", &quoted, known]);
        let line = format!("WSGIApplicationGroup {text}");
        warned(&line, &line, &["WSGI9210", &quoted, known]);
        let line = format!("WSGICallableObject {text}");
        warned(&line, &line, &["WSGI9210", &quoted, "%{ENV:name}"]);
        let line = format!("WSGIRestrictProcess blog {text}");
        warned(&line, &line, &["WSGI9210", &quoted]);
        let line = format!("WSGIScriptAlias / ${{ROOT}}/httpd.conf application-group={text}");
        warned(&line, &line, &["WSGI9210", &quoted, known]);
    }
}

#[test]
fn requests_for_a_service_are_named() {
    ours_only!("the reference lets them wait");
    let group = "WSGIDaemonProcess cron threads=0\n";
    for line in [
        "WSGIProcessGroup cron",
        "WSGIScriptAlias / ${ROOT}/httpd.conf process-group=cron",
        "WSGIScriptAlias / ${ROOT}/httpd.conf process-group=cron application-group=x",
    ] {
        warned(&format!("{group}{line}"), line, &["WSGI9211", "'cron'", "threads=0"]);
    }
    let import = "WSGIImportScript ${ROOT}/httpd.conf process-group=cron application-group=x";
    let (good, said) = Site::new(&format!("{group}{import}")).configtest();
    assert!(good && !said.contains("WSGI92"), "{said}");
}

#[test]
fn a_python_home_is_named_with_its_line_and_what_is_wrong() {
    ours_only!("row 14: the reference starts and fails later");
    let line = "WSGIDaemonProcess one python-home=/no/such/home";
    refused(line, line, &["WSGI9205", "'/no/such/home' does not exist"]);
    let line = "WSGIPythonHome /etc/passwd";
    refused(line, line, &["WSGI9205", "is not a directory"]);
    let line = "WSGIDaemonProcess one python-home=/etc";
    refused(line, line, &["WSGI9205", "pyvenv.cfg"]);
}

#[test]
fn a_virtual_environment_of_another_python_is_named_with_both_versions() {
    ours_only!("row 36: the reference runs a mixture");
    let Some(python) = python("3.12") else { return };
    let site = Site::new("WSGIDaemonProcess one python-home=${ROOT}/env");
    python.environment(&site.root().join("env"));
    let config = site.root().join("env/pyvenv.cfg");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(config, text.replace("version = 3.12", "version = 3.11")).unwrap();
    expect(site, true, "python-home=", &["WSGI9205", "3.12", "3.11"]);
    let line = format!("WSGIDaemonProcess one python-home={} python=3.11", python.home.display());
    refused(&line, &line, &["WSGI9205", "3.12", "3.11"]);
}

#[test]
fn a_python_that_its_user_may_not_read_is_named() {
    ours_only!("the reference starts and fails later");
    let Some(python) = python("3.12").filter(|_| is_root()) else {
        return skip("only root runs applications as somebody else");
    };
    let line = "WSGIDaemonProcess one python-home=${ROOT}/closed/env";
    let site = Site::new(line);
    python.environment(&site.root().join("closed/env"));
    let closed = site.root().join("closed");
    fs::set_permissions(closed, fs::Permissions::from_mode(0o700)).unwrap();
    expect(site, false, line, &["WSGI9205", "Python 3.12 cannot be read by user", "/closed'"]);
}

#[test]
fn a_missing_shared_library_is_named_with_the_package_that_has_it() {
    ours_only!("row 14: the reference is linked to one");
    let site = Site::new("WSGIDaemonProcess one python-home=${ROOT}/python")
        .file("python/bin/python3.99", "")
        .file("python/lib/python3.99/os.py", "");
    expect(site, true, "python-home=", &["WSGI9205", "install libpython3.99", "--enable-shared"]);
}

#[test]
fn a_python_path_that_is_not_there_is_named() {
    ours_only!("the reference says nothing");
    let line = "WSGIPythonPath ${ROOT}/htdocs:/no/such/place";
    warned(line, line, &["WSGI9212", "'/no/such/place'"]);
    let line = "WSGIDaemonProcess one python-path=/no/such/place:${ROOT}/htdocs";
    warned(line, line, &["WSGI9212", "'/no/such/place'"]);
}

#[test]
fn a_script_that_is_not_there_is_named_with_its_line() {
    ours_only!("row 14: the reference says nothing");
    for line in [
        "WSGIScriptAlias /x ${ROOT}/missing.wsgi",
        "WSGIImportScript ${ROOT}/missing.wsgi process-group=one application-group=x",
    ] {
        let lines = format!("WSGIDaemonProcess one\n{line}");
        warned(&lines, line, &["WSGI9203", "missing.wsgi' does not exist"]);
    }
}

#[test]
fn a_script_that_its_user_may_not_read_is_named() {
    ours_only!("row 14: the reference says nothing");
    if !is_root() {
        return skip("only root runs applications as somebody else");
    }
    for line in [
        "WSGIScriptAlias /x ${ROOT}/secret.wsgi process-group=one",
        "WSGIScriptAlias /x ${ROOT}/secret.wsgi",
        "WSGIImportScript ${ROOT}/secret.wsgi process-group=one application-group=x",
    ] {
        let lines = format!("WSGIDaemonProcess one user=daemon\n{line}");
        let site = Site::new(&lines).file("secret.wsgi", "");
        let script = site.root().join("secret.wsgi");
        fs::set_permissions(script, fs::Permissions::from_mode(0o600)).unwrap();
        expect(site, false, line, &["WSGI9203", "secret.wsgi' cannot be read by user"]);
    }
    // Who serves static files beside it has to look for it.
    let line = "WSGIScriptAlias /x ${ROOT}/closed/app.wsgi";
    let site = Site::new(line).file("closed/app.wsgi", "");
    let closed = site.root().join("closed");
    fs::set_permissions(closed, fs::Permissions::from_mode(0o700)).unwrap();
    expect(site, false, line, &["WSGI9203", "/closed' is closed"]);
}

#[test]
fn an_account_that_does_not_exist_is_named_with_its_line() {
    ours_only!("the reference leaves it to httpd, in other words");
    for option in [
        "user=no-such-one",
        "user=#4294967",
        "group=no-such-one",
        "supplementary-groups=daemon,no-such-one",
        "socket-user=#4294967",
        "script-user=#4294967",
        "script-user=no-such-one",
        "script-group=no-such-one",
    ] {
        let line = format!("WSGIDaemonProcess one {option}");
        let word = option.split(['=', ',']).next_back().unwrap_or_default();
        refused(&line, &line, &[word]);
    }
}

#[test]
fn root_is_refused_with_the_line() {
    ours_only!("row 22: the reference accepts the group of root");
    for option in
        ["user=root", "user=#0", "group=root", "group=#0", "supplementary-groups=daemon,root"]
    {
        let line = format!("WSGIDaemonProcess one {option}");
        refused(&line, &line, &["must not be root"]);
    }
}

#[test]
fn directories_a_group_cannot_start_without_are_named() {
    ours_only!("the reference fails when its processes start");
    let line = "WSGIDaemonProcess one home=/no/such/place";
    warned(line, line, &["WSGI9207", "'/no/such/place'", "does not exist"]);
    let line = "WSGIDaemonProcess one home=/etc/passwd";
    refused(line, line, &["WSGI9207", "'/etc/passwd'", "is not a directory"]);
    if !is_root() {
        return skip("only root changes the root directory and the user");
    }
    let line = "WSGIDaemonProcess one chroot=/no/such/place";
    warned(line, line, &["WSGI9207", "'/no/such/place'", "does not exist"]);
    let script = "WSGIScriptAlias / ${ROOT}/app.wsgi process-group=one";
    let site = Site::new(&format!("WSGIDaemonProcess one chroot=${{ROOT}}/htdocs\n{script}"));
    let site = site.file("app.wsgi", "");
    expect(site, false, script, &["WSGI9203", "lies outside of '", "/htdocs', the chroot"]);
    // Debian's nobody has a home that must never be made.
    let nobody = nix::unistd::User::from_name("nobody").unwrap();
    if nobody.is_none_or(|nobody| nobody.dir != std::path::Path::new("/nonexistent")) {
        return skip("nobody has a home here");
    }
    let line = "WSGIDaemonProcess one user=nobody";
    refused(line, line, &["WSGI9207", "'/nonexistent'", "'nobody'", "home="]);
    let (good, said) = Site::new("WSGIDaemonProcess one user=nobody home=/").configtest();
    assert!(good && !said.contains("WSGI92"), "{said}");
}

#[test]
fn a_home_that_its_user_may_not_enter_is_named() {
    ours_only!("the reference fails when its processes start");
    if !is_root() {
        return skip("only root runs applications as somebody else");
    }
    let line = "WSGIDaemonProcess one home=${ROOT}/closed/home";
    let site = Site::new(line).file("closed/home/file", "");
    let closed = site.root().join("closed");
    fs::set_permissions(closed, fs::Permissions::from_mode(0o700)).unwrap();
    expect(site, false, line, &["WSGI9207", "may not enter", "/closed' is closed"]);
}

#[test]
fn an_environment_file_that_others_may_write_is_refused() {
    ours_only!("the reference has no such option");
    let line = "WSGIDaemonProcess one env-file=${ROOT}/env";
    for (mode, words) in [
        (0o666, &["WSGI9206", "/env'", "others may write it (mode 666)"][..]),
        (0o620, &["WSGI9206", "others may write it (mode 620)"]),
    ] {
        let site = Site::new(line).file("env", "SECRET=hush");
        let file = site.root().join("env");
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        expect(site, true, line, words);
    }
    let site = Site::new(line).file("env", "A=1\nhush");
    let (_, said) = said_of(site, line);
    assert!(said.iter().any(|it| it.contains("line 2: wanted NAME=VALUE")), "{said:?}");
    assert!(!said.iter().any(|it| it.contains("hush")), "{said:?}");
    refused(&line.replace("/env", "/none"), "env-file=", &["WSGI9206", "/none'"]);
}

#[test]
fn a_size_in_another_unit_is_named() {
    ours_only!("the reference fails when its processes start");
    for option in ["memory-limit", "virtual-memory-limit"] {
        let line = format!("WSGIDaemonProcess one {option}=512");
        refused(&line, &line, &["WSGI9216", option, "512 bytes"]);
    }
    let line = "WSGIDaemonProcess one max-rss=512";
    warned(line, line, &["WSGI9218", "max-rss", "512 bytes"]);
    let line = "WSGIDaemonProcess one stack-size=8192";
    warned(line, line, &["WSGI9217", "8192 bytes", "131072"]);
}

#[test]
fn a_timer_that_waits_for_another_is_named() {
    ours_only!("the reference says nothing");
    let line = "WSGIDaemonProcess one interrupt-timeout=5";
    warned(line, line, &["WSGI9213", "request-timeout"]);
}

#[test]
fn a_good_configuration_is_not_complained_about() {
    let config = "WSGIDaemonProcess one processes=2 threads=3 home=/ python-path=${ROOT}/htdocs\n\
        WSGIProcessGroup one\nWSGIApplicationGroup %{GLOBAL}\nWSGICallableObject %{ENV:CALL}\n\
        WSGIScriptAlias /x ${ROOT}/app.wsgi process-group=one application-group=%{GLOBAL}\n\
        <Location /y>\nWSGIProcessGroup %{ENV:GROUP}\nWSGIRestrictProcess one %{GLOBAL}\n\
        </Location>";
    let (good, said) = Site::new(config).file("app.wsgi", "").configtest();
    assert!(good, "{said}");
    assert!(!said.contains("WSGI"), "{said}");
}
