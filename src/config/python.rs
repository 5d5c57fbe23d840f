//! Choosing a Python: from a home, an interpreter or a version to the shared
//! library to load, by looking at files only.
//!
//! CPython itself starts happily with a wrong home or with a virtual environment
//! of another version, and fails later in ways nobody understands; so everything
//! is checked here, when the configuration is.
#![forbid(unsafe_code)]

use super::process_group::PythonChoice;
use super::python_search::{
    Found, System, Venv, interpreter_version, is_free_threaded_only, is_stdlib_of,
};
use std::fmt;
use std::path::{Path, PathBuf};

/// The oldest Python the runtime is built for.
const OLDEST: Version = Version { major: 3, minor: 10 };

/// The oldest whose builds without a lock are; there were none before.
const OLDEST_FREE_THREADED: Version = Version { major: 3, minor: 13 };

/// The version of a Python as far as it decides what fits together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The 3.
    pub major: u8,
    /// The 12.
    pub minor: u8,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Version {
    /// Reads `3.12`, with anything behind a further dot.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().split('.');
        let mut next = || numbers.next()?.parse().ok();
        Some(Self { major: next()?, minor: next()? })
    }
}

/// A Python that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Python {
    /// Its version.
    pub version: Version,
    /// Whether it is a build that can do without the interpreter lock (`python3.14t`).
    pub free_threaded: bool,
    /// What it is to take for its own program: the interpreter from whose place
    /// CPython derives `sys.prefix`.
    pub program: PathBuf,
    /// The shared library that holds it.
    pub libpython: PathBuf,
    /// Where its standard library is; for a virtual environment that of the
    /// Python it was made with.
    pub base_prefix: PathBuf,
}

/// Why there is no Python to start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PythonError {
    /// The home is not an absolute path.
    #[error("Python home '{}' is not an absolute path", .0.display())]
    Relative(PathBuf),
    /// There is nothing at the home.
    #[error("Python home '{}' does not exist", .0.display())]
    Missing(PathBuf),
    /// The home is a file.
    #[error("Python home '{}' is not a directory", .0.display())]
    NotDirectory(PathBuf),
    /// The home is a directory without a Python.
    #[error(
        "Python home '{}' holds neither a virtual environment (pyvenv.cfg) nor a Python \
         (lib/python3.X)",
        .0.display()
    )]
    Empty(PathBuf),
    /// The home is a virtual environment whose Python is gone.
    #[error(
        "virtual environment '{}' was made with the Python in '{}', which is not there any more",
        .venv.display(), .base.display()
    )]
    BaseMissing {
        /// The virtual environment.
        venv: PathBuf,
        /// Where its Python was.
        base: PathBuf,
    },
    /// `pyvenv.cfg` does not say which Python it belongs to.
    #[error("'{}' names no {missing}", .file.display())]
    Incomplete {
        /// The `pyvenv.cfg`.
        file: PathBuf,
        /// What is missing in it.
        missing: &'static str,
    },
    /// Two things that must be of one version are not.
    #[error("'{}' is of Python {found}, wanted Python {wanted}{reason}", .path.display())]
    Mismatch {
        /// What was looked at.
        path: PathBuf,
        /// Its version.
        found: Version,
        /// The version it must have.
        wanted: Version,
        /// Who wants it, as the end of the sentence.
        reason: &'static str,
    },
    /// A build with its lock where one that can do without was asked for.
    #[error("'{}' is of an ordinary build, wanted a free-threaded one, which python= asks for",
        .path.display())]
    OrdinaryBuild {
        /// What was looked at.
        path: PathBuf,
    },
    /// No interpreter at a path that should be one.
    #[error("'{}' is not a Python interpreter whose version can be told", .0.display())]
    NotInterpreter(PathBuf),
    /// A Python the runtime cannot drive.
    #[error("Python {found} in '{}' is too old, wanted {OLDEST} or newer", .path.display())]
    TooOld {
        /// Where it is.
        path: PathBuf,
        /// Its version.
        found: Version,
    },
    /// An interpreter without its shared library.
    #[error(
        "no {name}.so.1.0 for the Python in '{}': install {name} (Debian, Ubuntu) \
         python{version}-libs (RHEL, Fedora), or build that Python with --enable-shared",
        .base.display()
    )]
    NoLibrary {
        /// What the library is called.
        name: String,
        /// The version.
        version: Version,
        /// Where the Python is.
        base: PathBuf,
    },
    /// The system has no Python of this version.
    #[error("no Python {0} found: wanted an interpreter python{0} or its shared library")]
    NoVersion(String),
    /// The system has no Python.
    #[error("no Python found: wanted python3 in /usr/bin or /usr/local/bin, or a libpython3.X")]
    NoPython,
}

