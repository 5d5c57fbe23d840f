//! What the directives about Python say, and what follows for one interpreter.
#![forbid(unsafe_code)]

use crate::raw::{Attached, Object, Raised};

/// The seed of hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashSeed {
    /// Another one for each process.
    Random,
    /// This one.
    Fixed(u32),
}

/// What is said of a process' Python.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// What is said of its interpreters; what a later one says holds.
    pub layers: Vec<Layer>,
    /// Filters of warnings.
    pub warnings: Vec<Vec<u8>>,
    /// `PYTHON_EGG_CACHE`, or empty.
    pub python_eggs: Vec<u8>,
    /// The seed of hashes; none: as Python likes.
    pub hash_seed: Option<HashSeed>,
    /// Level of optimisation.
    pub optimize: i32,
    /// Whether no bytecode files are written.
    pub dont_write_bytecode: bool,
    /// Whether Python is left as it is when the process ends.
    pub keeps_interpreters: bool,
    /// Whether scripts whose paths differ in case only are one module.
    pub ignores_case: bool,
    /// Whether `sys.stdin` and `sys.stdout` are left alone.
    pub is_debugged: bool,
}

/// What is said of some interpreters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layer {
    /// The application group it is for; none: for all.
    pub application_group: Option<Vec<u8>>,
    /// Directories for the front of `sys.path`.
    pub python_path: Vec<u8>,
    /// `sys.setswitchinterval`, in seconds.
    pub switch_interval: Option<f64>,
    /// Whether a sub-interpreter has a lock of its own.
    pub own_gil: Option<bool>,
    /// Whether a free-threaded Python does without its lock.
    pub free_threading: Option<bool>,
    /// Whether `sys.stdin` raises.
    pub restrict_stdin: Option<bool>,
    /// Whether `sys.stdout` raises.
    pub restrict_stdout: Option<bool>,
    /// Whether `signal.signal` has no effect.
    pub restrict_signal: Option<bool>,
}

/// What follows for one interpreter.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Directories for the front of `sys.path`, one layer after the other.
    pub python_paths: Vec<Vec<u8>>,
    /// `sys.setswitchinterval`, in seconds.
    pub switch_interval: Option<f64>,
    /// Whether that is said of this application group alone.
    pub is_own_interval: bool,
    /// Whether it is to have a lock of its own.
    pub own_gil: bool,
    /// Whether `sys.stdin` raises.
    pub restrict_stdin: bool,
    /// Whether `sys.stdout` raises.
    pub restrict_stdout: bool,
    /// Whether `signal.signal` has no effect.
    pub restrict_signal: bool,
}

impl Options {
    /// What is said of application group `name`; empty is the main interpreter.
    pub fn of(&self, name: &[u8]) -> Chosen {
        let fits =
            |layer: &&Layer| layer.application_group.as_deref().is_none_or(|group| group == name);
        let layers: Vec<&Layer> = self.layers.iter().filter(fits).collect();
        let last = |said: fn(&Layer) -> Option<bool>| layers.iter().rev().find_map(|it| said(it));
        let interval = layers.iter().rev().find(|layer| layer.switch_interval.is_some());
        Chosen {
            python_paths: layers
                .iter()
                .map(|layer| layer.python_path.clone())
                .filter(|path| !path.is_empty())
                .collect(),
            switch_interval: interval.and_then(|layer| layer.switch_interval),
            is_own_interval: interval.is_some_and(|layer| layer.application_group.is_some()),
            // The main interpreter's lock is the one the others share.
            own_gil: !name.is_empty() && last(|layer| layer.own_gil).unwrap_or(false),
            restrict_stdin: last(|layer| layer.restrict_stdin).unwrap_or(false),
            restrict_stdout: last(|layer| layer.restrict_stdout).unwrap_or(false),
            restrict_signal: last(|layer| layer.restrict_signal).unwrap_or(true),
        }
    }

    /// Whether a free-threaded Python was asked for.
    pub fn wants_free_threading(&self) -> bool {
        let all = self.layers.iter().rev().filter(|layer| layer.application_group.is_none());
        all.filter_map(|layer| layer.free_threading).next().unwrap_or(false)
    }
}

