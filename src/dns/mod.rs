//! Layer 2: the resolver at VPC+2: zones compiled to wire form, and who answers what.
