//! Where Pythons are: interpreters, standard libraries, shared libraries and
//! virtual environments on this machine.
#![forbid(unsafe_code)]

use super::python::{Python, Version};
use std::fs;
use std::iter;
use std::path::{Path, PathBuf};

/// The machine to look at.
#[derive(Debug, Clone)]
pub struct System {
    /// `/`, or the tree of a test.
    root: PathBuf,
}

/// A Python that was found, usable or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What shows it.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
    /// Whether it is a build without the interpreter lock (`python3.13t`).
    pub free_threaded: bool,
}

impl Found {
    /// What decides between two of a home: the version, then the ordinary build.
    pub fn rank(&self) -> (Version, bool) {
        (self.version, !self.free_threaded)
    }
}

/// A virtual environment, as its `pyvenv.cfg` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Venv {
    /// The directory of the interpreter it was made with (`home`).
    pub base: Option<PathBuf>,
    /// The version of that (`version`, or `version_info` as virtualenv has it).
    version: Option<Version>,
}

impl Venv {
    /// The virtual environment at `home`, if it is one.
    pub fn read(home: &Path) -> Option<Self> {
        let content = fs::read_to_string(home.join("pyvenv.cfg")).ok()?;
        let mut venv = Self { base: None, version: None };
        for (key, value) in content.lines().filter_map(|line| line.split_once('=')) {
            match key.trim().to_ascii_lowercase().as_str() {
                "home" => venv.base = Some(value.trim().into()),
                "version" | "version_info" => {
                    venv.version = venv.version.or_else(|| Version::parse(value));
                }
                _ => {}
            }
        }
        Some(venv)
    }

    /// Its version: what it says, else what its library directory says.
    pub fn version(&self, home: &Path) -> Option<Found> {
        let libraries = System::libraries_of_venv(home);
        let newest = libraries.into_iter().max_by_key(Found::rank);
        match (self.version, newest) {
            (Some(version), newest) => Some(Found {
                path: home.to_owned(),
                version,
                free_threaded: newest.is_some_and(|it| it.version == version && it.free_threaded),
            }),
            (None, newest) => newest.map(|it| Found { path: home.to_owned(), ..it }),
        }
    }

    /// The library directory of another version, where that of `version` is missing.
    pub fn other_library(&self, home: &Path, version: Version) -> Option<Found> {
        let libraries = System::libraries_of_venv(home);
        let is_there = libraries.iter().any(|found| found.version == version);
        if is_there { None } else { libraries.into_iter().max_by_key(Found::rank) }
    }
}

/// Reads `python3.12` or `python3.13t`.
fn version_in_name(name: &str) -> Option<(Version, bool)> {
    let text = name.strip_prefix("python")?;
    let (number, free_threaded) =
        text.strip_suffix('t').map_or((text, false), |number| (number, true));
    let (major, minor) = number.split_once('.')?;
    let version = Version { major: major.parse().ok()?, minor: minor.parse().ok()? };
    Some((version, free_threaded))
}

/// The version of an interpreter: from its name or from that of a file a link
/// leads to, else from the standard library beside it.
pub fn interpreter_version(binary: &Path) -> Option<Found> {
    let real = binary.canonicalize().ok().filter(|real| real.is_file())?;
    let by_name = |path: &Path| version_in_name(path.file_name()?.to_str()?);
    let named = by_name(&real).or_else(|| by_name(binary));
    let found =
        |(version, free_threaded)| Found { path: binary.to_owned(), version, free_threaded };
    named.map(found).or_else(|| {
        // A copied or wrapped interpreter says nothing; what it finds does.
        let prefix = real.parent()?.parent()?;
        let newest = System::libraries(prefix).into_iter().max_by_key(Found::rank)?;
        real.file_name()?.to_str()?.starts_with("python").then_some(())?;
        Some(Found { path: binary.to_owned(), ..newest })
    })
}

/// Whether the standard library of this version is below `prefix`, of any build.
pub fn is_stdlib_of(prefix: &Path, version: Version) -> bool {
    has_stdlib(prefix, version, "") || has_stdlib(prefix, version, "t")
}

/// Whether all there is below `prefix` of this version is a free-threaded build.
pub fn is_free_threaded_only(prefix: &Path, version: Version) -> bool {
    has_stdlib(prefix, version, "t") && !has_stdlib(prefix, version, "")
}

/// Whether the standard library of this version and build is below `prefix`.
fn has_stdlib(prefix: &Path, version: Version, build: &str) -> bool {
    ["lib", "lib64"].into_iter().any(|lib| {
        let stdlib = prefix.join(lib).join(format!("python{version}{build}"));
        // Debian has an empty /usr/local/lib/python3.X for its own packages.
        stdlib.join("os.py").is_file() || stdlib.join("os.pyc").is_file()
    })
}

/// The names the shared library of a version may have.
fn library_names(version: Version, build: &str) -> [String; 3] {
    ["so.1.0", "so.1", "so"].map(|suffix| format!("libpython{version}{build}.{suffix}"))
}

impl Default for System {
    fn default() -> Self {
        Self { root: "/".into() }
    }
}

