//! Tells the Python half for which Pythons it is built: with `cfg(free_threaded)`
//! for those without a lock.

use std::env;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(free_threaded)");
    // What pyo3-ffi was configured with: `packaging/runtime.sh` writes it.
    let config = env::var("DEP_PYTHON_PYO3_CONFIG").unwrap_or_default();
    if config.contains("Py_GIL_DISABLED") {
        println!("cargo::rustc-cfg=free_threaded");
    }
}
