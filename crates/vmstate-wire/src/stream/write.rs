//! Writing the framing: every function appends to a buffer, byte exact.
//!
//! A section is written as header, body, footer:
//!
//! ```
//! use vmstate_wire::stream::{
//!     IdStr, InstanceId, SectionHeader, SectionId, SectionKind, VersionId, write,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let header = SectionHeader {
//!     kind: SectionKind::Full,
//!     section_id: SectionId(3),
//!     idstr: IdStr::new("timer")?,
//!     instance_id: InstanceId(0),
//!     version_id: VersionId(2),
//! };
//! let mut out = Vec::new();
//! write::put_header(&mut out);
//! write::put_section_header(&mut out, &header);
//! out.extend_from_slice(&[0; 24]);
//! write::put_footer(&mut out, header.section_id);
//! write::put_eof(&mut out);
//! write::put_trailer(&mut out, b"{}")?;
//! # Ok(())
//! # }
//! ```

use super::command::Command;
use super::configuration::{
    CAPABILITIES, Configuration, ConfigurationSubsection, SUBSECTION_VERSION, TARGET_PAGE_BITS,
    UUID,
};
use super::types::{FILE_MAGIC, FILE_VERSION, SectionHeader, SectionId, mark};

/// Something is longer than its length field can say; nothing has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} has {length} bytes, its length field allows {limit}")]
pub struct WriteError {
    /// What is too long.
    pub what: &'static str,
    /// Its length in bytes.
    pub length: usize,
    /// The largest length that the field can hold.
    pub limit: u32,
}

/// Appends the file header: magic and version, 8 bytes.
pub fn put_header(out: &mut Vec<u8>) {
    out.extend_from_slice(&FILE_MAGIC.to_be_bytes());
    out.extend_from_slice(&FILE_VERSION.to_be_bytes());
}

/// Appends a configuration section with its subsections; see [`Configuration`].
pub fn put_configuration(out: &mut Vec<u8>, configuration: &Configuration) {
    let name = configuration.machine.as_bytes();
    out.push(mark::CONFIGURATION);
    // A machine name is made with at most 2³² − 1 bytes.
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(name);
    for subsection in &configuration.subsections {
        put_subsection(out, subsection);
    }
}

fn put_subsection(out: &mut Vec<u8>, subsection: &ConfigurationSubsection) {
    let name = match subsection {
        ConfigurationSubsection::TargetPageBits(_) => TARGET_PAGE_BITS,
        ConfigurationSubsection::Capabilities(_) => CAPABILITIES,
        ConfigurationSubsection::Uuid(_) => UUID,
    };
    out.push(mark::SUBSECTION);
    put_counted(out, name.as_bytes());
    out.extend_from_slice(&SUBSECTION_VERSION.to_be_bytes());
    match subsection {
        ConfigurationSubsection::TargetPageBits(bits) => {
            out.extend_from_slice(&bits.to_be_bytes());
        }
        ConfigurationSubsection::Capabilities(names) => {
            let count = u32::try_from(names.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&count.to_be_bytes());
            for name in names {
                put_counted(out, name.as_bytes());
            }
        }
        ConfigurationSubsection::Uuid(uuid) => out.extend_from_slice(uuid),
    }
}

/// Appends a section header, in the long form for START and FULL, in the short one for PART and
/// END; see [`SectionHeader`].
pub fn put_section_header(out: &mut Vec<u8>, header: &SectionHeader) {
    out.push(header.kind.byte());
    out.extend_from_slice(&header.section_id.0.to_be_bytes());
    if header.kind.names_owner() {
        put_counted(out, header.idstr.as_bytes());
        out.extend_from_slice(&header.instance_id.0.to_be_bytes());
        out.extend_from_slice(&header.version_id.0.to_be_bytes());
    }
}

/// Appends the footer that ends a section: 0x7e and the section's id, 5 bytes.
pub fn put_footer(out: &mut Vec<u8>, section_id: SectionId) {
    out.push(mark::FOOTER);
    out.extend_from_slice(&section_id.0.to_be_bytes());
}

/// Appends a command with its frame; see [`Command`]. After [`Command::Packaged`] the package
/// itself must follow.
///
/// # Errors
///
/// [`WriteError`] if the payload exceeds 65535 bytes, which only ranges to discard can.
pub fn put_command(out: &mut Vec<u8>, command: &Command) -> Result<(), WriteError> {
    let mut payload = Vec::new();
    command.encode_payload(&mut payload);
    let length = u16::try_from(payload.len()).map_err(|_| WriteError {
        what: "payload of a command",
        length: payload.len(),
        limit: u32::from(u16::MAX),
    })?;
    out.push(mark::COMMAND);
    out.extend_from_slice(&command.id().0.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&payload);
    Ok(())
}

/// Appends the command PACKAGED and the package.
///
/// # Errors
///
/// [`WriteError`] if the package exceeds 2³² − 1 bytes.
pub fn put_packaged(out: &mut Vec<u8>, package: &[u8]) -> Result<(), WriteError> {
    let length = length_of(package, "package")?;
    put_command(out, &Command::Packaged { length })?;
    out.extend_from_slice(package);
    Ok(())
}

/// Appends the end-of-stream mark: one byte, 0x00.
pub fn put_eof(out: &mut Vec<u8>) {
    out.push(mark::EOF);
}

/// Appends the description trailer: 0x06, be32 length, text.
///
/// # Errors
///
/// [`WriteError`] if the text exceeds 2³² − 1 bytes.
pub fn put_trailer(out: &mut Vec<u8>, json: &[u8]) -> Result<(), WriteError> {
    let length = length_of(json, "description trailer")?;
    out.push(mark::TRAILER);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(json);
    Ok(())
}

fn length_of(bytes: &[u8], what: &'static str) -> Result<u32, WriteError> {
    u32::try_from(bytes.len()).map_err(|_| WriteError {
        what,
        length: bytes.len(),
        limit: u32::MAX,
    })
}

/// Appends a length byte and a name that its type bounds to 255 bytes.
pub(super) fn put_counted(out: &mut Vec<u8>, name: &[u8]) {
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name);
}
