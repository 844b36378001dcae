//! Extensions of a hart that the built-in one does not have. They are carried from stream to stream.

use vmstate::{Timer, VmState};

/// One region of physical memory protection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "cpu/pmp/entry", version = 2)]
pub struct PmpEntry {
    /// CSR `pmpaddr`.
    #[vmstate(name = "addr_reg")]
    pub address: u64,
    /// Its byte in `pmpcfg`.
    #[vmstate(name = "cfg_reg")]
    pub config: u8,
}

/// Subsection `cpu/pmp`. Physical memory protection.
#[derive(Debug, Clone, PartialEq, Eq, VmState)]
#[vmstate(name = "cpu/pmp", version = 2)]
pub struct Pmp {
    /// The regions.
    #[vmstate(name = "env.pmp_state.pmp")]
    pub entries: [PmpEntry; 64],
}

impl Default for Pmp {
    fn default() -> Self {
        Self {
            entries: [PmpEntry::default(); 64],
        }
    }
}

/// Subsection `cpu/hyper`. The hypervisor extension.
#[derive(Debug, Clone, PartialEq, Eq, VmState)]
#[vmstate(name = "cpu/hyper", version = 5)]
pub struct Hypervisor {
    /// CSR `hstatus`.
    #[vmstate(name = "env.hstatus")]
    pub hstatus: u64,
    /// CSR `hedeleg`.
    #[vmstate(name = "env.hedeleg")]
    pub hedeleg: u64,
    /// CSR `hideleg`.
    #[vmstate(name = "env.hideleg")]
    pub hideleg: u64,
    /// CSR `hcounteren`.
    #[vmstate(name = "env.hcounteren")]
    pub hcounteren: u32,
    /// CSR `htval`.
    #[vmstate(name = "env.htval")]
    pub htval: u64,
    /// CSR `htinst`.
    #[vmstate(name = "env.htinst")]
    pub htinst: u64,
    /// CSR `hgatp`.
    #[vmstate(name = "env.hgatp")]
    pub hgatp: u64,
    /// CSR `hgeie`.
    #[vmstate(name = "env.hgeie")]
    pub hgeie: u64,
    /// CSR `hgeip`.
    #[vmstate(name = "env.hgeip")]
    pub hgeip: u64,
    /// CSR `hvien`.
    #[vmstate(name = "env.hvien")]
    pub hvien: u64,
    /// CSR `hvip`.
    #[vmstate(name = "env.hvip")]
    pub hvip: u64,
    /// CSR `htimedelta`.
    #[vmstate(name = "env.htimedelta")]
    pub htimedelta: u64,
    /// CSR `vstimecmp`.
    #[vmstate(name = "env.vstimecmp")]
    pub vstimecmp: u64,
    /// CSR `hvictl`.
    #[vmstate(name = "env.hvictl")]
    pub hvictl: u32,
    /// Priorities of interrupts (AIA).
    #[vmstate(name = "env.hviprio")]
    pub hviprio: [u8; 64],
    /// CSR `vsstatus`.
    #[vmstate(name = "env.vsstatus")]
    pub vsstatus: u64,
    /// CSR `vstvec`.
    #[vmstate(name = "env.vstvec")]
    pub vstvec: u64,
    /// CSR `vsscratch`.
    #[vmstate(name = "env.vsscratch")]
    pub vsscratch: u64,
    /// CSR `vsepc`.
    #[vmstate(name = "env.vsepc")]
    pub vsepc: u64,
    /// CSR `vscause`.
    #[vmstate(name = "env.vscause")]
    pub vscause: u64,
    /// CSR `vstval`.
    #[vmstate(name = "env.vstval")]
    pub vstval: u64,
    /// CSR `vsatp`.
    #[vmstate(name = "env.vsatp")]
    pub vsatp: u64,
    /// CSR `vsiselect`.
    #[vmstate(name = "env.vsiselect")]
    pub vsiselect: u16,
    /// CSR `vsie`.
    #[vmstate(name = "env.vsie")]
    pub vsie: u64,
    /// CSR `mtval2`.
    #[vmstate(name = "env.mtval2")]
    pub mtval2: u64,
    /// CSR `mtinst`.
    #[vmstate(name = "env.mtinst")]
    pub mtinst: u64,
    /// `stvec` while a guest runs.
    #[vmstate(name = "env.stvec_hs")]
    pub stvec_hs: u64,
    /// `sscratch` while a guest runs.
    #[vmstate(name = "env.sscratch_hs")]
    pub sscratch_hs: u64,
    /// `sepc` while a guest runs.
    #[vmstate(name = "env.sepc_hs")]
    pub sepc_hs: u64,
    /// `scause` while a guest runs.
    #[vmstate(name = "env.scause_hs")]
    pub scause_hs: u64,
    /// `stval` while a guest runs.
    #[vmstate(name = "env.stval_hs")]
    pub stval_hs: u64,
    /// `satp` while a guest runs.
    #[vmstate(name = "env.satp_hs")]
    pub satp_hs: u64,
    /// `mstatus` while a guest runs.
    #[vmstate(name = "env.mstatus_hs")]
    pub mstatus_hs: u64,
}

