//! Times and sizes that cannot be meant as they are written.
#![forbid(unsafe_code)]

use super::Problem;
use crate::config::ProcessGroup;
use crate::config::option::readable;

/// Less memory than any Python needs to start: whoever writes less thinks of
/// another unit.
const LEAST_MEMORY: u64 = 4 * 1024 * 1024;

/// Python's own guard against deep recursion counts on more stack than less.
const LEAST_STACK: u64 = 128 * 1024;

/// Everything there is to say about the amounts of a group.
pub fn problems(group: &ProcessGroup) -> Vec<Problem> {
    let limits = &group.limits;
    let memory = [
        ("memory-limit", limits.memory_limit),
        ("virtual-memory-limit", limits.virtual_memory_limit),
    ];
    let memory =
        memory.into_iter().filter_map(|(option, size)| memory_problem(group, option, size?));
    let stack = limits.stack_size.and_then(|size| stack_problem(group, size));
    let resident = limits.max_rss.and_then(|size| resident_problem(group, size));
    memory.chain(resident).chain(stack).chain(idle_timer(group)).collect()
}

/// A limit on memory below which no process can live.
fn memory_problem(group: &ProcessGroup, option: &str, size: u64) -> Option<Problem> {
    (1..LEAST_MEMORY).contains(&size).then(|| {
        let text = format!(
            "{option} of daemon process group '{}' is {size} bytes: no Python starts with so little",
            readable(&group.name)
        );
        Problem::error("WSGI9216", &group.at, text)
    })
}

/// A resident size that every process is above.
fn resident_problem(group: &ProcessGroup, size: u64) -> Option<Problem> {
    (1..LEAST_MEMORY).contains(&size).then(|| {
        let text = format!(
            "max-rss of daemon process group '{}' is {size} bytes: every process is above it, \
             and replaced at once",
            readable(&group.name)
        );
        Problem::warning("WSGI9218", &group.at, text)
    })
}

/// A stack that is too small for most applications.
fn stack_problem(group: &ProcessGroup, size: u64) -> Option<Problem> {
    (size < LEAST_STACK).then(|| {
        let text = format!(
            "stack-size of daemon process group '{}' is {size} bytes: a deep recursion ends the \
             process; wanted {LEAST_STACK} at least",
            readable(&group.name)
        );
        Problem::warning("WSGI9217", &group.at, text)
    })
}

/// A timer that waits for another one, which is off.
fn idle_timer(group: &ProcessGroup) -> Option<Problem> {
    let times = &group.timeouts;
    let is_idle = times.interrupt().is_some() && times.request().is_none();
    is_idle.then(|| {
        let text = format!(
            "daemon process group '{}': interrupt-timeout begins when request-timeout is over, \
             and there is none: no request is interrupted",
            readable(&group.name)
        );
        Problem::warning("WSGI9213", &group.at, text)
    })
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::super::tests::group;
    use super::*;

    fn said(options: &str) -> Vec<(Severity, String)> {
        let found = problems(&group(8, &format!("blog {options}")));
        found.into_iter().map(|problem| (problem.severity, problem.text)).collect()
    }

    #[test]
    fn a_limit_in_another_unit_is_an_error() {
        for option in ["memory-limit", "virtual-memory-limit"] {
            assert_eq!(said(&format!("{option}=0")), []);
            assert_eq!(said(&format!("{option}=536870912")), []);
            let found = said(&format!("{option}=512"));
            assert_eq!(found[0].0, Severity::Error);
            assert!(found[0].1.starts_with(&format!("{option} of")), "{found:?}");
            assert!(found[0].1.contains("is 512 bytes"), "{found:?}");
        }
    }

    #[test]
    fn a_size_that_every_process_is_above_is_a_warning() {
        assert_eq!(said("max-rss=0 max-rss=536870912"), []);
        let found = said("max-rss=512");
        assert_eq!(found[0].0, Severity::Warning);
        assert!(found[0].1.contains("is 512 bytes"), "{found:?}");
    }

    #[test]
    fn a_small_stack_is_a_warning() {
        assert_eq!(said("stack-size=262144"), []);
        assert_eq!(said("stack-size=8192")[0].0, Severity::Warning);
    }

    #[test]
    fn an_interrupt_needs_a_request_timeout() {
        assert_eq!(said("interrupt-timeout=0"), []);
        assert_eq!(said("interrupt-timeout=3 request-timeout=9"), []);
        let found = said("interrupt-timeout=3");
        assert_eq!(found[0].0, Severity::Warning);
        assert!(found[0].1.contains("there is none"), "{found:?}");
    }
}
