//! What stands at the beginning of a file and of a further channel: a `Hello` alone, which nothing is agreed on by.

use vmstate_ber::frame::{Capability, Finding, Hello, Level, Role, Severity};
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

/// What this program calls itself.
const SOFTWARE: &str = concat!("vmstate ", env!("CARGO_PKG_VERSION"));

/// What this program says of itself.
fn hello() -> Hello {
    let required = |name: &&str| Capability {
        name: (*name).to_owned(),
        level: Level::Required,
        params: Vec::new(),
    };
    Hello::of_file(SOFTWARE, REQUIRED.iter().map(required).collect())
}

/// Begins a stream into a file or a pipe, which nobody answers. Its bytes are appended to `out`.
pub(in crate::live) fn of_file(out: &mut Vec<u8>) -> Writer {
    Writer::new(&hello(), out)
}

/// Begins what one end says on another channel of the migration `session`. Its bytes are appended to `out`.
pub(in crate::live) fn of_channel(session: [u8; 16], number: u64, out: &mut Vec<u8>) -> Writer {
    Writer::without_digest(&Hello::of_channel(SOFTWARE, session, number), out)
}

/// Whether `hello` begins this channel of this migration.
pub(in crate::live) fn is_channel(hello: &Hello, session: [u8; 16], number: u64) -> bool {
    hello.role == Role::Channel
        && hello.session == session
        && hello.channel == Some(number)
        && hello.versions.contains(&VERSION)
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
