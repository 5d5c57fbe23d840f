//! What is said of interpreters and does not do what it seems to.
#![forbid(unsafe_code)]

use super::{Problem, places};
use crate::config::interpreters::{Block, Interpreters};
use crate::config::option::readable;
use crate::config::process_group::ProcessGroup;

/// Everything there is to say about it.
pub fn problems(interpreters: &Interpreters, groups: &[ProcessGroup]) -> Vec<Problem> {
    let blocks = interpreters.blocks.iter();
    let mut problems: Vec<Problem> = blocks.flat_map(|block| of_block(block, groups)).collect();
    problems.extend(interpreters.stray.iter().map(|(name, at)| {
        let text = format!(
            "{name} in a WSGIInterpreterOptions block holds for the whole server, as if it \
             stood outside"
        );
        Problem::warning("WSGI9221", at, text)
    }));
    problems.extend(interpreters.verbose.iter().map(|at| {
        Problem::notice(at, "WSGIVerboseDebugging has no effect: see LogLevel".to_owned())
    }));
    problems
}

/// What there is to say about one block.
fn of_block(block: &Block, groups: &[ProcessGroup]) -> Vec<Problem> {
    let (selector, options, at) = (&block.selector, &block.options, &block.at);
    let mut problems = Vec::new();
    if let Some(name) = &selector.process_group {
        let is_known = name.is_empty() || groups.iter().any(|group| group.name == *name);
        if !is_known {
            let text = format!(
                "the block is for daemon process group '{}', which is not defined: it holds for \
                 no interpreter",
                readable(name)
            );
            problems.push(Problem::warning("WSGI9222", at, text));
        }
    }
    if options.free_threading.is_some() && selector.application_group.is_some() {
        let text = "WSGIFreeThreading is of a process: ignored in a block with application-group";
        problems.push(Problem::warning("WSGI0201", at, text.to_owned()));
    }
    let path = options.python_path.iter();
    problems.extend(path.flat_map(|path| places::python_path(path, at)));
    problems
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::super::tests::{at, group, main_server, problem, problems, with_groups};
    use crate::config::ServerConfig;
    use crate::config::interpreters::{Block, Options, Selector};

    fn config(selectors: &str, options: Options) -> ServerConfig {
        let mut config = with_groups(&[group(1, "blog")]);
        let selector = Selector::read(selectors.as_bytes()).unwrap();
        config.interpreters.blocks.push(Block { selector, options, at: at(7) });
        config
    }

    fn only(config: &ServerConfig) -> (Severity, u32, String) {
        problem(&[main_server(config)])
    }

    #[test]
    fn a_block_for_a_group_nobody_defines_is_a_warning() {
        for selectors in ["process-group=blog>", "process-group=%{GLOBAL}>", ""] {
            let config = config(selectors, Options::default());
            assert!(problems(&[main_server(&config)]).is_empty(), "{selectors}");
        }
        let (severity, line, text) = only(&config("process-group=blgo>", Options::default()));
        assert_eq!((severity, line), (Severity::Warning, 7));
        assert!(text.contains("'blgo', which is not defined"), "{text}");
    }

    #[test]
    fn free_threading_for_one_application_group_is_a_warning() {
        let options = || Options { free_threading: Some(false), ..Options::default() };
        let (severity, line, text) = only(&config("application-group=a>", options()));
        assert_eq!((severity, line), (Severity::Warning, 7));
        assert!(text.contains("of a process"), "{text}");
        assert!(problems(&[main_server(&config("process-group=blog>", options()))]).is_empty());
    }

    #[test]
    fn directories_of_a_block_that_are_missing_are_a_warning() {
        let options = Options { python_path: Some(b"/:/no/such/one".into()), ..Options::default() };
        let (_, line, text) = only(&config("", options));
        assert_eq!(line, 7);
        assert!(text.contains("'/no/such/one'"), "{text}");
    }

    #[test]
    fn what_a_block_does_not_keep_to_itself_is_a_warning() {
        let mut config = with_groups(&[]);
        config.interpreters.stray.push(("WSGIPythonHome".to_owned(), at(3)));
        let (severity, line, text) = only(&config);
        assert_eq!((severity, line), (Severity::Warning, 3));
        assert!(text.contains("WSGIPythonHome in a WSGIInterpreterOptions block"), "{text}");
    }
}
