//! What stands at the beginning of a file: a `Hello` alone, to which nobody answers.

use vmstate_ber::frame::{Capability, Finding, Hello, Level, Severity};
use vmstate_ber::stream::Writer;
use vmstate_negotiate::{Report, Rule, VERSION};

use crate::convert::KNOWN;

/// What a stream of a machine needs of its reader, sorted.
const REQUIRED: &[&str] = &[
    "frame-crc",
    "opaque-sections",
    "qemu-commands",
    "ram-bitmap",
    "typedefs",
];

/// A file needs something that this reader does not have.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::live) struct Unreadable(Report);

/// What this program says of itself.
fn hello() -> Hello {
    let required = |name: &&str| Capability {
        name: (*name).to_owned(),
        level: Level::Required,
        params: Vec::new(),
    };
    let software = concat!("vmstate ", env!("CARGO_PKG_VERSION"));
    Hello::of_file(software, REQUIRED.iter().map(required).collect())
}

/// Begins a stream into a file or a pipe, which nobody answers. Its bytes are appended to `out`.
pub(in crate::live) fn of_file(out: &mut Vec<u8>) -> Writer {
    Writer::new(&hello(), out)
}

/// Whether what a file says of itself can be read here.
pub(in crate::live) fn check(hello: &Hello) -> Result<(), Unreadable> {
    let mut findings = Vec::new();
    let mut finding = |rule: Rule, path: String, found: Option<String>| {
        findings.push(Finding {
            severity: Severity::Error,
            rule: rule.id().to_owned(),
            path,
            expected: None,
            found,
            text: Some(rule.title().to_owned()),
        });
    };
    if !hello.versions.contains(&VERSION) {
        let versions = Some(format!("{:?}", hello.versions));
        finding(Rule::N01, "protocol".to_owned(), versions);
    }
    for capability in &hello.capabilities {
        let known = KNOWN.contains(&capability.name.as_str());
        if capability.level == Level::Required && !known {
            finding(Rule::N02, format!("capability {}", capability.name), None);
        }
    }
    let refused = true;
    match findings.is_empty() {
        true => Ok(()),
        false => Err(Unreadable(Report { refused, findings })),
    }
}
