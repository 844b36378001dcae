//! Runs of instructions, decoded once.

use vmstate_linux::GuestRam;

use super::decode::decode;
use super::insn::{Insn, Unknown};

/// Most instructions of a block: bounds how long a hart goes without looking up.
const MOST: usize = 64;

/// Blocks that a hart keeps; each address has one place.
const PLACES: usize = 8192;

/// No block begins at an odd address.
const NOWHERE: u64 = 1;

/// Instructions that follow each other up to a jump.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) start: u64,
    /// Address behind the last instruction.
    pub(crate) end: u64,
    pub(crate) insns: Vec<Insn>,
}

/// Why there is no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoBlock {
    /// Nothing that can be executed is at this address.
    Access(u64),
    /// The first instruction is none that the hart has.
    Unknown(Unknown),
}

/// The blocks that one hart has decoded.
///
/// What is decoded stays until [`clear`](Self::clear): a guest that writes instructions must execute `fence.i` before it
/// runs them, which is the rule of the architecture.
#[derive(Debug)]
pub(crate) struct Blocks {
    /// Start of the block in each place.
    starts: Vec<u64>,
    blocks: Vec<Block>,
}

impl Blocks {
    pub(crate) fn new() -> Self {
        Self {
            starts: vec![NOWHERE; PLACES],
            blocks: (0..PLACES).map(|_| Block::default()).collect(),
        }
    }

    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        self.starts.fill(NOWHERE);
    }

    /// The block at this address, decoded if it is not there. `memory` gives what an address belongs to, and the offset.
    #[inline]
    pub(crate) fn at<'m>(
        &mut self,
        pc: u64,
        memory: impl Fn(u64) -> Option<(&'m GuestRam, u64)>,
    ) -> Result<&Block, NoBlock> {
        let place = ((pc >> 1) % PLACES as u64) as usize;
        if self.starts.get(place) != Some(&pc) {
            self.decode(place, pc, memory)?;
        }
        self.blocks.get(place).ok_or(NoBlock::Access(pc))
    }

    #[cold]
    fn decode<'m>(
        &mut self,
        place: usize,
        pc: u64,
        memory: impl Fn(u64) -> Option<(&'m GuestRam, u64)>,
    ) -> Result<(), NoBlock> {
        let (Some(start), Some(block)) = (self.starts.get_mut(place), self.blocks.get_mut(place))
        else {
            return Ok(());
        };
        *start = NOWHERE;
        block.start = pc;
        block.end = pc;
        block.insns.clear();
        while block.insns.len() < MOST {
            let insn = match fetch(block.end, &memory) {
                Ok(word) => match decode(word) {
                    Ok(insn) => insn,
                    Err(unknown) if block.insns.is_empty() => {
                        return Err(NoBlock::Unknown(unknown));
                    }
                    Err(_) => break,
                },
                Err(address) if block.insns.is_empty() => return Err(NoBlock::Access(address)),
                Err(_) => break,
            };
            let at = block.end.wrapping_sub(pc);
            block.insns.push(Insn {
                at: u16::try_from(at).unwrap_or(u16::MAX),
                // What is written to register 0 goes to one that nobody reads.
                rd: if insn.rd == 0 { super::SINK } else { insn.rd },
                ..insn
            });
            block.end = block.end.wrapping_add(insn.len.into());
            if insn.op.ends_block() {
                break;
            }
        }
        *start = pc;
        Ok(())
    }
}

/// The instruction at an even address: its upper half is there only if it is not compressed. Else the address that is not
/// there.
fn fetch<'m>(pc: u64, memory: &impl Fn(u64) -> Option<(&'m GuestRam, u64)>) -> Result<u32, u64> {
    let half = |address: u64| {
        let (ram, offset) = memory(address).ok_or(address)?;
        ram.load::<u16>(offset).map(u32::from).ok_or(address)
    };
    let low = half(pc)?;
    if low & 3 != 3 {
        return Ok(low);
    }
    Ok(low | half(pc.wrapping_add(2))? << 16)
}
