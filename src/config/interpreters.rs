//! What the configuration says of Python and of its interpreters: settings of
//! the whole server, and `<WSGIInterpreterOptions>` blocks for some of them.
#![forbid(unsafe_code)]

use super::alias::group_text;
use super::option::{Arguments, readable};
use super::{DirectiveError, Location, OptionError};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What may be said of some interpreters and not of others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// `WSGIPythonPath`, in a block only: the server's own is for embedded mode.
    pub python_path: Option<Vec<u8>>,
    /// `WSGISwitchInterval`.
    pub switch_interval: Option<Duration>,
    /// `WSGIPerInterpreterGIL`.
    pub own_gil: Option<bool>,
    /// `WSGIFreeThreading`.
    pub free_threading: Option<bool>,
    /// `WSGIRestrictStdin`.
    pub restrict_stdin: Option<bool>,
    /// `WSGIRestrictStdout`.
    pub restrict_stdout: Option<bool>,
    /// `WSGIRestrictSignal`.
    pub restrict_signal: Option<bool>,
}

/// Which interpreters a block is for; what is not said fits all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// The process group; empty is embedded mode.
    pub process_group: Option<Vec<u8>>,
    /// The application group; empty is the main interpreter.
    pub application_group: Option<Vec<u8>>,
}

impl Selector {
    /// Reads what stands between the name of the section and its end.
    pub fn read(arguments: &[u8]) -> Result<Self, DirectiveError> {
        let mut selector = Self::default();
        if arguments.is_empty() {
            // httpd has taken the `>` that follows the name directly.
            return Ok(selector);
        }
        let end = arguments.iter().rposition(|&byte| byte == b'>');
        let words = end.and_then(|end| arguments.get(..end));
        let words = words.ok_or(DirectiveError::Missing { wanted: "a '>' at its end" })?;
        let mut words = Arguments::new(words);
        let refuse = |cause| match cause {
            OptionError::Syntax(word) => DirectiveError::Selector(word),
            other => DirectiveError::Selector(other.to_string()),
        };
        while let Some(pair) = words.pair().map_err(refuse)? {
            let place = if pair.name.eq_ignore_ascii_case(b"process-group") {
                &mut selector.process_group
            } else if pair.name.eq_ignore_ascii_case(b"application-group") {
                &mut selector.application_group
            } else {
                return Err(DirectiveError::Selector(readable(pair.name)));
            };
            if place.replace(group_text(pair.value)).is_some() {
                return Err(DirectiveError::Twice(readable(pair.name)));
            }
        }
        Ok(selector)
    }

    /// How much it says: of two blocks that fit, the one that says more holds.
    fn specificity(&self) -> usize {
        usize::from(self.process_group.is_some()) + usize::from(self.application_group.is_some())
    }
}

/// A `<WSGIInterpreterOptions>` section.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Which interpreters it is for.
    pub selector: Selector,
    /// What it says of them.
    pub options: Options,
    /// Where it begins.
    pub at: Location,
}

/// `WSGIPythonHashSeed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HashSeed {
    /// Another one for each process.
    Random,
    /// The same for all.
    Fixed(u32),
}

/// Everything the configuration says of Python itself; the main server's only.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Interpreters {
    /// What holds where no block says otherwise.
    pub options: Options,
    /// The blocks, in order.
    pub blocks: Vec<Block>,
    /// `WSGIPythonOptimize`.
    pub optimize: Option<u32>,
    /// `WSGIDontWriteBytecode`.
    pub dont_write_bytecode: Option<bool>,
    /// `WSGIPythonWarnings`, in order.
    pub warnings: Vec<Vec<u8>>,
    /// `WSGIPythonHashSeed`.
    pub hash_seed: Option<HashSeed>,
    /// `WSGIPythonEggs`.
    pub python_eggs: Option<Vec<u8>>,
    /// `WSGIDestroyInterpreter`.
    pub destroy: Option<bool>,
    /// `WSGICaseSensitivity`.
    pub case_sensitivity: Option<bool>,
    /// Where `WSGIVerboseDebugging` stands.
    pub verbose: Option<Location>,
    /// Directives in a block that are not of it and hold for the whole server.
    pub stray: Vec<(String, Location)>,
}

