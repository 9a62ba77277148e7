//! Layer 2: the instance metadata service at 169.254.169.254.
