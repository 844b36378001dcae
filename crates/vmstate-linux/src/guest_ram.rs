//! Guest RAM: one mapping that harts, senders and receivers use at the same time.

#![expect(unsafe_code, reason = "mapping memory and telling the kernel about it")]

mod access;
mod bytes;
#[cfg(test)]
mod tests;
mod touched;
mod word;

use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

pub use self::word::Word;

/// A range that does not lie inside a [`GuestRam`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfBounds {
    /// Where the range begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// The length of the memory in bytes.
    pub size: u64,
}

impl std::fmt::Display for OutOfBounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} bytes at {:#x} of a memory of {:#x} bytes",
            self.len, self.offset, self.size
        )
    }
}

impl std::error::Error for OutOfBounds {}

impl From<OutOfBounds> for io::Error {
    fn from(error: OutOfBounds) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

/// What stands behind guest RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backing {
    /// Memory of this process alone.
    Anonymous,
    /// A file in memory (`memfd_create(2)`), mapped shared.
    Memfd,
    /// Huge pages of this process alone, which the host must have set aside.
    HugePages {
        /// Bytes of a page: 2 MiB or 1 GiB.
        bytes: u64,
    },
}

/// A block of guest RAM of any size, zero at first. The kernel gives pages when they are first written, so a large
/// block with little in it takes little.
///
/// All methods take `&self`: harts store while a sender reads and a receiver fills in pages. No reference to the memory
/// is ever handed out. Accesses go three ways, none of which needs one:
///
/// - loads, stores and copies are relaxed atomic operations of 1 to 8 bytes ([`load`](Self::load),
///   [`store`](Self::store), [`read`](Self::read), [`write`](Self::write));
/// - the A extension's operations are sequentially consistent ([`update`](Self::update),
///   [`compare_exchange`](Self::compare_exchange));
/// - the kernel copies between the memory and a file descriptor ([`Gather`](crate::Gather),
///   [`Scatter`](crate::Scatter)).
///
/// What a racing reader sees of a write is old or new, byte by byte; aligned words of up to 8 bytes are seen whole where
/// both sides use words of that size.
///
/// Rust takes its memory model from C++, which leaves open what racing atomic accesses of *different* sizes do. A guest
/// may well do that. LLVM defines its atomics byte by byte, and so do the processors; this type relies on them there.
///
/// ```
/// use vmstate_linux::GuestRam;
///
/// let ram = GuestRam::new(64 << 30)?; // takes no memory yet
/// ram.store(0x1234_5678, 0x1122_3344_u32);
/// assert_eq!(ram.load::<u8>(0x1234_5678), Some(0x44)); // little-endian
/// assert_eq!(ram.update(0x1234_5678, |old: u32| old + 1), Some(0x1122_3344));
/// assert!(!ram.is_zero(0x1234_5000, 4096)?);
/// assert!(ram.is_zero(0x1234_6000, 4096)?);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct GuestRam {
    base: NonNull<u8>,
    /// A positive multiple of the page size.
    len: usize,
    backing: Backing,
}

// SAFETY: the mapping belongs to this value and is unmapped once, on drop; nothing about it is tied to a thread.
unsafe impl Send for GuestRam {}
// SAFETY: the methods that take `&self` access the memory with atomic operations only, or leave it to the kernel; no
// reference into it exists.
unsafe impl Sync for GuestRam {}

impl GuestRam {
    /// Maps memory of `len` bytes, all zero.
    ///
    /// The kernel is asked not to reserve memory or swap for it. A guest that writes more than there is ends as any
    /// process does when memory runs out.
    ///
    /// # Errors
    /// If `len` is 0, no multiple of the host's page size, or more than the address space holds.
    pub fn new(len: u64) -> io::Result<Self> {
        Self::with_backing(len, Backing::Anonymous)
    }

