//! What is installed here: httpd, its modules, the module under test.
#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// The httpd program and where its modules are.
pub struct Installation {
    /// `apache2` or `httpd`.
    pub program: PathBuf,
    /// The directory of `mod_*.so`.
    pub modules: PathBuf,
    /// The module under test.
    pub under_test: PathBuf,
}

/// The modules the tests' configurations use, where they are not built in.
const MODULES: [&str; 16] = [
    "unixd",
    "log_config",
    "logio",
    "authn_core",
    "authz_core",
    "auth_basic",
    "authn_file",
    "authz_user",
    "alias",
    "env",
    "setenvif",
    "headers",
    "mime",
    "dir",
    "rewrite",
    "deflate",
];

impl Installation {
    /// The one of this machine.
    pub fn get() -> &'static Self {
        static FOUND: OnceLock<Installation> = OnceLock::new();
        FOUND.get_or_init(|| Self {
            program: program(),
            modules: PathBuf::from(apxs("LIBEXECDIR")),
            under_test: find_module(),
        })
    }

    /// The `LoadModule` lines every configuration begins with.
    pub fn load_modules(&self) -> String {
        let mut lines = String::new();
        let mpm = format!("mpm_{}", mpm());
        for name in MODULES.iter().copied().chain([mpm.as_str()]) {
            let file = self.modules.join(format!("mod_{name}.so"));
            if file.exists() {
                lines += &format!("LoadModule {name}_module {}\n", file.display());
            }
        }
        lines + &format!("LoadModule wsgi_module {}\n", self.under_test.display())
    }
}

/// The module httpd loads.
pub fn under_test() -> PathBuf {
    Installation::get().under_test.clone()
}

/// Whether the module under test is the one this package builds.
pub fn is_ours() -> bool {
    env::var_os("WSGI_UNDER_TEST").is_none()
}

/// Whether httpd can change to other users here.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether a command can be run here: some systems forbid what a few of them do.
pub fn can_run(words: &[&str]) -> bool {
    let (first, rest) = words.split_first().expect("a command has a name");
    Command::new(first).args(rest).output().is_ok_and(|output| output.status.success())
}

/// The MPM the tests run under.
pub fn mpm() -> String {
    env::var("WSGI_TEST_MPM").unwrap_or_else(|_| "event".to_owned())
}

/// The value `apxs -q` gives for `name`.
fn apxs(name: &str) -> String {
    let program = env::var("APXS").unwrap_or_else(|_| "apxs".to_owned());
    let output = Command::new(&program).args(["-q", name]).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}; set APXS to the path of apxs"));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The httpd that `apxs` belongs to.
fn program() -> PathBuf {
    let named = Path::new(&apxs("sbindir")).join(apxs("progname"));
    let fallbacks = ["/usr/sbin/apache2", "/usr/sbin/httpd", "/usr/local/apache2/bin/httpd"];
    let mut candidates = [named].into_iter().chain(fallbacks.map(PathBuf::from));
    candidates.find(|path| path.exists()).expect("httpd is installed where apxs says")
}

/// The module to load: the one named, or the one built beside this test program.
///
/// `cargo test` refreshes the library in `deps/`, not the copy one directory above.
fn find_module() -> PathBuf {
    if let Some(named) = env::var_os("WSGI_UNDER_TEST") {
        return PathBuf::from(named);
    }
    let ours = built().join("libmod_wsgi_rs.so");
    assert!(ours.exists(), "{} was not built", ours.display());
    let python = python_half();
    if !is_root() || others_can_reach(&built()) {
        return ours;
    }
    // Children run as another user then, who cannot look into root's home directory.
    static STAGE: OnceLock<TempDir> = OnceLock::new();
    let stage = STAGE.get_or_init(|| TempDir::new().expect("a temporary directory"));
    fs::set_permissions(stage.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(python, stage.path().join("libwsgi_python.so")).unwrap();
    let staged = stage.path().join("libmod_wsgi_rs.so");
    fs::copy(ours, &staged).unwrap();
    staged
}

/// The Python half, built if this run of cargo did not: nothing links it, so `cargo test`
/// has no reason to.
pub fn python_half() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build_python_half).clone()
}

/// Has cargo bring the Python half up to date.
fn build_python_half() -> PathBuf {
    if let Some(cargo) = env::var_os("CARGO") {
        let mut command = Command::new(cargo);
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "-q", "-p", "wsgi_python"]);
        if built().parent().is_some_and(|profile| profile.ends_with("release")) {
            command.arg("--release");
        }
        assert!(command.status().expect("cargo runs").success(), "the Python half was not built");
    }
    let library = built().join("libwsgi_python.so");
    assert!(library.exists(), "{} was not built: cargo build -p wsgi_python", library.display());
    library
}

/// Has cargo build the Python half for a free-threaded Python, beside the module under test;
/// false after saying why there is none.
pub fn build_free_threaded_half(python: &Path) -> bool {
    static BUILT: OnceLock<bool> = OnceLock::new();
    *BUILT.get_or_init(|| {
        let module = under_test();
        let folder = module.parent().expect("a module is in a directory");
        if env::var_os("CARGO").is_none() {
            // As where a test program is run by hand: what is there is taken.
            let names = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name());
            return names.into_iter().any(|it| it.to_string_lossy().contains("python.cpython-"));
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/runtime.sh");
        let mut command = Command::new(script);
        command.args([folder, python]).args(["--quiet", "--locked"]);
        assert!(command.status().expect("a shell runs").success(), "no half was built");
        true
    })
}

/// Where cargo put this test program and the libraries beside it.
fn built() -> PathBuf {
    let program = env::current_exe().expect("a test program knows its path");
    program.parent().expect("a program is in a directory").to_owned()
}

/// Whether any user may go to `path`.
pub fn others_can_reach(path: &Path) -> bool {
    path.ancestors()
        .all(|step| fs::metadata(step).is_ok_and(|meta| meta.permissions().mode() & 0o005 == 0o005))
}
