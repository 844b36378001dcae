//! Text that a person likes to read.

mod differences;
mod fields;
mod numbers;

use std::io::{self, Write};

use vmstate_wire::stream::Command;

use super::json::dialect_name;
use super::{Accounts, View, total, zeros};
use crate::inspect::{
    Analysis, BitmapChunk, BitmapChunkBody, Block, CommandAt, Content, Kind, Pages, Report, Section,
};
use fields::Tree;

pub use differences::Differences;
pub use numbers::size;

/// Escape sequences of a terminal, or nothing.
#[derive(Debug, Clone, Copy, Default)]
struct Paint {
    bold: &'static str,
    dim: &'static str,
    red: &'static str,
    green: &'static str,
    off: &'static str,
}

impl Paint {
    const fn new(colour: bool) -> Self {
        if colour {
            Self {
                bold: "\x1b[1m",
                dim: "\x1b[2m",
                red: "\x1b[1;31m",
                green: "\x1b[1;32m",
                off: "\x1b[0m",
            }
        } else {
            Self {
                bold: "",
                dim: "",
                red: "",
                green: "",
                off: "",
            }
        }
    }
}

/// Writes what was found in a stream.
///
/// # Errors
/// Of the output.
pub fn inspection(analysis: &Analysis, view: &View, out: &mut impl Write) -> io::Result<()> {
    let report = &analysis.report;
    let view = &view.suited(report);
    let paint = Paint::new(view.colour);
    overview(report, view, paint, out)?;
    ram(report, view, paint, out)?;
    commands(&report.commands, paint, out)?;
    writeln!(out)?;
    for section in &report.sections {
        if view.sections.wants(&section.idstr) {
            self::section(section, view, paint, out)?;
        }
    }
    findings(analysis, paint, out)
}

/// Writes whether every byte of a stream is accounted for.
///
/// # Errors
/// Of the output.
pub fn verification(analysis: &Analysis, view: &View, out: &mut impl Write) -> io::Result<()> {
    let report = &analysis.report;
    let paint = Paint::new(view.colour);
    let accounts = Accounts::of(analysis);
    overview(report, view, paint, out)?;
    writeln!(out)?;
    let line = |out: &mut dyn Write, bytes: u64, what: &str| writeln!(out, "  {bytes:>14}  {what}");
    line(out, accounts.pages, "guest RAM and dirty bitmaps")?;
    let what = format!("device state, {} sections", accounts.described_sections);
    line(out, accounts.described, &what)?;
    if accounts.opaque_sections > 0 {
        let what = format!(
            "{} sections that nothing describes: ends inferred, contents not looked into",
            accounts.opaque_sections
        );
        line(out, accounts.opaque, &what)?;
    }
    line(out, accounts.trailer, "description trailer")?;
    line(
        out,
        accounts.framing,
        "headers, footers, configuration, commands, end mark",
    )?;
    writeln!(out, "  {:>14}  in all", report.length)?;
    findings(analysis, paint, out)?;
    let Paint {
        red, green, off, ..
    } = paint;
    match (&analysis.failure, report.problems.len()) {
        (None, 0) => writeln!(out, "\n{green}OK{off}: every byte is accounted for"),
        (None, 1) => writeln!(out, "\n{red}NOT OK{off}: 1 problem"),
        (None, n) => writeln!(out, "\n{red}NOT OK{off}: {n} problems"),
        (Some(_), _) => writeln!(
            out,
            "\n{red}NOT OK{off}: could not be read beyond byte {:#x}",
            report.length
        ),
    }
}

