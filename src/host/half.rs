//! What the libraries of the Python half are called: one for all ordinary Pythons, one
//! more for each that can do without its lock.
#![forbid(unsafe_code)]

use super::StartError;
use std::borrow::Cow;
use std::path::Path;

/// The names one library may have.
#[derive(Debug, PartialEq, Eq)]
pub struct Names {
    /// The one it is installed with first.
    pub all: Vec<Cow<'static, str>>,
    /// Whether it is one that has to be built for its Python, a free-threaded one.
    pub is_special: bool,
}

impl Names {
    /// Those of the one for the Python in this shared library.
    pub fn of(libpython: &Path) -> Self {
        match free_threaded_tag(libpython) {
            Some(tag) => {
                Self { all: vec![format!("wsgi_python.{tag}.so").into()], is_special: true }
            }
            None => Self {
                // The second is the one cargo gives it.
                all: vec!["wsgi_python.abi3.so".into(), "libwsgi_python.so".into()],
                is_special: false,
            },
        }
    }

    /// What there is to say where none of them is beside `module`, for the Python that is
    /// started as `program`.
    pub fn missing(&self, module: &Path, program: &Path) -> StartError {
        let name = self.all.first().map(ToString::to_string).unwrap_or_default();
        let module = module.display().to_string();
        match self.is_special {
            true => {
                let program = program.display().to_string();
                StartError::NotBuilt { name, module, program }
            }
            false => StartError::Missing { name, module },
        }
    }
}

/// `cpython-314t` of `libpython3.14t.so.1.0`; None of an ordinary build.
fn free_threaded_tag(libpython: &Path) -> Option<String> {
    let name = libpython.file_name()?.to_str()?.strip_prefix("libpython")?;
    let (version, _) = name.split_once(".so")?;
    let (major, minor) = version.strip_suffix('t')?.split_once('.')?;
    Some(format!("cpython-{major}{minor}t"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_free_threaded_python_has_a_library_of_its_own() {
        let names = |libpython: &str| Names::of(Path::new(libpython)).all;
        assert_eq!(names("/opt/lib/libpython3.14t.so.1.0"), ["wsgi_python.cpython-314t.so"]);
        assert_eq!(names("libpython3.15t.so"), ["wsgi_python.cpython-315t.so"]);
        for ordinary in ["/usr/lib/libpython3.14.so.1.0", "/x/libpython3t/python.so", ""] {
            assert_eq!(names(ordinary)[0], "wsgi_python.abi3.so");
        }
    }

    #[test]
    fn who_lacks_one_is_told_how_to_make_it() {
        let names = Names::of(Path::new("libpython3.14t.so.1.0"));
        let said = names.missing(Path::new("/m/mod_wsgi_rs.so"), Path::new("/p/bin/python3"));
        for word in ["wsgi_python.cpython-314t.so", "/m/mod", "make PYTHON=/p/bin/python3"] {
            assert!(said.to_string().contains(word), "{said}");
        }
    }
}
