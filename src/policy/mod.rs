//! Layer 2: IAM policy documents and what they allow.
