//! An allocator that counts what the current thread asks of it. A binary that includes this file and wants the count
//! says `#[global_allocator] static ALLOCATOR: Counting = Counting;`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

pub struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

/// Allocations that this thread makes while `work` runs.
#[allow(dead_code, reason = "not all who count ask for it")]
pub fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// Bytes that this thread holds more after `work` than before it.
#[allow(dead_code, reason = "not all who count ask for it")]
pub fn held<T>(work: impl FnOnce() -> T) -> (T, i64) {
    let before = BYTES.get();
    let made = work();
    (made, BYTES.get() - before)
}

fn add(bytes: i64) {
    BYTES.set(BYTES.get() + bytes);
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches only a cell of the thread that needs no
// allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        add(layout.size() as i64);
        // SAFETY: the caller keeps `alloc`'s contract, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        add(-(layout.size() as i64));
        // SAFETY: `ptr` came from `System` with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        add(new_size as i64 - layout.size() as i64);
        // SAFETY: `ptr` came from `System` with this layout, and the caller keeps `realloc`'s contract.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}
