//! Writes a stream.

use std::io::Write;
use std::sync::Arc;

use vmstate::wire::stream::{
    Configuration, IdStr, InstanceId, MachineName, SectionHeader, SectionId, SectionKind,
    VersionId, write,
};
use vmstate::{Description, VmState, Vmdesc, VmdescDialect};
use vmstate_engine::RunState;
use vmstate_ram::{BlockName, BlockTable, PageSize, RamBlock, RamWriter};

use super::{Described, StreamError};
use crate::Machine;
use crate::board::{MACHINE, PAGE};
use crate::state::GlobalState;

/// As QEMU numbers them.
const CLOCKS: u32 = 0;
const RAM: SectionId = SectionId(1);
const FIRST_DEVICE: u32 = 3;

/// Bytes that are collected before they are written.
const CHUNK: usize = 1 << 20;

/// Writes the stream of a machine that stands still; `was` is what its destination shall do. (A machine that runs gives a
/// stream that nobody should load.)
///
/// # Errors
/// [`StreamError::Output`]; the others do not occur with a machine of this board.
pub fn save(machine: &Machine, was: RunState, mut to: impl Write) -> Result<(), StreamError> {
    let mut out = Vec::with_capacity(CHUNK);
    let mut vmdesc = Vmdesc::new(VmdescDialect::V11_1, 4096);
    configuration(&mut vmdesc, &mut out)?;
    ram(machine, &mut out, &mut to)?;
    let mut ids = std::iter::once(CLOCKS).chain(FIRST_DEVICE..);
    for section in machine.sections() {
        let description = section.description();
        let instance = section.instance_id();
        let id = begin_device(&description, instance, &mut ids, &mut out)?;
        let name = description.name();
        section.save(&mut |state| vmdesc.device(name, instance, state, &mut out))?;
        write::put_footer(&mut out, id);
    }
    let global = GlobalState::new(was.name());
    let id = begin_device(GlobalState::DESCRIPTION, 0, &mut ids, &mut out)?;
    vmdesc.device(GlobalState::DESCRIPTION.name(), 0, &global, &mut out)?;
    write::put_footer(&mut out, id);
    write::put_eof(&mut out);
    let text = vmdesc.finish();
    write::put_trailer(&mut out, text.as_bytes()).map_err(|_| StreamError::TooLong)?;
    to.write_all(&out)?;
    to.flush()?;
    Ok(())
}

fn configuration(vmdesc: &mut Vmdesc, out: &mut Vec<u8>) -> Result<(), StreamError> {
    write::put_header(out);
    let name = MachineName::new(MACHINE.as_bytes()).ok_or(StreamError::TooLong)?;
    write::put_configuration(out, &Configuration::new(name));
    let described = Described {
        len: u32::try_from(MACHINE.len()).map_err(|_| StreamError::TooLong)?,
        name: MACHINE.as_bytes().to_vec(),
    };
    // The bytes are written already; this is for the trailer.
    vmdesc.configuration(&described, &mut Vec::new())?;
    Ok(())
}

fn begin_device(
    description: &Description,
    instance: u32,
    ids: &mut impl Iterator<Item = u32>,
    out: &mut Vec<u8>,
) -> Result<SectionId, StreamError> {
    let id = SectionId(ids.next().unwrap_or_default());
    let header = SectionHeader {
        kind: SectionKind::Full,
        section_id: id,
        idstr: IdStr::new(description.name()).map_err(|_| StreamError::TooLong)?,
        instance_id: InstanceId(instance),
        version_id: VersionId(description.version_id),
    };
    write::put_section_header(out, &header);
    Ok(id)
}

/// Sections START, PART and END.
fn ram(machine: &Machine, out: &mut Vec<u8>, to: &mut impl Write) -> Result<(), StreamError> {
    let blocks = machine.memory().blocks();
    let mut table = BlockTable::new();
    for block in blocks {
        let name = BlockName::new(block.idstr.as_bytes())?;
        table.push(RamBlock::new(name, block.ram.len()), PageSize::KIB4)?;
    }
    let mut writer = RamWriter::new(PageSize::KIB4, Arc::new(table));
    begin(SectionKind::Start, out)?;
    writer.setup(out);
    writer.end_of_section(out);
    write::put_footer(out, RAM);

    begin(SectionKind::Part, out)?;
    let mut page = vec![0; 4096];
    let ids: Vec<_> = writer.blocks().iter().map(|(id, _)| id).collect();
    for (block, id) in blocks.into_iter().zip(ids) {
        for offset in (0..block.ram.len()).step_by(4096) {
            if block.ram.is_zero(offset, PAGE) == Ok(true) {
                writer.zero_page(id, offset, out)?;
            } else {
                // Inside, since the offset is.
                _ = block.ram.read(offset, &mut page);
                writer.page(id, offset, &page, out)?;
            }
            if out.len() >= CHUNK {
                to.write_all(out)?;
                out.clear();
            }
        }
    }
    writer.end_of_section(out);
    write::put_footer(out, RAM);

    begin(SectionKind::End, out)?;
    writer.end_of_section(out);
    write::put_footer(out, RAM);
    Ok(())
}

fn begin(kind: SectionKind, out: &mut Vec<u8>) -> Result<(), StreamError> {
    let header = SectionHeader {
        kind,
        section_id: RAM,
        idstr: IdStr::new("ram").map_err(|_| StreamError::TooLong)?,
        instance_id: InstanceId(0),
        version_id: VersionId(4),
    };
    write::put_section_header(out, &header);
    Ok(())
}
