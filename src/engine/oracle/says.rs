//! The hand-checked truth: what the oracle says of each rule of the walk.
