//! The C extension without floating point: each instruction becomes what it stands for.

use super::decode::{bits, register, signed};
use super::insn::{Insn, Op};

const ZERO: u8 = 0;
const RA: u8 = 1;
const SP: u8 = 2;

/// Decodes 16 bits. Reserved encodings, and those of extensions, are none.
pub(super) fn decode(half: u32) -> Option<Insn> {
    let funct3 = bits(half, 13, 3);
    match half & 3 {
        0 => quadrant_0(half, funct3),
        1 => quadrant_1(half, funct3),
        2 => quadrant_2(half, funct3),
        _ => None,
    }
}

/// A field of 3 bits: registers 8 to 15.
#[expect(clippy::cast_possible_truncation, reason = "3 bits")]
const fn short(half: u32, lo: u32) -> u8 {
    bits(half, lo, 3) as u8 + 8
}

/// The immediate of bits 12 and 6 to 2, without its sign.
const fn six(half: u32) -> u32 {
    bits(half, 12, 1) << 5 | bits(half, 2, 5)
}

fn quadrant_0(half: u32, funct3: u32) -> Option<Insn> {
    let (rd, rs1) = (short(half, 2), short(half, 7));
    let word = bits(half, 10, 3) << 3 | bits(half, 6, 1) << 2 | bits(half, 5, 1) << 6;
    let double = bits(half, 10, 3) << 3 | bits(half, 5, 2) << 6;
    let (word, double) = (word.cast_signed(), double.cast_signed());
    Some(match funct3 {
        0 => {
            let imm = bits(half, 11, 2) << 4
                | bits(half, 7, 4) << 6
                | bits(half, 6, 1) << 2
                | bits(half, 5, 1) << 3;
            if imm == 0 {
                return None;
            }
            Insn::new(Op::Addi, rd, SP, 0, imm.cast_signed())
        }
        2 => Insn::new(Op::Lw, rd, rs1, 0, word),
        3 => Insn::new(Op::Ld, rd, rs1, 0, double),
        6 => Insn::new(Op::Sw, 0, rs1, rd, word),
        7 => Insn::new(Op::Sd, 0, rs1, rd, double),
        _ => return None,
    })
}

fn quadrant_1(half: u32, funct3: u32) -> Option<Insn> {
    let rd = register(half, 7);
    let imm = signed(six(half), 6);
    let small = short(half, 7);
    Some(match funct3 {
        0 => Insn::new(Op::Addi, rd, rd, 0, imm),
        1 if rd != 0 => Insn::new(Op::Addiw, rd, rd, 0, imm),
        2 => Insn::new(Op::Addi, rd, ZERO, 0, imm),
        3 if rd == SP => {
            let imm = bits(half, 12, 1) << 9
                | bits(half, 6, 1) << 4
                | bits(half, 5, 1) << 6
                | bits(half, 3, 2) << 7
                | bits(half, 2, 1) << 5;
            if imm == 0 {
                return None;
            }
            Insn::new(Op::Addi, SP, SP, 0, signed(imm, 10))
        }
        3 if imm != 0 => Insn::new(Op::Lui, rd, 0, 0, imm << 12),
        4 => arithmetic(half, small, imm)?,
        5 => Insn::new(Op::Jal, ZERO, 0, 0, jump(half)),
        6 => Insn::new(Op::Beq, 0, small, ZERO, branch(half)),
        7 => Insn::new(Op::Bne, 0, small, ZERO, branch(half)),
        _ => return None,
    })
}

fn arithmetic(half: u32, rd: u8, imm: i32) -> Option<Insn> {
    let shift = six(half).cast_signed();
    let rs2 = short(half, 2);
    Some(match bits(half, 10, 2) {
        0 => Insn::new(Op::Srli, rd, rd, 0, shift),
        1 => Insn::new(Op::Srai, rd, rd, 0, shift),
        2 => Insn::new(Op::Andi, rd, rd, 0, imm),
        _ => {
            let op = match (bits(half, 12, 1), bits(half, 5, 2)) {
                (0, 0) => Op::Sub,
                (0, 1) => Op::Xor,
                (0, 2) => Op::Or,
                (0, 3) => Op::And,
                (1, 0) => Op::Subw,
                (1, 1) => Op::Addw,
                _ => return None,
            };
            Insn::new(op, rd, rd, rs2, 0)
        }
    })
}

fn quadrant_2(half: u32, funct3: u32) -> Option<Insn> {
    let rd = register(half, 7);
    let rs2 = register(half, 2);
    Some(match funct3 {
        0 => Insn::new(Op::Slli, rd, rd, 0, six(half).cast_signed()),
        2 if rd != 0 => {
            let offset = bits(half, 12, 1) << 5 | bits(half, 4, 3) << 2 | bits(half, 2, 2) << 6;
            Insn::new(Op::Lw, rd, SP, 0, offset.cast_signed())
        }
        3 if rd != 0 => {
            let offset = bits(half, 12, 1) << 5 | bits(half, 5, 2) << 3 | bits(half, 2, 3) << 6;
            Insn::new(Op::Ld, rd, SP, 0, offset.cast_signed())
        }
        4 => match (bits(half, 12, 1), rd, rs2) {
            (0, 0, 0) => return None,
            (0, _, 0) => Insn::new(Op::Jalr, ZERO, rd, 0, 0),
            (0, _, _) => Insn::new(Op::Add, rd, ZERO, rs2, 0),
            (_, 0, 0) => Insn::new(Op::Ebreak, 0, 0, 0, 0),
            (_, _, 0) => Insn::new(Op::Jalr, RA, rd, 0, 0),
            (_, _, _) => Insn::new(Op::Add, rd, rd, rs2, 0),
        },
        6 => {
            let offset = bits(half, 9, 4) << 2 | bits(half, 7, 2) << 6;
            Insn::new(Op::Sw, 0, SP, rs2, offset.cast_signed())
        }
        7 => {
            let offset = bits(half, 10, 3) << 3 | bits(half, 7, 3) << 6;
            Insn::new(Op::Sd, 0, SP, rs2, offset.cast_signed())
        }
        _ => return None,
    })
}

/// Offset of `c.j`.
fn jump(half: u32) -> i32 {
    let value = bits(half, 12, 1) << 11
        | bits(half, 11, 1) << 4
        | bits(half, 9, 2) << 8
        | bits(half, 8, 1) << 10
        | bits(half, 7, 1) << 6
        | bits(half, 6, 1) << 7
        | bits(half, 3, 3) << 1
        | bits(half, 2, 1) << 5;
    signed(value, 12)
}

/// Offset of `c.beqz` and `c.bnez`.
fn branch(half: u32) -> i32 {
    let value = bits(half, 12, 1) << 8
        | bits(half, 10, 2) << 3
        | bits(half, 5, 2) << 6
        | bits(half, 3, 2) << 1
        | bits(half, 2, 1) << 5;
    signed(value, 9)
}
