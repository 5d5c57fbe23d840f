//! Telemetry: one datagram of figures, as the PyPI package `mod_wsgi-telemetry` reads
//! it.
//!
//! A header of 24 bytes (`WSGI`, version, kind, flags, process, sequence number, time),
//! then fields: a number, a type, for some a length, a value.
#![forbid(unsafe_code)]

/// Longest datagram; a field that does not fit is left out.
pub const LONGEST: usize = 8 * 1024;

/// Longest text in a field; what is longer is cut.
pub const LONGEST_TEXT: usize = 512;

/// Of the header.
const VERSION: u8 = 1;

/// What a datagram tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The requests of a period.
    Requests = 2,
    /// One request that takes, or took, long.
    SlowRequest = 4,
    /// The process has started.
    Started = 5,
    /// It is about to stop.
    Stopping = 6,
    /// It has done so.
    Stopped = 7,
    /// The counters of Python's garbage collector in one interpreter.
    Collector = 8,
    /// One pass of the garbage collector.
    Collection = 9,
}

/// The numbers of fields.
///
/// Where a field is told for each phase of a request, this is the number of the first
/// phase; the others follow.
pub mod field {
    #![allow(missing_docs, reason = "the names are those of the format")]
    pub const MOD_WSGI_VERSION: u16 = 1;
    pub const PYTHON_VERSION: u16 = 2;
    pub const APACHE_VERSION: u16 = 3;
    pub const MPM_NAME: u16 = 4;
    pub const HOSTNAME: u16 = 5;
    pub const PROCESS_GROUP: u16 = 6;
    pub const PROCESS_PARENT_PID: u16 = 7;
    pub const INTERPRETER_NAME: u16 = 8;
    pub const SAMPLE_PERIOD: u16 = 10;
    pub const TELEMETRY_INTERVAL: u16 = 11;
    pub const SLOW_REQUESTS_THRESHOLD: u16 = 12;
    pub const SWITCH_INTERVAL: u16 = 13;
    pub const REQUEST_COUNT: u16 = 20;
    pub const REQUEST_THROUGHPUT: u16 = 21;
    pub const CAPACITY_UTILIZATION: u16 = 22;
    pub const CPU_USER_UTILIZATION: u16 = 30;
    pub const CPU_SYSTEM_UTILIZATION: u16 = 31;
    pub const CPU_UTILIZATION: u16 = 32;
    pub const MEMORY_RSS: u16 = 40;
    pub const MEMORY_MAX_RSS: u16 = 41;
    pub const REQUEST_THREADS_MAXIMUM: u16 = 50;
    pub const REQUEST_THREADS_STARTED: u16 = 51;
    pub const REQUEST_THREADS_ACTIVE: u16 = 52;
    pub const PHASE_MEANS: u16 = 60;
    pub const PHASE_MINIMA: u16 = 70;
    pub const PHASE_MAXIMA: u16 = 80;
    pub const PHASE_BUCKETS: u16 = 90;
    pub const INPUT_BYTES: u16 = 100;
    pub const INPUT_READS: u16 = 101;
    pub const OUTPUT_BYTES: u16 = 102;
    pub const OUTPUT_WRITES: u16 = 103;
    pub const THREADS_COMPLETED: u16 = 110;
    pub const THREADS_BUSY_TIME: u16 = 111;
    pub const THREADS_CPU_TIME: u16 = 112;
    pub const THREADS_CURRENT_ELAPSED: u16 = 113;
    pub const THREADS_MAX_DURATION: u16 = 114;
    pub const STATUS_CLASSES: u16 = 120;
    pub const SHUTDOWN_REASON: u16 = 130;
    pub const PROCESS_UPTIME: u16 = 131;
    pub const LIFETIME_REQUEST_COUNT: u16 = 132;
    pub const ACTIVE_REQUESTS_AT_DECISION: u16 = 133;
    pub const ACTIVE_REQUESTS_AT_EXIT: u16 = 134;
    pub const GRACEFUL_DRAIN: u16 = 135;
    pub const SLOW_RECORD_STATE: u16 = 200;
    pub const SLOW_START_STAMP: u16 = 201;
    pub const SLOW_DURATION: u16 = 202;
    pub const SLOW_THREAD_ID: u16 = 203;
    pub const SLOW_LOG_ID: u16 = 204;
    pub const SLOW_SERVER_PID: u16 = 205;
    pub const SLOW_METHOD: u16 = 210;
    pub const SLOW_SCHEME: u16 = 211;
    pub const SLOW_HOSTNAME: u16 = 212;
    pub const SLOW_SCRIPT_NAME: u16 = 213;
    pub const SLOW_PATH_INFO: u16 = 214;
    pub const SLOW_PROTOCOL: u16 = 215;
    pub const SLOW_PEER_IP: u16 = 216;
    pub const SLOW_USER_AGENT: u16 = 217;
    pub const SLOW_SERVER_TIME: u16 = 220;
    pub const SLOW_QUEUE_TIME: u16 = 221;
    pub const SLOW_DAEMON_TIME: u16 = 222;
    pub const SLOW_APPLICATION_TIME: u16 = 223;
    pub const SLOW_GIL_WAIT_TIME: u16 = 224;
    pub const SLOW_GIL_WAIT_COUNT: u16 = 225;
    pub const SLOW_INPUT_BYTES: u16 = 230;
    pub const SLOW_INPUT_READS: u16 = 231;
    pub const SLOW_OUTPUT_BYTES: u16 = 232;
    pub const SLOW_OUTPUT_WRITES: u16 = 233;
    pub const SLOW_INPUT_READ_TIME: u16 = 234;
    pub const SLOW_OUTPUT_WRITE_TIME: u16 = 235;
    pub const SLOW_STATUS: u16 = 240;
    pub const SLOW_CPU_USER_TIME: u16 = 250;
    pub const SLOW_CPU_SYSTEM_TIME: u16 = 251;
    pub const SLOW_ACTIVE_AT_START: u16 = 260;
    pub const SLOW_ACTIVE_AT_COMPLETION: u16 = 261;
    /// The counters of a garbage collector, in the order of the format.
    pub const COLLECTOR: u16 = 300;
    pub const COLLECTION_START_STAMP: u16 = 320;
    pub const COLLECTION_DURATION: u16 = 321;
    pub const COLLECTION_GENERATION: u16 = 322;
    pub const COLLECTION_COLLECTED: u16 = 323;
    pub const COLLECTION_UNCOLLECTABLE: u16 = 324;
}

