//! A file, mapped for reading.

#![expect(unsafe_code, reason = "mapping a file and reading from the mapping")]

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// A regular file, mapped read-only, from which bytes are copied out.
///
/// For readers that look at a few bytes here and there of a large file: some ten times faster than one system call per look.
/// No reference into the mapping is ever handed out, so another process may write the file meanwhile; what is read then is
/// the old or the new content of each byte.
///
/// A file that another process *truncates* while it is mapped ends the reading process with `SIGBUS`. Map files that nobody
/// shortens.
#[derive(Debug)]
pub struct MappedFile {
    /// Dangling if `len` is 0.
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is read-only memory that belongs to this value; it is only read, with atomic loads, and unmapped once, on
// drop. Nothing about it is tied to a thread.
unsafe impl Send for MappedFile {}
// SAFETY: as for `Send`; all methods that take `&self` only load.
unsafe impl Sync for MappedFile {}

impl MappedFile {
    /// Maps the whole file as it is now.
    ///
    /// # Errors
    /// If `file` is no regular file, is larger than the address space, or cannot be mapped.
    pub fn new(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        let len = usize::try_from(metadata.len())
            .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        if len == 0 {
            return Ok(Self {
                base: NonNull::dangling(),
                len,
            });
        }
        // SAFETY: a null hint lets the kernel choose fresh addresses, so no existing mapping is touched; the flags ask for
        // a read-only shared mapping of `len` bytes of a descriptor that is open.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::SHARED,
                file,
                0,
            )
        }?;
        let base = NonNull::new(base.cast())
            .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        Ok(Self { base, len })
    }

    /// Length of the mapping in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the file was empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies bytes from `offset` on into `out`, up to the end of the file. Returns how many.
    #[must_use]
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> usize {
        let Ok(offset) = usize::try_from(offset) else {
            return 0;
        };
        let n = self.len.saturating_sub(offset).min(out.len());
        let out = match out.get_mut(..n) {
            Some(out) if n > 0 => out,
            _ => return 0,
        };
        let mut at = offset;
        let aligned = at.next_multiple_of(8) - at;
        let (head, rest) = out.split_at_mut(aligned.min(n));
        self.copy_bytes(&mut at, head);
        let (words, tail) = rest.as_chunks_mut::<8>();
        for word in words {
            // SAFETY: `at` is a multiple of 8 and the mapping begins at a page, so the address is aligned; `at + 8 <= offset +
            // n <= len`, so it is inside the mapping, which lives as long as `self`. A relaxed
            // load of 8 bytes is sound on read-only memory.
            let value = unsafe { AtomicU64::from_ptr(self.base.add(at).cast().as_ptr()) }
                .load(Ordering::Relaxed);
            *word = value.to_ne_bytes();
            at += 8;
        }
        self.copy_bytes(&mut at, tail);
        n
    }

    /// Loads one byte at `offset` so that it is in the cache when it is read soon. Does nothing beyond the end.
    pub fn touch(&self, offset: u64) {
        let mut byte = [0];
        if let Ok(mut at) = usize::try_from(offset)
            && at < self.len
        {
            self.copy_bytes(&mut at, &mut byte);
        }
        std::hint::black_box(byte);
    }

    /// Gives the memory of the first `end` bytes back, whole pages only. They are read from the file again when they are asked
    /// for again.
    pub fn forget_up_to(&self, end: u64) {
        let end = usize::try_from(end).unwrap_or(self.len).min(self.len);
        let whole = end - end % rustix::param::page_size();
        if whole > 0 {
            // SAFETY: the range begins with the mapping and ends inside of it; dropping pages of a shared file mapping that
            // is never written changes no content, and nothing holds references into it.
            let forgotten =
                unsafe { madvise(self.base.as_ptr().cast(), whole, Advice::LinuxDontNeed) };
            debug_assert!(forgotten.is_ok());
        }
    }

    fn copy_bytes(&self, at: &mut usize, out: &mut [u8]) {
        for byte in out {
            // SAFETY: callers keep `at` below `len`; a byte is always aligned; as in `read_at`.
            *byte =
                unsafe { AtomicU8::from_ptr(self.base.add(*at).as_ptr()) }.load(Ordering::Relaxed);
            *at += 1;
        }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: `base` and `len` are what `mmap` returned for this value, nothing borrows from the mapping, and it is
            // unmapped here only.
            let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
            debug_assert!(unmapped.is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn reads_what_the_file_has_at_any_offset_and_length() {
        let content: Vec<u8> = (0..9000_u32).map(|i| (i % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let map = MappedFile::new(&file).unwrap();
        assert_eq!(map.len(), 9000);
        for offset in [0, 1, 7, 8, 9, 4095, 4096, 8991, 8999] {
            for len in [0, 1, 7, 8, 9, 16, 63, 64, 5000] {
                let mut out = vec![0; len];
                let n = map.read_at(offset as u64, &mut out);
                assert_eq!(n, len.min(9000 - offset));
                assert_eq!(out[..n], content[offset..offset + n]);
            }
        }
        for end in [0, 1, 4096, 8192, 9000, u64::MAX] {
            map.forget_up_to(end);
            map.touch(end);
            let mut out = vec![0; 9000];
            assert_eq!(map.read_at(0, &mut out), 9000);
            assert_eq!(out, content);
        }
        assert_eq!(map.read_at(9000, &mut [0; 4]), 0);
        assert_eq!(map.read_at(u64::MAX, &mut [0; 4]), 0);
    }

    #[test]
    fn an_empty_file_and_what_is_no_file() {
        let map = MappedFile::new(&tempfile::tempfile().unwrap()).unwrap();
        assert!(map.is_empty());
        assert_eq!(map.read_at(0, &mut [0; 4]), 0);
        let dir = File::open("/").unwrap();
        assert!(MappedFile::new(&dir).is_err());
    }
}
