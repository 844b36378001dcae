//! Control and status registers of machine mode.

use crate::state::{Cpu, Pmp};

/// Interrupts that a guest may enable: software, timer and external ones of supervisor and machine mode.
const INTERRUPTS: u64 = 0xaaa;
/// Bits of `mip` that a guest may write: those of supervisor mode.
const MIP_WRITABLE: u64 = 0x222;

/// `mstatus`: interrupts are enabled.
pub(super) const MIE: u64 = 1 << 3;
/// They were before the trap.
pub(super) const MPIE: u64 = 1 << 7;
/// Mode before the trap.
pub(super) const MPP: u64 = 3 << 11;
/// The mode before the trap is machine mode.
pub(super) const MPP_MACHINE: u64 = 3 << 11;
const MPP_RESERVED: u64 = 2 << 11;
/// Floating point is dirty.
const FS: u64 = 3 << 13;
const VS: u64 = 3 << 9;
/// Loads and stores with the rights of the mode before the trap.
const MPRV: u64 = 1 << 17;
/// Summary of dirty state; computed when read.
const SD: u64 = 1 << 63;
/// What a guest may write: interrupt enables, previous modes, states of the units, and what concerns lower modes.
const MSTATUS_WRITABLE: u64 = 0x7e_7faa;

/// A register that the hart does not have, or a value that asks for something that it does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoCsr;

/// Reads a register; `mip` is given, since devices have a part in it.
pub(super) fn read(cpu: &Cpu, csr: u32, mip: u64) -> Result<u64, NoCsr> {
    Ok(match csr {
        0x300 => with_summary(cpu.mstatus),
        0x301 => u64::from(cpu.misa_mxl) << 62 | u64::from(cpu.misa_ext),
        0x302 => cpu.medeleg,
        0x303 => cpu.mideleg,
        0x304 => cpu.mie,
        0x305 => cpu.mtvec,
        0x306 => cpu.mcounteren.into(),
        0x320 => cpu.mcountinhibit.into(),
        0x340 => cpu.mscratch,
        0x341 => cpu.mepc,
        0x342 => cpu.mcause,
        0x343 => cpu.mtval,
        0x344 => mip,
        0x3a0..=0x3ae if csr.is_multiple_of(2) => {
            let first = pmp_index(csr, 0x3a0, 4);
            let entries = cpu.pmp.as_ref().map(|pmp| &pmp.entries[..]);
            let entries = entries.unwrap_or_default().iter().skip(first).take(8);
            entries
                .rev()
                .fold(0, |word, entry| word << 8 | u64::from(entry.config))
        }
        0x3b0..=0x3ef => {
            let entries = cpu.pmp.as_ref().map(|pmp| &pmp.entries[..]);
            let entry = entries.unwrap_or_default().get(pmp_index(csr, 0x3b0, 1));
            entry.map_or(0, |entry| entry.address)
        }
        // Vendor, architecture and implementation are nobody's.
        0xf11..=0xf13 | 0xf15 => 0,
        0xf14 => cpu.mhartid,
        _ => return Err(NoCsr),
    })
}

/// Writes a register.
pub(super) fn write(cpu: &mut Cpu, csr: u32, value: u64) -> Result<(), NoCsr> {
    match csr {
        0x300 => cpu.mstatus = status(cpu.mstatus, value)?,
        // The extensions stay as they are.
        0x301 => {}
        0x302 => cpu.medeleg = value & 0xb3ff,
        0x303 => cpu.mideleg = value & 0x222 | cpu.mideleg & !0x222,
        0x304 => cpu.mie = value & INTERRUPTS,
        // Modes 2 and 3 are reserved; the register keeps what it has.
        0x305 if value & 2 == 0 => cpu.mtvec = value,
        0x305 => {}
        0x306 => cpu.mcounteren = low(value),
        0x320 => cpu.mcountinhibit = low(value) & !2,
        0x340 => cpu.mscratch = value,
        0x341 => cpu.mepc = value & !1,
        0x342 => cpu.mcause = value,
        0x343 => cpu.mtval = value,
        0x344 => cpu.mip = cpu.mip & !MIP_WRITABLE | value & MIP_WRITABLE,
        0x3a0..=0x3ae if csr.is_multiple_of(2) => {
            let first = pmp_index(csr, 0x3a0, 4);
            // A locked region binds machine mode, and nothing here checks it.
            if value & 0x8080_8080_8080_8080 != 0 {
                return Err(NoCsr);
            }
            let pmp = cpu.pmp.get_or_insert_with(Pmp::default);
            let entries = pmp.entries.iter_mut().skip(first);
            for (entry, config) in entries.zip(value.to_le_bytes()) {
                entry.config = config & 0x1f;
            }
        }
        0x3b0..=0x3ef => {
            let pmp = cpu.pmp.get_or_insert_with(Pmp::default);
            if let Some(entry) = pmp.entries.get_mut(pmp_index(csr, 0x3b0, 1)) {
                entry.address = value & ((1 << 54) - 1);
            }
        }
        _ => return Err(NoCsr),
    }
    Ok(())
}

