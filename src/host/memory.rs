//! How this process takes memory from the kernel.

/// From this size on, a block is taken from the kernel alone and given back at once: 128 KiB, glibc's first value.
#[cfg(target_env = "gnu")]
const ALONE: libc::c_int = 128 * 1024;

/// Keeps large blocks apart from the heap for good. glibc raises its threshold to the size of what is freed, and from
/// then on carves buffers of half a megabyte out of the heap: each has to be zeroed as a whole, which was two thirds of
/// the cost of a short connection, and none goes back to the kernel. musl does it as wanted already.
pub fn keep_large_blocks_apart() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator; it may be called at any time.
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, ALONE) };
}