/// Chooses the Python of `home` (a prefix or a virtual environment), of what
/// `python=` asks for, of both if they agree, or else the system's own.
pub fn choose(
    system: &System,
    home: Option<&Path>,
    choice: Option<&PythonChoice>,
) -> Result<Python, PythonError> {
    match (home, choice) {
        (Some(home), None) => of_home(system, home, None),
        (Some(home), Some(choice)) => {
            let wanted = wanted(choice)?;
            let python = of_home(system, home, Some(wanted))?;
            agree(home, python.version, wanted.version, ", which python= asks for")?;
            // The other way round a name says nothing: CPython installs both.
            if wanted.free_threaded && !python.free_threaded {
                return Err(PythonError::OrdinaryBuild { path: home.to_owned() });
            }
            Ok(python)
        }
        (None, Some(PythonChoice::Binary(binary))) => of_binary(system, binary),
        (None, Some(&PythonChoice::Version { major, minor, free_threaded })) => {
            of_version(system, Version { major, minor }, free_threaded)
        }
        (None, None) => of_system(system),
    }
}

/// What `python=` asks for.
#[derive(Clone, Copy)]
struct Wanted {
    version: Version,
    /// Whether it names an interpreter of a build without the lock.
    free_threaded: bool,
}

impl Wanted {
    /// Whether `found` is it.
    fn is(self, found: &Found) -> bool {
        found.version == self.version && found.free_threaded == self.free_threaded
    }
}

/// See [`Wanted`].
fn wanted(choice: &PythonChoice) -> Result<Wanted, PythonError> {
    match choice {
        PythonChoice::Binary(binary) => {
            let Found { version, free_threaded, .. } = binary_version(binary)?;
            Ok(Wanted { version, free_threaded })
        }
        &PythonChoice::Version { major, minor, free_threaded } => {
            Ok(Wanted { version: Version { major, minor }, free_threaded })
        }
    }
}

/// The version of an interpreter, or that it is none.
fn binary_version(binary: &Path) -> Result<Found, PythonError> {
    interpreter_version(binary).ok_or_else(|| PythonError::NotInterpreter(binary.to_owned()))
}

/// Refuses two versions that differ.
fn agree(
    path: &Path,
    found: Version,
    wanted: Version,
    reason: &'static str,
) -> Result<(), PythonError> {
    if found == wanted {
        return Ok(());
    }
    Err(PythonError::Mismatch { path: path.to_owned(), found, wanted, reason })
}

/// The Python of a home.
fn of_home(system: &System, home: &Path, wanted: Option<Wanted>) -> Result<Python, PythonError> {
    if !home.is_absolute() {
        return Err(PythonError::Relative(home.to_owned()));
    }
    if !home.exists() {
        return Err(PythonError::Missing(home.to_owned()));
    }
    if !home.is_dir() {
        return Err(PythonError::NotDirectory(home.to_owned()));
    }
    match Venv::read(home) {
        Some(venv) => of_venv(system, home, &venv),
        None => of_prefix(system, home, wanted),
    }
}

/// The Python of a virtual environment.
fn of_venv(system: &System, home: &Path, venv: &Venv) -> Result<Python, PythonError> {
    let incomplete = |missing| PythonError::Incomplete { file: home.join("pyvenv.cfg"), missing };
    let base = venv.base.as_ref().ok_or_else(|| incomplete("home"))?;
    let found = venv.version(home).ok_or_else(|| incomplete("version"))?;
    let program = program_in(home, found.version, found.free_threaded);
    let gone = || PythonError::BaseMissing { venv: home.to_owned(), base: base.clone() };
    // A link that leads nowhere is what is left when the Python is removed.
    if !base.is_dir() || (program.is_symlink() && !program.exists()) {
        return Err(gone());
    }
    if let Some(library) = venv.other_library(home, found.version) {
        let reason = ", which its pyvenv.cfg names";
        agree(&library.path, library.version, found.version, reason)?;
    }
    let named = base.join(format!("python{}", found.version));
    let real = [named, base.join("python3"), program.clone()].into_iter().find(|it| it.exists());
    let real = real.ok_or_else(gone)?;
    let interpreter = binary_version(&real)?;
    agree(&real, interpreter.version, found.version, ", which the virtual environment is of")?;
    let prefix = prefix_of(&real, found.version).ok_or_else(gone)?;
    let free_threaded = found.free_threaded || interpreter.free_threaded;
    finish(system, &Found { free_threaded, ..found }, program, prefix)
}

