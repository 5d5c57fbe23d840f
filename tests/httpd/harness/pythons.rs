//! The Pythons of this machine, in a place every user can read.
#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::installation::{build_free_threaded_half, is_root, others_can_reach};
use super::skip;

/// The versions the project promises to run.
const VERSIONS: [&str; 6] = ["3.10", "3.11", "3.12", "3.13", "3.14", "3.15"];

/// Free-threaded builds, the one to test first.
const FREE_THREADED: [&str; 3] = ["3.14t", "3.15t", "3.13t"];

/// Parts of an installation that no application of a test needs, some of them large.
const LEFT_OUT: [&str; 8] =
    ["site-packages", "test", "tests", "idlelib", "ensurepip", "tkinter", "lib2to3", "__pycache__"];

/// An installed CPython with a shared library.
#[derive(Clone, Debug)]
pub struct Python {
    /// `3.12`.
    pub version: String,
    /// What `sys.prefix` is under it, and what a directive names as Python home.
    pub home: PathBuf,
}

impl Python {
    /// Makes a virtual environment of it; gives its path.
    pub fn environment(&self, path: &Path) -> PathBuf {
        let packages = path.join(format!("lib/python{}/site-packages", self.version));
        fs::create_dir_all(&packages).unwrap();
        fs::create_dir_all(path.join("bin")).unwrap();
        let program = self.home.join("bin").join(format!("python{}", self.version));
        symlink(program, path.join("bin/python")).unwrap();
        let home = self.home.join("bin");
        let text = format!(
            "home = {}\ninclude-system-site-packages = false\nversion = {}.0\n",
            home.display(),
            self.version
        );
        fs::write(path.join("pyvenv.cfg"), text).unwrap();
        packages
    }
}

/// All of them; fewer than two make a test that compares them skip.
pub fn pythons() -> Vec<Python> {
    VERSIONS.iter().filter_map(|version| python(version)).collect()
}

/// The one with this version; says so when there is none.
pub fn python(version: &str) -> Option<Python> {
    // One test makes the copy while the others wait for it.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    let Some(found) = prefixes().into_iter().find(|prefix| has_library(prefix, version)) else {
        skip(&format!("no Python {version} with a shared library is installed"));
        return None;
    };
    let home = if is_root() && !others_can_reach(&found) { copy(&found, version) } else { found };
    Some(Python { version: version.to_owned(), home })
}

/// One that can do without its lock, with the Python half for it beside the module under
/// test; says so when there is none.
pub fn free_threaded() -> Option<Python> {
    let is_there = |version: &&&str| prefixes().iter().any(|prefix| has_library(prefix, version));
    let Some(version) = FREE_THREADED.iter().find(is_there) else {
        skip("no free-threaded Python is installed: packaging/free-threaded.sh builds one");
        return None;
    };
    let python = python(version)?;
    let program = python.home.join("bin").join(format!("python{version}"));
    build_free_threaded_half(&program).then_some(python)
}

/// Where Pythons may be: what `WSGI_TEST_PYTHONS` names, pyenv's, the system's.
fn prefixes() -> Vec<PathBuf> {
    let named = env::var_os("WSGI_TEST_PYTHONS").unwrap_or_default();
    let mut found: Vec<PathBuf> = env::split_paths(&named).collect();
    let pyenv = env::var_os("PYENV_ROOT").map(PathBuf::from);
    let pyenv = pyenv.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".pyenv")));
    let versions = pyenv.map(|root| root.join("versions")).and_then(|it| fs::read_dir(it).ok());
    found.extend(versions.into_iter().flatten().flatten().map(|entry| entry.path()));
    found.extend(["/usr/local", "/usr"].map(PathBuf::from));
    found.extend(FREE_THREADED.map(|version| PathBuf::from(format!("/opt/python{version}"))));
    found
}

/// Whether `prefix` stands for this version, as a Python home does for its `python3`.
fn is_default(prefix: &Path, version: &str) -> bool {
    let program = prefix.join("bin/python3").canonicalize().unwrap_or_default();
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name == format!("python{}", version.trim_end_matches('t')) || !name.starts_with("python3.")
}

/// Whether a Python of this version is below `prefix`, with a library to load.
fn has_library(prefix: &Path, version: &str) -> bool {
    let name = format!("libpython{version}.so.1.0");
    let lib = prefix.join("lib");
    let beside = fs::read_dir(&lib).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut places = beside.chain([lib.clone(), prefix.join("lib64")]);
    places.any(|place| place.join(&name).exists())
        && is_default(prefix, version)
        && prefix.join(format!("bin/python{version}")).exists()
}

/// A copy of the installation at `prefix` that children of httpd can read, made once.
fn copy(prefix: &Path, version: &str) -> PathBuf {
    let name = prefix.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let shelf = env::temp_dir().join(format!("wsgi-test-pythons-{}", nix::unistd::geteuid()));
    fs::create_dir_all(&shelf).unwrap();
    fs::set_permissions(&shelf, fs::Permissions::from_mode(0o755)).unwrap();
    let goal = shelf.join(&name);
    if goal.exists() {
        return goal;
    }
    let half = tempfile::Builder::new().prefix(&name).tempdir_in(&shelf).unwrap().keep();
    fs::set_permissions(&half, fs::Permissions::from_mode(0o755)).unwrap();
    for place in ["bin", "lib"] {
        fs::create_dir(half.join(place)).unwrap();
    }
    let program = format!("bin/python{version}");
    fs::copy(prefix.join(&program), half.join(&program)).unwrap();
    for alias in ["bin/python3", "bin/python"] {
        symlink(format!("python{version}"), half.join(alias)).unwrap();
    }
    for entry in fs::read_dir(prefix.join("lib")).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("libpython") {
            copy_tree(&entry.path(), &half.join("lib").join(entry.file_name()));
        }
    }
    let library = format!("lib/python{version}");
    copy_tree(&prefix.join(&library), &half.join(&library));
    // Another test program may have been quicker; its copy is as good.
    if fs::rename(&half, &goal).is_err() {
        fs::remove_dir_all(&half).unwrap();
    }
    goal
}

/// Copies a file, a link or a directory, less what is [`LEFT_OUT`].
fn copy_tree(from: &Path, to: &Path) {
    let kind = fs::symlink_metadata(from).unwrap().file_type();
    if kind.is_symlink() {
        symlink(fs::read_link(from).unwrap(), to).unwrap();
    } else if kind.is_dir() {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap().flatten() {
            let name = entry.file_name();
            let text = name.to_string_lossy();
            if !LEFT_OUT.contains(&text.as_ref()) && !text.starts_with("config-") {
                copy_tree(&entry.path(), &to.join(name));
            }
        }
    } else {
        fs::copy(from, to).unwrap();
    }
}
