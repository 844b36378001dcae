//! Before the first page: who speaks, and whether the guest may come.
//!
//! A file has a `Hello` alone, to which nobody answers.

use vmstate_ber::frame::{
    Capability, Decision, Finding, Frame, Hello, Level, Role, Severity, Verdict,
};
use vmstate_ber::stream::{Parser, Writer};
use vmstate_ber::{BerError, Limits};
use vmstate_engine::{ChannelError, ChannelWriter};
use vmstate_linux::Gather;
use vmstate_wire::stream::StreamOffset;

use super::answers::{Replies, ReplyWriter};
use super::decoder::out_of_turn;
use crate::convert::KNOWN;
use crate::live::link::Link;

/// The version of the protocol.
const VERSION: u64 = 1;

/// What a stream of a machine needs of its reader, sorted.
const REQUIRED: &[&str] = &[
    "frame-crc",
    "opaque-sections",
    "qemu-commands",
    "ram-bitmap",
    "typedefs",
];

/// The two ends do not come together.
#[derive(Debug, thiserror::Error)]
pub(in crate::live) enum HandshakeError {
    /// The channel broke.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// Bytes that are no frame, or a frame that does not belong here.
    #[error("{0}")]
    Ber(#[from] BerError),
    /// The other end does not answer in this protocol: it may be QEMU.
    #[error(
        "the destination closed the connection instead of answering in VM state over BER: it may be QEMU, or have \
         x-peer=qemu"
    )]
    Silent,
    /// The destination does not take the guest.
    #[error("the destination refuses the migration{}", text(.0))]
    Refused(Vec<Finding>),
    /// This destination does not take the guest.
    #[error("the migration is refused{}", text(.0))]
    Refusing(Vec<Finding>),
}

/// Findings in words.
fn text(findings: &[Finding]) -> String {
    let mut all = String::new();
    for finding in findings {
        let what = finding.text.as_deref().unwrap_or("");
        all.push_str(&format!(": {} {}{what}", finding.rule, finding.path));
        if let (Some(expected), Some(found)) = (&finding.expected, &finding.found) {
            all.push_str(&format!(" (expected {expected}, found {found})"));
        }
    }
    all
}

/// What this program says of itself.
fn hello(role: Role) -> Hello {
    let required = |name: &&str| Capability {
        name: (*name).to_owned(),
        level: Level::Required,
        params: Vec::new(),
    };
    let software = concat!("vmstate ", env!("CARGO_PKG_VERSION"));
    Hello {
        role,
        ..Hello::of_file(software, REQUIRED.iter().map(required).collect())
    }
}

/// Begins a stream into a file or a pipe, which nobody answers. Its bytes are appended to `out`.
pub(in crate::live) fn of_file(out: &mut Vec<u8>) -> Writer {
    Writer::new(&hello(Role::File), out)
}

/// The source's part: says who speaks, hears who answers and whether the guest may come. What follows is written by the
/// writer and read by the reader that are returned.
pub(in crate::live) fn of_source(
    link: &Link,
    channel: &mut dyn ChannelWriter,
) -> Result<(Writer, Replies), HandshakeError> {
    let mut bytes = Vec::new();
    let writer = Writer::without_digest(&hello(Role::Source), &mut bytes);
    channel.bytes(&bytes)?;
    channel.flush()?;
    let mut replies = Replies::new(Parser::new(Limits::default()));
    let answer = replies.frame(link, |frame, offset| match frame {
        Frame::Hello(hello) => Ok(hello),
        _ => Err(out_of_turn("a destination begins with Hello", offset).into()),
    })?;
    if answer.role != Role::Destination {
        let what = "the other end is no destination";
        return Err(out_of_turn(what, replies.offset()).into());
    }
    let verdict = replies.frame(link, |frame, offset| match frame {
        Frame::Verdict(verdict) => Ok(verdict),
        _ => Err(out_of_turn("a Verdict follows the Hello of a destination", offset).into()),
    })?;
    match verdict.decision {
        Decision::Accept | Decision::AcceptWithWarnings => Ok((writer, replies)),
        Decision::Refuse => Err(HandshakeError::Refused(verdict.findings)),
        Decision::NeedTypes => {
            let what = "a destination asks for types that it was not told of";
            Err(out_of_turn(what, replies.offset()).into())
        }
    }
}

/// The destination's part, after the source's `Hello`: says who answers, and whether the guest may come.
pub(in crate::live) fn of_destination(
    link: &Link,
    source: &Hello,
) -> Result<ReplyWriter, HandshakeError> {
    let mut bytes = Vec::new();
    let mut writer = Writer::without_digest(&hello(Role::Destination), &mut bytes);
    let verdict = judge(source);
    let findings = verdict.findings.clone();
    let refused = verdict.decision == Decision::Refuse;
    writer.frame(&Frame::Verdict(verdict), &mut bytes);
    let mut list = Gather::new();
    list.bytes(&bytes);
    link.write(&mut list, StreamOffset(0))?;
    match refused {
        true => Err(HandshakeError::Refusing(findings)),
        false => Ok(ReplyWriter::new(writer)),
    }
}

/// Whether what a source or a file says of itself can be read here.
pub(in crate::live) fn check(hello: &Hello) -> Result<(), HandshakeError> {
    let verdict = judge(hello);
    match verdict.decision {
        Decision::Refuse => Err(HandshakeError::Refusing(verdict.findings)),
        _ => Ok(()),
    }
}

fn judge(source: &Hello) -> Verdict {
    let mut findings = Vec::new();
    let mut finding = |rule: &str, text: String| {
        findings.push(Finding {
            severity: Severity::Error,
            rule: rule.to_owned(),
            path: String::new(),
            expected: None,
            found: None,
            text: Some(text),
        });
    };
    if !source.versions.contains(&VERSION) {
        let versions = &source.versions;
        finding(
            "N01",
            format!("versions {versions:?} of the protocol, {VERSION} is known"),
        );
    }
    for capability in &source.capabilities {
        let known = KNOWN.contains(&capability.name.as_str());
        if capability.level == Level::Required && !known {
            let name = &capability.name;
            finding(
                "N02",
                format!("capability {name} is required and not known"),
            );
        }
    }
    let decision = match findings.is_empty() {
        true => Decision::Accept,
        false => Decision::Refuse,
    };
    Verdict {
        decision,
        version: VERSION,
        capabilities: source.capabilities.clone(),
        wanted: Vec::new(),
        findings,
    }
}
