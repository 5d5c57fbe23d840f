//! The Apache half.
mod host;
mod scoreboard;
