//! What the directives about Python say, as a host hands it over.

use std::ffi::c_int;
use wsgi_wire::options::{Layer, Options, hash_seed, switch};
use wsgi_wire::vtable::Bytes;

/// What is said of all interpreters, or of one.
#[derive(Debug, Clone, Default)]
pub struct Said {
    pub group: Option<&'static str>,
    pub python_path: String,
    pub switch_interval: f64,
    pub own_gil: Option<bool>,
    pub free_threading: Option<bool>,
    pub restrict_stdin: Option<bool>,
    pub restrict_stdout: Option<bool>,
    pub restrict_signal: Option<bool>,
}

/// What is said.
#[derive(Debug, Clone)]
pub struct Plan {
    pub layers: Vec<Said>,
    pub warnings: Vec<&'static str>,
    pub python_eggs: &'static str,
    pub hash_seed: i64,
    pub optimize: c_int,
    pub dont_write_bytecode: bool,
    pub keeps_interpreters: bool,
    pub ignores_case: bool,
    pub is_debugged: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            layers: Vec::new(),
            warnings: Vec::new(),
            python_eggs: "",
            hash_seed: hash_seed::UNSET,
            optimize: 0,
            dont_write_bytecode: false,
            keeps_interpreters: false,
            ignores_case: false,
            is_debugged: false,
        }
    }
}

impl Plan {
    /// The layers, in the table's form.
    pub fn layers(&self) -> Vec<Layer> {
        let layer = |said: &Said| Layer {
            application_group: Bytes::new(said.group.unwrap_or_default().as_bytes()),
            python_path: Bytes::new(said.python_path.as_bytes()),
            switch_interval: said.switch_interval,
            is_for_one: said.group.is_some().into(),
            own_gil: switch::of(said.own_gil),
            free_threading: switch::of(said.free_threading),
            restrict_stdin: switch::of(said.restrict_stdin),
            restrict_stdout: switch::of(said.restrict_stdout),
            restrict_signal: switch::of(said.restrict_signal),
        };
        self.layers.iter().map(layer).collect()
    }

    /// The filters of warnings, in the table's form.
    pub fn warnings(&self) -> Vec<Bytes> {
        self.warnings.iter().map(|text| Bytes::new(text.as_bytes())).collect()
    }

    /// The table.
    pub fn lend(&self, layers: &[Layer], warnings: &[Bytes]) -> Options {
        Options {
            layers: layers.as_ptr(),
            layer_count: layers.len(),
            warnings: warnings.as_ptr(),
            warning_count: warnings.len(),
            python_eggs: Bytes::new(self.python_eggs.as_bytes()),
            hash_seed: self.hash_seed,
            optimize: self.optimize,
            dont_write_bytecode: self.dont_write_bytecode.into(),
            keeps_interpreters: self.keeps_interpreters.into(),
            ignores_case: self.ignores_case.into(),
            is_debugged: self.is_debugged.into(),
        }
    }
}
