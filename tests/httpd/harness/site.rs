//! A ServerRoot in the making: files and configuration of one httpd that is not started yet.
#![forbid(unsafe_code)]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;

use super::express::Tree;
use super::installation::{Installation, is_ours, is_root, mpm};
use super::log::CORES;
use super::server::Httpd;
use super::skip;

/// Where an application runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In httpd's children.
    Embedded,
    /// In the daemon process group `app`.
    Daemon,
}

impl Mode {
    /// The directives that bring this mode about for a whole server.
    pub fn config(self) -> &'static str {
        match self {
            Self::Embedded => "",
            Self::Daemon => {
                "WSGIRestrictEmbedded On\nWSGIDaemonProcess app threads=5\nWSGIProcessGroup app\n"
            }
        }
    }
}

/// Files and configuration; `${ROOT}`, `${PORT}` and `${URL}` stand for what they say.
pub struct Site {
    /// The ServerRoot.
    root: TempDir,
    /// Where httpd listens.
    port: u16,
    /// The configuration after what every test shares.
    config: String,
    /// Variables of httpd's own environment.
    env: Vec<(String, String)>,
    /// The program that becomes httpd, and its arguments; empty where it is started itself.
    through: Vec<String>,
    /// What writes the configuration and starts httpd instead of this site.
    tree: Option<Box<Tree>>,
}

impl Site {
    /// A site with these directives.
    pub fn new(config: &str) -> Self {
        let root = tempfile::Builder::new().prefix("wsgi-test-").tempdir().unwrap();
        // The daemon user must be able to enter it.
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for directory in ["run", "htdocs", CORES] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        // A child writes its core there as the user it runs as.
        fs::set_permissions(root.path().join(CORES), fs::Permissions::from_mode(0o777)).unwrap();
        allow_cores();
        let site = Self {
            root,
            port: free_port(),
            config: String::new(),
            env: Vec::new(),
            through: Vec::new(),
            tree: None,
        };
        site.config(config)
    }

    /// A site with the application `source` at `/`.
    pub fn app(mode: Mode, source: &str) -> Self {
        Self::new(mode.config())
            .config("WSGIScriptAlias / ${ROOT}/app.wsgi\n")
            .file("app.wsgi", source)
    }

    /// Adds directives.
    pub fn config(mut self, lines: &str) -> Self {
        self.config += lines;
        self.config += "\n";
        self
    }

    /// Has httpd run one child process, so that all requests of an embedded site meet in it.
    pub fn one_child(self) -> Self {
        self.config(match mpm().as_str() {
            "prefork" => "StartServers 1\nMaxRequestWorkers 1",
            _ => "ServerLimit 1\nMaxRequestWorkers 20",
        })
    }

    /// Has httpd start with a child for each of a dozen connections, where a child takes one.
    pub fn busy_children(self) -> Self {
        self.config(if mpm() == "prefork" { "StartServers 12" } else { "" })
    }

    /// Adds a file; its directories are made.
    pub fn file(self, name: &str, contents: impl AsRef<[u8]>) -> Self {
        let path = self.root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let source = name.ends_with(".wsgi").then(|| str::from_utf8(contents.as_ref()).ok());
        match source.flatten().filter(|source| source.contains("application")) {
            Some(source) => fs::write(path, checked(source)).unwrap(),
            None => fs::write(path, contents).unwrap(),
        }
        self
    }

    /// Sets a variable in the environment httpd is started with.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Has another program, such as `prlimit`, set up a process and then become httpd.
    pub fn through(mut self, words: &[&str]) -> Self {
        self.through = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Has mod_wsgi-express write the configuration.
    pub(super) fn generated_by(mut self, tree: Tree) -> Self {
        self.tree = Some(Box::new(tree));
        self
    }

    /// The second port of a generated tree.
    pub fn other_port(&self) -> u16 {
        self.tree.as_ref().expect("the tree is generated").other
    }

    /// The words that have [`Self::command`] start httpd and stay in the foreground.
    pub(super) fn start_words(&self) -> &'static [&'static str] {
        if self.tree.is_some() { &["start", "-DFOREGROUND"] } else { &["-DFOREGROUND"] }
    }

    /// Whether httpd is to be one process, which does not say when it is ready.
    pub(super) fn is_one_process(&self) -> bool {
        self.tree.as_ref().is_some_and(|tree| tree.is_one_process())
    }

    /// Replaces the directives, for the next restart.
    pub(super) fn reconfigure(&mut self, lines: &str) {
        self.config = format!("{lines}\n");
        self.write_config();
    }

    /// The ServerRoot.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Lets the application write below `run`, whoever it runs as.
    pub fn open_run(&self) {
        let run = self.root.path().join("run");
        fs::set_permissions(run, fs::Permissions::from_mode(0o777)).unwrap();
    }

