//! What a thread runs, as text, however that was found out.
#![forbid(unsafe_code)]

use super::thread::{Mark, Thread};

/// What a thread runs.
pub struct Stack {
    /// Which thread.
    pub(super) mark: Mark,
    /// The number and the name `threading` has for it, where it has them.
    pub name: Option<(i64, String)>,
    /// Its latest calls, the oldest first.
    pub lines: Vec<String>,
    /// How many earlier ones there are.
    pub earlier: usize,
}

impl Stack {
    /// Whether it is what `thread` runs.
    pub fn is_of(&self, thread: Thread) -> bool {
        thread.is(self.mark)
    }
}

/// How much of the stacks is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// So many threads.
    pub threads: usize,
    /// So many calls of each.
    pub calls: usize,
}