impl Chosen {
    /// The interval an interpreter sets; `process` is what the process says of its
    /// main interpreter.
    fn interval(&self, is_main: bool, owns_gil: bool, process: Option<f64>) -> Option<f64> {
        match (is_main, owns_gil) {
            (true, _) => process.or(self.switch_interval),
            (false, true) => self.switch_interval.or(process),
            // It shares the lock of the main interpreter, and so its interval.
            (false, false) => None,
        }
    }

    /// Puts what `setup.py` is to know into `values`.
    pub fn put(
        &self,
        values: &Object<'_>,
        options: &Options,
        (is_main, owns_gil): (bool, bool),
        process: Option<f64>,
    ) -> Result<(), Raised> {
        let py: Attached<'_> = values.py();
        let set = |key, value: Object<'_>| values.dict_set(&py.name(key)?, &value);
        let paths = py.list()?;
        for path in &self.python_paths {
            paths.list_append(&py.path(path)?)?;
        }
        set("python_paths", paths)?;
        let interval = self.interval(is_main, owns_gil, process);
        set("switch_interval", py.float(interval.unwrap_or_default())?)?;
        let is_skipped = interval.is_none() && self.is_own_interval;
        set("is_interval_skipped", py.boolean(is_skipped)?)?;
        set("is_interval_option", py.boolean(process.is_some())?)?;
        set("python_eggs", py.path(&options.python_eggs)?)?;
        set("is_debugged", py.boolean(options.is_debugged)?)?;
        set("restrict_stdin", py.boolean(self.restrict_stdin)?)?;
        set("restrict_stdout", py.boolean(self.restrict_stdout)?)?;
        set("restrict_signal", py.boolean(self.restrict_signal)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(group: Option<&str>, path: &str) -> Layer {
        let application_group = group.map(|group| group.as_bytes().to_vec());
        Layer { application_group, python_path: path.into(), ..Layer::default() }
    }

    #[test]
    fn a_later_layer_that_says_something_holds() {
        let layers = vec![
            Layer { restrict_stdin: Some(true), own_gil: Some(true), ..layer(None, "") },
            Layer { restrict_stdin: Some(false), ..layer(Some("a"), "") },
            Layer { own_gil: None, restrict_signal: Some(false), ..layer(None, "") },
        ];
        let options = Options { layers, ..Options::default() };
        let of = |name: &str| options.of(name.as_bytes());
        assert!(!of("a").restrict_stdin && of("b").restrict_stdin && of("").restrict_stdin);
        assert!(of("a").own_gil && !of("").own_gil);
        assert!(!of("a").restrict_signal);
        assert!(Options::default().of(b"").restrict_signal);
    }

    #[test]
    fn the_paths_of_all_layers_are_added_up_in_order() {
        let layers =
            vec![layer(None, "/1"), layer(None, ""), layer(Some("b"), "/x"), layer(None, "/2")];
        let options = Options { layers, ..Options::default() };
        assert_eq!(options.of(b"").python_paths, [b"/1".to_vec(), b"/2".to_vec()]);
        assert_eq!(options.of(b"b").python_paths.len(), 3);
    }

    #[test]
    fn an_interval_is_of_a_lock() {
        let one = |group| Layer { switch_interval: Some(1.0), ..layer(group, "") };
        let options = Options { layers: vec![one(None)], ..Options::default() };
        let of = |name: &[u8], owns_gil, process| {
            options.of(name).interval(name.is_empty(), owns_gil, process)
        };
        assert_eq!(of(b"", false, None), Some(1.0));
        assert_eq!(of(b"", false, Some(2.0)), Some(2.0));
        assert_eq!(of(b"a", false, Some(2.0)), None);
        assert_eq!(of(b"a", true, Some(2.0)), Some(1.0));
        assert!(!options.of(b"a").is_own_interval);
        let options = Options { layers: vec![one(None), one(Some("a"))], ..Options::default() };
        assert!(options.of(b"a").is_own_interval && !options.of(b"b").is_own_interval);
    }

    #[test]
    fn free_threading_is_wanted_for_a_process() {
        let said = |group, said| Layer { free_threading: Some(said), ..layer(group, "") };
        let wants = |layers| Options { layers, ..Options::default() }.wants_free_threading();
        assert!(!wants(Vec::new()));
        assert!(wants(vec![said(None, false), said(None, true)]));
        assert!(!wants(vec![said(None, true), said(None, false), said(Some("a"), true)]));
    }
}