/// The types of values.
mod of_type {
    /// A whole number that is not negative.
    pub const U64: u8 = 1;
    /// A number.
    pub const F64: u8 = 2;
    /// Bytes behind their count.
    pub const BYTES: u8 = 4;
    /// Whole numbers of 32 bits behind their count.
    pub const I32_ARRAY: u8 = 5;
    /// Numbers behind their count.
    pub const F64_ARRAY: u8 = 6;
}

/// A datagram in the making.
#[derive(Debug)]
pub struct Datagram {
    bytes: Vec<u8>,
}

impl Datagram {
    /// One that has no fields yet.  `stamp` is in seconds since the epoch.
    pub fn new(kind: Kind, pid: u32, sequence: u32, stamp: f64) -> Self {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(b"WSGI");
        bytes.extend_from_slice(&[VERSION, kind as u8, 0, 0]);
        bytes.extend_from_slice(&pid.to_le_bytes());
        bytes.extend_from_slice(&sequence.to_le_bytes());
        bytes.extend_from_slice(&stamp.to_le_bytes());
        Self { bytes }
    }

    /// Appends a field, unless it does not fit.
    fn put(
        &mut self,
        number: u16,
        kind: u8,
        length: Option<usize>,
        value: impl Iterator<Item = u8>,
    ) {
        let before = self.bytes.len();
        self.bytes.extend_from_slice(&number.to_le_bytes());
        self.bytes.push(kind);
        if let Some(length) = length {
            let length = u16::try_from(length).unwrap_or(u16::MAX);
            self.bytes.extend_from_slice(&length.to_le_bytes());
        }
        self.bytes.extend(value.take(LONGEST + 1));
        if self.bytes.len() > LONGEST {
            self.bytes.truncate(before);
        }
    }

