//! Section `cpu` of a RISC-V hart.

use vmstate::{Reason, VmState};

use super::extensions::{
    ControlTransferRecords, Debug as DebugTriggers, EnvironmentConfig, Hypervisor, LandingPad, Pmp,
    SecurityConfig, ShadowStack, StateEnable, SupervisorTimers, Vector,
};

/// What a hart has of its own, as QEMU 11.1 sends it.
///
/// The built-in hart uses the integer registers, the program counter, the reservation and the machine-mode CSRs. The rest
/// is carried: what arrived goes out again unchanged, and what a machine began with is what QEMU's harts begin with.
///
/// Wire: QEMU 11.1, section `cpu` version 12, `vectors/streams/spike-11.1.main.bin.zst`.
#[derive(Debug, Clone, PartialEq, Eq, VmState)]
#[vmstate(name = "cpu", version = 12, post_load = Self::check)]
pub struct Cpu {
    /// `x0` to `x31`.
    #[vmstate(name = "env.gpr")]
    pub gpr: [u64; 32],
    /// `f0` to `f31`.
    #[vmstate(name = "env.fpr")]
    pub fpr: [u64; 32],
    /// Priorities of interrupts in machine mode (AIA).
    #[vmstate(name = "env.miprio")]
    pub miprio: [u8; 64],
    /// Priorities of interrupts in supervisor mode (AIA).
    #[vmstate(name = "env.siprio")]
    pub siprio: [u8; 64],
    /// Address of the next instruction.
    #[vmstate(name = "env.pc")]
    pub pc: u64,
    /// Address of the reservation; all ones without one.
    #[vmstate(name = "env.load_res")]
    pub load_res: u64,
    /// What was loaded with the reservation.
    #[vmstate(name = "env.load_val")]
    pub load_val: u64,
    /// Rounding mode.
    #[vmstate(name = "env.frm")]
    pub frm: u8,
    /// Address of the last fault, on its way to `mtval`.
    #[vmstate(name = "env.badaddr")]
    pub badaddr: u64,
    /// Guest physical address of the last fault (hypervisor).
    #[vmstate(name = "env.guest_phys_fault_addr")]
    pub guest_phys_fault_addr: u64,
    /// Version of the privileged architecture, in QEMU's numbering.
    #[vmstate(name = "env.priv_ver")]
    pub priv_ver: u32,
    /// Version of the vector extension.
    #[vmstate(name = "env.vext_ver")]
    pub vext_ver: u32,
    /// Width of registers: 1 for 32 bits, 2 for 64.
    #[vmstate(name = "env.misa_mxl")]
    pub misa_mxl: u32,
    /// Extensions in use, a bit for each letter.
    #[vmstate(name = "env.misa_ext")]
    pub misa_ext: u32,
    #[vmstate(unused = 4)]
    #[doc(hidden)]
    pub _misa_mxl_max: (),
    /// Extensions that there are.
    #[vmstate(name = "env.misa_ext_mask")]
    pub misa_ext_mask: u32,
    /// Privilege mode: 3 is machine mode.
    #[vmstate(name = "env.priv")]
    pub privilege: u8,
    /// Whether a guest of the hypervisor extension runs.
    #[vmstate(name = "env.virt_enabled")]
    pub virt_enabled: bool,
    /// Where the hart begins.
    #[vmstate(name = "env.resetvec")]
    pub resetvec: u64,
    /// Number of the hart.
    #[vmstate(name = "env.mhartid")]
    pub mhartid: u64,
    /// CSR `mstatus`, without its summary bit SD.
    #[vmstate(name = "env.mstatus")]
    pub mstatus: u64,
    /// CSR `mip`: pending interrupts.
    #[vmstate(name = "env.mip")]
    pub mip: u64,
    /// Interrupts that a device drives, so that the guest cannot clear them.
    #[vmstate(name = "env.miclaim")]
    pub miclaim: u64,
    /// CSR `mie`: enabled interrupts.
    #[vmstate(name = "env.mie")]
    pub mie: u64,
    /// CSR `mvien` (AIA).
    #[vmstate(name = "env.mvien")]
    pub mvien: u64,
    /// CSR `mvip` (AIA).
    #[vmstate(name = "env.mvip")]
    pub mvip: u64,
    /// CSR `sie`, where it is apart from `mie`.
    #[vmstate(name = "env.sie")]
    pub sie: u64,
    /// CSR `mideleg`.
    #[vmstate(name = "env.mideleg")]
    pub mideleg: u64,
    /// CSR `satp`.
    #[vmstate(name = "env.satp")]
    pub satp: u64,
    /// CSR `stval`.
    #[vmstate(name = "env.stval")]
    pub stval: u64,
    /// CSR `medeleg`.
    #[vmstate(name = "env.medeleg")]
    pub medeleg: u64,
    /// CSR `stvec`.
    #[vmstate(name = "env.stvec")]
    pub stvec: u64,
    /// CSR `sepc`.
    #[vmstate(name = "env.sepc")]
    pub sepc: u64,
    /// CSR `scause`.
    #[vmstate(name = "env.scause")]
    pub scause: u64,
    /// CSR `mtvec`.
    #[vmstate(name = "env.mtvec")]
    pub mtvec: u64,
    /// CSR `mepc`.
    #[vmstate(name = "env.mepc")]
    pub mepc: u64,
    /// CSR `mcause`.
    #[vmstate(name = "env.mcause")]
    pub mcause: u64,
    /// CSR `mtval`.
    #[vmstate(name = "env.mtval")]
    pub mtval: u64,
    /// CSR `miselect` (AIA).
    #[vmstate(name = "env.miselect")]
    pub miselect: u16,
    /// CSR `siselect` (AIA).
    #[vmstate(name = "env.siselect")]
    pub siselect: u16,
    /// CSR `scounteren`.
    #[vmstate(name = "env.scounteren")]
    pub scounteren: u32,
    /// CSR `mcounteren`.
    #[vmstate(name = "env.mcounteren")]
    pub mcounteren: u32,
    /// CSR `scountinhibit`.
    #[vmstate(name = "env.scountinhibit")]
    pub scountinhibit: u32,
    /// CSR `mcountinhibit`.
    #[vmstate(name = "env.mcountinhibit")]
    pub mcountinhibit: u32,
    /// Performance counters; 0 is `mcycle`, 2 is `minstret`.
    #[vmstate(name = "env.pmu_ctrs")]
    pub pmu_ctrs: [Counter; 32],
    /// CSRs `mhpmevent3` and up.
    #[vmstate(name = "env.mhpmevent_val")]
    pub mhpmevent_val: [u64; 32],
    /// CSR `sscratch`.
    #[vmstate(name = "env.sscratch")]
    pub sscratch: u64,
    /// CSR `mscratch`.
    #[vmstate(name = "env.mscratch")]
    pub mscratch: u64,
    /// CSR `stimecmp`.
    #[vmstate(name = "env.stimecmp")]
    pub stimecmp: u64,
    #[vmstate(skip = "number of this hart, configured on both ends")]
    #[doc(hidden)]
    pub hart: u64,
    /// Physical memory protection.
    #[vmstate(subsection)]
    pub pmp: Option<Pmp>,
    /// The hypervisor extension.
    #[vmstate(subsection)]
    pub hypervisor: Option<Hypervisor>,
    /// The vector extension.
    #[vmstate(subsection)]
    pub vector: Option<Vector>,
    /// `menvcfg` and its like.
    #[vmstate(subsection)]
    pub environment: Option<EnvironmentConfig>,
    /// Debug triggers.
    #[vmstate(subsection)]
    pub debug: Option<DebugTriggers>,
    /// `mstateen0` and its like.
    #[vmstate(subsection)]
    pub state_enable: Option<StateEnable>,
    /// Expected landing pad.
    #[vmstate(subsection)]
    pub landing_pad: Option<LandingPad>,
    /// Shadow stack.
    #[vmstate(subsection)]
    pub shadow_stack: Option<ShadowStack>,
    /// Control transfer records.
    #[vmstate(subsection)]
    pub records: Option<ControlTransferRecords>,
    /// Timers of supervisor mode.
    #[vmstate(subsection)]
    pub timers: Option<SupervisorTimers>,
    /// `mseccfg`.
    #[vmstate(subsection)]
    pub security: Option<SecurityConfig>,
}

