//! Executes one block.

use super::block::Block;
use super::bus::{Bus, Effect, Value};
use super::insn::{Insn, Op};
use super::{Registers, Reservation};
use crate::state::NO_RESERVATION;

/// Why a block ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// At its end, or with a jump: the address to go on at.
    Jump(u64),
    /// A store reached beyond memory; it is done, and the hart goes on behind it.
    Effect(Effect, u64),
    /// An exception at this address.
    Trap { cause: Cause, value: u64, pc: u64 },
    /// An instruction for the rest of the hart, with its address.
    System(Insn, u64),
}

/// Causes of exceptions: `mcause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    FetchAccess = 1,
    Breakpoint = 3,
    LoadMisaligned = 4,
    LoadAccess = 5,
    StoreMisaligned = 6,
    StoreAccess = 7,
    EcallMachine = 11,
    /// None of the architecture: an atomic operation at an odd place, which QEMU's harts do (Zama16b) and this one does not.
    AtomicMisaligned = 256,
}

/// Runs a block from its beginning.
#[inline]
#[expect(clippy::too_many_lines, reason = "one arm for each instruction")]
pub(crate) fn run(
    block: &Block,
    x: &mut Registers,
    reservation: &mut Reservation,
    bus: &Bus<'_>,
) -> Exit {
    for insn in &block.insns {
        let a = x.get(insn.rs1);
        let b = x.get(insn.rs2);
        let imm = i64::from(insn.imm).cast_unsigned();
        let pc = || block.start.wrapping_add(insn.at.into());
        let address = a.wrapping_add(imm);

        macro_rules! set {
            ($value:expr) => {
                x.set(insn.rd, $value)
            };
        }
        macro_rules! jump_if {
            ($condition:expr) => {
                if $condition {
                    return Exit::Jump(pc().wrapping_add(imm));
                }
            };
        }
        macro_rules! load {
            ($word:ty, $extend:expr) => {
                match bus.load::<$word>(address) {
                    Ok(value) => set!($extend(value)),
                    Err(_) => return trap(Cause::LoadAccess, address, pc()),
                }
            };
        }
        macro_rules! store {
            ($word:ty) => {
                match bus.store(address, <$word>::truncate(b)) {
                    Ok(()) => {}
                    Err(Effect::Fault) => return trap(Cause::StoreAccess, address, pc()),
                    Err(effect) => {
                        return Exit::Effect(effect, pc().wrapping_add(insn.len.into()));
                    }
                }
            };
        }
        macro_rules! amo {
            ($word:ty, $extend:expr, $change:expr) => {{
                let change = $change;
                let operand = <$word>::truncate(b);
                match amo::<$word>(bus, a, |old| change(old, operand)) {
                    Ok(old) => set!($extend(old)),
                    Err(cause) => return trap(cause, a, pc()),
                }
            }};
        }

        match insn.op {
            Op::Lui => set!(imm),
            Op::Auipc => set!(pc().wrapping_add(imm)),
            Op::Jal => {
                set!(block.end);
                return Exit::Jump(pc().wrapping_add(imm));
            }
            Op::Jalr => {
                set!(block.end);
                return Exit::Jump(address & !1);
            }
            Op::Beq => jump_if!(a == b),
            Op::Bne => jump_if!(a != b),
            Op::Blt => jump_if!(a.cast_signed() < b.cast_signed()),
            Op::Bge => jump_if!(a.cast_signed() >= b.cast_signed()),
            Op::Bltu => jump_if!(a < b),
            Op::Bgeu => jump_if!(a >= b),

            Op::Lb => load!(u8, |v: u8| i64::from(v.cast_signed()).cast_unsigned()),
            Op::Lh => load!(u16, |v: u16| i64::from(v.cast_signed()).cast_unsigned()),
            Op::Lw => load!(u32, word),
            Op::Ld => load!(u64, |v| v),
            Op::Lbu => load!(u8, u64::from),
            Op::Lhu => load!(u16, u64::from),
            Op::Lwu => load!(u32, u64::from),
            Op::Sb => store!(u8),
            Op::Sh => store!(u16),
            Op::Sw => store!(u32),
            Op::Sd => store!(u64),

            Op::Addi => set!(address),
            Op::Slti => set!(u64::from(a.cast_signed() < imm.cast_signed())),
            Op::Sltiu => set!(u64::from(a < imm)),
            Op::Xori => set!(a ^ imm),
            Op::Ori => set!(a | imm),
            Op::Andi => set!(a & imm),
            Op::Slli => set!(a << (imm & 63)),
            Op::Srli => set!(a >> (imm & 63)),
            Op::Srai => set!((a.cast_signed() >> (imm & 63)).cast_unsigned()),
            Op::Addiw => set!(word(low(address))),
            Op::Slliw => set!(word(low(a) << (imm & 31))),
            Op::Srliw => set!(word(low(a) >> (imm & 31))),
            Op::Sraiw => set!(word((low(a).cast_signed() >> (imm & 31)).cast_unsigned())),

            Op::Add => set!(a.wrapping_add(b)),
            Op::Sub => set!(a.wrapping_sub(b)),
            Op::Sll => set!(a << (b & 63)),
            Op::Slt => set!(u64::from(a.cast_signed() < b.cast_signed())),
            Op::Sltu => set!(u64::from(a < b)),
            Op::Xor => set!(a ^ b),
            Op::Srl => set!(a >> (b & 63)),
            Op::Sra => set!((a.cast_signed() >> (b & 63)).cast_unsigned()),
            Op::Or => set!(a | b),
            Op::And => set!(a & b),
            Op::Addw => set!(word(low(a).wrapping_add(low(b)))),
            Op::Subw => set!(word(low(a).wrapping_sub(low(b)))),
            Op::Sllw => set!(word(low(a) << (b & 31))),
            Op::Srlw => set!(word(low(a) >> (b & 31))),
            Op::Sraw => set!(word((low(a).cast_signed() >> (b & 31)).cast_unsigned())),

            Op::Mul => set!(a.wrapping_mul(b)),
            Op::Mulh => set!(high(
                i128::from(a.cast_signed()) * i128::from(b.cast_signed())
            )),
            Op::Mulhsu => set!(high(i128::from(a.cast_signed()) * i128::from(b))),
            Op::Mulhu => set!(high((u128::from(a) * u128::from(b)).cast_signed())),
            Op::Div => set!(div(a.cast_signed(), b.cast_signed())),
            Op::Divu => set!(a.checked_div(b).unwrap_or(u64::MAX)),
            Op::Rem => set!(rem(a.cast_signed(), b.cast_signed())),
            Op::Remu => set!(a.checked_rem(b).unwrap_or(a)),
            Op::Mulw => set!(word(low(a).wrapping_mul(low(b)))),
            // Sign-extended operands give the right 32 bits, also for the one quotient that does not fit.
            Op::Divw => set!(word(low(div(signed_low(a), signed_low(b))))),
            Op::Divuw => set!(word(low(a).checked_div(low(b)).unwrap_or(u32::MAX))),
            Op::Remw => set!(word(low(rem(signed_low(a), signed_low(b))))),
            Op::Remuw => set!(word(low(a).checked_rem(low(b)).unwrap_or(low(a)))),

            Op::LrW => match reserve::<u32>(bus, reservation, a) {
                Ok(value) => set!(word(value)),
                Err(cause) => return trap(cause, a, pc()),
            },
            Op::LrD => match reserve::<u64>(bus, reservation, a) {
                Ok(value) => set!(value),
                Err(cause) => return trap(cause, a, pc()),
            },
            Op::ScW => match store_conditional(bus, reservation, a, low(b)) {
                Ok(failed) => set!(failed),
                Err(cause) => return trap(cause, a, pc()),
            },
            Op::ScD => match store_conditional(bus, reservation, a, b) {
                Ok(failed) => set!(failed),
                Err(cause) => return trap(cause, a, pc()),
            },
            Op::AmoswapW => amo!(u32, word, |_, new| new),
            Op::AmoaddW => amo!(u32, word, u32::wrapping_add),
            Op::AmoxorW => amo!(u32, word, |old, new| old ^ new),
            Op::AmoandW => amo!(u32, word, |old, new| old & new),
            Op::AmoorW => amo!(u32, word, |old, new| old | new),
            Op::AmominW => amo!(u32, word, |old: u32, new: u32| {
                old.cast_signed().min(new.cast_signed()).cast_unsigned()
            }),
            Op::AmomaxW => amo!(u32, word, |old: u32, new: u32| {
                old.cast_signed().max(new.cast_signed()).cast_unsigned()
            }),
            Op::AmominuW => amo!(u32, word, u32::min),
            Op::AmomaxuW => amo!(u32, word, u32::max),
            Op::AmoswapD => amo!(u64, |v| v, |_, new| new),
            Op::AmoaddD => amo!(u64, |v| v, u64::wrapping_add),
            Op::AmoxorD => amo!(u64, |v| v, |old, new| old ^ new),
            Op::AmoandD => amo!(u64, |v| v, |old, new| old & new),
            Op::AmoorD => amo!(u64, |v| v, |old, new| old | new),
            Op::AmominD => amo!(u64, |v| v, |old: u64, new: u64| {
                old.cast_signed().min(new.cast_signed()).cast_unsigned()
            }),
            Op::AmomaxD => amo!(u64, |v| v, |old: u64, new: u64| {
                old.cast_signed().max(new.cast_signed()).cast_unsigned()
            }),
            Op::AmominuD => amo!(u64, |v| v, u64::min),
            Op::AmomaxuD => amo!(u64, |v| v, u64::max),

            Op::Fence => std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst),
            Op::Ecall => return trap(Cause::EcallMachine, 0, pc()),
            Op::Ebreak => return trap(Cause::Breakpoint, pc(), pc()),
            Op::FenceI
            | Op::Mret
            | Op::Wfi
            | Op::Csrrw
            | Op::Csrrs
            | Op::Csrrc
            | Op::Csrrwi
            | Op::Csrrsi
            | Op::Csrrci => return Exit::System(*insn, pc()),
        }
    }
    Exit::Jump(block.end)
}

