//! Identify data of namespaces: what the guest is told about them.

use vmstate_derive::VmState;

use crate::array::Array;

/// Identify data of a namespace, `nvme_id_ns`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme_id_ns", version = 1, minimum_version = 1)]
pub struct IdNs {
    /// Size in blocks.
    pub nsze: u64,
    /// Capacity in blocks.
    pub ncap: u64,
    /// Blocks in use.
    pub nuse: u64,
    /// Features.
    pub nsfeat: u8,
    /// Number of formats, less one.
    pub nlbaf: u8,
    /// The format in use.
    pub flbas: u8,
    /// How metadata can be transferred.
    pub mc: u8,
    /// Kinds of end-to-end protection.
    pub dpc: u8,
    /// End-to-end protection in use.
    pub dps: u8,
    /// Whether several controllers may have the namespace.
    pub nmic: u8,
    /// Kinds of reservations.
    pub rescap: u8,
    /// Progress of formatting.
    pub fpi: u8,
    /// What reading a deallocated block gives.
    pub dlfeat: u8,
    /// Blocks written atomically, less one.
    pub nawun: u16,
    /// Blocks written atomically when power fails, less one.
    pub nawupf: u16,
    /// Blocks compared and written atomically, less one.
    pub nacwu: u16,
    /// Blocks between atomic boundaries.
    pub nabsn: u16,
    /// Block of the first atomic boundary.
    pub nabo: u16,
    /// Blocks between atomic boundaries when power fails.
    pub nabspf: u16,
    /// Preferred boundary for reads and writes, in blocks.
    pub noiob: u16,
    /// Bytes of media.
    pub nvmcap: [u8; 16],
    /// Preferred granularity of writes, in blocks, less one.
    pub npwg: u16,
    /// Preferred alignment of writes, in blocks, less one.
    pub npwa: u16,
    /// Preferred granularity of deallocation, in blocks, less one.
    pub npdg: u16,
    /// Preferred alignment of deallocation, in blocks, less one.
    pub npda: u16,
    /// Preferred size of writes, in blocks, less one.
    pub nows: u16,
    /// Most blocks of one source range of a copy.
    pub mssrl: u16,
    /// Most blocks of one copy.
    pub mcl: u32,
    /// Most source ranges of one copy, less one.
    pub msrc: u8,
    /// Reserved.
    pub rsvd81: [u8; 18],
    /// Attributes.
    pub nsattr: u8,
    /// NVM set.
    pub nvmsetid: u16,
    /// Endurance group.
    pub endgid: u16,
    /// Globally unique identifier.
    pub nguid: [u8; 16],
    /// 64-bit globally unique identifier.
    pub eui64: u64,
    /// The formats.
    #[vmstate(since = 1)]
    pub lbaf: Array<LbaFormat, 64>,
    /// What the vendor likes.
    pub vs: Array<u8, 3712>,
}

/// Identify data of a namespace for the NVM command set, `nvme_id_ns_nvm`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme_id_ns_nvm", version = 1, minimum_version = 1)]
pub struct IdNsNvm {
    /// Mask of the storage tag.
    pub lbstm: u64,
    /// Kinds of protection information.
    pub pic: u8,
    /// Reserved.
    pub rsvd9: [u8; 3],
    /// The formats, continued.
    pub elbaf: Array<u32, 64>,
    /// Preferred granularity of deallocation, in blocks.
    pub npdgl: u32,
    /// Preferred granularity of reads, in blocks.
    pub nprg: u32,
    /// Preferred alignment of reads, in blocks.
    pub npra: u32,
    /// Preferred size of reads, in blocks.
    pub nors: u32,
    /// Preferred alignment of deallocation, in blocks.
    pub npdal: u32,
    /// Reserved.
    pub rsvd288: Array<u8, 3808>,
}

/// Identify data of a namespace that all command sets have in common, `nvme_id_ns_ind`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme_id_ns_ind", version = 1, minimum_version = 1)]
pub struct IdNsInd {
    /// Features.
    pub nsfeat: u8,
    /// Whether several controllers may have the namespace.
    pub nmic: u8,
    /// Kinds of reservations.
    pub rescap: u8,
    /// Progress of formatting.
    pub fpi: u8,
    /// Group for asymmetric access.
    pub anagrpid: u32,
    /// Attributes.
    pub nsattr: u8,
    /// Reserved.
    pub rsvd9: u8,
    /// NVM set.
    pub nvmsetid: u16,
    /// Endurance group.
    pub endgrpid: u16,
    /// Whether the namespace is ready.
    pub nstat: u8,
    /// Reserved.
    pub rsvd15: Array<u8, 4081>,
}

/// A format: size and metadata of a block, `nvme_lbaf`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme_lbaf", version = 1, minimum_version = 1)]
pub struct LbaFormat {
    /// Bytes of metadata per block.
    pub ms: u16,
    /// Bytes of data per block, as a power of two.
    pub ds: u8,
    /// Relative performance: 0 is best.
    pub rp: u8,
}
