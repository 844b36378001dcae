//! What can go wrong.

use std::io;

/// Why a guest cannot go on: it wants something that the board does not have. The machine has stopped before the
/// instruction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// An instruction that is not in RV64IMAC, Zicsr and Zifencei.
    #[error(
        "hart {hart}: instruction {instruction:#x} at pc {pc:#x} is not in RV64IMAC_Zicsr_Zifencei"
    )]
    Instruction {
        /// The hart.
        hart: usize,
        /// Address of the instruction.
        pc: u64,
        /// The instruction, as found in memory; 16 bits if compressed.
        instruction: u32,
    },
    /// A control and status register that is not there, or a value that asks for what is not there.
    #[error(
        "hart {hart}: the access to csr {csr:#x} at pc {pc:#x} asks for what the hart does not have"
    )]
    Csr {
        /// The hart.
        hart: usize,
        /// Address of the instruction.
        pc: u64,
        /// Number of the register.
        csr: u32,
    },
    /// A return to a mode other than machine mode.
    #[error("hart {hart}: mret at pc {pc:#x} leaves machine mode for mode {mode}")]
    Mode {
        /// The hart.
        hart: usize,
        /// Address of the instruction.
        pc: u64,
        /// The mode: 0 is user, 1 supervisor.
        mode: u64,
    },
    /// An atomic operation on a word that is not aligned. (QEMU's harts can do that.)
    #[error(
        "hart {hart}: the atomic operation at pc {pc:#x} is on address {address:#x}, which is not aligned"
    )]
    Atomic {
        /// The hart.
        hart: usize,
        /// Address of the instruction.
        pc: u64,
        /// Address of the word.
        address: u64,
    },
    /// A trap where no code is.
    #[error("hart {hart}: trap at pc {pc:#x}, and no code at its vector {vector:#x}")]
    TrapVector {
        /// The hart.
        hart: usize,
        /// Where the trap came.
        pc: u64,
        /// Where `mtvec` points.
        vector: u64,
    },
    /// A command of HTIF other than printing and ending.
    #[error("hart {hart}: HTIF command {command:#x} at pc {pc:#x} is neither printing nor ending")]
    Htif {
        /// The hart.
        hart: usize,
        /// An address in the block of the instruction.
        pc: u64,
        /// What was written to `tohost`.
        command: u64,
    },
}

/// Why there is no such machine, or it cannot do that.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpikeError {
    /// A number of harts that the board does not have.
    #[error("{harts} harts: the board has 1 to 8")]
    Harts {
        /// The number asked for.
        harts: u32,
    },
    /// A size of RAM that the board does not have.
    #[error("RAM of {size:#x} bytes: whole MiB, and at least 4, are needed")]
    RamSize {
        /// The size asked for.
        size: u64,
    },
    /// Memory or a thread is not to be had.
    #[error("the host has no {what}: {source}")]
    Host {
        /// What was asked of the host.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// A guest that is no program for this board.
    #[error("the guest program is refused: {0}")]
    Program(#[from] ProgramError),
}

/// Why a guest's file is no program for this board.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// A file that begins as ELF and is none.
    #[error("not an ELF file: {0}")]
    Elf(#[from] elf::ParseError),
    /// An ELF file for something else.
    #[error("not a little-endian 64-bit RISC-V executable: {what} is {found:#x}")]
    Foreign {
        /// What does not fit.
        what: &'static str,
        /// What it is.
        found: u64,
    },
    /// No symbol `tohost` of 8 bytes, or no `fromhost`.
    #[error("the symbol {symbol} is missing or not 8 bytes long; QEMU wants it too")]
    Symbol {
        /// Its name.
        symbol: &'static str,
    },
    /// A part that is not in RAM.
    #[error("{len:#x} bytes at {address:#x} are not in RAM")]
    Outside {
        /// Guest physical address.
        address: u64,
        /// Length in bytes.
        len: u64,
    },
}
