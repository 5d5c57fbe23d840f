//! The Apache half.
mod daemon;
mod scoreboard;
mod host;
