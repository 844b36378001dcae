//! A hart: RV64IMAC with Zicsr and Zifencei in machine mode, interpreted.

mod block;
mod bus;
mod compressed;
mod csr;
mod decode;
mod exec;
mod insn;
mod line;

use std::time::Duration;

use crate::clint::Concerns;
use crate::error::GuestError;
use crate::htif::Request;
use crate::machine::Shared;
use crate::state::{Cpu, CpuCommon, INTERRUPT_HARD, MACHINE_MODE, NO_RESERVATION};

use self::block::{Blocks, NoBlock};
use self::bus::{Bus, Effect};
use self::exec::{Cause, Exit};
use self::insn::{Insn, Op};
pub(crate) use self::line::Line;

/// A register that takes what is written to register 0.
const SINK: u8 = 32;

/// Blocks between two looks at the clock.
const BUDGET: u32 = 1024;

/// Running time after which a throttled hart sleeps. QEMU: `CPU_THROTTLE_TIMESLICE_NS`.
const SLICE_NS: i64 = 10_000_000;

/// Machine software interrupt, as a bit of `mip`.
const MSIP: u64 = 1 << 3;
/// Machine timer interrupt.
const MTIP: u64 = 1 << 7;

/// The integer registers; those from 32 on are nobody's, so that every index is inside.
#[derive(Debug)]
pub(crate) struct Registers([u64; 64]);

impl Registers {
    #[inline]
    fn get(&self, register: u8) -> u64 {
        self.0[usize::from(register & 63)]
    }

    #[inline]
    fn set(&mut self, register: u8, value: u64) {
        self.0[usize::from(register & 63)] = value;
    }

    fn load(gpr: &[u64; 32]) -> Self {
        let mut all = [0; 64];
        all[1..32].copy_from_slice(&gpr[1..]);
        Self(all)
    }

    fn save(&self) -> [u64; 32] {
        std::array::from_fn(|i| self.0[i])
    }
}

/// What `lr` has reserved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reservation {
    address: u64,
    value: u64,
}

/// A hart that stands still.
#[derive(Debug, Clone)]
pub(crate) struct Resting {
    pub(crate) cpu: Cpu,
    pub(crate) common: CpuCommon,
}

impl Resting {
    pub(crate) fn reset(hart: u64) -> Self {
        Self {
            cpu: Cpu::reset(hart),
            common: CpuCommon::default(),
        }
    }

    /// Puts into the sections what devices and other sections have a part in.
    pub(crate) fn refresh(&mut self, shared: &Shared, hart: usize, now: i64) {
        self.cpu.mip = pending(shared, hart, self.cpu.mip, now);
        self.common.interrupt_request = if self.cpu.mip == 0 { 0 } else { INTERRUPT_HARD };
    }
}

/// `mip`, with the devices' part in it.
fn pending(shared: &Shared, hart: usize, mip: u64, now: i64) -> u64 {
    let mut mip = mip & !(MSIP | MTIP);
    if shared.clint.software_pending(hart) {
        mip |= MSIP;
    }
    if shared.clint.timer_pending(hart, now) {
        mip |= MTIP;
    }
    mip
}

/// The interrupt that a hart in machine mode takes, by the architecture's order.
fn chosen(cpu: &Cpu, mip: u64) -> Option<u32> {
    /// External, software, timer; of machine mode, then of supervisor mode.
    const ORDER: [u32; 6] = [11, 3, 7, 9, 1, 5];
    if cpu.mstatus & csr::MIE == 0 {
        return None;
    }
    let ready = mip & cpu.mie & !cpu.mideleg;
    ORDER.into_iter().find(|cause| ready >> cause & 1 == 1)
}

/// One hart while it runs.
pub(crate) struct Hart<'s> {
    shared: &'s Shared,
    index: usize,
    blocks: Blocks,
}

/// A running hart's state.
struct Active<'s, 'c> {
    shared: &'s Shared,
    index: usize,
    bus: Bus<'s>,
    x: Registers,
    pc: u64,
    reservation: Reservation,
    cpu: &'c mut Cpu,
    halted: bool,
    slice_start: i64,
    executed: u64,
}

/// The hart has met something that it does not do.
type Fatal = GuestError;

impl<'s> Hart<'s> {
    pub(crate) fn new(shared: &'s Shared, index: usize) -> Self {
        Self {
            shared,
            index,
            blocks: Blocks::new(),
        }
    }

