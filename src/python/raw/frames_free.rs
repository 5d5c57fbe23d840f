//! What threads run, as text, where no lock keeps them from running on.
//!
//! A frame of a thread that runs must not be touched: `stacks.py` has `faulthandler`
//! look, which stops all threads of the interpreter meanwhile.
#![forbid(unsafe_code)]

use super::object::{Object, Raised};
use super::thread::{Attached, Thread};

/// What a thread runs.
pub struct Stack {
    /// The number Python knows the thread by.
    number: i64,
    /// The number and the name `threading` has for it, where it knows it.
    pub name: Option<(i64, String)>,
    /// Its latest calls, the oldest first.
    pub lines: Vec<String>,
    /// How many earlier ones there are.
    pub earlier: usize,
}

impl Stack {
    /// Whether it is what `thread` runs.
    pub fn is_of(&self, thread: Thread) -> bool {
        thread.is_number(self.number)
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

impl Attached<'_> {
    /// What the other threads of this interpreter run, as far as it is Python code, and
    /// how many threads do; `teller` is the function of `stacks.py`.
    pub fn stacks(
        self,
        teller: &Object<'_>,
        extent: Extent,
    ) -> (Result<Vec<Stack>, Raised>, usize) {
        match all(teller, extent.calls) {
            Ok(mut found) => {
                let count = found.len();
                found.truncate(extent.threads);
                (Ok(found), count)
            }
            Err(raised) => (Err(raised), 0),
        }
    }

    /// What `thread` runs in this interpreter, if it is Python code.
    pub fn stack_of(
        self,
        thread: Thread,
        teller: &Object<'_>,
        most: usize,
    ) -> Result<Option<Stack>, Raised> {
        Ok(all(teller, most)?.into_iter().find(|stack| stack.is_of(thread)))
    }
}

/// All of them, with at most so many calls each.
fn all(teller: &Object<'_>, most: usize) -> Result<Vec<Stack>, Raised> {
    let list = teller.call(&[])?;
    let mut found = Vec::new();
    while let Some(item) = list.list_item(found.len()) {
        found.push(stack(&item, most)?);
    }
    Ok(found)
}

/// One of them, from what `stacks.py` says of it.
fn stack(item: &Object<'_>, most: usize) -> Result<Stack, Raised> {
    let part = |at| item.tuple_item(at).ok_or_else(Raised::seen);
    let (number, name, calls) = (part(0)?.to_i64()?, part(1)?, part(2)?);
    let mut lines = Vec::new();
    while let Some(call) = calls.list_item(lines.len()) {
        lines.push(call.encoded()?);
    }
    let earlier = lines.len().saturating_sub(most);
    lines.drain(..earlier);
    let name = if name.is_none() { None } else { Some((number, name.encoded()?)) };
    Ok(Stack { number, name, lines, earlier })
}
