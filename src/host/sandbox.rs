//! What processes of a lab give up and keep.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// What the router process keeps as root: reading and writing the topology's files where root would be refused without,
/// in folders that belong to the user who called sudo. It has nothing that concerns networks, mounts or processes.
pub const ROUTER_KEEPS: CapabilitySet = CapabilitySet::DAC_OVERRIDE;

/// Gives up every capability but `keep`, for this thread and what it executes, and the way back by set-user-id files.
pub fn drop_capabilities(keep: CapabilitySet) -> io::Result<()> {
    for capability in 0..64 {
        if keep.bits() & (1 << capability) == 0 {
            // SAFETY: PR_CAPBSET_DROP takes its arguments by value.
            let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0) };
            // EINVAL: beyond this kernel's last; EPERM: without CAP_SETPCAP there is nothing that exec could bring back
            if result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
                break;
            }
        }
    }
    let now = rustix::thread::capabilities(None)?;
    let kept = now.permitted & keep;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// What of this thread's capabilities a program executed by a user who is not root has: these and no others. Root's
/// programs have all that the thread may have, whatever is kept here.
pub fn keep_through_exec(keep: CapabilitySet) -> io::Result<()> {
    let now = rustix::thread::capabilities(None)?;
    let kept = now.permitted & keep;
    rustix::thread::clear_ambient_capability_set()?;
    rustix::thread::set_capabilities(None, CapabilitySets { inheritable: kept, ..now })?;
    for capability in kept.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}