    /// Runs from where the state says until it is told to stop; the state then says where it has come to.
    ///
    /// # Errors
    /// What the hart does not have; the state is that before the instruction.
    pub(crate) fn run(&mut self, resting: &mut Resting) -> Result<(), Fatal> {
        // Others may have written to memory.
        self.blocks.clear();
        let shared = self.shared;
        let clock = shared.clock.view();
        let Resting { cpu, common } = resting;
        let mut active = Active {
            shared,
            index: self.index,
            bus: Bus::new(&shared.memory, &shared.clint, &shared.htif, clock),
            x: Registers::load(&cpu.gpr),
            pc: cpu.pc & !1,
            reservation: Reservation {
                address: cpu.load_res,
                value: cpu.load_val,
            },
            cpu,
            halted: common.halted != 0,
            slice_start: clock.now(),
            executed: 0,
        };
        let result = active.run(&mut self.blocks);
        let line = shared.line(self.index);
        line.count(active.executed);
        common.halted = active.halted.into();
        // Of the one who ran before.
        common.exception = None;
        let Active {
            x, pc, reservation, ..
        } = active;
        cpu.gpr = x.save();
        cpu.pc = pc;
        cpu.load_res = reservation.address;
        cpu.load_val = reservation.value;
        result
    }
}

impl Active<'_, '_> {
    fn run(&mut self, blocks: &mut Blocks) -> Result<(), Fatal> {
        let line = self.shared.line(self.index);
        loop {
            line.count(std::mem::take(&mut self.executed));
            if line.take_events() {
                return Ok(());
            }
            let now = self.bus.clock.now();
            if self.throttled(now) {
                continue;
            }
            let mip = pending(self.shared, self.index, self.cpu.mip, now);
            if mip & self.cpu.mie != 0 {
                self.halted = false;
            }
            if self.halted {
                self.sleep(now);
                continue;
            }
            if let Some(cause) = chosen(self.cpu, mip) {
                self.enter_trap(1 << 63 | u64::from(cause), 0, self.pc);
            }
            self.work(blocks, line)?;
        }
    }

    /// Executes blocks until there is a reason to look up.
    fn work(&mut self, blocks: &mut Blocks, line: &Line) -> Result<(), Fatal> {
        let mut budget = BUDGET;
        loop {
            let bus = self.bus;
            let block = match blocks.at(self.pc, |address| bus.code(address)) {
                Ok(block) => block,
                Err(NoBlock::Access(address)) => return self.no_code(address),
                Err(NoBlock::Unknown(unknown)) => {
                    return Err(GuestError::Instruction {
                        hart: self.index,
                        pc: self.pc,
                        instruction: unknown.0,
                    });
                }
            };
            let exit = loop {
                let exit = exec::run(block, &mut self.x, &mut self.reservation, &self.bus);
                self.executed += block.insns.len() as u64;
                budget -= 1;
                // A loop of one block needs no look-up.
                if exit != Exit::Jump(block.start) || budget == 0 || line.has_events() {
                    break exit;
                }
            };
            match exit {
                Exit::Jump(next) => {
                    self.pc = next;
                    if budget == 0 || line.has_events() {
                        return Ok(());
                    }
                }
                Exit::Effect(effect, next) => return self.effect(effect, next),
                Exit::Trap {
                    cause: Cause::AtomicMisaligned,
                    value,
                    pc,
                } => {
                    self.pc = pc;
                    return Err(GuestError::Atomic {
                        hart: self.index,
                        pc,
                        address: value,
                    });
                }
                Exit::Trap { cause, value, pc } => {
                    self.enter_trap(cause as u64, value, pc);
                    return Ok(());
                }
                Exit::System(insn, pc) => return self.system(insn, pc, blocks),
            }
        }
    }

    fn throttled(&mut self, now: i64) -> bool {
        let percent = i64::from(self.shared.throttle());
        if percent == 0 {
            self.slice_start = now;
            return false;
        }
        if now.saturating_sub(self.slice_start) < SLICE_NS {
            return false;
        }
        let sleep = SLICE_NS * percent / (100 - percent);
        let sleep = Duration::from_nanos(sleep.unsigned_abs());
        self.shared.line(self.index).pause(sleep);
        self.slice_start = self.bus.clock.now();
        true
    }

    /// Waits for an interrupt that is enabled, or to be told something.
    fn sleep(&mut self, now: i64) {
        let deadline = if self.cpu.mie & MTIP == 0 {
            None
        } else {
            self.shared.clint.deadline(self.index, now)
        };
        let time = deadline.map(|deadline| self.bus.clock.until(deadline));
        self.shared.line(self.index).sleep(time);
        // A hart that waited has not used its slice up.
        self.slice_start = self.bus.clock.now();
    }

