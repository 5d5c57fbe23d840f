//! Tells the Python half for which Pythons it is built: with `cfg(free_threaded)`
//! for those that can do without their lock.
#![forbid(unsafe_code)]

use std::env;
use std::fmt::Write;

/// What pyo3-ffi says of such a Python.
const FLAG: &str = "Py_GIL_DISABLED";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(free_threaded)");
    // What it was configured with, in hexadecimal digits; `packaging/runtime.sh` writes it.
    let config = env::var("DEP_PYTHON_PYO3_CONFIG").unwrap_or_default();
    let mut flag = String::new();
    for byte in FLAG.bytes() {
        // A `String` takes all there is.
        let _ = write!(flag, "{byte:02x}");
    }
    if config.contains(&flag) {
        println!("cargo::rustc-cfg=free_threaded");
    }
}
