//! The namespace that a controller without subsystem has.

use vmstate_derive::VmState;
use vmstate_desc::{Reason, Tmp};

use super::identify::{IdNs, IdNsInd, IdNsNvm, LbaFormat};

/// A namespace, `nvme_ns`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme_ns", version = 1, minimum_version = 1)]
pub struct Namespace {
    /// Whether the backend's write cache is on.
    #[vmstate(tmp = WriteCache)]
    pub write_cache: bool,
    /// Identify data of the namespace.
    pub id_ns: IdNs,
    /// Identify data of the NVM command set.
    pub id_ns_nvm: IdNsNvm,
    /// Identify data that all command sets have in common.
    pub id_ns_ind: IdNsInd,
    /// The format in use.
    pub lbaf: LbaFormat,
    /// Formats that there are.
    pub nlbaf: u32,
    /// Command set.
    pub csi: u8,
    /// Status that commands get.
    pub status: u16,
    /// Format of the protection information.
    pub pif: u8,
    /// Zoned: size of the random write area, in blocks.
    #[vmstate(name = "zns.zrwas")]
    pub zns_zrwas: u16,
    /// Zoned: granularity of flushing the random write area, in blocks.
    #[vmstate(name = "zns.zrwafg")]
    pub zns_zrwafg: u16,
    /// Zoned: random write areas that there are.
    #[vmstate(name = "zns.numzrwa")]
    pub zns_numzrwa: u32,
    /// Feature: error recovery.
    #[vmstate(name = "features.err_rec")]
    pub err_rec: u32,
    /// What is written atomically.
    pub atomic: Atomic,
}

/// The write cache's state, `nvme_ns_tmp`: QEMU asks the backend for it while saving.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme_ns_tmp")]
pub struct WriteCache {
    /// Whether the cache is on.
    pub enable_write_cache: bool,
}

impl Tmp<Namespace> for WriteCache {
    fn capture(parent: &Namespace) -> Result<Self, Reason> {
        Ok(Self {
            enable_write_cache: parent.write_cache,
        })
    }

    fn apply(&self, parent: &mut Namespace) -> Result<(), Reason> {
        parent.write_cache = self.enable_write_cache;
        Ok(())
    }
}

/// What is written atomically, `nvme-atomic`.
#[derive(Debug, Clone, Default, PartialEq, Eq, VmState)]
#[vmstate(name = "nvme-atomic", version = 1, minimum_version = 1)]
pub struct Atomic {
    /// Blocks, at most.
    #[vmstate(name = "atomic_max_write_size")]
    pub max_write_size: u32,
    /// Blocks between two boundaries that an atomic write must not cross.
    #[vmstate(name = "atomic_boundary")]
    pub boundary: u64,
    /// Block of the first boundary.
    #[vmstate(name = "atomic_nabo")]
    pub boundary_offset: u64,
    /// Whether writes are atomic at all.
    #[vmstate(name = "atomic_writes")]
    pub enabled: bool,
}
