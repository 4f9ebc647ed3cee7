//! A guard against SIGBUS: reading a map whose file was cut short gives zeros and a mark, not the end of the
//! process.
//!
//! The library never installs it by itself, because a signal's handler belongs to the program; the command
//! line calls [`install`]. The handler looks the faulting address up in a fixed table of live maps. If it
//! is there, zero pages replace the map from the faulting page on, the map is marked, and the read goes
//! on; if not, the handler that was there before gets the fault. Linux and macOS have it; elsewhere nothing
//! is done.
#![allow(unsafe_code, reason = "signal handlers and fixed maps exist only as C interfaces")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Maps that can be watched at a time; more are mapped all the same, without the guard.
const MAX_WATCHED: usize = 1024;
/// `start` of a slot that is taken but not yet, or no longer, watched. No map begins at address 1.
const RESERVED: usize = 1;

/// One watched map. Free where `start` is 0.
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    is_shrunk: AtomicBool,
}

static SLOTS: [Slot; MAX_WATCHED] = [const {
    Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), is_shrunk: AtomicBool::new(false) }
}; MAX_WATCHED];

/// The entry of one map in the table, until it is dropped; which must be before the map is.
#[derive(Debug)]
pub(crate) struct Watch {
    slot_idx: usize,
}

impl Watch {
    /// Enters `map`; `None` where the table is full.
    pub(crate) fn start(map: &[u8]) -> Option<Self> {
        let range = map.as_ptr_range();
        let slot_idx = SLOTS.iter().position(|slot| {
            slot.start.compare_exchange(0, RESERVED, Ordering::Acquire, Ordering::Relaxed).is_ok()
        })?;
        let slot = SLOTS.get(slot_idx)?;
        slot.is_shrunk.store(false, Ordering::Relaxed);
        slot.end.store(range.end.addr(), Ordering::Relaxed);
        // Last, so that the handler never sees it with another map's end.
        slot.start.store(range.start.addr(), Ordering::Release);
        Some(Self { slot_idx })
    }

    /// Whether reading the map has met bytes that are gone.
    pub(crate) fn is_shrunk(&self) -> bool {
        SLOTS.get(self.slot_idx).is_some_and(|slot| slot.is_shrunk.load(Ordering::Acquire))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(slot) = SLOTS.get(self.slot_idx) {
            slot.start.store(0, Ordering::Release);
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
pub use handler::install;

/// Installs the guard; here there is nothing to install.
///
/// # Errors
/// Never.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub fn install() -> crate::error::Result<()> {
    Ok(())
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
mod handler {
    use std::sync::OnceLock;
    use std::sync::atomic::Ordering;

    use super::{RESERVED, SLOTS, Slot};
    use crate::error::{Error, Result};

    /// The action that was set before, for faults that are not ours.
    static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();
    static PAGE_BYTES: OnceLock<usize> = OnceLock::new();

    /// Installs the guard for the rest of the process's life; a second call does nothing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`] where the system refuses the handler.
    pub fn install() -> Result<()> {
        if PREVIOUS.get().is_some() {
            return Ok(());
        }
        let refused = || Error::io("cannot guard mapped files", std::io::Error::last_os_error());
        // SAFETY: sysconf takes no pointer.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        PAGE_BYTES.get_or_init(|| usize::try_from(page_bytes).unwrap_or(4096));
        // SAFETY: sigaction is plain data for which zeros are a valid value (SIG_DFL, no flags, empty mask).
        let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: a null new action only asks; `previous` outlives the call.
        if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut previous) } != 0 {
            return Err(refused());
        }
        // Before the handler can run, which reads it. A racing second call fails here and leaves it to the first.
        if PREVIOUS.set(previous).is_err() {
            return Ok(());
        }
        // SAFETY: as above.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        // On the alternate stack, which the standard library gives every thread.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: `action` holds a handler of the signature that SA_SIGINFO asks for, and it does only what
        // a handler may do: see its notes.
        if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) } != 0 {
            return Err(refused());
        }
        Ok(())
    }

    /// Takes no lock and allocates nothing: it may interrupt any code that reads a map.
    extern "C" fn on_sigbus(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
        // SAFETY: the kernel passes a valid `info` to a handler set with SA_SIGINFO, and SIGBUS has an address.
        let address = unsafe { (*info).si_addr() }.addr();
        let watched = SLOTS.iter().find(|slot| {
            let start = slot.start.load(Ordering::Acquire);
            start > RESERVED && (start..slot.end.load(Ordering::Relaxed)).contains(&address)
        });
        if watched.is_some_and(|slot| replace_by_zeros(slot, address)) {
            return;
        }
        let Some(previous) = PREVIOUS.get() else { return };
        // SAFETY: `previous` came from the kernel. After the return the fault happens again, under it.
        unsafe { libc::sigaction(libc::SIGBUS, previous, std::ptr::null_mut()) };
    }

    /// Puts zero pages over the map of `slot` from the page of `address` to its end: whatever is behind a
    /// page that is gone, is gone too, or no longer to be trusted.
    fn replace_by_zeros(slot: &Slot, address: usize) -> bool {
        let Some(page_bytes) = PAGE_BYTES.get() else { return false };
        let page = address & !(page_bytes - 1);
        let zeros_bytes = slot.end.load(Ordering::Relaxed) - page;
        // SAFETY: errno is this thread's own; the interrupted code must find it as it was.
        let errno = unsafe { *errno_location() };
        // SAFETY: the range lies in a live map: the faulting thread is within a read of it, so its owner
        // cannot have dropped it, and the table's entry is removed before the map is. The kernel rounds the
        // length up to the map's last page. mmap is a bare system call, so it may be called in a handler.
        let placed = unsafe {
            libc::mmap(
                std::ptr::without_provenance_mut(page),
                zeros_bytes,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        // SAFETY: as above.
        unsafe { *errno_location() = errno };
        if placed == libc::MAP_FAILED {
            return false;
        }
        slot.is_shrunk.store(true, Ordering::Release);
        true
    }

    #[cfg(target_os = "linux")]
    fn errno_location() -> *mut libc::c_int {
        // SAFETY: takes nothing and gives this thread's own location.
        unsafe { libc::__errno_location() }
    }

    #[cfg(target_os = "macos")]
    fn errno_location() -> *mut libc::c_int {
        // SAFETY: takes nothing and gives this thread's own location.
        unsafe { libc::__error() }
    }
}
