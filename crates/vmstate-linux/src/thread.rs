//! Which thread this is, in the kernel's words.

/// The kernel's number of the calling thread, as `gettid(2)` gives it: what a [`Fault`](crate::Fault) says.
///
/// ```
/// let here = vmstate_linux::thread_number();
/// let there = std::thread::spawn(vmstate_linux::thread_number).join();
/// assert_ne!(Some(here), there.ok());
/// ```
#[must_use]
pub fn thread_number() -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .cast_unsigned()
}
