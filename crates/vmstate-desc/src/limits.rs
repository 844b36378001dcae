//! Bounds of this end. None of them is ever taken from a stream.

/// How deep descriptions may be nested, subsections included.
pub const MAX_DEPTH: u32 = 64;

/// Bounds for loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory that one load may take because of counts and lists in the stream. Default 64 MiB.
    pub memory: u64,
    /// How deep descriptions may be nested. At most, and by default, [`MAX_DEPTH`].
    pub depth: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            depth: MAX_DEPTH,
        }
    }
}
