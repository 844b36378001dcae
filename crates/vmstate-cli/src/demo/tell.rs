//! What comes of a demo, for people and for programs.

use std::io::{self, Write as _};
use std::time::Duration;

use serde_json::json;
use vmstate_io::drive::{Report, text as words};

use super::pair::Values;
use super::proof::Proof;
use crate::outcome::clean;

/// The migration, and if it went well, how long the guest stood still and what was found afterwards.
pub(super) struct Result {
    pub(super) report: Report,
    pub(super) proof: Option<(Duration, Proof)>,
    /// Pages that the guest has written at the source, after it was not let go, and a while later.
    pub(super) stayed: Option<(u64, u64)>,
    /// What the sensors of source and destination have measured.
    pub(super) sensors: Option<[Values; 2]>,
}

impl Result {
    pub(super) fn is_right(&self) -> bool {
        let proven = self
            .proof
            .as_ref()
            .is_some_and(|(_, proof)| proof.is_right());
        self.report.is_success() && proven
    }
}

pub(super) fn text(demo: &Result) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", clean(&words::report(&demo.report)))?;
    if let Some(error) = demo.report.error() {
        writeln!(out, "\nNOT OK: {}", clean(&error))?;
    }
    if let Some((before, after)) = demo.stayed {
        writeln!(
            out,
            "\nthe guest runs on at the source: {before} pages written, then {after}"
        )?;
    }
    let Some((stopped, proof)) = &demo.proof else {
        return out.flush();
    };
    let mark = |right| if right { "ok" } else { "WRONG" };
    writeln!(
        out,
        "\nthe guest stood still for {:.1} ms",
        stopped.as_secs_f64() * 1000.0
    )?;
    writeln!(
        out,
        "  {:5}  its counter went on: {} pages written before it left, {} now",
        mark(proof.pages_after > proof.pages_before),
        proof.pages_before,
        proof.pages_after
    )?;
    writeln!(
        out,
        "  {:5}  its checksums, and every word that it wrote, computed again",
        mark(proof.guest_is_right)
    )?;
    if let Some(complaint) = &proof.complaint {
        writeln!(out, "         {complaint}")?;
    }
    writeln!(
        out,
        "  {:5}  all other memory on both sides, by SHA-256 (without {} KiB written since it arrived)",
        mark(proof.memory_is_equal()),
        proof.written_since >> 10
    )?;
    for (block, digest) in &proof.destination {
        writeln!(out, "         {block}  {digest}")?;
    }
    if let Some([source, destination]) = &demo.sensors {
        writeln!(out, "  sensor at the source       {}", numbers(source))?;
        writeln!(out, "  sensor at the destination  {}", numbers(destination))?;
    }
    let verdict = match demo.is_right() {
        true => "\nOK: a running guest has moved from one process to another and goes on computing",
        false => "\nNOT OK: the guest is not what it was",
    };
    writeln!(out, "{verdict}")?;
    out.flush()
}

fn numbers(values: &Values) -> String {
    let shown: Vec<_> = values
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    shown.join(", ")
}

pub(super) fn json(demo: &Result) -> io::Result<()> {
    let proof = demo.proof.as_ref();
    let answer = json!({
        "format": "vmstate-demo/1",
        "ok": demo.is_right(),
        "stopped_ms": proof.map(|(stopped, _)| stopped.as_secs_f64() * 1000.0),
        "proof": proof.map(|(_, proof)| proof),
        "stayed": demo.stayed.map(|(before, after)| json!({
            "pages_before": before,
            "pages_after": after,
        })),
        "sensors": demo.sensors.as_ref().map(|[source, destination]| json!({
            "source": source,
            "destination": destination,
        })),
        "migration": demo.report.to_json(),
    });
    let mut out = io::stdout().lock();
    writeln!(out, "{answer:#}")?;
    out.flush()
}
