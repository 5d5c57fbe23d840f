//! A process group and an application that does what a process group has to cope with.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::client::{Connection, Request};
use super::load::Load;
use super::process::Process;
use super::server::Httpd;
use super::site::Site;
use super::wait_until;

/// Answers with its process id, after it has done what the path says for as long as the query
/// says; notes in `run/loads` that it was loaded and in `run/busy` what it is about to do.
pub const APPLICATION: &str = r"
import ctypes, os, signal, sys, time
ROOT = os.path.dirname(__file__)
kept = []

def note(name, text):
    with open(ROOT + '/run/' + name, 'a') as file:
        file.write(text + '\n')

def loop(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass

def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass

def leak(kilobytes):
    kept.append(b'x' * int(kilobytes * 1024))
    time.sleep(1)

def allocate(megabytes):
    bytearray(int(megabytes) << 20)

def fill(megabytes):
    try:
        while True:
            kept.append(bytearray(int(megabytes) << 20))
    except MemoryError:
        pass

DEEDS = {
    'allocate': allocate,
    'burn': burn,
    'fill': fill,
    # Python's lock is not given back.
    'hold': lambda seconds: ctypes.PyDLL(None).usleep(int(seconds * 1e6)),
    'leak': leak,
    'loop': loop,
    'slow': time.sleep,
    'exit': lambda code: os._exit(int(code)),
    'c-exit': lambda code: ctypes.CDLL(None).exit(int(code)),
    'abort': lambda _: os.abort(),
    'signal': lambda number: os.kill(os.getpid(), int(number)),
    'crash': lambda address: ctypes.string_at(int(address)),
    'fatal': lambda _: ctypes.pythonapi.Py_FatalError(b'on purpose'),
}

def application(environ, start_response):
    deed = DEEDS.get(environ['PATH_INFO'].strip('/'))
    if deed:
        query = environ['QUERY_STRING'].split('&')[0]
        note('busy', '%s?%s' % (environ['PATH_INFO'], query))
        deed(float(query))
    start_response('200 OK', [])
    return [str(os.getpid()).encode()]

";

/// A site whose application is [`APPLICATION`] in a process group with these options.
pub fn group(options: &str) -> Site {
    site(options, "").config("WSGIScriptAlias / ${ROOT}/app.wsgi")
}

/// The same, loaded before a process takes requests; `first` is what else the script does then.
pub fn loaded_group(options: &str, first: &str) -> Site {
    let alias = "WSGIScriptAlias / ${ROOT}/app.wsgi process-group=one application-group=%{GLOBAL}";
    site(options, first).config(alias)
}

/// The same, with an import that does not end while [`Httpd::hold_imports`] says so.
pub fn gated_group(options: &str) -> Site {
    loaded_group(options, GATE)
}

/// Notes in `run/begun` that an import has begun, and waits as long as `run/closed` is there.
const GATE: &str = r"
note('begun', str(os.getpid()))
while os.path.exists(ROOT + '/run/closed'):
    time.sleep(0.005)
";

/// What groups have in common.
fn site(options: &str, first: &str) -> Site {
    let config = format!(
        "WSGIRestrictEmbedded On\nWSGIDaemonProcess one {options}\nWSGIProcessGroup one\n\
         WSGIApplicationGroup %{{GLOBAL}}\n{ELSEWHERE}"
    );
    let last = "note('loads', str(os.getpid()))\n";
    let site = Site::new(&config)
        .file("app.wsgi", [APPLICATION, first, last].concat())
        .file("other.wsgi", OTHER);
    site.open_run();
    site
}

/// Directives for [`Httpd::let_pass`].
const ELSEWHERE: &str = "WSGIDaemonProcess other threads=2\n\
    WSGIScriptAlias /elsewhere ${ROOT}/other.wsgi process-group=other application-group=%{GLOBAL}";

/// The script of [`ELSEWHERE`].
const OTHER: &str = "
import time
def application(environ, start_response):
    time.sleep(float(environ['QUERY_STRING']))
    start_response('200 OK', [])
    return [b'']
";

impl Httpd {
    /// The daemon process that answers `GET /`.
    #[track_caller]
    pub fn daemon(&self) -> Process {
        let pid = self.get("/").ok().parse().unwrap();
        Process::find(pid).expect("it has just answered")
    }

    /// The daemon process that answers once it is another than `old`.
    #[track_caller]
    pub fn successor_of(&self, old: &Process) -> Process {
        wait_until(format!("a successor of {old:?}"), || {
            let pid: i32 = self.get("/").ok().parse().unwrap();
            (pid != old.pid).then(|| Process::find(pid)).flatten()
        })
    }

    /// Sends `GET target` and waits until the application is about to do it.
    #[track_caller]
    pub fn begin(&self, target: &str) -> Connection {
        let count = || self.read("run/busy").lines().filter(|line| *line == target).count();
        let before = count();
        let mut connection = self.connect();
        connection.limit_patience(Duration::from_secs(60));
        connection.write(Request::get(target).head()).unwrap();
        wait_until(format!("{target} to be run"), || (count() > before).then_some(()));
        connection
    }

    /// Has no import of a [`gated_group`] end until [`Httpd::let_import`].
    pub fn hold_imports(&self) {
        self.write("run/closed", "");
    }

    /// Lets imports end again.
    pub fn let_import(&self) {
        std::fs::remove_file(self.path("run/closed")).unwrap();
    }

    /// Has `event` happen and a process of a [`gated_group`] import the script, and sees that
    /// `load` is served meanwhile. Requests that waited for the import would wait for ever.
    #[track_caller]
    pub fn expect_no_wait(&self, load: &Load, event: impl FnOnce()) {
        self.hold_imports();
        event();
        self.expect_service_beside_an_import(load);
    }

    /// Waits for an import that cannot end, sees that `load` is served beside it, and lets it.
    #[track_caller]
    pub fn expect_service_beside_an_import(&self, load: &Load) {
        wait_until("a process to import the script", || {
            (self.read("run/begun").lines().count() > self.loads().len()).then_some(())
        });
        load.wait_for(20);
        self.let_import();
    }

    /// The processes that have loaded the script, in the order they did.
    pub fn loads(&self) -> Vec<i32> {
        self.read("run/loads").lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Waits until so many processes have loaded the script.
    #[track_caller]
    pub fn wait_for_loads(&self, count: usize) -> Vec<i32> {
        wait_until(format!("{count} processes to have loaded the script"), || {
            Some(self.loads()).filter(|loads| loads.len() >= count)
        })
    }

    /// Lets this much time pass while httpd does something that has nothing to do with `one`.
    #[track_caller]
    pub fn let_pass(&self, seconds: f32) {
        self.get(&format!("/elsewhere?{seconds}")).ok();
    }

    /// How often `text` is in the error log.
    pub fn logged(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }
}