fn status(old: u64, value: u64) -> Result<u64, NoCsr> {
    if value & MPRV != 0 && value & MPP != MPP_MACHINE {
        return Err(NoCsr);
    }
    let mut writable = MSTATUS_WRITABLE;
    if value & MPP == MPP_RESERVED {
        writable &= !MPP;
    }
    Ok(old & !writable | value & writable)
}

fn with_summary(mstatus: u64) -> u64 {
    if mstatus & FS == FS || mstatus & VS == VS {
        mstatus | SD
    } else {
        mstatus
    }
}

fn pmp_index(csr: u32, first: u32, entries: u32) -> usize {
    ((csr - first) * entries) as usize
}

#[expect(clippy::cast_possible_truncation, reason = "registers of 32 bits")]
fn low(value: u64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(csr: u32, value: u64) -> u64 {
        let mut cpu = Cpu::reset(0);
        write(&mut cpu, csr, value).unwrap();
        read(&cpu, csr, cpu.mip).unwrap()
    }

    #[test]
    fn registers_keep_what_they_may() {
        assert_eq!(written(0x340, u64::MAX), u64::MAX);
        assert_eq!(written(0x341, 0x8000_0003), 0x8000_0002);
        assert_eq!(written(0x304, u64::MAX), 0xaaa);
        assert_eq!(written(0x303, u64::MAX), 0x1666);
        assert_eq!(written(0x344, u64::MAX), 0x222);
        assert_eq!(written(0x305, 0x8000_0001), 0x8000_0001);
        assert_eq!(written(0x305, 0x8000_0002), 0);
        assert_eq!(written(0x301, 0), 0x8000_0000_0034_11ef);
        assert_eq!(written(0x300, MIE | FS), 0xa_0000_0000 | MIE | FS | SD);
        assert_eq!(written(0x300, MPP_RESERVED), 0xa_0000_0000);
    }

    #[test]
    fn protection_registers_share_words() {
        let mut cpu = Cpu::reset(0);
        assert_eq!(read(&cpu, 0x3a2, 0), Ok(0));
        write(&mut cpu, 0x3a2, 0x1f00_0000_0000_0018).unwrap();
        write(&mut cpu, 0x3b8, u64::MAX).unwrap();
        assert_eq!(read(&cpu, 0x3a2, 0), Ok(0x1f00_0000_0000_0018));
        let entries = cpu.pmp.as_ref().unwrap().entries;
        assert_eq!((entries[8].config, entries[15].config), (0x18, 0x1f));
        assert_eq!(entries[8].address, (1 << 54) - 1);
        assert_eq!(read(&cpu, 0x3b8, 0), Ok((1 << 54) - 1));
        assert_eq!(write(&mut cpu, 0x3a0, 0x80), Err(NoCsr));
        assert_eq!(read(&cpu, 0x3a1, 0), Err(NoCsr));
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let mut cpu = Cpu::reset(3);
        assert_eq!(read(&cpu, 0xf14, 0), Ok(3));
        for csr in [0x001, 0x180, 0xc00, 0xc01, 0xb00, 0x7c0] {
            assert_eq!(read(&cpu, csr, 0), Err(NoCsr), "{csr:#x}");
            assert_eq!(write(&mut cpu, csr, 0), Err(NoCsr), "{csr:#x}");
        }
        assert_eq!(write(&mut cpu, 0xf14, 0), Err(NoCsr));
        assert_eq!(write(&mut cpu, 0x300, MPRV), Err(NoCsr));
    }
}
