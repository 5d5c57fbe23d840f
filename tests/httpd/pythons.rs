//! Which Python an application runs in.
#![forbid(unsafe_code)]

use crate::harness::{Httpd, Python, Site, ours_only, python, pythons, skip};

/// Answers with the version and the prefixes of its Python.
const WHO: &str = r#"
import sys
def application(environ, start_response):
    start_response('200 OK', [])
    version = '%d.%d' % sys.version_info[:2]
    return [('%s %s %s' % (version, sys.prefix, sys.base_prefix)).encode()]
"#;

/// The directives for a daemon process group that serves `/<name>` under this Python home.
fn group(name: &str, home: &str) -> String {
    format!(
        "WSGIDaemonProcess {name} threads=2 python-home={home}\n\
         WSGIScriptAlias /{name} ${{ROOT}}/app.wsgi process-group={name} application-group=%{{GLOBAL}}\n"
    )
}

/// The name of a group for this Python.
fn name(python: &Python) -> String {
    format!("py{}", python.version.replace('.', ""))
}

/// Whether any process of httpd but those of daemon process groups has a libpython mapped.
fn processes_with_python(httpd: &Httpd) -> Vec<String> {
    let family = httpd.processes();
    let mapped = family.iter().filter(|it| it.maps().contains("libpython"));
    mapped.map(|it| format!("{} {}", it.pid, it.title())).collect()
}

#[test]
fn four_pythons_run_side_by_side() {
    ours_only!("row 16: the reference has one Python");
    let pythons = pythons();
    if pythons.len() < 2 {
        return skip("fewer than two Pythons are installed");
    }
    let mut config = "WSGIRestrictEmbedded On\n".to_owned();
    for python in &pythons {
        config += &group(&name(python), &python.home.display().to_string());
    }
    let httpd = Site::new(&config).file("app.wsgi", WHO).start();
    for python in &pythons {
        let home = python.home.display();
        let expected = format!("{} {home} {home}", python.version);
        assert_eq!(httpd.get(&format!("/{}", name(python))).ok(), expected);
    }
    assert!(!httpd.parent().maps().contains("libpython"), "the parent has a Python");
    assert_eq!(processes_with_python(&httpd).len(), pythons.len());
}

#[test]
fn a_virtual_environment_is_a_python_home() {
    ours_only!("row 16: the reference has one Python");
    for python in pythons() {
        let config = "WSGIRestrictEmbedded On\n".to_owned() + &group("env", "${ROOT}/env");
        let site = Site::new(&config)
            .file("app.wsgi", WHO.replace("import sys\n", "import sys\nimport in_environment\n"));
        let environment = site.root().join("env");
        let packages = python.environment(&environment);
        std::fs::write(packages.join("in_environment.py"), "").unwrap();
        let httpd = site.start();
        let expected =
            format!("{} {} {}", python.version, environment.display(), python.home.display());
        assert_eq!(httpd.get("/env").ok(), expected);
    }
}

#[test]
fn embedded_mode_has_the_python_of_the_server() {
    ours_only!("row 16: the reference has the Python it was built for");
    let Some(python) = python("3.12") else { return };
    let home = python.home.display();
    let config = format!("WSGIPythonHome {home}\nWSGIScriptAlias / ${{ROOT}}/app.wsgi");
    let httpd = Site::new(&config).file("app.wsgi", WHO).start();
    assert_eq!(httpd.get("/").ok(), format!("3.12 {home} {home}"));
    assert!(!httpd.parent().maps().contains("libpython"), "the parent has a Python");
}

#[test]
fn a_group_takes_the_python_home_of_the_server_unless_it_has_one() {
    ours_only!("row 16: the reference has one Python");
    let (Some(one), Some(other)) = (python("3.12"), python("3.11")) else { return };
    let config = format!(
        "WSGIPythonHome {}\nWSGIDaemonProcess plain threads=1\n\
         WSGIScriptAlias /plain ${{ROOT}}/app.wsgi process-group=plain application-group=%{{GLOBAL}}\n{}",
        one.home.display(),
        group("own", &other.home.display().to_string()),
    );
    let httpd = Site::new(&config).file("app.wsgi", WHO).start();
    assert!(httpd.get("/plain").ok().starts_with("3.12 "));
    assert!(httpd.get("/own").ok().starts_with("3.11 "));
}

#[test]
fn an_embedded_application_and_a_group_have_different_pythons() {
    ours_only!("row 16: the reference has one Python");
    let Some(python) = python("3.13") else { return };
    let config = "WSGIScriptAlias /embedded ${ROOT}/app.wsgi\n".to_owned()
        + &group("own", &python.home.display().to_string());
    let httpd = Site::new(&config).file("app.wsgi", WHO).start();
    assert!(httpd.get("/own").ok().starts_with("3.13 "));
    let embedded = httpd.get("/embedded").ok();
    assert!(!embedded.contains(&python.home.display().to_string()), "{embedded}");
}

#[test]
fn children_have_no_python_unless_applications_are_embedded() {
    ours_only!("the parent of the reference is linked to a Python");
    let config = "WSGIRestrictEmbedded On\nWSGIDaemonProcess one processes=2\n\
        WSGIScriptAlias / ${ROOT}/app.wsgi process-group=one application-group=%{GLOBAL}";
    let httpd = Site::new(config).file("app.wsgi", WHO).start();
    httpd.get("/").ok();
    assert_eq!(processes_with_python(&httpd).len(), 2);
}

#[test]
fn sub_interpreters_work_under_every_python() {
    ours_only!("row 16: the reference has one Python");
    for python in pythons() {
        let home = python.home.display();
        let config = format!(
            "WSGIDaemonProcess one threads=3 python-home={home}\nWSGIProcessGroup one\n\
             WSGIScriptAlias /a ${{ROOT}}/app.wsgi\nWSGIScriptAlias /b ${{ROOT}}/app.wsgi"
        );
        let httpd = Site::new(&config).file("app.wsgi", WHO).start();
        for target in ["/a", "/b", "/a", "/b"] {
            assert!(httpd.get(target).ok().starts_with(&python.version), "{}", python.version);
        }
    }
}

#[test]
fn the_python_path_of_the_server_is_for_embedded_applications() {
    let source = "
import sys
def application(environ, start_response):
    start_response('200 OK', [])
    try:
        import on_the_path
        return [on_the_path.value.encode()]
    except ImportError:
        return [b'not found']
";
    let config = "WSGIPythonPath ${ROOT}/one:${ROOT}/two\nWSGIDaemonProcess d\n\
        WSGIScriptAlias /e ${ROOT}/app.wsgi\nWSGIScriptAlias /d ${ROOT}/app.wsgi process-group=d";
    let httpd = Site::new(config)
        .file("app.wsgi", source)
        .file("two/on_the_path.py", "value = 'found'")
        .file("one/ignored.txt", "")
        .start();
    assert_eq!(httpd.get("/e").ok(), "found");
    assert_eq!(httpd.get("/d").ok(), "not found");
}

#[test]
fn path_files_in_the_python_path_are_followed() {
    let source = "
import linked
def application(environ, start_response):
    start_response('200 OK', [])
    return [linked.value.encode()]
";
    let site = Site::new("WSGIPythonPath ${ROOT}/one\nWSGIScriptAlias / ${ROOT}/app.wsgi")
        .file("app.wsgi", source)
        .file("far/linked.py", "value = 'followed'");
    let line = format!("{}\n", site.root().join("far").display());
    let httpd = site.file("one/link.pth", line).start();
    assert_eq!(httpd.get("/").ok(), "followed");
}