    /// Makes a certificate for `wsgi.test`, `run/tls.crt`, and its key, `run/tls.key`; false,
    /// with a word about it, where openssl cannot.
    pub fn make_certificate(&self) -> bool {
        let place = |name| self.root().join(name);
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=wsgi.test"])
            .args(["-days", "2", "-keyout"])
            .arg(place("run/tls.key"))
            .arg("-out")
            .arg(place("run/tls.crt"))
            .output();
        let made = made.is_ok_and(|made| made.status.success());
        if !made {
            skip("openssl cannot make a certificate here");
        }
        made
    }

    /// The site behind TLS, with a certificate of its own; none where openssl cannot.
    pub fn with_tls(self) -> Option<Self> {
        let config = "LoadModule socache_shmcb_module ${MODULES}/mod_socache_shmcb.so
            LoadModule ssl_module ${MODULES}/mod_ssl.so
            SSLEngine On
            SSLCertificateFile ${ROOT}/run/tls.crt
            SSLCertificateKeyFile ${ROOT}/run/tls.key";
        self.make_certificate().then(|| self.config(config))
    }

    /// Starts httpd and waits until it accepts connections.
    #[track_caller]
    pub fn start(mut self) -> Httpd {
        // Another program may take the port between the look and httpd's bind.
        for _ in 0..5 {
            self.write_config();
            match Httpd::start(self) {
                Ok(httpd) => return httpd,
                Err(site) => self = *site,
            }
            self.port = free_port();
        }
        panic!("five ports in a row were taken");
    }

