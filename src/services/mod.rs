//! Layer 3: mock AWS services behind one front door.

pub mod s3;
