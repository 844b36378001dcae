//! Instructions as the interpreter takes them.

/// What an instruction does. Compressed ones have become what they stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[rustfmt::skip]
pub(crate) enum Op {
    Lui, Auipc, Jal, Jalr,
    Beq, Bne, Blt, Bge, Bltu, Bgeu,
    Lb, Lh, Lw, Ld, Lbu, Lhu, Lwu,
    Sb, Sh, Sw, Sd,
    Addi, Slti, Sltiu, Xori, Ori, Andi, Slli, Srli, Srai,
    Addiw, Slliw, Srliw, Sraiw,
    Add, Sub, Sll, Slt, Sltu, Xor, Srl, Sra, Or, And,
    Addw, Subw, Sllw, Srlw, Sraw,
    Mul, Mulh, Mulhsu, Mulhu, Div, Divu, Rem, Remu,
    Mulw, Divw, Divuw, Remw, Remuw,
    LrW, LrD, ScW, ScD,
    AmoswapW, AmoaddW, AmoxorW, AmoandW, AmoorW, AmominW, AmomaxW, AmominuW, AmomaxuW,
    AmoswapD, AmoaddD, AmoxorD, AmoandD, AmoorD, AmominD, AmomaxD, AmominuD, AmomaxuD,
    Fence, FenceI,
    Ecall, Ebreak, Mret, Wfi,
    Csrrw, Csrrs, Csrrc, Csrrwi, Csrrsi, Csrrci,
}

impl Op {
    /// Whether the next instruction is not simply the one behind, or the hart has to look up from its work.
    pub(crate) const fn ends_block(self) -> bool {
        matches!(
            self,
            Self::Jal
                | Self::Jalr
                | Self::Beq
                | Self::Bne
                | Self::Blt
                | Self::Bge
                | Self::Bltu
                | Self::Bgeu
                | Self::FenceI
                | Self::Ecall
                | Self::Ebreak
                | Self::Mret
                | Self::Wfi
                | Self::Csrrw
                | Self::Csrrs
                | Self::Csrrc
                | Self::Csrrwi
                | Self::Csrrsi
                | Self::Csrrci
        )
    }
}

/// One instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Insn {
    pub(crate) op: Op,
    pub(crate) rd: u8,
    /// Of CSR instructions with an immediate: that.
    pub(crate) rs1: u8,
    pub(crate) rs2: u8,
    /// Immediate, sign-extended; shifted into place. Of CSR instructions: the CSR.
    pub(crate) imm: i32,
    /// Bytes from the beginning of its block.
    pub(crate) at: u16,
    /// Its own bytes: 2 or 4.
    pub(crate) len: u8,
}

impl Insn {
    pub(crate) const fn new(op: Op, rd: u8, rs1: u8, rs2: u8, imm: i32) -> Self {
        Self {
            op,
            rd,
            rs1,
            rs2,
            imm,
            at: 0,
            len: 4,
        }
    }
}

/// An instruction that the hart does not have, as found in memory: 16 bits if the two lowest are not both set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unknown(pub(crate) u32);
