//! Decoding compared with the GNU disassembler: what binutils 2.40 prints with `-M no-aliases,numeric` for `rv64imac_zicsr_zifencei`,
//! brought into our form, one line for each word that is an instruction, has this digest.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::*;

fn digest(words: impl Iterator<Item = u32>, digits: usize) -> (usize, String) {
    let mut text = String::new();
    let mut count = 0;
    for word in words {
        if let Ok(insn) = decode(word).map_err(|Unknown(found)| assert_eq!(found, word)) {
            let Insn {
                op,
                rd,
                rs1,
                rs2,
                imm,
                ..
            } = insn;
            writeln!(text, "{word:0digits$x} {op:?} {rd} {rs1} {rs2} {imm}").unwrap();
            count += 1;
        }
    }
    let digest = Sha256::digest(&text);
    let hex = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    (count, hex)
}

/// All of them. (Binutils also print one that is reserved: `c.addi16sp` of 0.)
#[test]
fn compressed_instructions() {
    let words = (0..0x1_0000).filter(|half| half & 3 != 3);
    let expected = "398e0da2e93391ed116b641ec46e631c4f0c6592d8a65b1afb9da00b9721fc07";
    assert_eq!(digest(words, 4), (38_551, expected.to_owned()));
}

/// Pseudo-random words of each opcode but the fences', whose reserved bits are ignored here and not in binutils, every atomic operation, and everything that only differs from `ecall` in its upper 12 bits.
#[test]
fn full_instructions() {
    const OPCODES: [u32; 14] = [
        0x37, 0x17, 0x6f, 0x67, 0x63, 0x03, 0x23, 0x13, 0x1b, 0x33, 0x3b, 0x0f, 0x2f, 0x73,
    ];
    let mut x = 1_u64;
    let mut words: Vec<_> = (0..60_000)
        .map(|i| {
            x = x
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let word = u32::try_from(x >> 32).unwrap() & !0x7f | OPCODES[i % 14];
            // Some have few valid values in their upper bits.
            match i / 14 % 4 {
                0 => word,
                1 => word & 0x01ff_ffff,
                2 => word & 0x01ff_ffff | 0x4000_0000,
                _ => word & 0x01ff_ffff | 0x0200_0000,
            }
        })
        .collect();
    for funct5 in 0..32 {
        for funct3 in 0..8 {
            for rs2 in [0, 5] {
                words.push(funct5 << 27 | rs2 << 20 | 7 << 15 | funct3 << 12 | 6 << 7 | 0x2f);
            }
        }
    }
    words.extend((0..4096).map(|imm| imm << 20 | 0x73));
    let fence = |word: &u32| word & 0x7f == 0x0f;
    let words = words.into_iter().filter(|word| !fence(word));
    let expected = "9b1243b1eedfb804026d574e3ca609b8a4982f82b3f989dd99212b95783ae92a";
    assert_eq!(digest(words, 8), (35_104, expected.to_owned()));
}

#[test]
fn fences() {
    for (word, op) in [
        (0x0330_000f, Op::Fence),
        (0x8330_000f, Op::Fence),
        (0x0100_000f, Op::Fence),
        (0x0307_078f, Op::Fence),
        (0x0000_100f, Op::FenceI),
        (0x4113_120f, Op::FenceI),
    ] {
        assert_eq!(decode(word).map(|insn| insn.op), Ok(op));
    }
    assert_eq!(decode(0x0000_200f), Err(Unknown(0x0000_200f)));
}
