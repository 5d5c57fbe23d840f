//! httpd and APR as bindgen reads their headers; see `build.rs` for what is allowed in.

#![allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unused,
    clippy::all,
    clippy::missing_safety_doc,
    clippy::multiple_unsafe_ops_per_block,
    clippy::undocumented_unsafe_blocks,
    clippy::too_many_arguments,
    clippy::too_many_lines,
    reason = "generated"
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