#[cold]
fn trap(cause: Cause, value: u64, pc: u64) -> Exit {
    Exit::Trap { cause, value, pc }
}

/// A word, sign-extended.
#[inline]
fn word(value: u32) -> u64 {
    i64::from(value.cast_signed()).cast_unsigned()
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
fn low(value: u64) -> u32 {
    value as u32
}

/// The low word, sign-extended.
#[inline]
fn signed_low(value: u64) -> i64 {
    low(value).cast_signed().into()
}

#[inline]
fn high(product: i128) -> u64 {
    (product.cast_unsigned() >> 64) as u64
}

/// Division by zero gives all ones, the quotient that does not fit is the dividend.
#[inline]
fn div(a: i64, b: i64) -> u64 {
    let quotient = if b == 0 { -1 } else { a.wrapping_div(b) };
    quotient.cast_unsigned()
}

#[inline]
fn rem(a: i64, b: i64) -> u64 {
    let remainder = if b == 0 { a } else { a.wrapping_rem(b) };
    remainder.cast_unsigned()
}

fn amo<T: Value>(bus: &Bus<'_>, address: u64, change: impl Fn(T) -> T) -> Result<T, Cause> {
    if !address.is_multiple_of(T::BYTES) {
        return Err(Cause::AtomicMisaligned);
    }
    bus.update(address, change).ok_or(Cause::StoreAccess)
}

fn reserve<T: Value>(
    bus: &Bus<'_>,
    reservation: &mut Reservation,
    address: u64,
) -> Result<T, Cause> {
    if !address.is_multiple_of(T::BYTES) {
        return Err(Cause::LoadMisaligned);
    }
    let value: T = bus.load(address).map_err(|_| Cause::LoadAccess)?;
    *reservation = Reservation {
        address,
        value: value.widen(),
    };
    Ok(value)
}

/// Stores if the memory still holds what was reserved: 0, or 1 if not. As QEMU does it, so that a reservation means the
/// same on both ends.
fn store_conditional<T: Value>(
    bus: &Bus<'_>,
    reservation: &mut Reservation,
    address: u64,
    value: T,
) -> Result<u64, Cause> {
    if !address.is_multiple_of(T::BYTES) {
        return Err(Cause::StoreMisaligned);
    }
    let held = std::mem::replace(
        reservation,
        Reservation {
            address: NO_RESERVATION,
            ..*reservation
        },
    );
    if held.address != address {
        return Ok(1);
    }
    let stored = bus
        .store_if(address, T::truncate(held.value), value)
        .ok_or(Cause::StoreAccess)?;
    Ok(u64::from(!stored))
}