/// The Python of a plain prefix.
fn of_prefix(system: &System, home: &Path, wanted: Option<Wanted>) -> Result<Python, PythonError> {
    let libraries = System::libraries(home);
    let is_wanted = |found: &&Found| wanted.is_none_or(|wanted| wanted.is(found));
    let newest = |is_it: &dyn Fn(&&Found) -> bool| {
        libraries.iter().filter(is_it).max_by_key(|found| found.rank()).cloned()
    };
    // Which of two builds of its version an interpreter is its name need not tell.
    let is_default = |default: Found| {
        newest(&|library| library.version == default.version && is_wanted(library))
    };
    let default = interpreter_version(&home.join("bin/python3")).and_then(is_default);
    let of_version = |found: &&Found| wanted.is_none_or(|it| found.version == it.version);
    let found = default
        .or_else(|| newest(&is_wanted))
        .or_else(|| newest(&of_version))
        .or_else(|| newest(&|_| true))
        .ok_or_else(|| PythonError::Empty(home.to_owned()))?;
    if let Some(wanted) = wanted {
        agree(home, found.version, wanted.version, ", which python= asks for")?;
    }
    let program = program_in(home, found.version, found.free_threaded);
    finish(system, &found_in(home, &found), program, home.to_owned())
}

/// `found`, at the place an error is to name.
fn found_in(path: &Path, found: &Found) -> Found {
    Found { path: path.to_owned(), ..found.clone() }
}

/// The Python of an interpreter.
fn of_binary(system: &System, binary: &Path) -> Result<Python, PythonError> {
    let found = binary_version(binary)?;
    let home = binary.parent().and_then(Path::parent);
    if let Some(home) = home
        && let Some(venv) = Venv::read(home)
    {
        let python = of_venv(system, home, &venv)?;
        return Ok(Python { program: binary.to_owned(), ..python });
    }
    let prefix = prefix_of(binary, found.version)
        .ok_or_else(|| PythonError::NotInterpreter(binary.to_owned()))?;
    finish(system, &found, binary.to_owned(), prefix)
}

/// The system's Python of a version.
fn of_version(
    system: &System,
    version: Version,
    free_threaded: bool,
) -> Result<Python, PythonError> {
    let name = format!("python{version}{}", if free_threaded { "t" } else { "" });
    let binary = system.interpreters(&name).next();
    match binary {
        Some(binary) => of_binary(system, &binary),
        None => system
            .installed()
            .into_iter()
            .find(|python| python.version == version && python.free_threaded == free_threaded)
            .ok_or_else(|| PythonError::NoVersion(name.trim_start_matches("python").to_owned())),
    }
}

