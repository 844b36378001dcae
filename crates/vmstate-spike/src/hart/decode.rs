//! RV64IMAC with Zicsr and Zifencei, decoded.
//!
//! Home-made, since the crates that there are take encodings of extensions for others (`sh1add` for `slt`), do not know
//! `fence.i`, or are under a copyleft licence. A test compares with an assembler.

use super::compressed;
use super::insn::{Insn, Op, Unknown};

/// Decodes the instruction in the low bits of `word`; a compressed one is in the lower half.
pub(crate) fn decode(word: u32) -> Result<Insn, Unknown> {
    if word & 3 == 3 {
        full(word).ok_or(Unknown(word))
    } else {
        let half = word & 0xffff;
        let insn = compressed::decode(half).ok_or(Unknown(half))?;
        Ok(Insn { len: 2, ..insn })
    }
}

/// Bits `lo` and up, so many.
pub(super) const fn bits(word: u32, lo: u32, count: u32) -> u32 {
    word >> lo & ((1 << count) - 1)
}

/// A field of 5 bits: a register.
#[expect(clippy::cast_possible_truncation, reason = "5 bits")]
pub(super) const fn register(word: u32, lo: u32) -> u8 {
    bits(word, lo, 5) as u8
}

/// Sign-extends the lowest `count` bits.
pub(super) const fn signed(value: u32, count: u32) -> i32 {
    (value << (32 - count)).cast_signed() >> (32 - count)
}

fn full(word: u32) -> Option<Insn> {
    let funct3 = bits(word, 12, 3);
    let funct7 = bits(word, 25, 7);
    let rd = register(word, 7);
    let rs1 = register(word, 15);
    let rs2 = register(word, 20);
    let i = word.cast_signed() >> 20;
    let u = (word & 0xffff_f000).cast_signed();
    let insn = match word & 0x7f {
        0x37 => Insn::new(Op::Lui, rd, 0, 0, u),
        0x17 => Insn::new(Op::Auipc, rd, 0, 0, u),
        0x6f => Insn::new(Op::Jal, rd, 0, 0, jump(word)),
        0x67 if funct3 == 0 => Insn::new(Op::Jalr, rd, rs1, 0, i),
        0x63 => Insn::new(branch_op(funct3)?, 0, rs1, rs2, branch(word)),
        0x03 => Insn::new(load_op(funct3)?, rd, rs1, 0, i),
        0x23 => {
            let offset = signed(funct7 << 5 | bits(word, 7, 5), 12);
            Insn::new(store_op(funct3)?, 0, rs1, rs2, offset)
        }
        0x13 => immediate(word, funct3, rd, rs1, i)?,
        0x1b => immediate_word(funct3, funct7, rd, rs1, i)?,
        0x33 => Insn::new(register_op(funct3, funct7)?, rd, rs1, rs2, 0),
        0x3b => Insn::new(word_op(funct3, funct7)?, rd, rs1, rs2, 0),
        // Reserved fields of a fence are ignored, as the manual wants it.
        0x0f if funct3 == 0 => Insn::new(Op::Fence, 0, 0, 0, 0),
        0x0f if funct3 == 1 => Insn::new(Op::FenceI, 0, 0, 0, 0),
        0x2f => {
            let op = atomic_op(funct3, funct7 >> 2)?;
            if matches!(op, Op::LrW | Op::LrD) && rs2 != 0 {
                return None;
            }
            Insn::new(op, rd, rs1, rs2, 0)
        }
        0x73 => system(word, funct3, rd, rs1)?,
        _ => return None,
    };
    Some(insn)
}

/// Offset of `jal`.
fn jump(word: u32) -> i32 {
    let value = bits(word, 31, 1) << 20
        | bits(word, 12, 8) << 12
        | bits(word, 20, 1) << 11
        | bits(word, 21, 10) << 1;
    signed(value, 21)
}

/// Offset of a branch.
fn branch(word: u32) -> i32 {
    let value = bits(word, 31, 1) << 12
        | bits(word, 7, 1) << 11
        | bits(word, 25, 6) << 5
        | bits(word, 8, 4) << 1;
    signed(value, 13)
}

fn branch_op(funct3: u32) -> Option<Op> {
    Some(match funct3 {
        0 => Op::Beq,
        1 => Op::Bne,
        4 => Op::Blt,
        5 => Op::Bge,
        6 => Op::Bltu,
        7 => Op::Bgeu,
        _ => return None,
    })
}

fn load_op(funct3: u32) -> Option<Op> {
    Some(match funct3 {
        0 => Op::Lb,
        1 => Op::Lh,
        2 => Op::Lw,
        3 => Op::Ld,
        4 => Op::Lbu,
        5 => Op::Lhu,
        6 => Op::Lwu,
        _ => return None,
    })
}

