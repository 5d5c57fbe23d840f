//! What threads run, as text, where no lock keeps them from running on.
//!
//! A frame of a thread that runs must not be touched: `stacks.py` has `faulthandler`
//! look, which stops all threads of the interpreter meanwhile.
#![forbid(unsafe_code)]

use super::object::{Object, Raised};
use super::stack::{Extent, Stack};
use super::thread::{Attached, Thread};

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
    Ok(Stack { mark: number, name, lines, earlier })
}
