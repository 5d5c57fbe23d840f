//! What the Apache half and the Python half, and a child process and a daemon
//! process, say to each other.  No I/O, no httpd, no Python.
//!
//! - [`vtable`]: the C table between a host and the Python half
//! - [`head`]: a request without its body, in bytes
//! - [`keys`]: the environ keys that travel as numbers
//! - [`options`]: what the table says of Python and its interpreters
//! - [`frame`]: the messages between a child process and a daemon process
//! - [`buffer`]: what they are read into
//! - [`datagram`]: one datagram of telemetry
//! - [`histogram`]: how long something took, over many times
//! - [`server_record`]: what httpd's scoreboard says, in bytes
//!
//! All numbers are little-endian.  Every length is checked before anything is
//! allocated for it.

pub mod buffer;
pub mod cursor;
pub mod datagram;
pub mod frame;
pub mod head;
pub mod histogram;
pub mod keys;
pub mod options;
pub mod server_record;
pub mod vtable;
