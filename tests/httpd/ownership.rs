//! `script-user` and `script-group`: whose scripts a process group runs.
#![forbid(unsafe_code)]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Group, Uid, User};

use crate::harness::{Httpd, Request, Site, is_root, skip};

/// A number that no account has.
const NOBODYS: u32 = 4_000_000;

/// A script that says that it ran.
const APP: &str = "def application(environ, start_response):
    start_response('200 OK', [])
    return [b'ran']
";

/// Who owns the script or its directory, and what others may do to it.
#[derive(Clone, Copy)]
struct Has {
    /// The owner.
    uid: u32,
    /// The group.
    gid: u32,
    /// The permissions.
    mode: u32,
}

impl Has {
    /// This, but with other permissions.
    fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// This, but of another owner and group.
    fn owner(self, id: u32) -> Self {
        Self { uid: id, gid: id, ..self }
    }
}

/// A server whose group has these options, with a script.
fn site(options: &str) -> Site {
    let config = format!(
        "WSGIDaemonProcess one {options}\n\
         WSGIScriptAlias / ${{ROOT}}/site/app.wsgi process-group=one \
         application-group=%{{GLOBAL}}"
    );
    Site::new(&config).file("site/app.wsgi", APP)
}

/// That server, started.
fn start(options: &str) -> Httpd {
    site(options).start()
}

/// Gives the script and its directory to these, and asks for the script.
#[track_caller]
fn status(httpd: &Httpd, script: Has, directory: Has) -> u16 {
    for (name, has) in [("site/app.wsgi", script), ("site", directory)] {
        let path = httpd.path(name);
        nix::unistd::chown(&path, Some(Uid::from_raw(has.uid)), Some(Gid::from_raw(has.gid)))
            .unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(has.mode)).unwrap();
    }
    httpd.get("/").status
}

/// A user that is not httpd's, with the group of the same name.
fn account() -> (User, Group) {
    let user = User::from_name("daemon").unwrap().expect("a system has this user");
    let group = Group::from_name("daemon").unwrap().expect("a system has this group");
    (user, group)
}

/// Asks for each pair of script and directory, which is refused with this code.
#[track_caller]
fn expect_refusals(option: &str, cases: &[(&str, Has, Has)]) {
    let mut httpd = start(option);
    for (code, script, directory) in cases {
        assert_eq!(status(&httpd, *script, *directory), 403, "{code}");
        httpd.expect_error(code);
    }
}

#[test]
fn only_scripts_of_the_script_user_are_run() {
    if !is_root() {
        return skip("only root can give files away");
    }
    let (user, group) = account();
    let file = Has { uid: user.uid.as_raw(), gid: group.gid.as_raw(), mode: 0o644 };
    let directory = file.mode(0o755);
    for option in [format!("script-user={}", user.name), format!("script-user=#{}", user.uid)] {
        assert_eq!(status(&start(&option), file, directory), 200);
    }
    let option = format!("script-user={}", user.name);
    expect_refusals(
        &option,
        &[
            ("WSGI0163", file.owner(NOBODYS), directory),
            ("WSGI0164", file.owner(0), directory),
            ("WSGI0166", file.mode(0o664), directory),
            ("WSGI0168", file.mode(0o646), directory),
            ("WSGI0170", file, directory.owner(NOBODYS)),
            ("WSGI0171", file, directory.owner(0)),
            ("WSGI0172", file, directory.mode(0o757)),
            ("WSGI0173", file, directory.mode(0o775)),
        ],
    );
}

#[test]
fn only_scripts_of_the_script_group_are_run() {
    if !is_root() {
        return skip("only root can give files away");
    }
    let (user, group) = account();
    let file = Has { uid: user.uid.as_raw(), gid: group.gid.as_raw(), mode: 0o664 };
    let directory = file.mode(0o775);
    for option in [format!("script-group={}", group.name), format!("script-group=#{}", group.gid)] {
        assert_eq!(status(&start(&option), file, directory), 200);
    }
    let option = format!("script-group={}", group.name);
    expect_refusals(
        &option,
        &[
            ("WSGI0154", file.owner(NOBODYS), directory),
            ("WSGI0155", file.owner(0), directory),
            ("WSGI0157", file.mode(0o666), directory),
            ("WSGI0159", file, directory.owner(NOBODYS)),
            ("WSGI0160", file, directory.owner(0)),
            ("WSGI0161", file, directory.mode(0o777)),
        ],
    );
}

#[test]
fn a_script_that_is_not_run_waits_for_no_thread() {
    if !is_root() {
        return skip("only root can give files away");
    }
    let source = "
import os, time
ROOT = os.path.dirname(os.path.dirname(__file__))
def application(environ, start_response):
    open(ROOT + '/run/began', 'w').write('yes')
    end = time.time() + 20
    while not os.path.exists(ROOT + '/run/go') and time.time() < end:
        time.sleep(0.005)
    start_response('200 OK', [])
    return [b'ran']
";
    let site = site("threads=1 script-user=root").file("site/app.wsgi", source);
    site.open_run();
    let mut httpd = site.start();
    httpd.expect_error("WSGI0164");
    let mut waiting = httpd.connect();
    waiting.write(Request::get("/").head()).unwrap();
    httpd.wait_for_file("run/began", "yes");
    let (user, group) = account();
    let file = Has { uid: user.uid.as_raw(), gid: group.gid.as_raw(), mode: 0o644 };
    let start = Instant::now();
    assert_eq!(status(&httpd, file, Has { uid: 0, gid: 0, mode: 0o755 }), 403);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    httpd.write("run/go", "");
    assert_eq!(waiting.read_response(false).unwrap().ok(), "ran");
}

#[test]
fn who_owns_a_script_is_asked_at_every_request() {
    if !is_root() {
        return skip("only root can give files away");
    }
    let (user, group) = account();
    let file = Has { uid: user.uid.as_raw(), gid: group.gid.as_raw(), mode: 0o644 };
    let mut httpd = start(&format!("script-user={}", user.name));
    httpd.expect_error("WSGI0164");
    let directory = file.mode(0o755);
    assert_eq!(status(&httpd, file, directory), 200);
    assert_eq!(status(&httpd, file.owner(0), directory), 403);
    assert_eq!(status(&httpd, file, directory), 200);
}