impl System {
    /// The machine whose root directory this is.
    #[cfg(test)]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// An absolute path on this machine.
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Interpreters of this name, in the order they are preferred.
    pub fn interpreters(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        ["/usr/bin", "/usr/local/bin"]
            .map(|bin| self.path(bin).join(name))
            .into_iter()
            .filter(|binary| binary.exists())
    }

    /// The standard libraries below `prefix`.
    pub fn libraries(prefix: &Path) -> Vec<Found> {
        let mut libraries = Self::libraries_of_venv(prefix);
        libraries.retain(|found| is_stdlib_of(prefix, found.version));
        libraries
    }

    /// The directories `lib/python3.X` below `prefix`, whatever is in them.
    pub fn libraries_of_venv(prefix: &Path) -> Vec<Found> {
        let entries = ["lib64", "lib"].into_iter().filter_map(|lib| {
            let lib = prefix.join(lib);
            fs::read_dir(lib).ok()
        });
        entries
            .flatten()
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let (version, free_threaded) = version_in_name(path.file_name()?.to_str()?)?;
                path.is_dir().then_some(Found { path, version, free_threaded })
            })
            .collect()
    }

    /// The shared library of the Python whose prefix this is, of its build without the
    /// interpreter lock or of the other.
    pub fn library(&self, prefix: &Path, version: Version, free_threaded: bool) -> Option<PathBuf> {
        let build = if free_threaded { "t" } else { "" };
        self.find_library(prefix, &library_names(version, build))
    }

    /// The first of `names` in the directories below `prefix`, then in the system's.
    fn find_library(&self, prefix: &Path, names: &[String]) -> Option<PathBuf> {
        let own = ["lib".to_owned(), "lib64".to_owned(), format!("lib/{}", multiarch())];
        let own = own.into_iter().map(|lib| prefix.join(lib));
        own.chain(self.library_directories())
            .flat_map(|lib| names.iter().map(move |name| lib.join(name)))
            .find(|library| library.is_file())
    }

    /// Where this system keeps shared libraries.
    ///
    /// What the dynamic linker's configuration names is read only if it is asked for.
    fn library_directories(&self) -> impl Iterator<Item = PathBuf> {
        let multiarch = multiarch();
        let usual = [
            &format!("/usr/lib/{multiarch}"),
            &format!("/lib/{multiarch}"),
            "/usr/lib64",
            "/lib64",
            "/usr/lib",
            "/lib",
            "/usr/local/lib",
            "/usr/local/lib64",
        ];
        let usual = usual.map(|lib| self.path(lib));
        let configured = iter::once_with(|| self.configured(&self.path("/etc/ld.so.conf"), 0));
        usual.into_iter().chain(configured.flatten())
    }

    /// The directories a configuration file of the dynamic linker names.
    fn configured(&self, file: &Path, depth: usize) -> Vec<PathBuf> {
        /// Files include files, but not in a circle.
        const DEEPEST: usize = 4;
        let Some(content) = fs::read_to_string(file).ok().filter(|_| depth < DEEPEST) else {
            return Vec::new();
        };
        let mut directories = Vec::new();
        for line in content.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if let Some(pattern) = line.strip_prefix("include ") {
                let included = self.included(file, pattern.trim());
                directories
                    .extend(included.iter().flat_map(|file| self.configured(file, depth + 1)));
            } else if line.starts_with('/') {
                directories.push(self.path(line));
            }
        }
        directories
    }

    /// The files an `include` names; `*` only where everybody has it, in the name.
    fn included(&self, from: &Path, pattern: &str) -> Vec<PathBuf> {
        let pattern = match pattern.strip_prefix('/') {
            Some(absolute) => self.path(absolute),
            None => from.with_file_name(pattern),
        };
        let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some((head, tail)) = name.split_once('*') else {
            return vec![pattern];
        };
        let directory = pattern.parent().and_then(|parent| fs::read_dir(parent).ok());
        let mut files: Vec<PathBuf> = directory
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                name.starts_with(head) && name.ends_with(tail)
            })
            .collect();
        files.sort();
        files
    }

    /// Pythons of this system known by their shared library alone: whoever only
    /// embeds Python need not have installed an interpreter.
    pub fn installed(&self) -> Vec<Python> {
        let libraries = self.library_directories().filter_map(|lib| fs::read_dir(lib).ok());
        libraries.flatten().filter_map(|entry| self.installed_library(entry.ok()?.path())).collect()
    }

    /// The Python of a shared library, if its standard library is there.
    fn installed_library(&self, libpython: PathBuf) -> Option<Python> {
        let name = libpython.file_name()?.to_str()?;
        let (name, _) = name.strip_prefix("lib")?.split_once(".so.1.0")?;
        let (version, free_threaded) = version_in_name(name)?;
        let prefixes = ["/usr", "/usr/local"].map(|prefix| self.path(prefix));
        let base_prefix = prefixes.into_iter().find(|prefix| is_stdlib_of(prefix, version))?;
        let build = if free_threaded { "t" } else { "" };
        let program = base_prefix.join("bin").join(format!("python{version}{build}"));
        Some(Python { version, free_threaded, program, libpython, base_prefix })
    }
}

/// The name of the directories that hold libraries for this processor.
fn multiarch() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}
