//! The Apache half.
pub mod config;
pub mod dispatch;