/// What the interpreters of one process group are started with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What was said of them, the least specific first.
    pub layers: Vec<Layer>,
    /// Level of optimisation.
    pub optimize: u32,
    /// Whether no bytecode is written.
    pub dont_write_bytecode: bool,
    /// Filters of warnings.
    pub warnings: Vec<Vec<u8>>,
    /// The seed of hashes.
    pub hash_seed: Option<HashSeed>,
    /// `PYTHON_EGG_CACHE`; empty: left alone.
    pub python_eggs: Vec<u8>,
    /// Whether Python is left as it is when the process ends.
    pub keeps_interpreters: bool,
    /// Whether scripts whose paths differ in case only are one module.
    pub ignores_case: bool,
    /// Whether standard input and output belong to who debugs this process.
    pub is_debugged: bool,
}

impl Plan {
    /// Whether an interpreter may have a lock of its own.
    pub fn may_have_own_locks(&self) -> bool {
        self.layers.iter().any(|layer| layer.options.own_gil == Some(true))
    }
}

/// What was said of all interpreters of a process group, or of one of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// The application group it is for; none: for all.
    pub application_group: Option<Vec<u8>>,
    /// What it was.
    pub options: Options,
}

impl Layer {
    /// What `options` say of this application group.
    fn new(application_group: Option<&Vec<u8>>, options: &Options) -> Self {
        // A process does without the lock, or has it.
        let free_threading = options.free_threading.filter(|_| application_group.is_none());
        let options = Options { free_threading, ..options.clone() };
        Self { application_group: application_group.cloned(), options }
    }
}

impl Interpreters {
    /// What a directive sets that stands in the latest block, or in none.
    pub fn target(&mut self, in_block: bool) -> &mut Options {
        match self.blocks.last_mut().filter(|_| in_block) {
            Some(block) => &mut block.options,
            None => &mut self.options,
        }
    }

    /// Whether the case of paths counts.
    pub fn is_case_sensitive(&self) -> bool {
        self.case_sensitivity.unwrap_or(true)
    }