fn store_op(funct3: u32) -> Option<Op> {
    Some(match funct3 {
        0 => Op::Sb,
        1 => Op::Sh,
        2 => Op::Sw,
        3 => Op::Sd,
        _ => return None,
    })
}

fn immediate(word: u32, funct3: u32, rd: u8, rs1: u8, i: i32) -> Option<Insn> {
    let shift = bits(word, 20, 6).cast_signed();
    let (op, imm) = match (funct3, bits(word, 26, 6)) {
        (0, _) => (Op::Addi, i),
        (1, 0) => (Op::Slli, shift),
        (2, _) => (Op::Slti, i),
        (3, _) => (Op::Sltiu, i),
        (4, _) => (Op::Xori, i),
        (5, 0) => (Op::Srli, shift),
        (5, 0x10) => (Op::Srai, shift),
        (6, _) => (Op::Ori, i),
        (7, _) => (Op::Andi, i),
        _ => return None,
    };
    Some(Insn::new(op, rd, rs1, 0, imm))
}

fn immediate_word(funct3: u32, funct7: u32, rd: u8, rs1: u8, i: i32) -> Option<Insn> {
    let (op, imm) = match (funct3, funct7) {
        (0, _) => (Op::Addiw, i),
        (1, 0) => (Op::Slliw, i & 0x1f),
        (5, 0) => (Op::Srliw, i & 0x1f),
        (5, 0x20) => (Op::Sraiw, i & 0x1f),
        _ => return None,
    };
    Some(Insn::new(op, rd, rs1, 0, imm))
}

fn register_op(funct3: u32, funct7: u32) -> Option<Op> {
    Some(match (funct7, funct3) {
        (0, 0) => Op::Add,
        (0x20, 0) => Op::Sub,
        (0, 1) => Op::Sll,
        (0, 2) => Op::Slt,
        (0, 3) => Op::Sltu,
        (0, 4) => Op::Xor,
        (0, 5) => Op::Srl,
        (0x20, 5) => Op::Sra,
        (0, 6) => Op::Or,
        (0, 7) => Op::And,
        (1, 0) => Op::Mul,
        (1, 1) => Op::Mulh,
        (1, 2) => Op::Mulhsu,
        (1, 3) => Op::Mulhu,
        (1, 4) => Op::Div,
        (1, 5) => Op::Divu,
        (1, 6) => Op::Rem,
        (1, 7) => Op::Remu,
        _ => return None,
    })
}

fn word_op(funct3: u32, funct7: u32) -> Option<Op> {
    Some(match (funct7, funct3) {
        (0, 0) => Op::Addw,
        (0x20, 0) => Op::Subw,
        (0, 1) => Op::Sllw,
        (0, 5) => Op::Srlw,
        (0x20, 5) => Op::Sraw,
        (1, 0) => Op::Mulw,
        (1, 4) => Op::Divw,
        (1, 5) => Op::Divuw,
        (1, 6) => Op::Remw,
        (1, 7) => Op::Remuw,
        _ => return None,
    })
}

fn atomic_op(funct3: u32, funct5: u32) -> Option<Op> {
    let (word, double) = match funct5 {
        0x02 => (Op::LrW, Op::LrD),
        0x03 => (Op::ScW, Op::ScD),
        0x01 => (Op::AmoswapW, Op::AmoswapD),
        0x00 => (Op::AmoaddW, Op::AmoaddD),
        0x04 => (Op::AmoxorW, Op::AmoxorD),
        0x0c => (Op::AmoandW, Op::AmoandD),
        0x08 => (Op::AmoorW, Op::AmoorD),
        0x10 => (Op::AmominW, Op::AmominD),
        0x14 => (Op::AmomaxW, Op::AmomaxD),
        0x18 => (Op::AmominuW, Op::AmominuD),
        0x1c => (Op::AmomaxuW, Op::AmomaxuD),
        _ => return None,
    };
    match funct3 {
        2 => Some(word),
        3 => Some(double),
        _ => None,
    }
}

fn system(word: u32, funct3: u32, rd: u8, rs1: u8) -> Option<Insn> {
    if funct3 == 0 {
        let op = match word {
            0x0000_0073 => Op::Ecall,
            0x0010_0073 => Op::Ebreak,
            0x3020_0073 => Op::Mret,
            0x1050_0073 => Op::Wfi,
            _ => return None,
        };
        return Some(Insn::new(op, 0, 0, 0, 0));
    }
    let csr = bits(word, 20, 12).cast_signed();
    let op = match funct3 {
        1 => Op::Csrrw,
        2 => Op::Csrrs,
        3 => Op::Csrrc,
        5 => Op::Csrrwi,
        6 => Op::Csrrsi,
        7 => Op::Csrrci,
        _ => return None,
    };
    Some(Insn::new(op, rd, rs1, 0, csr))
}

#[cfg(test)]
mod tests;
