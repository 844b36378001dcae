//! Looking at what QEMU wrote.

use std::fs;
use std::path::Path;

use vmstate_interop::{Machine, Ram, Result, sha256};
use vmstate_io::inspect::{Analysis, Options, analyze};
use vmstate_io::{Input, SliceInput, open};

/// Walks a stream with all checks. Anything odd about it is an error.
pub(crate) fn analyzed(stream: &[u8], channels: &[Vec<u8>]) -> Result<Analysis> {
    let mut channels: Vec<Box<dyn Input + '_>> = channels
        .iter()
        .map(|bytes| Box::new(SliceInput::new(bytes)) as Box<dyn Input + '_>)
        .collect();
    clean(analyze(
        &mut SliceInput::new(stream),
        &mut channels,
        &options(),
    ))
}

/// The same for a file, which is mapped.
pub(crate) fn analyzed_file(path: &Path) -> Result<Analysis> {
    clean(analyze(&mut *open(path)?, &mut [], &options()))
}

fn options() -> Options {
    Options {
        digest: true,
        verify: true,
        ..Options::default()
    }
}

fn clean(analysis: Analysis) -> Result<Analysis> {
    if let Some(failure) = analysis.failure {
        return Err(failure.into());
    }
    if !analysis.report.problems.is_empty() {
        return Err(format!("{:#?}", analysis.report.problems).into());
    }
    if analysis.report.trailer.is_none() {
        return Err("no trailer".into());
    }
    Ok(analysis)
}

/// Name and digest of each RAM block.
pub(crate) fn digests(analysis: &Analysis) -> Vec<(String, [u8; 32])> {
    let blocks = &analysis.report.ram.blocks;
    blocks
        .iter()
        .map(|b| (b.name.to_string(), b.sha256.unwrap_or_default()))
        .collect()
}

/// Id string and instance of each section.
pub(crate) fn sections(analysis: &Analysis) -> Vec<(String, u32)> {
    let sections = &analysis.report.sections;
    sections
        .iter()
        .map(|s| (s.idstr.clone(), s.instance_id))
        .collect()
}

/// The stream's main memory must be that of the machine, which stands still.
pub(crate) fn assert_ram(analysis: &Analysis, machine: &Machine, ram: Ram<'_>) -> Result<()> {
    let expected = (ram.block.to_owned(), sha256(&machine.ram()?));
    let found = digests(analysis);
    assert!(
        found.contains(&expected),
        "{expected:x?} is not in {found:x?}"
    );
    Ok(())
}

/// What a test writes for QEMU.
pub(crate) fn write(machine: &Machine, name: &str, stream: &[u8]) -> Result<std::path::PathBuf> {
    let path = machine.dir().join(name);
    fs::write(&path, stream)?;
    Ok(path)
}
