//! Room for request bodies on their way to daemon processes, kept between requests.
//!
//! Given back to the system each time, its pages would have to be made anew for the
//! next body: for 100 KB that costs more than copying them.
#![forbid(unsafe_code)]

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use wsgi_wire::buffer::Buffer;
use wsgi_wire::frame::HEADER;

/// The most of a body in one frame, and in one call.  The sockets to daemon processes
/// take that much at once (`net.core.wmem_default` is 208 KiB nearly everywhere); less
/// of it would wake the process more often.
pub const PIECE: usize = 192 * 1024;

/// How long a room is: a frame of the body, and the one that says why there is no more.
const SIZE: usize = HEADER + PIECE + HEADER + 1;

/// Rooms that wait for their next use: 3 MiB in a child process that once served as
/// many uploads at a time.
const KEPT: usize = 16;

/// Those that wait.
static WAITING: Mutex<Vec<Buffer>> = Mutex::new(Vec::new());

/// A buffer with room for a piece of a body.
#[derive(Debug)]
pub struct Room(Buffer);

impl Default for Room {
    fn default() -> Self {
        // Not in one expression: the lock is not held while a room is made.
        let waiting = waiting().pop();
        Self(waiting.unwrap_or_else(|| Buffer::with_room(SIZE)))
    }
}

impl Deref for Room {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        &self.0
    }
}

impl DerefMut for Room {
    fn deref_mut(&mut self) -> &mut Buffer {
        &mut self.0
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.clear(SIZE);
        let mut waiting = waiting();
        if waiting.len() < KEPT {
            waiting.push(std::mem::take(&mut self.0));
        }
    }
}

/// The rooms that wait.
fn waiting() -> MutexGuard<'static, Vec<Buffer>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_used_again_and_nothing_is_left_in_it() {
        let mut rooms: Vec<Room> = (0..2 * KEPT).map(|_| Room::default()).collect();
        for room in &mut rooms {
            room.put(b"body");
        }
        drop(rooms);
        assert!(waiting().len() <= KEPT);
        let mut room = Room::default();
        assert!(room.is_empty());
        assert!(room.room(PIECE).len() >= PIECE);
    }
}