impl Default for Hypervisor {
    fn default() -> Self {
        Self {
            hstatus: 0,
            hedeleg: 0,
            hideleg: 0,
            hcounteren: 0,
            htval: 0,
            htinst: 0,
            hgatp: 0,
            hgeie: 0,
            hgeip: 0,
            hvien: 0,
            hvip: 0,
            htimedelta: 0,
            vstimecmp: 0,
            hvictl: 0,
            hviprio: [0; 64],
            vsstatus: 0,
            vstvec: 0,
            vsscratch: 0,
            vsepc: 0,
            vscause: 0,
            vstval: 0,
            vsatp: 0,
            vsiselect: 0,
            vsie: 0,
            mtval2: 0,
            mtinst: 0,
            stvec_hs: 0,
            sscratch_hs: 0,
            sepc_hs: 0,
            scause_hs: 0,
            stval_hs: 0,
            satp_hs: 0,
            mstatus_hs: 0,
        }
    }
}

/// Subsection `cpu/vector`. The vector extension.
#[derive(Debug, Clone, PartialEq, Eq, VmState)]
#[vmstate(name = "cpu/vector", version = 3)]
pub struct Vector {
    /// `v0` to `v31`, 1024 bits each at most: 16 words apiece.
    #[vmstate(name = "env.vreg")]
    pub vreg: [u64; 512],
    /// CSR `vtype`, without its bit for an illegal value.
    #[vmstate(name = "env.vtype")]
    pub vtype: u64,
    /// CSR `vl`.
    #[vmstate(name = "env.vl")]
    pub vl: u32,
    /// CSR `vstart`.
    #[vmstate(name = "env.vstart")]
    pub vstart: u32,
    /// CSR `vxrm`.
    #[vmstate(name = "env.vxrm")]
    pub vxrm: u8,
    /// CSR `vxsat`.
    #[vmstate(name = "env.vxsat")]
    pub vxsat: u8,
    /// Whether `vtype` is illegal.
    #[vmstate(name = "env.vill")]
    pub vill: bool,
}

impl Default for Vector {
    fn default() -> Self {
        Self {
            vreg: [0; 512],
            vtype: 0,
            vl: 0,
            vstart: 0,
            vxrm: 0,
            vxsat: 0,
            vill: false,
        }
    }
}

/// Subsection `cpu/envcfg`. What less privileged modes may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "cpu/envcfg", version = 2)]
pub struct EnvironmentConfig {
    /// CSR `menvcfg`.
    #[vmstate(name = "env.menvcfg")]
    pub menvcfg: u64,
    /// CSR `senvcfg`.
    #[vmstate(name = "env.senvcfg")]
    pub senvcfg: u64,
    /// CSR `henvcfg`.
    #[vmstate(name = "env.henvcfg")]
    pub henvcfg: u64,
}

