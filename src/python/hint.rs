//! A word about extension modules that only one interpreter of a process can have,
//! or none with a lock of its own.
#![forbid(unsafe_code)]

use crate::interpreter::Place;
use crate::log::Sink;
use crate::raw::Attached;
use wsgi_wire::vtable::level;

/// What such modules say, and CPython for them.
const REFUSALS: [&str; 6] = [
    // CPython, where an interpreter has a lock of its own.
    "does not support loading in subinterpreters",
    // PyO3, such as cryptography and pydantic-core; the older text, then the newer ones.
    "PyO3 modules may only be initialized once per interpreter process",
    "PyO3 modules do not yet support subinterpreters",
    "PyO3 modules compiled for CPython 3.8 or older may only be initialized once",
    // numpy, then its older releases.
    "cannot load module more than once per process",
    "CPU dispatcher tracer already initlized",
];

/// What an interpreter is, for such a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The one that can have any.
    Main,
    /// A sub-interpreter.
    Sub {
        /// Its application group.
        name: String,
        /// Whether its lock is its own.
        owns_gil: bool,
    },
}

impl Kind {
    /// That of the interpreter of an application group.
    pub fn new(group: &[u8], owns_gil: bool) -> Self {
        match group {
            b"" => Self::Main,
            name => Self::Sub { name: String::from_utf8_lossy(name).into_owned(), owns_gil },
        }
    }

    /// What to do about a traceback with these lines, if it is for this.
    fn hint(&self, lines: &[String]) -> Option<String> {
        let Self::Sub { name, owns_gil } = self else { return None };
        let is_refusal = |line: &String| REFUSALS.iter().any(|text| line.contains(text));
        if !lines.iter().any(is_refusal) {
            return None;
        }
        let or = match owns_gil {
            true => ", or WSGIPerInterpreterGIL Off may do",
            false => "",
        };
        Some(format!(
            "WSGI9413: a module of the application cannot be imported in a sub-interpreter: \
             WSGIApplicationGroup %{{GLOBAL}} has it run in the main one{or} \
             [application group '{name}']"
        ))
    }
}

/// Adds a line to a traceback that comes of such a module.
pub fn refused_import(py: Attached<'_>, place: &Place, lines: &[String], sink: Sink<'_>) {
    if let Some(hint) = place.kind.hint(lines) {
        sink.line(py, level::ERROR, &hint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(kind: &Kind, line: &str) -> Option<String> {
        kind.hint(&["Traceback (most recent call last):".to_owned(), line.to_owned()])
    }

    #[test]
    fn modules_that_refuse_sub_interpreters_are_recognised() {
        let (sub, own) = (Kind::new(b"blog", false), Kind::new(b"blog", true));
        for line in [
            "ImportError: module _x does not support loading in subinterpreters",
            "ImportError: PyO3 modules do not yet support subinterpreters, see https://x",
            "ImportError: cannot load module more than once per process",
        ] {
            let said = hint(&sub, line).unwrap_or_default();
            assert!(said.contains("WSGIApplicationGroup %{GLOBAL}"), "{said}");
            assert!(said.ends_with("[application group 'blog']"), "{said}");
            assert!(!said.contains("WSGIPerInterpreterGIL"), "{said}");
            assert!(hint(&own, line).unwrap_or_default().contains("WSGIPerInterpreterGIL Off"));
            assert_eq!(hint(&Kind::new(b"", false), line), None);
        }
        assert_eq!(hint(&sub, "ImportError: No module named 'numpy'"), None);
    }
}
