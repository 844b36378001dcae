//! What a guest brings: an ELF file, or plain code.

use elf::ElfBytes;
use elf::abi;
use elf::endian::LittleEndian;

use crate::board::RAM_BASE;
use crate::error::ProgramError;
use crate::htif::HtifAddresses;
use crate::memory::Memory;

/// A bare-metal guest, to be put into memory before the machine starts.
///
/// As QEMU's `-bios FILE` takes it: a 64-bit RISC-V executable with the symbols `tohost` (8 bytes long) and `fromhost`,
/// or a flat file that is put to the beginning of RAM, whose HTIF is at `0x0100_0000`.
#[derive(Debug, Clone)]
pub struct Program<'a> {
    entry: u64,
    htif: HtifAddresses,
    parts: Vec<Part<'a>>,
}

#[derive(Debug, Clone, Copy)]
struct Part<'a> {
    address: u64,
    bytes: &'a [u8],
    /// Length in memory: what `bytes` does not fill is 0.
    len: u64,
}

impl<'a> Program<'a> {
    /// Reads a file's content.
    ///
    /// # Errors
    /// [`ProgramError`], unless the file is flat: then anything is a program.
    pub fn parse(file: &'a [u8]) -> Result<Self, ProgramError> {
        if !file.starts_with(&abi::ELFMAGIC) {
            return Ok(Self {
                entry: RAM_BASE,
                htif: HtifAddresses::default(),
                parts: vec![Part {
                    address: RAM_BASE,
                    bytes: file,
                    len: file.len() as u64,
                }],
            });
        }
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file)?;
        let header = elf.ehdr;
        let foreign = |what, found| Err(ProgramError::Foreign { what, found });
        if header.class != elf::file::Class::ELF64 {
            return foreign("class", 1);
        }
        if header.e_machine != abi::EM_RISCV {
            return foreign("machine", header.e_machine.into());
        }
        if header.e_type != abi::ET_EXEC {
            return foreign("type", header.e_type.into());
        }
        let mut parts = Vec::new();
        for segment in elf
            .segments()
            .iter()
            .flat_map(elf::parse::ParsingTable::iter)
        {
            if segment.p_type == abi::PT_LOAD && segment.p_memsz > 0 {
                let bytes = elf.segment_data(&segment)?;
                if bytes.len() as u64 > segment.p_memsz {
                    return foreign("length of a segment in the file", segment.p_filesz);
                }
                parts.push(Part {
                    address: segment.p_paddr,
                    bytes,
                    len: segment.p_memsz,
                });
            }
        }
        Ok(Self {
            entry: header.e_entry,
            htif: symbols(&elf)?,
            parts,
        })
    }

    /// Address of the first instruction.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Where the guest wants HTIF.
    #[must_use]
    pub fn htif(&self) -> HtifAddresses {
        self.htif
    }

    /// Copies the program into RAM.
    pub(crate) fn load(&self, memory: &Memory) -> Result<(), ProgramError> {
        let ram = &memory.ram;
        for part in &self.parts {
            let outside = ProgramError::Outside {
                address: part.address,
                len: part.len,
            };
            let offset = part.address.checked_sub(RAM_BASE);
            let inside = offset
                .and_then(|offset| offset.checked_add(part.len))
                .is_some_and(|end| end <= ram.ram.len());
            let (Some(offset), true) = (offset, inside) else {
                return Err(outside);
            };
            // The range was checked, so neither refuses; what is not in the file is 0 in fresh memory.
            if ram.ram.write(offset, part.bytes).is_err() {
                return Err(outside);
            }
            ram.log.mark_range(offset, part.len);
        }
        Ok(())
    }
}

fn symbols(elf: &ElfBytes<'_, LittleEndian>) -> Result<HtifAddresses, ProgramError> {
    let mut tohost = None;
    let mut fromhost = None;
    if let Some((table, names)) = elf.symbol_table()? {
        for symbol in table.iter() {
            match names.get(symbol.st_name as usize) {
                Ok("tohost") if symbol.st_size == 8 => tohost = Some(symbol.st_value),
                Ok("fromhost") => fromhost = Some(symbol.st_value),
                _ => {}
            }
        }
    }
    let found = |value: Option<u64>, symbol| value.ok_or(ProgramError::Symbol { symbol });
    Ok(HtifAddresses {
        tohost: found(tohost, "tohost")?,
        fromhost: found(fromhost, "fromhost")?,
    })
}