    /// What the interpreters of `process_group` are started with; empty is
    /// embedded mode.
    pub fn plan(&self, process_group: &[u8]) -> Plan {
        let is_for = |block: &&Block| {
            block.selector.process_group.as_deref().is_none_or(|name| name == process_group)
        };
        let mut blocks: Vec<&Block> = self.blocks.iter().filter(is_for).collect();
        // Stable: of two that say as much the later one holds.
        blocks.sort_by_key(|block| block.selector.specificity());
        let layers = blocks
            .iter()
            .map(|block| Layer::new(block.selector.application_group.as_ref(), &block.options));
        let eggs = self.python_eggs.as_ref().filter(|_| process_group.is_empty());
        Plan {
            layers: std::iter::once(Layer::new(None, &self.options)).chain(layers).collect(),
            optimize: self.optimize.unwrap_or(0),
            dont_write_bytecode: self.dont_write_bytecode.unwrap_or(false),
            warnings: self.warnings.clone(),
            hash_seed: self.hash_seed,
            python_eggs: eggs.cloned().unwrap_or_default(),
            keeps_interpreters: !self.destroy.unwrap_or(true),
            ignores_case: !self.is_case_sensitive(),
            is_debugged: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(text: &str) -> Selector {
        Selector::read(text.as_bytes()).unwrap()
    }

    fn seconds(number: u64) -> Option<Duration> {
        Some(Duration::from_secs(number))
    }

    fn block(selectors: &str, options: Options) -> Block {
        Block { selector: selector(selectors), options, at: Location::default() }
    }

    fn interval(selectors: &str, number: u64) -> Block {
        block(selectors, Options { switch_interval: seconds(number), ..Options::default() })
    }

    /// The intervals of the layers that are for this application group, in order.
    fn intervals(blocks: Vec<Block>, process: &[u8], application: &[u8]) -> Vec<u64> {
        let interpreters = Interpreters { blocks, ..Interpreters::default() };
        let plan = interpreters.plan(process);
        let fits = |layer: &&Layer| {
            layer.application_group.as_deref().is_none_or(|name| name == application)
        };
        let layers = plan.layers.iter().filter(fits);
        layers
            .filter_map(|layer| layer.options.switch_interval.map(|time| time.as_secs()))
            .collect()
    }

    #[test]
    fn selectors_are_two_words_in_any_case_and_order() {
        assert_eq!(selector(""), Selector::default());
        assert_eq!(selector(">"), Selector::default());
        let both =
            Selector { process_group: Some(b"blog".into()), application_group: Some(Vec::new()) };
        assert_eq!(selector("process-group=blog application-group=%{GLOBAL}>"), both);
        assert_eq!(selector("Application-Group=%{GLOBAL} PROCESS-GROUP='blog' >"), both);
        assert_eq!(selector("process-group=%{SERVER}>").process_group, Some(b"%{SERVER}".into()));
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for (text, wanted) in [
            ("process-group=a", "requires a '>' at its end"),
            ("process-group=a process-group=b>", "'process-group' is given twice"),
            ("group=a>", "process-group=NAME or application-group=NAME; found 'group'"),
            ("blog>", "process-group=NAME or application-group=NAME; found 'blog'"),
        ] {
            let said = Selector::read(text.as_bytes()).unwrap_err().to_string();
            assert!(said.ends_with(wanted), "{text}: {said}");
        }
    }

    #[test]
    fn a_block_that_says_more_comes_later_and_so_does_a_later_one() {
        let blocks = vec![
            interval("process-group=blog application-group=a>", 5),
            interval("application-group=a>", 4),
            interval("process-group=blog>", 3),
            interval("", 1),
            interval(">", 2),
        ];
        assert_eq!(intervals(blocks.clone(), b"blog", b"a"), [1, 2, 4, 3, 5]);
        assert_eq!(intervals(blocks.clone(), b"blog", b"b"), [1, 2, 3]);
        assert_eq!(intervals(blocks.clone(), b"", b"a"), [1, 2, 4]);
        assert_eq!(intervals(blocks, b"shop", b""), [1, 2]);
    }

    #[test]
    fn the_server_is_the_lowest_layer() {
        let options = Options { switch_interval: seconds(9), ..Options::default() };
        let blocks = vec![interval("", 1)];
        let interpreters = Interpreters { options, blocks, ..Interpreters::default() };
        let layers = interpreters.plan(b"x").layers;
        assert_eq!(layers.len(), 2);
        assert_eq!(layers[0].options.switch_interval, seconds(9));
        assert_eq!(layers[1].options.switch_interval, seconds(1));
    }

    #[test]
    fn free_threading_is_not_for_one_application_group() {
        let options = || Options { free_threading: Some(true), ..Options::default() };
        let blocks = vec![block("application-group=a>", options()), block("", options())];
        let interpreters = Interpreters { blocks, ..Interpreters::default() };
        let layers = interpreters.plan(b"").layers;
        let said: Vec<_> = layers.iter().map(|layer| layer.options.free_threading).collect();
        assert_eq!(said, [None, Some(true), None]);
    }

    #[test]
    fn the_egg_cache_of_the_server_is_for_embedded_mode() {
        let interpreters =
            Interpreters { python_eggs: Some(b"/eggs".into()), ..Interpreters::default() };
        assert_eq!(interpreters.plan(b"").python_eggs, b"/eggs");
        assert!(interpreters.plan(b"blog").python_eggs.is_empty());
    }

    #[test]
    fn a_directive_in_a_block_is_that_block_s() {
        let mut interpreters = Interpreters::default();
        interpreters.blocks.push(interval("", 1));
        interpreters.target(true).own_gil = Some(true);
        interpreters.target(false).own_gil = Some(false);
        assert_eq!(interpreters.blocks[0].options.own_gil, Some(true));
        assert_eq!(interpreters.options.own_gil, Some(false));
    }
}
