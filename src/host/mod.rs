//! Layer 3: what the Linux kernel is asked for: namespaces, TUN devices, mounts, processes. The only room with `unsafe`.
