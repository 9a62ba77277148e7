//! Layer 2: TCP of endpoint ENIs, as a state machine: bytes and the time in, bytes and events out.
