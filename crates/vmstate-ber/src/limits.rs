//! Bounds of this end. None of them is ever taken from a stream.

/// Bounds for reading a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of content of a frame with a device's state or the machine's. Default 64 MiB.
    pub state: u64,
    /// Bytes of content of a frame with bytes in pieces: pages, undescribed state, blobs. Default 1 MiB and 2 KiB.
    pub piece: u64,
    /// Bytes of content of `Hello` and `Verdict`. Default 4 MiB.
    pub handshake: u64,
    /// Bytes of content of one type. Default 1 MiB.
    pub type_content: u64,
    /// Bytes of content of all types together. Default 16 MiB.
    pub types_content: u64,
    /// Number of types. Default 65 536.
    pub types: usize,
    /// Fields of one type. Default 4 096.
    pub fields: usize,
    /// Fields and subsections of all types together: what bounds the memory of the type table. Default 65 536.
    pub all_fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            state: 64 << 20,
            piece: (1 << 20) + 2048,
            handshake: 4 << 20,
            type_content: 1 << 20,
            types_content: 16 << 20,
            types: 65_536,
            fields: 4096,
            all_fields: 65_536,
        }
    }
}

/// How deep values may be nested, and types.
pub const MAX_DEPTH: u32 = 32;
/// Most elements of one list, runs expanded.
pub const MAX_ELEMENTS: u64 = 1 << 20;
/// Most bytes that a writer puts into one frame with bytes in pieces.
pub const PIECE: usize = 1 << 20;