/// The system's own Python.
fn of_system(system: &System) -> Result<Python, PythonError> {
    let mut first_error = None;
    for binary in system.interpreters("python3") {
        match of_binary(system, &binary) {
            Ok(python) => return Ok(python),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    // One without its lock is for whoever asks for it.
    let ordinary = system.installed().into_iter().filter(|python| !python.free_threaded);
    ordinary
        .max_by_key(|python| python.version)
        .filter(|python| python.version >= OLDEST)
        .ok_or_else(|| first_error.unwrap_or(PythonError::NoPython))
}

/// The interpreter in a home: under the plain name if that is the one.
fn program_in(home: &Path, version: Version, free_threaded: bool) -> PathBuf {
    let bin = home.join("bin");
    let is_it = |program: &PathBuf| {
        interpreter_version(program).is_none_or(|found| found.version == version)
            && (program.exists() || program.is_symlink())
    };
    // The plain name may be that of an ordinary build beside it.
    let full = free_threaded.then(|| bin.join(format!("python{version}t")));
    full.into_iter()
        .chain([bin.join("python3"), bin.join("python")])
        .find(is_it)
        .unwrap_or_else(|| bin.join(format!("python{version}")))
}

/// The prefix an interpreter belongs to: the nearest with its standard library,
/// at its own place or at the one a link leads to.
fn prefix_of(binary: &Path, version: Version) -> Option<PathBuf> {
    let prefix = |binary: &Path| binary.parent()?.parent().map(Path::to_owned);
    let real = binary.canonicalize().ok();
    [prefix(binary), real.as_deref().and_then(prefix)]
        .into_iter()
        .flatten()
        .find(|prefix| is_stdlib_of(prefix, version))
}

/// Checks that the runtime can drive the Python, and finds its library.
fn finish(
    system: &System,
    found: &Found,
    program: PathBuf,
    base_prefix: PathBuf,
) -> Result<Python, PythonError> {
    let version = found.version;
    let path = found.path.clone();
    if version < OLDEST {
        return Err(PythonError::TooOld { path, found: version });
    }
    // An interpreter need not say in its name which build it is.
    let free_threaded = found.free_threaded || is_free_threaded_only(&base_prefix, version);
    if free_threaded && version < OLDEST_FREE_THREADED {
        return Err(PythonError::TooOld { path, found: version });
    }
    match system.library(&base_prefix, version, free_threaded) {
        Some(libpython) => Ok(Python { version, free_threaded, program, libpython, base_prefix }),
        None => Err(PythonError::NoLibrary {
            name: format!("libpython{version}{}", if free_threaded { "t" } else { "" }),
            version,
            base: base_prefix,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    /// A machine made of empty files.
    struct Tree(TempDir);

    impl Tree {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().canonicalize().unwrap().join(path)
        }

        fn file(&self, path: &str) -> PathBuf {
            self.write(path, "")
        }

        fn write(&self, path: &str, content: &str) -> PathBuf {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            path
        }

        fn link(&self, path: &str, target: &str) {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        }

        /// An installed Python; the library goes where the prefix has it.
        fn python(&self, prefix: &str, version: &str) -> PathBuf {
            self.file(&format!("{prefix}/bin/python{version}"));
            self.link(&format!("{prefix}/bin/python3"), &format!("python{version}"));
            self.file(&format!("{prefix}/lib/python{version}/os.py"));
            self.file(&format!("{prefix}/lib/libpython{version}.so.1.0"));
            self.path(prefix)
        }

        /// A virtual environment as `python3 -m venv` makes it.
        fn venv(&self, path: &str, base: &str, version: &str) -> PathBuf {
            let base = self.path(base).join("bin");
            let config = format!("home = {}\nversion = {version}.4\n", base.display());
            self.write(&format!("{path}/pyvenv.cfg"), &config);
            self.link(&format!("{path}/bin/python3"), base.join("python3").to_str().unwrap());
            self.file(&format!("{path}/lib/python{version}/site-packages/x.py"));
            self.path(path)
        }

        fn choose(
            &self,
            home: Option<&Path>,
            choice: Option<&PythonChoice>,
        ) -> Result<Python, PythonError> {
            choose(&System::at(&self.path("")), home, choice)
        }

        fn home(&self, home: &str) -> Result<Python, PythonError> {
            self.choose(Some(&self.path(home)), None)
        }

        fn sentence(&self, home: &str) -> String {
            let sentence = self.home(home).unwrap_err().to_string();
            sentence.replace(self.path("").to_str().unwrap(), "/")
        }
    }

    const V312: Version = Version { major: 3, minor: 12 };

    fn version(text: &str) -> PythonChoice {
        let Version { major, minor } = Version::parse(text.trim_end_matches('t')).unwrap();
        PythonChoice::Version { major, minor, free_threaded: text.ends_with('t') }
    }

    #[test]
    fn a_prefix_is_a_python() {
        let tree = Tree::new();
        let prefix = tree.python("opt", "3.12");
        let wanted = Python {
            version: V312,
            free_threaded: false,
            program: prefix.join("bin/python3"),
            libpython: prefix.join("lib/libpython3.12.so.1.0"),
            base_prefix: prefix,
        };
        assert_eq!(tree.home("opt"), Ok(wanted));
    }

    #[test]
    fn a_virtual_environment_leads_to_its_base() {
        let tree = Tree::new();
        let base = tree.python("opt", "3.12");
        let venv = tree.venv("venv", "opt", "3.12");
        let wanted = Python {
            version: V312,
            free_threaded: false,
            program: venv.join("bin/python3"),
            libpython: base.join("lib/libpython3.12.so.1.0"),
            base_prefix: base,
        };
        assert_eq!(tree.home("venv"), Ok(wanted));
    }

    #[test]
    fn virtualenv_spells_the_version_its_own_way() {
        let tree = Tree::new();
        tree.python("opt", "3.12");
        let home = tree.path("opt/bin");
        let config = format!("home={}\nversion_info = 3.12.1.final.0\n", home.display());
        tree.write("venv/pyvenv.cfg", &config);
        assert_eq!(tree.home("venv").map(|python| python.version), Ok(V312));
    }

    #[test]
    fn a_library_of_the_system_serves_a_base_without_its_own() {
        let tree = Tree::new();
        tree.python("usr", "3.12");
        fs::remove_file(tree.path("usr/lib/libpython3.12.so.1.0")).unwrap();
        let library = tree.file("srv/libs/libpython3.12.so.1.0");
        assert!(matches!(tree.home("usr"), Err(PythonError::NoLibrary { .. })));
        tree.write("etc/ld.so.conf", "include ld.so.conf.d/*.conf\n");
        tree.write("etc/ld.so.conf.d/x.conf", "# libraries\n/srv/libs\n");
        assert_eq!(tree.home("usr").map(|python| python.libpython), Ok(library));
    }

    #[test]
    fn a_home_must_be_an_absolute_directory() {
        let tree = Tree::new();
        tree.file("file");
        tree.file("empty/x");
        assert_eq!(tree.sentence("no"), "Python home '/no' does not exist");
        assert_eq!(tree.sentence("file"), "Python home '/file' is not a directory");
        assert!(tree.sentence("empty").contains("neither a virtual environment"));
        let relative = tree.choose(Some(Path::new("venv")), None);
        assert_eq!(relative, Err(PythonError::Relative("venv".into())));
    }

    #[test]
    fn a_virtual_environment_without_its_base_is_refused() {
        let tree = Tree::new();
        tree.venv("venv", "gone", "3.12");
        assert_eq!(
            tree.sentence("venv"),
            "virtual environment '/venv' was made with the Python in '/gone/bin', which is not \
             there any more"
        );
    }

    #[test]
    fn an_upgraded_base_is_refused_with_both_versions() {
        let tree = Tree::new();
        tree.python("opt", "3.13");
        tree.venv("venv", "opt", "3.12");
        assert_eq!(
            tree.sentence("venv"),
            "'/opt/bin/python3' is of Python 3.13, wanted Python 3.12, which the virtual \
             environment is of"
        );
    }

    #[test]
    fn an_upgraded_base_that_keeps_the_old_python_serves() {
        let tree = Tree::new();
        tree.python("opt", "3.12");
        tree.venv("venv", "opt", "3.12");
        tree.file("opt/bin/python3.13");
        tree.file("opt/lib/python3.13/os.py");
        fs::remove_file(tree.path("opt/bin/python3")).unwrap();
        tree.link("opt/bin/python3", "python3.13");
        assert_eq!(tree.home("venv").map(|python| python.version), Ok(V312));
    }

    #[test]
    fn packages_of_another_version_are_refused() {
        let tree = Tree::new();
        tree.python("opt", "3.12");
        tree.venv("venv", "opt", "3.12");
        fs::rename(tree.path("venv/lib/python3.12"), tree.path("venv/lib/python3.11")).unwrap();
        assert_eq!(
            tree.sentence("venv"),
            "'/venv/lib/python3.11' is of Python 3.11, wanted Python 3.12, which its pyvenv.cfg \
             names"
        );
    }

    #[test]
    fn an_incomplete_virtual_environment_is_refused() {
        let tree = Tree::new();
        tree.write("venv/pyvenv.cfg", "version = 3.12\n");
        assert_eq!(tree.sentence("venv"), "'/venv/pyvenv.cfg' names no home");
        tree.write("venv/pyvenv.cfg", "home = /usr/bin\n");
        assert_eq!(tree.sentence("venv"), "'/venv/pyvenv.cfg' names no version");
    }

    #[test]
    fn a_python_without_shared_library_names_the_package() {
        let tree = Tree::new();
        let prefix = tree.python("opt", "3.12");
        fs::remove_file(prefix.join("lib/libpython3.12.so.1.0")).unwrap();
        let sentence = tree.sentence("opt");
        for word in ["libpython3.12 ", "python3.12-libs", "--enable-shared", "'/opt'"] {
            assert!(sentence.contains(word), "{sentence}");
        }
    }

    #[test]
    fn an_old_python_is_refused() {
        let tree = Tree::new();
        tree.python("opt", "3.9");
        assert_eq!(tree.sentence("opt"), "Python 3.9 in '/opt' is too old, wanted 3.10 or newer");
    }

    #[test]
    fn a_free_threaded_build_has_a_library_of_its_own() {
        let tree = Tree::new();
        let prefix = tree.python("opt", "3.13t");
        // As CPython installs it: the name says nothing, and the system has another.
        fs::rename(prefix.join("bin/python3.13t"), prefix.join("bin/python3.13")).unwrap();
        fs::remove_file(prefix.join("bin/python3")).unwrap();
        tree.link("opt/bin/python3", "python3.13");
        tree.file("usr/lib/libpython3.13.so.1.0");
        let venv = tree.venv("venv", "opt", "3.13");
        fs::rename(venv.join("lib/python3.13"), venv.join("lib/python3.13t")).unwrap();
        let binary = PythonChoice::Binary(prefix.join("bin/python3.13"));
        for (home, choice) in [
            (Some(&prefix), None),
            (Some(&venv), None),
            (None, Some(&binary)),
            (Some(&prefix), Some(&binary)),
            (Some(&prefix), Some(&version("3.13"))),
        ] {
            let python = tree.choose(home.map(PathBuf::as_path), choice).unwrap();
            assert!(python.free_threaded);
            assert_eq!(python.libpython, prefix.join("lib/libpython3.13t.so.1.0"));
        }
        fs::remove_file(prefix.join("lib/libpython3.13t.so.1.0")).unwrap();
        assert!(tree.sentence("opt").contains("no libpython3.13t.so.1.0"));
    }

    #[test]
    fn an_interpreter_says_which_of_two_builds_is_meant() {
        let tree = Tree::new();
        let prefix = tree.python("usr", "3.14");
        tree.file("usr/bin/python3.14t");
        tree.file("usr/lib/python3.14t/os.py");
        tree.file("usr/lib/libpython3.14t.so.1.0");
        let build = |name: &str, home: Option<&Path>| {
            let choice = PythonChoice::Binary(prefix.join("bin").join(name));
            tree.choose(home, Some(&choice)).unwrap().free_threaded
        };
        for home in [None, Some(prefix.as_path())] {
            assert!(build("python3.14t", home) && !build("python3.14", home));
        }
        assert!(!tree.home("usr").unwrap().free_threaded);
        for (text, free_threaded) in [("3.14t", true), ("3.14", false)] {
            for home in [None, Some(prefix.as_path())] {
                let python = tree.choose(home, Some(&version(text))).unwrap();
                assert_eq!(python.free_threaded, free_threaded, "{text}");
            }
        }
        let venv = tree.venv("venv", "usr", "3.14");
        let refusal = tree.choose(Some(&venv), Some(&version("3.14t")));
        assert_eq!(refusal, Err(PythonError::OrdinaryBuild { path: venv }));
        let refusal = tree.choose(None, Some(&version("3.15t"))).unwrap_err();
        assert!(refusal.to_string().starts_with("no Python 3.15t found"), "{refusal}");
    }

    #[test]
    fn a_home_and_a_version_must_agree() {
        let tree = Tree::new();
        let prefix = tree.python("opt", "3.12");
        assert!(tree.choose(Some(&prefix), Some(&version("3.12"))).is_ok());
        let refusal = tree.choose(Some(&prefix), Some(&version("3.11"))).unwrap_err();
        let sentence = refusal.to_string();
        assert!(sentence.contains("is of Python 3.12, wanted Python 3.11"), "{sentence}");
        tree.venv("venv", "opt", "3.12");
        let refusal = tree.choose(Some(&tree.path("venv")), Some(&version("3.11")));
        assert!(matches!(refusal, Err(PythonError::Mismatch { .. })));
    }

    #[test]
    fn a_version_chooses_among_those_of_a_prefix() {
        let tree = Tree::new();
        let prefix = tree.python("usr", "3.12");
        tree.file("usr/bin/python3.11");
        tree.file("usr/lib/python3.11/os.py");
        tree.file("usr/lib/libpython3.11.so.1.0");
        let python = tree.choose(Some(&prefix), Some(&version("3.11"))).unwrap();
        assert_eq!(python.program, prefix.join("bin/python3.11"));
        assert_eq!(python.libpython, prefix.join("lib/libpython3.11.so.1.0"));
        assert_eq!(tree.home("usr").map(|python| python.version), Ok(V312));
    }

    #[test]
    fn a_version_alone_is_looked_for_in_the_system() {
        let tree = Tree::new();
        let prefix = tree.python("usr/local", "3.12");
        let python = tree.choose(None, Some(&version("3.12"))).unwrap();
        assert_eq!(python.program, prefix.join("bin/python3.12"));
        let refusal = tree.choose(None, Some(&version("3.11"))).unwrap_err();
        assert!(refusal.to_string().starts_with("no Python 3.11 found"));
    }

    #[test]
    fn an_interpreter_leads_to_its_prefix_or_virtual_environment() {
        let tree = Tree::new();
        let prefix = tree.python("opt", "3.12");
        let venv = tree.venv("venv", "opt", "3.12");
        for home in [&prefix, &venv] {
            let binary = home.join("bin/python3");
            let python = tree.choose(None, Some(&PythonChoice::Binary(binary.clone()))).unwrap();
            assert_eq!((python.program, &python.base_prefix), (binary, &prefix));
        }
    }

    #[test]
    fn a_link_far_away_leads_to_the_prefix() {
        let tree = Tree::new();
        let prefix = tree.python("opt", "3.12");
        tree.link("bin/py", prefix.join("bin/python3").to_str().unwrap());
        let choice = PythonChoice::Binary(tree.path("bin/py"));
        assert_eq!(tree.choose(None, Some(&choice)).map(|it| it.base_prefix), Ok(prefix));
    }

    #[test]
    fn what_is_no_interpreter_is_refused() {
        let tree = Tree::new();
        for path in ["no/bin/python3.12", "bin/true"] {
            tree.file("bin/true");
            let choice = PythonChoice::Binary(tree.path(path));
            let refusal = tree.choose(None, Some(&choice)).unwrap_err();
            assert!(refusal.to_string().contains("not a Python interpreter"), "{refusal}");
        }
    }

    #[test]
    fn the_systems_own_python_is_the_default() {
        let tree = Tree::new();
        assert_eq!(tree.choose(None, None), Err(PythonError::NoPython));
        let local = tree.python("usr/local", "3.13");
        assert_eq!(tree.choose(None, None).map(|it| it.base_prefix), Ok(local));
        let own = tree.python("usr", "3.12");
        assert_eq!(tree.choose(None, None).map(|it| it.base_prefix), Ok(own));
    }

    #[test]
    fn a_shared_library_without_interpreter_will_do() {
        let tree = Tree::new();
        tree.file("usr/lib/python3.11/os.py");
        tree.file("usr/lib/libpython3.11.so.1.0");
        tree.file("usr/lib/python3.12/os.py");
        let library = tree.file("usr/lib64/libpython3.12.so.1.0");
        assert_eq!(tree.choose(None, None).map(|it| it.libpython), Ok(library));
    }

    #[test]
    fn a_system_python_without_library_is_told_about() {
        let tree = Tree::new();
        let prefix = tree.python("usr", "3.12");
        fs::remove_file(prefix.join("lib/libpython3.12.so.1.0")).unwrap();
        let refusal = tree.choose(None, None).unwrap_err();
        let name = "libpython3.12".to_owned();
        assert_eq!(refusal, PythonError::NoLibrary { name, version: V312, base: prefix });
    }

    #[test]
    fn the_pythons_of_this_machine_are_found() {
        let system = System::default();
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let prefixes = fs::read_dir(home.join(".pyenv/versions")).into_iter().flatten();
        for prefix in prefixes.map(|entry| entry.unwrap().path()) {
            let name = prefix.file_name().unwrap().to_str().unwrap().to_owned();
            let Some(version) = Version::parse(&name).filter(|it| *it >= OLDEST) else { continue };
            match choose(&system, Some(&prefix), None) {
                Ok(python) => {
                    assert_eq!(python.version, version);
                    assert!(python.libpython.is_file() && python.program.is_file());
                }
                Err(error) => assert!(matches!(error, PythonError::NoLibrary { .. }), "{error}"),
            }
        }
    }
}
