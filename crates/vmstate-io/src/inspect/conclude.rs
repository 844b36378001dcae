//! What can be said of a stream only at its end.

use std::collections::{HashMap, HashSet};

use vmstate_desc::DynState;
use vmstate_wire::stream::SectionHeader;
use vmstate_wire::vmdesc::Trailer;

use super::bodies::is_memory;
use super::report::{Content, InspectError, Problem, Report};
use super::{Options, device};

/// What can be said only at the end: sections that waited for the trailer, devices without a section.
pub(super) fn conclude(
    report: &mut Report,
    trailer: Option<&Trailer<'_>>,
    late: &[u8],
    headers: &[SectionHeader],
    options: &Options,
    memory: u64,
) -> Result<(), InspectError> {
    let parsed;
    let trailer = match (trailer, report.trailer) {
        (Some(trailer), _) => Some(trailer),
        (None, Some(at)) if !late.is_empty() => {
            parsed =
                Trailer::parse_within(late, memory / 2).map_err(|error| InspectError::Trailer {
                    error,
                    offset: at.offset,
                })?;
            let memory = memory.saturating_sub(parsed.memory());
            decode_kept(report, &parsed, headers, options, memory)?;
            Some(&parsed)
        }
        _ => None,
    };
    if let Some(dump) = &options.describe {
        for section in &mut report.sections {
            if let Content::Opaque(bytes) = &section.content
                && let Some(state) = dump.decode(&section.idstr, section.version_id, bytes)
            {
                section.content = Content::Dumped(Box::new(state));
            }
        }
    }
    let Some(trailer) = trailer else {
        return Ok(());
    };
    if let Some(at) = &mut report.trailer {
        at.dialect = trailer.dialect();
        at.devices = trailer.devices().len();
    }
    if let Some(size) = trailer.page_size()
        && report.ram.blocks.is_empty()
    {
        report.page_size = size;
    }
    if let Some(size) = trailer.page_size()
        && size != report.page_size
        && !report.ram.blocks.is_empty()
    {
        report.problems.push(Problem {
            offset: None,
            text: format!(
                "the trailer says that target pages have {size} bytes, but {} were assumed: give the page size",
                report.page_size
            ),
        });
    }
    let came: HashSet<(&str, u32)> = report
        .sections
        .iter()
        .map(|s| (s.idstr.as_str(), s.instance_id))
        .collect();
    for device in trailer.devices() {
        if !came.contains(&(device.idstr(), device.instance_id())) {
            report.problems.push(Problem {
                offset: None,
                text: format!(
                    "the trailer describes {}/{}, but no such section came",
                    device.idstr(),
                    device.instance_id()
                ),
            });
        }
    }
    Ok(())
}

/// Decodes sections that were kept until the trailer came.
fn decode_kept(
    report: &mut Report,
    trailer: &Trailer<'_>,
    headers: &[SectionHeader],
    options: &Options,
    mut memory: u64,
) -> Result<(), InspectError> {
    let mut namesakes: HashMap<(String, u32), usize> = HashMap::new();
    for (section, header) in report.sections.iter_mut().zip(headers) {
        let came = namesakes
            .entry((section.idstr.clone(), section.instance_id))
            .or_default();
        let before = *came;
        *came += 1;
        let Content::Opaque(bytes) = &section.content else {
            continue;
        };
        let Some(device) = trailer.device_after(&section.idstr, section.instance_id, before) else {
            continue;
        };
        let offset = section.payload_offset;
        let limits = vmstate_desc::Limits {
            memory: options.share(memory),
            ..vmstate_desc::Limits::default()
        };
        let decoded = match device.decode(bytes, offset, false, limits, &|rest| rest.is_empty()) {
            Ok(decoded) => decoded,
            Err(error) if device.may_leave_holes_open() && !is_memory(&error) => {
                report.warnings.push(format!(
                    "section {}: kept as bytes, since QEMU's trailer does not say which pointers of an array are absent ({error})",
                    header.name()
                ));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if options.verify {
            device::verify(
                header,
                bytes,
                offset,
                &decoded.state,
                device,
                trailer,
                &mut report.problems,
            );
        }
        memory = memory
            .checked_sub(decoded.state.memory() as u64)
            .ok_or_else(|| InspectError::Limit {
                what: format!("device state up to section {}", header.name()),
                limit: options.memory,
                offset,
            })?;
        section.inferred = false;
        section.content = Content::Described(Box::<DynState>::new(decoded.state));
    }
    Ok(())
}
