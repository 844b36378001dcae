//! Where things are on the board.
//!
//! Wire: QEMU 11.1, `qemu-system-riscv64 -M spike`.

/// Most harts on a board.
pub const MAX_HARTS: u32 = 8;

/// Where harts begin: in the boot ROM.
pub const RESET_VECTOR: u64 = ROM_BASE;

/// Guest physical address of the boot ROM.
pub const ROM_BASE: u64 = 0x1000;
/// Its length in bytes.
pub const ROM_LEN: u64 = 0xf000;
/// Name of its RAM block. (It is a RAM block: a guest's boot ROM travels.)
pub const ROM_BLOCK: &str = "riscv.spike.mrom";

/// Guest physical address of RAM.
pub const RAM_BASE: u64 = 0x8000_0000;
/// Name of its RAM block.
pub const RAM_BLOCK: &str = "riscv.spike.ram";

/// Name of the machine in a stream.
pub const MACHINE: &str = "spike";

/// Bytes of a page: the unit of dirty logs and page records.
pub const PAGE: u64 = 4096;

/// The CLINT: one word per hart that raises its software interrupt.
pub(crate) const MSIP: u64 = 0x0200_0000;
/// One double word per hart: when its timer interrupt is due.
pub(crate) const MTIMECMP: u64 = 0x0200_4000;
/// The time.
pub(crate) const MTIME: u64 = 0x0200_bff8;
/// End of the CLINT.
pub(crate) const CLINT_END: u64 = 0x0201_0000;

/// Where HTIF is for a guest without symbols: `tohost`, then `fromhost`.
pub(crate) const HTIF_DEFAULT: u64 = 0x0100_0000;

/// Nanoseconds of virtual time for each tick of `mtime`: 10 MHz.
pub const TICK_NS: i64 = 100;