fn overview(report: &Report, view: &View, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let Paint { bold, off, .. } = paint;
    let configuration = report.configuration.as_ref();
    let machine = configuration.map_or_else(
        || "machine not named".to_owned(),
        |c| format!("machine {}", c.machine),
    );
    writeln!(
        out,
        "{bold}{}{off}: {machine}, {} bytes{}",
        view.name,
        report.length,
        rounded(report.length)
    )?;
    match report.trailer {
        Some(trailer) => writeln!(
            out,
            "  trailer       {} devices, in the form of QEMU {}, {} bytes  @{:#x}",
            trailer.devices,
            generation(dialect_name(trailer.dialect)),
            trailer.length,
            trailer.offset
        )?,
        None if report.is_ber => writeln!(out, "  protocol      VM state over BER")?,
        None => writeln!(out, "  trailer       none")?,
    }
    writeln!(out, "  page size     {}", report.page_size)?;
    if let Some(configuration) = configuration {
        if !configuration.capabilities().is_empty() {
            let names: Vec<_> = configuration
                .capabilities()
                .iter()
                .map(ToString::to_string)
                .collect();
            writeln!(out, "  capabilities  {}", names.join(", "))?;
        }
        if let Some(uuid) = configuration.uuid() {
            writeln!(out, "  uuid          {}", uuid_text(uuid))?;
        }
    }
    for (i, channel) in report.channels.iter().enumerate() {
        write!(out, "  channel {}     {}", i + 1, channel.kind)?;
        if let Some(id) = channel.id {
            write!(out, " {id}")?;
        }
        write!(out, ", {} bytes", channel.length)?;
        if channel.kind == "multifd" {
            write!(
                out,
                ", {} packets, {} syncs",
                channel.packets, channel.syncs
            )?;
        }
        match channel.compression {
            Some(method) => writeln!(out, ", compression {method}")?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

/// Which releases write trailers of this form.
fn generation(dialect: &str) -> &'static str {
    match dialect {
        "7.2" => "7.2 to 8.1",
        "10.0" => "8.2 to 10.2",
        _ => "10.0 to 11.1",
    }
}

fn uuid_text(uuid: [u8; 16]) -> String {
    let hex = format!("{:032x}", u128::from_be_bytes(uuid));
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32];
    let parts: Vec<_> = parts.into_iter().filter_map(|r| hex.get(r)).collect();
    parts.join("-")
}

/// A rounded size in parentheses, where it is shorter.
fn rounded(bytes: u64) -> String {
    if bytes < 10_240 {
        String::new()
    } else {
        format!(" ({})", size(bytes))
    }
}

fn ram(report: &Report, view: &View, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let ram = &report.ram;
    if ram.blocks.is_empty() {
        return Ok(());
    }
    let Paint { bold, off, .. } = paint;
    let bytes: u64 = ram.blocks.iter().map(|b| b.used_length).sum();
    writeln!(
        out,
        "\n{bold}RAM{off}: {}, {}",
        counted(ram.blocks.len() as u64, "block"),
        size(bytes)
    )?;
    writeln!(out, "  pages: {}", page_kinds(&ram.pages))?;
    if ram.multifd_flushes > 0 {
        writeln!(out, "  multifd synchronisations: {}", ram.multifd_flushes)?;
    }
    let wide = ram.blocks.iter().map(|b| b.name.to_string().len());
    let wide = wide.max().unwrap_or(0).clamp(5, 60);
    for block in &ram.blocks {
        self::block(block, wide, view, out)?;
    }
    Ok(())
}

fn block(block: &Block, wide: usize, view: &View, out: &mut impl Write) -> io::Result<()> {
    write!(
        out,
        "  {:wide$}  {:>#14x}  {:>10}",
        block.name.to_string(),
        block.used_length,
        size(block.used_length)
    )?;
    if let Some(page_size) = block.page_size {
        write!(out, "  pages of {}", size(page_size))?;
    }
    if block.ignored {
        write!(out, "  not sent")?;
    }
    if view.pages {
        let all = total(&block.pages);
        write!(out, "  {}", page_kinds(&block.pages))?;
        if all > 0 {
            write!(out, "; {} % zero", percent(zeros(&block.pages), all))?;
        }
    }
    writeln!(out)?;
    if let Some(digest) = &block.sha256 {
        let nonzero = counted(block.nonzero_pages.unwrap_or(0), "page");
        write!(out, "  {:wide$}  sha256 ", "")?;
        for byte in digest {
            write!(out, "{byte:02x}")?;
        }
        writeln!(out, "  {nonzero} not zero")?;
    }
    Ok(())
}

fn percent(part: u64, whole: u64) -> String {
    let tenths = (u128::from(part) * 1000)
        .checked_div(whole.into())
        .unwrap_or(0);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn page_kinds(pages: &Pages) -> String {
    let kinds: Vec<_> = pages
        .by_name()
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    if kinds.is_empty() {
        "none".to_owned()
    } else {
        kinds.join(", ")
    }
}

fn commands(commands: &[CommandAt], paint: Paint, out: &mut impl Write) -> io::Result<()> {
    if commands.is_empty() {
        return Ok(());
    }
    let Paint { bold, dim, off, .. } = paint;
    writeln!(out, "\n{bold}Commands{off}:")?;
    for at in commands {
        write!(out, "  {dim}@{:#010x}{off}  {}", at.offset, at.command.id())?;
        match &at.command {
            Command::Ping(value) => write!(out, " {value}")?,
            Command::PostcopyAdvise(Some(advise)) => write!(
                out,
                " page sizes {:#x}, target pages of {}",
                advise.page_sizes, advise.target_page_size
            )?,
            Command::RamDiscard { block, ranges } => {
                let bytes: u64 = ranges.iter().fold(0, |sum, r| sum.saturating_add(r.length));
                write!(
                    out,
                    " {block}: {}, {}",
                    counted(ranges.len() as u64, "range"),
                    size(bytes)
                )?;
            }
            Command::Packaged { length } => write!(out, " {length} bytes")?,
            Command::RecvBitmap { block } => write!(out, " {block}")?,
            _ => {}
        }
        writeln!(
            out,
            "{}",
            if at.packaged {
                "  (in the package)"
            } else {
                ""
            }
        )?;
    }
    Ok(())
}

/// A number with its noun.
fn counted(n: u64, noun: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {noun}{plural}")
}

fn section(section: &Section, view: &View, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let Paint { bold, dim, off, .. } = paint;
    write!(
        out,
        "{bold}{}{off}  instance {}  version {}  {} bytes",
        section.idstr, section.instance_id, section.version_id, section.length
    )?;
    if section.kind == Kind::Iterative {
        write!(out, " in {}", counted(section.parts, "part"))?;
    }
    write!(out, "  {dim}@{:#x}{off}", section.offset)?;
    if section.inferred {
        write!(out, "  (end inferred)")?;
    }
    writeln!(out)?;
    match &section.content {
        Content::Described(state) | Content::Dumped(state) => {
            let mut tree = Tree::new(out, view, paint, section.payload_offset);
            tree.state(state, 1)
        }
        Content::Opaque(bytes) => {
            let mut tree = Tree::new(out, view, paint, section.payload_offset);
            tree.opaque(bytes)
        }
        Content::DirtyBitmaps(chunks) => dirty_bitmaps(chunks, out),
        Content::Ram | Content::Left => Ok(()),
    }
}

fn dirty_bitmaps(chunks: &[BitmapChunk], out: &mut impl Write) -> io::Result<()> {
    for chunk in chunks {
        let BitmapChunkBody::Start {
            granularity,
            enabled,
            persistent,
        } = chunk.body
        else {
            continue;
        };
        let mut bits = 0_u64;
        let mut complete = false;
        let same = |c: &&BitmapChunk| c.node == chunk.node && c.bitmap == chunk.bitmap;
        for part in chunks.iter().filter(same) {
            match &part.body {
                BitmapChunkBody::Bits {
                    data: Some(data), ..
                } => {
                    bits += data.iter().map(|b| u64::from(b.count_ones())).sum::<u64>();
                }
                BitmapChunkBody::Complete => complete = true,
                _ => {}
            }
        }
        writeln!(
            out,
            "  {}/{}: granularity {}, {}, {}, {}",
            chunk.node,
            chunk.bitmap,
            size(granularity.into()),
            if enabled { "enabled" } else { "disabled" },
            if persistent {
                "persistent"
            } else {
                "transient"
            },
            if complete {
                format!("complete, {} set", counted(bits, "bit"))
            } else {
                "not complete".to_owned()
            }
        )?;
    }
    Ok(())
}

fn findings(analysis: &Analysis, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let Paint { bold, red, off, .. } = paint;
    let report = &analysis.report;
    if !(report.warnings.is_empty() && report.problems.is_empty()) {
        writeln!(out)?;
    }
    for warning in &report.warnings {
        writeln!(out, "{bold}warning{off}: {warning}")?;
    }
    for problem in &report.problems {
        match problem.offset {
            Some(offset) => writeln!(
                out,
                "{red}problem{off}: {} (byte {offset:#x})",
                problem.text
            )?,
            None => writeln!(out, "{red}problem{off}: {}", problem.text)?,
        }
    }
    Ok(())
}
