//! Layer 5: threads, sockets and the clock: a `Plan` becomes a running network.
