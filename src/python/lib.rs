//! The Python half.
