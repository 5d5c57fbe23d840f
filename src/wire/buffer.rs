//! Bytes on their way: put in at the end, used from the front.
//!
//! The room for more stays as it is: preparing it anew for each read, 64 KiB of zeros
//! for a hundred bytes of answer, costs more than reading them.
#![forbid(unsafe_code)]

use std::collections::TryReserveError;

/// Bytes on their way.
#[derive(Debug, Default)]
pub struct Buffer {
    /// Room; all of it was written once.
    bytes: Vec<u8>,
    /// Where what is not used begins.
    start: usize,
    /// Where it ends.
    end: usize,
}

impl Buffer {
    /// An empty one with so much room.
    pub fn with_room(size: usize) -> Self {
        Self { bytes: vec![0; size], start: 0, end: 0 }
    }

    /// What was put in and not used.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The same, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Whether everything was used.
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Uses the next `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Room for more, at least `wanted` bytes of it; what is put there counts once
    /// [`fill`](Self::fill) is told.
    pub fn room(&mut self, wanted: usize) -> &mut [u8] {
        self.move_to_front();
        if self.bytes.is_empty() {
            // Zeros the system gives away: pages nobody writes to are never there.
            self.bytes = vec![0; wanted];
        } else if self.bytes.len() < self.end + wanted {
            self.bytes.resize(self.end + wanted, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// As [`room`](Self::room), where there may be no memory for it.
    pub fn try_room(&mut self, wanted: usize) -> Result<&mut [u8], TryReserveError> {
        self.move_to_front();
        let missing = (self.end + wanted).saturating_sub(self.bytes.len());
        self.bytes.try_reserve(missing)?;
        self.bytes.resize(self.bytes.len() + missing, 0);
        Ok(&mut self.bytes[self.end..])
    }

    /// Makes one piece of the room before and the room behind.
    fn move_to_front(&mut self) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Takes in `count` bytes that were put into the room.
    pub fn fill(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// Puts in a copy of `bytes`.
    pub fn put(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.fill(bytes.len());
    }

    /// Forgets everything, and gives room above `keep` back.
    pub fn clear(&mut self, keep: usize) {
        (self.start, self.end) = (0, 0);
        if self.bytes.len() > keep {
            self.bytes.truncate(keep);
            self.bytes.shrink_to(keep);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(buffer: &mut Buffer, wanted: usize, data: &[u8]) {
        buffer.room(wanted)[..data.len()].copy_from_slice(data);
        buffer.fill(data.len());
    }

    #[test]
    fn what_is_put_in_is_used_in_order() {
        let mut buffer = Buffer::default();
        read(&mut buffer, 4, b"abcd");
        buffer.consume(3);
        read(&mut buffer, 8, b"efgh");
        assert_eq!(buffer.bytes(), b"defgh");
        buffer.consume(5);
        assert!(buffer.is_empty());
        buffer.consume(1);
        assert_eq!(buffer.bytes(), b"");
    }

    #[test]
    fn nothing_is_left_of_what_was_forgotten() {
        let mut buffer = Buffer::default();
        read(&mut buffer, 100, &[7; 100]);
        buffer.clear(10);
        assert!(buffer.is_empty() && buffer.bytes.capacity() < 100);
        read(&mut buffer, 2, b"ab");
        assert_eq!(buffer.bytes(), b"ab");
    }
}