    /// Has httpd check the configuration: whether it is good, and what it said.
    pub fn configtest(self) -> (bool, String) {
        self.write_config();
        let output = self.command().arg("-t").output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// What httpd says to a configuration it must refuse.
    #[track_caller]
    pub fn refusal(self) -> String {
        let (good, said) = self.configtest();
        assert!(!good, "the configuration was accepted: {said}");
        said
    }

    /// The httpd command for this site, its environment not the one of the test.
    pub fn command(&self) -> Command {
        let mut command = match self.tree {
            Some(_) => Tree::command(self.root()),
            None => self.plain_command(),
        };
        command.env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("WSGI_TEST_ROOT", self.root.path());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir("/");
        command
    }

    /// httpd with this configuration file.
    fn plain_command(&self) -> Command {
        let program = &Installation::get().program;
        let mut command = match self.through.split_first() {
            Some((first, words)) => {
                let mut command = Command::new(first);
                command.args(words).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.arg("-f").arg(self.config_file());
        command
    }

    /// The port httpd listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The configuration file.
    fn config_file(&self) -> PathBuf {
        self.root.path().join("httpd.conf")
    }

    /// Writes the configuration file.
    pub fn write_config(&self) {
        if let Some(tree) = &self.tree {
            return tree.write(self.root(), self.port);
        }
        fs::write(self.config_file(), self.preamble() + &self.config).unwrap();
    }

    /// What every test's configuration begins with.
    fn preamble(&self) -> String {
        let root = self.root.path().display();
        let port = self.port;
        let mut text = format!("ServerRoot {root}\nDefine ROOT {root}\nDefine PORT {port}\n");
        text += &format!("Define MODULES {}\n", Installation::get().modules.display());
        text += &Installation::get().load_modules();
        if is_root() {
            let user = other_user();
            text += &format!("User {user}\nGroup {user}\n");
        }
        if let Ok(directives) = std::env::var("WSGI_TEST_DIRECTIVES") {
            text += &format!("{directives}\n");
        }
        if !is_ours() {
            text += "WSGISocketPrefix ${ROOT}/run/wsgi\n";
        }
        text += match mpm().as_str() {
            "prefork" => "StartServers 3\nMinSpareServers 1\nMaxRequestWorkers 40\n",
            // More slots than running children: those that drain keep theirs.
            _ => {
                "ServerLimit 24\nStartServers 1\nThreadsPerChild 20\nThreadLimit 20\n\
                  MaxRequestWorkers 40\nMinSpareThreads 1\nMaxSpareThreads 40\n"
            }
        };
        text + COMMON
    }
}

/// `source`, with its application inside the standard library's validator where
/// `WSGI_TEST_VALIDATE` is set: it complains of whatever breaks PEP 3333, on either side.
/// Tests in [`NOT_VALIDATED`] are left alone.
fn checked(source: &str) -> String {
    let mut source = source.to_owned();
    let test = std::thread::current();
    let is_exempt =
        test.name().is_some_and(|test| NOT_VALIDATED.iter().any(|name| test.starts_with(name)));
    if std::env::var_os("WSGI_TEST_VALIDATE").is_some() && !is_exempt {
        source += VALIDATED;
    }
    source
}

/// Tests whose application breaks the PEP on purpose or uses what the validator does not pass
/// on; beginnings of their names.
#[rustfmt::skip]
const NOT_VALIDATED: &[&str] = &[
    // Applications nobody should write, and lengths that the validator's iterator hides.
    "corpus::",
    // A method that is none of HTTP's earns a warning; the objects are the validator's own.
    "environ::the_request_line_is_in_it",
    "environ::the_wsgi_entries_are_those_of_the_pep",
    // Methods and attributes beyond the PEP's.
    "errors_log::a_line_without_an_end_is_written_at_the_end_of_the_request",
    "errors_log::the_stream_looks_like_a_text_file",
    "input::the_input_is_read_like_a_file",
    // Around the result it is no `wsgi.file_wrapper` and no list of one item any more.
    "file_wrapper::a_file_arrives_byte_by_byte_as_it_is",
    "file_wrapper::a_client_gets_the_ranges_it_asks_for",
    "file_wrapper::a_file_is_sent_from_where_it_stands",
    "file_wrapper::a_file_may_be_longer_than_four_gigabytes",
    "file_wrapper::a_file_that_",
    "file_wrapper::a_head_request_for_a_file_has_its_length",
    "file_wrapper::a_large_file_goes_by_its_descriptor",
    "start_response::the_length_of_a_single_item_is_announced",
    "streaming::a_filter_that_",
    "tls::files_bodies_and_cut_answers_go_over_",
    // The validator's own lines are in the stacks, and its own time is before the first of them.
    "crash::only_requests_that_had_started_fail_when_a_daemon_process_is_killed",
    "signals::a_hard_restart_does_not_wait_for_what_runs",
    "signals::httpd_stops_within_the_shutdown_timeout_whatever_runs",
    // Wrong, or refused by the validator though the PEP or mod_wsgi allows it.
    "response_head::a_status_and_its_reason_are_sent_as_written",
    "script_alias::a_missing_callable_is_an_error_of_the_server",
    "start_response::a_header_called_status_is_a_plain_header",
    "start_response::a_nul_in_a_header_is_an_error",
    "start_response::an_application_that_fails_is_an_error_of_the_server",
    "start_response::no_content_type_is_made_up",
    "start_response::start_response_may_wait_for_the_first_item",
    "start_response::subclasses_of_bytes_are_bytes",
    "start_response::write_takes_bytes_only",
    "start_response::wrong_arguments_raise_what_the_reference_raises",
];

/// Puts an application inside the validator, behind a layer that adds on what the validator
/// insists and PEP 3333 does not.
const VALIDATED: &str = r#"
def _validated(application):
    from wsgiref.validate import validator
    class Input:
        def __init__(self, stream):
            self.stream = stream
        def read(self, size=None):
            if size is not None and size >= 0:
                return self.stream.read(size)
            return b''.join(iter(lambda: self.stream.read(65536), b''))
        def __iter__(self):
            return iter(self.stream)
        def __getattr__(self, name):
            return getattr(self.stream, name)
    def layer(environ, start_response):
        environ['wsgi.input'] = Input(environ['wsgi.input'])
        def typed(status, headers, *rest):
            has_type = any(name.lower() == 'content-type' for name, value in headers)
            if not has_type and status[:3] not in ('204', '304'):
                headers = headers + [('Content-Type', 'text/plain')]
            return start_response(status, headers, *rest)
        return application(environ, typed)
    return validator(layer)
application = _validated(application)
"#;

/// The part of the preamble that is the same everywhere.
const COMMON: &str = r#"
ServerName wsgi.test:${PORT}
Listen 127.0.0.1:${PORT}
PidFile ${ROOT}/run/httpd.pid
DefaultRuntimeDir ${ROOT}/run
CoreDumpDirectory ${ROOT}/cores
DocumentRoot ${ROOT}/htdocs
ErrorLog ${ROOT}/error.log
LogLevel notice wsgi:info
CustomLog ${ROOT}/access.log "%>s %r"
TypesConfig /dev/null
Timeout 20
KeepAliveTimeout 20
GracefulShutdownTimeout 20
<Directory />
    Require all granted
</Directory>
"#;

/// Who httpd's children run as where it may choose, and the group's name as well.
pub fn other_user() -> &'static str {
    if has_group("www-data") { "www-data" } else { "nobody" }
}

/// Lets what this process starts leave cores, where that may be.
fn allow_cores() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, hard, hard);
    }
}

/// Whether the machine has this group.
fn has_group(name: &str) -> bool {
    nix::unistd::Group::from_name(name).is_ok_and(|group| group.is_some())
}

/// A loopback port nobody listens on, below those the kernel gives to clients.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        // Test programs that run at the same time begin at different places.
        let start = (std::process::id() % 97) as u16 * 131;
        let port = 12_000 + (start + step) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
