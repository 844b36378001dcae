//! What stands in the boot ROM: the first instructions of every hart, as QEMU 11.1 writes them.
//!
//! ```text
//! 1000  auipc t0, 0
//! 1004  addi  a2, t0, 0x28      where the third part begins
//! 1008  csrr  a0, mhartid
//! 100c  ld    a1, 32(t0)        the device tree
//! 1010  ld    t0, 24(t0)        the guest's first instruction
//! 1014  jr    t0
//! 1018  .quad entry
//! 1020  .quad device tree
//! 1028  what OpenSBI expects: magic, version 2, next address 0, next mode 1 (supervisor), options 0, boot hart 0
//! ```
//!
//! Wire: `vectors/streams/spike-11.1.main.bin.zst`, block `riscv.spike.mrom`.

use crate::board::RAM_BASE;

/// Room that is left for the device tree at the end of RAM.
const TREE_ROOM: u64 = 2 << 20;

/// Where QEMU puts the device tree in RAM of this size.
pub(crate) const fn device_tree(ram: u64) -> u64 {
    (RAM_BASE + ram - TREE_ROOM) & !(TREE_ROOM - 1)
}

/// The bytes from the beginning of the ROM on; what follows is 0.
pub(crate) fn reset_vector(entry: u64, ram: u64) -> Vec<u8> {
    const CODE: [u32; 6] = [
        0x0000_0297,
        0x0282_8613,
        0xf140_2573,
        0x0202_b583,
        0x0182_b283,
        0x0002_8067,
    ];
    const OPENSBI: [u64; 6] = [0x4942_534f, 2, 0, 1, 0, 0];
    let mut bytes: Vec<u8> = CODE.into_iter().flat_map(u32::to_le_bytes).collect();
    let words = [entry, device_tree(ram)].into_iter().chain(OPENSBI);
    bytes.extend(words.flat_map(u64::to_le_bytes));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_tree_is_where_qemu_has_it() {
        for (mib, address) in [
            (16, 0x80e0_0000),
            (64, 0x83e0_0000),
            (1024, 0xbfe0_0000),
            (2048, 0xffe0_0000),
            (3072, 0x1_3fe0_0000),
        ] {
            assert_eq!(device_tree(mib << 20), address);
        }
    }
}