/// One performance counter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "cpu/pmu", version = 3)]
pub struct Counter {
    /// Value when it was written or stopped.
    #[vmstate(name = "mhpmcounter_val")]
    pub value: u64,
    /// What the host's counter was then.
    #[vmstate(name = "mhpmcounter_prev")]
    pub previous: u64,
}

/// No reservation.
pub const NO_RESERVATION: u64 = u64::MAX;

/// Machine mode.
pub const MACHINE_MODE: u8 = 3;

impl Cpu {
    /// A hart after reset, as QEMU's `-cpu max`: it begins in the boot ROM in machine mode.
    #[must_use]
    pub fn reset(hart: u64) -> Self {
        Self {
            gpr: [0; 32],
            fpr: [0; 32],
            miprio: super::priorities::MACHINE,
            siprio: super::priorities::SUPERVISOR,
            pc: crate::board::RESET_VECTOR,
            load_res: NO_RESERVATION,
            load_val: 0,
            frm: 0,
            badaddr: 0,
            guest_phys_fault_addr: 0,
            priv_ver: 3,
            vext_ver: 0x1_0000,
            misa_mxl: 2,
            misa_ext: MISA,
            _misa_mxl_max: (),
            misa_ext_mask: MISA,
            privilege: MACHINE_MODE,
            virt_enabled: false,
            resetvec: crate::board::RESET_VECTOR,
            mhartid: hart,
            // UXL and SXL: 64 bits.
            mstatus: 0xa_0000_0000,
            mip: 0,
            // The supervisor's external interrupt of a guest (SGEIP) is driven.
            miclaim: 0x1000,
            mie: 0,
            mvien: 0,
            mvip: 0,
            sie: 0,
            // Interrupts of the hypervisor extension, which are always delegated.
            mideleg: 0x1444,
            satp: 0,
            stval: 0,
            medeleg: 0,
            stvec: 0,
            sepc: 0,
            scause: 0,
            mtvec: 0,
            mepc: 0,
            mcause: 0,
            mtval: 0,
            miselect: 0,
            siselect: 0,
            scounteren: 0,
            mcounteren: 0,
            scountinhibit: 0,
            mcountinhibit: 0,
            pmu_ctrs: [Counter::default(); 32],
            mhpmevent_val: [0; 32],
            sscratch: 0,
            mscratch: 0,
            stimecmp: 0,
            hart,
            pmp: None,
            hypervisor: None,
            vector: None,
            environment: None,
            debug: None,
            state_enable: None,
            landing_pad: None,
            shadow_stack: None,
            records: None,
            timers: None,
            security: None,
        }
    }

    /// Whether the built-in hart can go on from here.
    fn check(&mut self, _version: u32) -> Result<(), Reason> {
        if self.mhartid != self.hart {
            let reason = format!("hart {} came for hart {}", self.mhartid, self.hart);
            return Err(reason.into());
        }
        if self.misa_mxl != 2 {
            return Err(format!("registers of width {}, not 2 (64 bits)", self.misa_mxl).into());
        }
        if self.privilege != MACHINE_MODE || self.virt_enabled {
            let reason = format!(
                "mode {}, and the hart knows machine mode only",
                self.privilege
            );
            return Err(reason.into());
        }
        Ok(())
    }
}

/// Letters A, B, C, D, F, G's parts, H, I, M, S, U, V: what `-cpu max` has.
const MISA: u32 = 0x34_11ef;
