//! Commands of a monitor about what two ends of ours say to each other.

use serde::Deserialize;
use serde_json::{Value, json};
use vmstate_ber::frame::{Capability, Finding, Level, Severity};
use vmstate_negotiate::VERSION;
use vmstate_qmp::schema::Shape;
use vmstate_qmp::{CommandTable, QmpError};

use super::migrator::Negotiated;
use super::monitor::{Monitor, RunControl};

/// No arguments.
#[derive(Deserialize)]
struct Nothing {}

/// Adds the commands `x-query-vmstate-capabilities` and `x-query-negotiation`, which `docs/negotiation.md` describes.
pub fn add_negotiation_commands<C: RunControl + 'static>(table: &mut CommandTable<Monitor<C>>) {
    table.add(
        "x-query-vmstate-capabilities",
        Shape::EMPTY,
        |monitor: &Monitor<C>, _: Nothing| {
            let list = |source| match monitor.migrator().offers(source) {
                Ok(all) => Ok(all.iter().map(capability).collect::<Vec<_>>()),
                Err(error) => Err(QmpError::generic(error)),
            };
            Ok(json!({
                "versions": [VERSION],
                "source": list(true)?,
                "destination": list(false)?,
            }))
        },
    );
    table.add(
        "x-query-negotiation",
        Shape::EMPTY,
        |monitor: &Monitor<C>, _: Nothing| {
            let negotiated = monitor.migrator().negotiated();
            Ok(negotiated.map_or_else(|| json!({}), |negotiated| shown(&negotiated)))
        },
    );
}

fn capability(one: &Capability) -> Value {
    let level = match one.level {
        Level::Offered => "offered",
        Level::Wanted => "wanted",
        Level::Required => "required",
    };
    json!({ "name": one.name, "level": level })
}

fn shown(negotiated: &Negotiated) -> Value {
    let report = &negotiated.report;
    let findings: Vec<Value> = report.findings.iter().map(finding).collect();
    json!({
        "role": if negotiated.source { "source" } else { "destination" },
        "refused": report.refused,
        "peer": negotiated.peer,
        "capabilities": negotiated.capabilities,
        "findings": findings,
        "text": report.to_string(),
    })
}

fn finding(finding: &Finding) -> Value {
    let severity = match finding.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    json!({
        "severity": severity,
        "rule": finding.rule,
        "path": finding.path,
        "expected": finding.expected,
        "found": finding.found,
        "text": finding.text,
    })
}
