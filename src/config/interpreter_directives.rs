//! The directives about Python itself and about its interpreters.
#![forbid(unsafe_code)]

use super::DirectiveError;
use super::directives::location;
use super::error::switch;
use super::interpreters::{Block, HashSeed, Options, Selector};
use super::option::readable;
use crate::httpd::command::{Reading, Scope, Words};
use std::str::FromStr;
use std::time::Duration;

/// The options of the block the directive stands in, if it stands in one.
pub fn block<'s>(scope: &'s mut Scope<'_>) -> Option<&'s mut Options> {
    scope.is_in_section().then(|| scope.server.interpreters.target(true))
}

/// What the directive sets: of the block it stands in, or of the server.
fn target<'s>(scope: &'s mut Scope<'_>) -> &'s mut Options {
    let in_block = scope.is_in_section();
    scope.server.interpreters.target(in_block)
}

/// Notes a directive that a block does not keep to itself.
pub fn note_stray(scope: &mut Scope<'_>, name: String) {
    let at = location(scope);
    scope.server.interpreters.stray.push((name, at));
}

/// `<WSGIInterpreterOptions>`.
pub fn section(scope: &mut Scope<'_>, words: &mut Words<'_>) -> Reading {
    if scope.is_in_section() {
        return Err(DirectiveError::Nested);
    }
    let (selector, at) = (Selector::read(words.rest())?, location(scope));
    let block = Block { selector, options: Options::default(), at };
    scope.server.interpreters.blocks.push(block);
    Ok(())
}

/// `text` as a number of any kind.
fn number<N: FromStr>(text: &[u8]) -> Option<N> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// A refusal that says what was wanted.
fn wrong(wanted: &'static str, found: &[u8]) -> DirectiveError {
    DirectiveError::Number { wanted, found: readable(found) }
}

/// `WSGIPythonEggs`.
pub fn python_eggs(scope: &mut Scope<'_>, path: &[u8]) -> Reading {
    scope.server.interpreters.python_eggs = Some(path.to_vec());
    Ok(())
}

/// `WSGIPythonOptimize`.
pub fn python_optimize(scope: &mut Scope<'_>, level: &[u8]) -> Reading {
    let level: i32 = number(level).ok_or_else(|| wrong("a whole number", level))?;
    scope.server.interpreters.optimize = Some(u32::try_from(level).unwrap_or(0));
    Ok(())
}

/// `WSGIDontWriteBytecode`.
pub fn dont_write_bytecode(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    scope.server.interpreters.dont_write_bytecode = Some(switch(word)?);
    Ok(())
}

/// `WSGIPythonWarnings`, which adds to what is there.
pub fn python_warnings(scope: &mut Scope<'_>, filter: &[u8]) -> Reading {
    scope.server.interpreters.warnings.push(filter.to_vec());
    Ok(())
}

/// `WSGIPythonHashSeed`.
pub fn python_hash_seed(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    let seed = match word {
        b"random" => HashSeed::Random,
        _ => HashSeed::Fixed(
            number(word)
                .ok_or_else(|| wrong("'random' or a whole number from 0 to 4294967295", word))?,
        ),
    };
    scope.server.interpreters.hash_seed = Some(seed);
    Ok(())
}

/// `WSGIDestroyInterpreter`.
pub fn destroy_interpreter(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    scope.server.interpreters.destroy = Some(switch(word)?);
    Ok(())
}

/// `WSGICaseSensitivity`.
pub fn case_sensitivity(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    scope.server.interpreters.case_sensitivity = Some(switch(word)?);
    Ok(())
}

/// `WSGIVerboseDebugging`.
pub fn verbose_debugging(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    // mod_wsgi-express writes an `Off` into every tree: that loses nothing.
    scope.server.interpreters.verbose = switch(word)?.then(|| location(scope));
    Ok(())
}

/// `WSGISwitchInterval`.
pub fn switch_interval(scope: &mut Scope<'_>, seconds: &[u8]) -> Reading {
    let interval = number(seconds)
        .filter(|&seconds: &f64| seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|interval| !interval.is_zero())
        .ok_or_else(|| wrong("a number of seconds above 0", seconds))?;
    target(scope).switch_interval = Some(interval);
    Ok(())
}

/// `WSGIPerInterpreterGIL`.
pub fn per_interpreter_gil(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    target(scope).own_gil = Some(switch(word)?);
    Ok(())
}

/// `WSGIFreeThreading`.
pub fn free_threading(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    target(scope).free_threading = Some(switch(word)?);
    Ok(())
}

/// `WSGIRestrictStdin`.
pub fn restrict_stdin(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    target(scope).restrict_stdin = Some(switch(word)?);
    Ok(())
}

/// `WSGIRestrictStdout`.
pub fn restrict_stdout(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    target(scope).restrict_stdout = Some(switch(word)?);
    Ok(())
}

/// `WSGIRestrictSignal`.
pub fn restrict_signal(scope: &mut Scope<'_>, word: &[u8]) -> Reading {
    target(scope).restrict_signal = Some(switch(word)?);
    Ok(())
}
