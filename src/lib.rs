//! The Apache half.
