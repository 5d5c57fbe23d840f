//! What httpd's scoreboard says, in bytes: from a child process to whoever may see it.
//!
//! It may come from memory that other processes write, so every length is checked.
#![forbid(unsafe_code)]

use crate::cursor::{Cursor, FrameError, put_short};

/// First byte of every record.
const VERSION: u8 = 1;

/// What is said once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Server {
    /// Most child processes there may be (`ServerLimit`).
    pub server_limit: u32,
    /// Most threads a child process may have (`ThreadLimit`).
    pub thread_limit: u32,
    /// How often children have been replaced by a restart.
    pub generation: u32,
    /// When httpd was last started or restarted: µs since the epoch.
    pub restarted: u64,
    /// When this was read.
    pub read: u64,
}

/// What is said of a child process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Child {
    /// Its process, 0 if there is none.
    pub pid: u32,
    /// The generation it belongs to.
    pub generation: u32,
    /// Whether it lets its requests end and takes no more.
    pub is_quiescing: bool,
    /// How many threads are told of; they follow.
    pub threads: u32,
}

/// What is said of a thread of a child process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker<'r> {
    /// What it does: httpd's letter, as mod_status shows it.
    pub status: u8,
    /// Its number in its process.
    pub thread: u32,
    /// The generation it belongs to.
    pub generation: u32,
    /// Requests it has answered.
    pub requests: u64,
    /// Bytes it has sent.
    pub bytes: u64,
    /// When its request, or its last one, began: µs since the epoch, 0: never.
    pub started: u64,
    /// When its last one ended.
    pub stopped: u64,
    /// When its status last changed.
    pub used: u64,
    /// Address of its client.
    pub client: &'r [u8],
    /// First line of its request.
    pub request: &'r [u8],
    /// The virtual host it is for.
    pub vhost: &'r [u8],
}

impl Worker<'_> {
    /// One that has never done anything.
    pub const UNUSED: Self = Self {
        status: b'.',
        thread: 0,
        generation: 0,
        requests: 0,
        bytes: 0,
        started: 0,
        stopped: 0,
        used: 0,
        client: &[],
        request: &[],
        vhost: &[],
    };
}

/// Writes a record: the server, then each child followed by its threads.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Begins a record.
    pub fn new(server: &Server) -> Self {
        let mut bytes = vec![VERSION];
        for number in [server.server_limit, server.thread_limit, server.generation] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for time in [server.restarted, server.read] {
            bytes.extend_from_slice(&time.to_le_bytes());
        }
        Self { bytes }
    }

    /// Appends a child; as many threads as it announces must follow.
    pub fn child(&mut self, child: &Child) {
        for number in [child.pid, child.generation, child.threads] {
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
        self.bytes.push(child.is_quiescing.into());
    }

    /// Appends a thread; one that is not used takes a byte.
    pub fn worker(&mut self, worker: &Worker<'_>) {
        if *worker == Worker::UNUSED {
            self.bytes.push(0);
            return;
        }
        self.bytes.push(worker.status);
        for number in [worker.thread, worker.generation] {
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
        for number in [worker.requests, worker.bytes, worker.started, worker.stopped, worker.used] {
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
        for text in [worker.client, worker.request, worker.vhost] {
            put_short(&mut self.bytes, text);
        }
    }

    /// How long it is so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written: never.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes back what was appended since the record was so long.
    pub fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
    }

    /// The record.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads a record.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'r> {
    rest: Cursor<'r>,
}

impl<'r> Reader<'r> {
    /// Begins to read `record`.
    pub fn new(record: &'r [u8]) -> Result<(Server, Self), FrameError> {
        let mut rest = Cursor::new(record);
        let found = rest.u8()?;
        if found != VERSION {
            return Err(FrameError::Version { found, wanted: VERSION });
        }
        let server = Server {
            server_limit: rest.u32()?,
            thread_limit: rest.u32()?,
            generation: rest.u32()?,
            restarted: rest.u64()?,
            read: rest.u64()?,
        };
        Ok((server, Self { rest }))
    }

    /// The next child, if there is one; its threads must be read next.
    pub fn child(&mut self) -> Result<Option<Child>, FrameError> {
        if self.rest.rest().is_empty() {
            return Ok(None);
        }
        Ok(Some(Child {
            pid: self.rest.u32()?,
            generation: self.rest.u32()?,
            threads: self.rest.u32()?,
            is_quiescing: self.rest.u8()? != 0,
        }))
    }

    /// The next thread of the child that was read last.
    pub fn worker(&mut self) -> Result<Worker<'r>, FrameError> {
        let rest = &mut self.rest;
        let status = rest.u8()?;
        if status == 0 {
            return Ok(Worker::UNUSED);
        }
        Ok(Worker {
            status,
            thread: rest.u32()?,
            generation: rest.u32()?,
            requests: rest.u64()?,
            bytes: rest.u64()?,
            started: rest.u64()?,
            stopped: rest.u64()?,
            used: rest.u64()?,
            client: rest.short()?,
            request: rest.short()?,
            vhost: rest.short()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SERVER: Server =
        Server { server_limit: 2, thread_limit: 2, generation: 7, restarted: 11, read: 12 };

    fn busy() -> Worker<'static> {
        Worker {
            status: b'W',
            thread: 1,
            requests: 3,
            used: 9,
            client: b"127.0.0.1",
            request: b"GET / HTTP/1.1",
            ..Worker::UNUSED
        }
    }

    fn record() -> Vec<u8> {
        let mut writer = Writer::new(&SERVER);
        writer.child(&Child { pid: 4711, generation: 7, is_quiescing: true, threads: 2 });
        writer.worker(&busy());
        writer.worker(&Worker::UNUSED);
        writer.child(&Child::default());
        writer.finish()
    }

    #[test]
    fn what_is_written_is_read() {
        let record = record();
        let (server, mut reader) = Reader::new(&record).unwrap();
        assert_eq!(server, SERVER);
        let child = reader.child().unwrap().unwrap();
        assert_eq!((child.pid, child.is_quiescing, child.threads), (4711, true, 2));
        assert_eq!(reader.worker().unwrap(), busy());
        assert_eq!(reader.worker().unwrap(), Worker::UNUSED);
        assert_eq!(reader.child().unwrap(), Some(Child::default()));
        assert_eq!(reader.child().unwrap(), None);
    }

    #[test]
    fn a_record_that_ends_early_is_an_error() {
        let record = record();
        let (_, mut reader) = Reader::new(&record[..record.len() - 20]).unwrap();
        reader.child().unwrap();
        assert!(
            reader.worker().is_ok_and(|_| reader.worker().is_err()) || reader.worker().is_err()
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let Ok((_, mut reader)) = Reader::new(&bytes) else { return Ok(()) };
            while let Ok(Some(child)) = reader.child() {
                for _ in 0..child.threads {
                    if reader.worker().is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }
}