    /// As [`new`](Self::new), with something else behind it.
    ///
    /// # Errors
    /// If `len` is 0, no multiple of the page size, or more than the address space holds; or if the host has no huge pages of
    /// that size, or not as many.
    pub fn with_backing(len: u64, backing: Backing) -> io::Result<Self> {
        let page = page_size(backing);
        if len == 0 || !len.is_multiple_of(page) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("guest RAM of {len} bytes: not a positive multiple of {page}"),
            ));
        }
        let bytes = len;
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let private = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let anywhere = std::ptr::null_mut();
        let base = match backing {
            // SAFETY: a null hint lets the kernel choose fresh addresses, so no existing mapping is touched.
            Backing::Anonymous => unsafe { mmap_anonymous(anywhere, len, prot, private) },
            Backing::Memfd => {
                let file = memfd_create("guest-ram", MemfdFlags::CLOEXEC)?;
                ftruncate(&file, bytes)?;
                // SAFETY: as above; nobody else has the file, so its length stays.
                unsafe { mmap(anywhere, len, prot, MapFlags::SHARED, &file, 0) }
            }
            Backing::HugePages { bytes } => {
                let size = match bytes {
                    0x20_0000 => MapFlags::HUGE_2MB,
                    0x4000_0000 => MapFlags::HUGE_1GB,
                    _ => return Err(io::ErrorKind::Unsupported.into()),
                };
                // Reserved, so that a lack of them shows here and not as a signal.
                let flags = MapFlags::PRIVATE | MapFlags::HUGETLB | size;
                // SAFETY: as above.
                unsafe { mmap_anonymous(anywhere, len, prot, flags) }
            }
        }?;
        let base = NonNull::new(base.cast())
            .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        Ok(Self { base, len, backing })
    }

    /// What stands behind it.
    #[must_use]
    pub const fn backing(&self) -> Backing {
        self.backing
    }

    /// Bytes of the pages in which it comes and goes.
    #[must_use]
    pub fn page_size(&self) -> u64 {
        page_size(self.backing)
    }

    /// Where an address of this process is inside of the memory; nothing if it is not.
    #[must_use]
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.base.as_ptr().addr() as u64)?;
        (offset < self.len()).then_some(offset)
    }

    /// Length in bytes; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is no empty one")]
    pub const fn len(&self) -> u64 {
        self.len as u64
    }

    /// Takes the memory of a range now, so that nobody waits for the kernel at its first write. The content stays as it
    /// is. Ranges are widened to whole pages of the host.
    ///
    /// # Errors
    /// [`OutOfBounds`] inside; or if the memory is not to be had.
    pub fn populate(&self, offset: u64, len: u64) -> io::Result<()> {
        let page = rustix::param::page_size();
        let Range { start, end } = self.range(offset, len)?;
        let start = start - start % page;
        let end = end.next_multiple_of(page);
        if start == end {
            return Ok(());
        }
        match self.advise(start..end, Advice::LinuxPopulateWrite) {
            // A kernel before 5.14 does not know the advice.
            Err(Errno::INVAL) => {
                for at in (start..end).step_by(page) {
                    self.update(at as u64, |byte: u8| byte);
                }
                Ok(())
            }
            result => Ok(result?),
        }
    }

    /// Gives the memory of a range back; it is zero then.
    ///
    /// # Errors
    /// [`OutOfBounds`] inside; or if the range does not consist of whole pages of the host.
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let page = usize::try_from(self.page_size()).unwrap_or(usize::MAX);
        let range = self.range(offset, len)?;
        if !range.start.is_multiple_of(page) || !range.end.is_multiple_of(page) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("discard of {len} bytes at {offset:#x}: not whole pages of {page} bytes"),
            ));
        }
        if range.is_empty() {
            return Ok(());
        }
        let advice = match self.backing {
            // What is only unmapped would still be in the file.
            Backing::Memfd => Advice::LinuxRemove,
            _ => Advice::LinuxDontNeed,
        };
        Ok(self.advise(range, advice)?)
    }

    /// Asks for huge pages where the memory is used densely, or for none. A wish; it changes no content.
    ///
    /// # Errors
    /// If the kernel has no transparent huge pages.
    pub fn wish_huge_pages(&self, wanted: bool) -> io::Result<()> {
        let advice = if wanted {
            Advice::LinuxHugepage
        } else {
            Advice::LinuxNoHugepage
        };
        Ok(self.advise(0..self.len, advice)?)
    }

    /// Passes advice that changes no content, or drops it, for whole pages inside the memory.
    fn advise(&self, range: Range<usize>, advice: Advice) -> Result<(), Errno> {
        debug_assert!(range.start < range.end && range.end <= self.len);
        // SAFETY: the range is part of the mapping that this value owns, callers see to that. No references into the
        // memory exist, so dropping its content concerns only readers that look again.
        unsafe { madvise(self.at(range.start).cast(), range.len(), advice) }
    }

    /// The address of a byte; `offset` is at most `len`.
    fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.len);
        // SAFETY: callers keep `offset` inside the mapping or at its end.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// The range, if it is inside.
    fn range(&self, offset: u64, len: u64) -> Result<Range<usize>, OutOfBounds> {
        let outside = || OutOfBounds {
            offset,
            len,
            size: self.len(),
        };
        let end = offset.checked_add(len).ok_or_else(outside)?;
        if end > self.len() {
            return Err(outside());
        }
        let inside = |n: u64| usize::try_from(n).map_err(|_| outside());
        Ok(inside(offset)?..inside(end)?)
    }

    /// The address of the first byte of a range for the kernel to copy from or to.
    pub(crate) fn pointer(&self, offset: u64, len: u64) -> Result<(*mut u8, usize), OutOfBounds> {
        let range = self.range(offset, len)?;
        Ok((self.at(range.start), range.len()))
    }
}

/// Bytes of a page of this kind.
fn page_size(backing: Backing) -> u64 {
    match backing {
        Backing::Anonymous | Backing::Memfd => rustix::param::page_size() as u64,
        Backing::HugePages { bytes } => bytes.max(1),
    }
}

impl Drop for GuestRam {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are what the kernel returned for this value, nothing borrows from the mapping, and it
        // is unmapped here only.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}