    /// A whole number.
    pub fn count(&mut self, number: u16, value: u64) -> &mut Self {
        self.put(number, of_type::U64, None, value.to_le_bytes().into_iter());
        self
    }

    /// A number.
    pub fn number(&mut self, number: u16, value: f64) -> &mut Self {
        self.put(number, of_type::F64, None, value.to_le_bytes().into_iter());
        self
    }

    /// A time of so many µs, in seconds.
    pub fn micros(&mut self, number: u16, micros: u64) -> &mut Self {
        self.number(number, micros as f64 / 1e6)
    }

    /// A text, unless it is empty.
    pub fn text(&mut self, number: u16, value: &[u8]) -> &mut Self {
        let value = &value[..value.len().min(LONGEST_TEXT)];
        if !value.is_empty() {
            self.put(number, of_type::BYTES, Some(value.len()), value.iter().copied());
        }
        self
    }

    /// Whole numbers.
    pub fn counts(&mut self, number: u16, values: &[u32]) -> &mut Self {
        let bytes = |value: &u32| i32::try_from(*value).unwrap_or(i32::MAX).to_le_bytes();
        let value = values.iter().flat_map(bytes);
        self.put(number, of_type::I32_ARRAY, Some(values.len()), value);
        self
    }

    /// Times of so many µs, in seconds.
    pub fn all_micros(&mut self, number: u16, values: &[u64]) -> &mut Self {
        let value = values.iter().flat_map(|micros| (*micros as f64 / 1e6).to_le_bytes());
        self.put(number, of_type::F64_ARRAY, Some(values.len()), value);
        self
    }

    /// The datagram.
    pub fn finish(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_a_header_and_fields() {
        let mut datagram = Datagram::new(Kind::Started, 0x0102, 3, 1.5);
        datagram
            .text(field::HOSTNAME, b"ab")
            .text(field::PROCESS_GROUP, b"")
            .count(field::REQUEST_COUNT, 7)
            .micros(field::SLOW_DURATION, 2_000_000)
            .counts(field::PHASE_BUCKETS, &[1, u32::MAX])
            .all_micros(field::THREADS_BUSY_TIME, &[500_000]);
        let mut expected = b"WSGI\x01\x05\0\0\x02\x01\0\0\x03\0\0\0".to_vec();
        expected.extend_from_slice(&1.5_f64.to_le_bytes());
        expected.extend_from_slice(b"\x05\0\x04\x02\0ab");
        expected.extend_from_slice(b"\x14\0\x01\x07\0\0\0\0\0\0\0");
        expected.extend_from_slice(b"\xca\0\x02");
        expected.extend_from_slice(&2.0_f64.to_le_bytes());
        expected.extend_from_slice(b"\x5a\0\x05\x02\0\x01\0\0\0\xff\xff\xff\x7f");
        expected.extend_from_slice(b"\x6f\0\x06\x01\0");
        expected.extend_from_slice(&0.5_f64.to_le_bytes());
        assert_eq!(datagram.finish(), expected);
    }

    #[test]
    fn what_does_not_fit_is_left_out_whole() {
        let mut datagram = Datagram::new(Kind::Requests, 1, 1, 0.0);
        datagram.all_micros(1, &[0; 1000]).all_micros(2, &[0; 100]).count(3, 4);
        let bytes = datagram.finish();
        assert!(bytes.len() <= LONGEST);
        assert_eq!(bytes.len(), 24 + 5 + 8000 + 11);
        datagram.counts(4, &[0; 1_000_000]);
        assert_eq!(datagram.finish().len(), 24 + 5 + 8000 + 11);
    }

    #[test]
    fn a_long_text_is_cut() {
        let mut datagram = Datagram::new(Kind::SlowRequest, 1, 1, 0.0);
        datagram.text(field::SLOW_PATH_INFO, &[b'x'; 5000]);
        assert_eq!(datagram.finish().len(), 24 + 5 + LONGEST_TEXT);
    }
}
