//! Layer 3: traces, captures and counters as people read them.