    fn no_code(&mut self, address: u64) -> Result<(), Fatal> {
        if self.pc == self.cpu.mtvec & !3 {
            return Err(GuestError::TrapVector {
                hart: self.index,
                pc: self.cpu.mepc,
                vector: self.pc,
            });
        }
        self.enter_trap(Cause::FetchAccess as u64, address, self.pc);
        Ok(())
    }

    fn enter_trap(&mut self, cause: u64, value: u64, pc: u64) {
        let cpu = &mut *self.cpu;
        cpu.mepc = pc;
        cpu.mcause = cause;
        cpu.mtval = value;
        let enabled = cpu.mstatus & csr::MIE != 0;
        cpu.mstatus &= !(csr::MIE | csr::MPIE);
        cpu.mstatus |= csr::MPP_MACHINE;
        if enabled {
            cpu.mstatus |= csr::MPIE;
        }
        let base = cpu.mtvec & !3;
        let vectored = cpu.mtvec & 1 == 1 && cause >> 63 == 1;
        self.pc = if vectored {
            base.wrapping_add((cause & 0xff) * 4)
        } else {
            base
        };
        self.reservation.address = NO_RESERVATION;
    }

    fn effect(&mut self, effect: Effect, next: u64) -> Result<(), Fatal> {
        let at = self.pc;
        self.pc = next;
        match effect {
            // Faults are exceptions, which come another way.
            Effect::Fault | Effect::Wake(Concerns::Nobody) | Effect::Htif(Request::Nothing) => {}
            Effect::Wake(Concerns::Hart(hart)) => self.shared.wake(hart),
            Effect::Wake(Concerns::All) => {
                for hart in 0..self.shared.harts() {
                    self.shared.wake(hart);
                }
            }
            Effect::Htif(Request::Exit(status)) => self.shared.guest_exit(status),
            Effect::Htif(Request::Unsupported(command)) => {
                return Err(GuestError::Htif {
                    hart: self.index,
                    pc: at,
                    command,
                });
            }
        }
        Ok(())
    }

    fn system(&mut self, insn: Insn, pc: u64, blocks: &mut Blocks) -> Result<(), Fatal> {
        let next = pc.wrapping_add(insn.len.into());
        // Where an instruction is refused, the hart stands before it.
        self.pc = pc;
        match insn.op {
            Op::FenceI => {
                std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
                blocks.clear();
                self.pc = next;
            }
            Op::Wfi => {
                self.halted = true;
                self.pc = next;
            }
            Op::Mret => {
                let cpu = &mut *self.cpu;
                if cpu.mstatus & csr::MPP != csr::MPP_MACHINE {
                    return Err(GuestError::Mode {
                        hart: self.index,
                        pc,
                        mode: (cpu.mstatus & csr::MPP) >> 11,
                    });
                }
                let enabled = cpu.mstatus & csr::MPIE != 0;
                cpu.mstatus &= !(csr::MIE | csr::MPP);
                cpu.mstatus |= csr::MPIE;
                if enabled {
                    cpu.mstatus |= csr::MIE;
                }
                debug_assert_eq!(cpu.privilege, MACHINE_MODE);
                self.pc = cpu.mepc;
            }
            _ => {
                self.access_csr(insn)
                    .map_err(|csr::NoCsr| GuestError::Csr {
                        hart: self.index,
                        pc,
                        csr: insn.imm.cast_unsigned(),
                    })?;
                self.pc = next;
            }
        }
        Ok(())
    }

    fn access_csr(&mut self, insn: Insn) -> Result<(), csr::NoCsr> {
        let number = insn.imm.cast_unsigned();
        let mip = pending(self.shared, self.index, self.cpu.mip, self.bus.clock.now());
        let operand = match insn.op {
            Op::Csrrwi | Op::Csrrsi | Op::Csrrci => insn.rs1.into(),
            _ => self.x.get(insn.rs1),
        };
        let swap = matches!(insn.op, Op::Csrrw | Op::Csrrwi);
        // Setting or clearing with x0, or with 0, does not write; swapping into x0 does not read.
        let writes = swap || insn.rs1 != 0;
        let old = if swap && insn.rd == SINK {
            0
        } else {
            csr::read(self.cpu, number, mip)?
        };
        if writes {
            // Of `mip` only what software has set is changed.
            let base = if number == 0x344 { self.cpu.mip } else { old };
            let new = match insn.op {
                Op::Csrrw | Op::Csrrwi => operand,
                Op::Csrrs | Op::Csrrsi => base | operand,
                _ => base & !operand,
            };
            csr::write(self.cpu, number, new)?;
        }
        self.x.set(insn.rd, old);
        Ok(())
    }
}