/// Subsection `cpu/debug`. Debug triggers.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "cpu/debug", version = 4)]
pub struct Debug {
    /// CSR `mcontext`.
    #[vmstate(name = "env.mcontext")]
    pub mcontext: u16,
    /// CSR `tselect`.
    #[vmstate(name = "env.trigger_cur")]
    pub trigger_cur: u8,
    /// CSR `tdata1` of each trigger.
    #[vmstate(name = "env.tdata1")]
    pub tdata1: [u64; 2],
    /// CSR `tdata2` of each trigger.
    #[vmstate(name = "env.tdata2")]
    pub tdata2: [u64; 2],
    /// CSR `tdata3` of each trigger.
    #[vmstate(name = "env.tdata3")]
    pub tdata3: [u64; 2],
}

/// Subsection `cpu/smtateen`. Which state less privileged modes may use. The name is misspelt in QEMU.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "cpu/smtateen", version = 1)]
pub struct StateEnable {
    /// CSRs `mstateen0` and up.
    #[vmstate(name = "env.mstateen")]
    pub mstateen: [u64; 4],
    /// CSRs `hstateen0` and up.
    #[vmstate(name = "env.hstateen")]
    pub hstateen: [u64; 4],
    /// CSRs `sstateen0` and up.
    #[vmstate(name = "env.sstateen")]
    pub sstateen: [u64; 4],
}

/// Subsection `cpu/elp`. Whether a landing pad is expected (Zicfilp).
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "cpu/elp", version = 1)]
pub struct LandingPad {
    /// Whether the next instruction must be a landing pad.
    #[vmstate(name = "env.elp")]
    pub elp: bool,
}

/// Subsection `cpu/ssp`. Shadow stack (Zicfiss).
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "cpu/ssp", version = 2)]
pub struct ShadowStack {
    /// CSR `ssp`: the stack pointer.
    #[vmstate(name = "env.ssp")]
    pub ssp: u64,
}

/// Subsection `cpu/ctr`. Control transfer records (Smctr).
#[derive(Debug, Clone, PartialEq, Eq, VmState)]
#[vmstate(name = "cpu/ctr", version = 1)]
pub struct ControlTransferRecords {
    /// CSR `mctrctl`.
    #[vmstate(name = "env.mctrctl")]
    pub mctrctl: u64,
    /// CSR `sctrdepth`.
    #[vmstate(name = "env.sctrdepth")]
    pub sctrdepth: u32,
    /// CSR `sctrstatus`.
    #[vmstate(name = "env.sctrstatus")]
    pub sctrstatus: u32,
    /// CSR `vsctrctl`.
    #[vmstate(name = "env.vsctrctl")]
    pub vsctrctl: u64,
    /// Where transfers came from.
    #[vmstate(name = "env.ctr_src")]
    pub ctr_src: [u64; 256],
    /// Where they went.
    #[vmstate(name = "env.ctr_dst")]
    pub ctr_dst: [u64; 256],
    /// Kinds and cycles.
    #[vmstate(name = "env.ctr_data")]
    pub ctr_data: [u64; 256],
}

impl Default for ControlTransferRecords {
    fn default() -> Self {
        Self {
            mctrctl: 0,
            sctrdepth: 0,
            sctrstatus: 0,
            vsctrctl: 0,
            ctr_src: [0; 256],
            ctr_dst: [0; 256],
            ctr_data: [0; 256],
        }
    }
}

/// Subsection `cpu/timer`. Timers of supervisor mode (Sstc).
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "cpu/timer", version = 1)]
pub struct SupervisorTimers {
    /// When the timer of supervisor mode is due, in ns of virtual time.
    #[vmstate(name = "env.stimer")]
    pub stimer: Timer,
    /// When the timer of the virtual supervisor mode is due, in ns of virtual time.
    #[vmstate(name = "env.vstimer")]
    pub vstimer: Timer,
}

/// Subsection `cpu/mseccfg`. Security configuration of machine mode.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "cpu/mseccfg", version = 1)]
pub struct SecurityConfig {
    /// CSR `mseccfg`.
    #[vmstate(name = "env.mseccfg")]
    pub mseccfg: u64,
}
