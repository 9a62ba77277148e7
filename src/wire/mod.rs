//! Layer 1: packets as bytes. Parses, builds, sums and segments; knows no meaning.
