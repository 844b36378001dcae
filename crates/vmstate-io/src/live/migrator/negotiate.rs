//! What this machine says of itself to another of ours, and the negotiation over a channel.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};

use vmstate_ber::frame::{Capability, Level, Limit, MachineId, Presence};
use vmstate_engine::{Capability as Qemu, ChannelError, Entry, Settings};
use vmstate_negotiate::capabilities::{
    CHANNELS, OPAQUE_SECTIONS, POSTCOPY, QEMU, QEMU_COMMANDS, RAM_BITMAP, RETURN_PATH,
};
use vmstate_negotiate::{Handshake, Inventory, MAX_TYPES, Outcome, Report, Terms};

use super::outgoing::reason;
use super::{Migrator, Shared, lock};

/// What this program calls itself.
const SOFTWARE: &str = concat!("vmstate ", env!("CARGO_PKG_VERSION"));
/// An architecture that nobody has named.
const UNKNOWN: &str = "unknown";
/// Most bytes that are read at once.
const PIECE: usize = 64 << 10;

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

/// Capabilities of QEMU's without which a stream would not be understood, if the source has them on.
const BOTH_ENDS: &[Qemu] = &[
    Qemu::Xbzrle,
    Qemu::PostcopyRam,
    Qemu::PostcopyPreempt,
    Qemu::XColo,
    Qemu::Multifd,
    Qemu::DirtyBitmaps,
    Qemu::XIgnoreShared,
    Qemu::SwitchoverAck,
    Qemu::MappedRam,
];

/// QEMU's capabilities as a negotiation lists them: of a source what is on, of a destination also what only a source
/// does.
fn qemu_capabilities(settings: &Settings, end: End) -> Vec<(String, Level)> {
    let on = |one: &&Qemu| match end {
        End::Source => settings.capabilities.has(**one),
        End::Destination => settings.capabilities.has(**one) || !BOTH_ENDS.contains(one),
    };
    let level = |one: &Qemu| match end {
        End::Source if BOTH_ENDS.contains(one) => Level::Required,
        _ => Level::Offered,
    };
    Qemu::ALL
        .iter()
        .filter(on)
        .map(|one| (format!("{QEMU}{}", one.name()), level(one)))
        .collect()
}

impl Shared {
    /// What this end brings into a negotiation.
    pub(super) fn terms(&self, settings: &Settings, end: End) -> Result<Terms, String> {
        let inventory = self.inventory()?;
        let types = Limit {
            name: "types".to_owned(),
            value: match end {
                End::Source => inventory.types() as u64,
                End::Destination => MAX_TYPES as u64,
            },
        };
        let mut terms = Terms::new(SOFTWARE, inventory);
        if end == End::Source {
            terms.session = session();
        }
        terms.limits.push(types);
        for name in [OPAQUE_SECTIONS, QEMU_COMMANDS, RAM_BITMAP, RETURN_PATH] {
            terms = terms.with(name, Level::Required);
        }
        let level = match end {
            End::Source => Level::Required,
            End::Destination => Level::Offered,
        };
        for (qemu, name) in [
            (Qemu::PostcopyRam, POSTCOPY),
            (Qemu::PostcopyPreempt, CHANNELS),
        ] {
            if settings.capabilities.has(qemu) {
                terms = terms.with(name, level);
            }
        }
        for (name, level) in qemu_capabilities(settings, end) {
            terms = terms.with(name, level);
        }
        Ok(terms)
    }

    fn inventory(&self) -> Result<Inventory, String> {
        let identity = &self.identity;
        let named = |name: &str| match name.is_empty() {
            true => UNKNOWN.to_owned(),
            false => name.to_owned(),
        };
        let mut inventory = Inventory::new(MachineId {
            machine_type: named(&identity.machine),
            page_bits: identity.page_size.bits().into(),
            arch: named(&identity.arch),
        });
        for entry in lock(&self.registry).entries() {
            let (idstr, instance) = name(entry);
            let version = entry.version().0;
            let presence = match entry.is_active() {
                true => Presence::Always,
                false => Presence::Maybe,
            };
            match entry.structured() {
                Some(description) => {
                    inventory.add_described(&idstr, instance, description, presence)
                }
                None => inventory.add_live(&idstr, instance, version, entry.is_iterative()),
            }
            .map_err(|error| error.to_string())?;
            for (name, number) in entry.aliases() {
                inventory.add_alias((&idstr, instance), &name.to_string(), number.0);
            }
        }
        Ok(inventory)
    }

    /// As [`terms`](Self::terms), with the numbers that devices have from their configuration. Not while the caller holds the VMM's
    /// lock.
    pub(super) fn terms_with_counts(&self, settings: &Settings, end: End) -> Result<Terms, String> {
        let mut terms = self.terms(settings, end)?;
        let bql = self.bql();
        for entry in lock(&self.registry).entries() {
            let (idstr, instance) = name(entry);
            let counts = entry.own_counts(&bql);
            terms.inventory.set_counts((&idstr, instance), counts);
        }
        Ok(terms)
    }
}

fn name(entry: &Entry) -> (String, u32) {
    (entry.idstr().to_string(), entry.instance_id().0)
}

/// A number that no other migration has.
fn session() -> [u8; 16] {
    // Keys of hash tables are what the standard library draws at random.
    let mut all = [0; 16];
    for half in all.as_chunks_mut::<8>().0 {
        *half = RandomState::new().build_hasher().finish().to_be_bytes();
    }
    all
}

/// A channel, as a negotiation uses it.
pub(super) trait Talk {
    /// Sends bytes.
    fn send(&mut self, bytes: &[u8]) -> Result<(), ChannelError>;

    /// Appends at least one byte and at most `most`. None: the other end has closed the channel.
    fn receive(&mut self, into: &mut Vec<u8>, most: usize) -> Result<(), ChannelError>;
}

/// Negotiates until there is an answer. Not a byte behind it is read.
pub(super) fn negotiate(handshake: &mut Handshake, talk: &mut dyn Talk) -> Result<Outcome, String> {
    let mut have = Vec::new();
    loop {
        send(handshake, talk)?;
        let taken = handshake.input(&have).map_err(|error| error.to_string())?;
        have.drain(..taken.consumed.min(have.len()));
        if let Some(outcome) = taken.outcome {
            send(handshake, talk)?;
            return Ok(outcome);
        }
        if taken.consumed == 0 {
            let before = have.len();
            let more = taken.need.saturating_sub(before).clamp(1, PIECE);
            talk.receive(&mut have, more)
                .map_err(|error| reason(&error))?;
            if have.len() == before {
                return Err(SILENT.to_owned());
            }
        }
    }
}

/// Sends what is to be sent.
pub(super) fn send(handshake: &mut Handshake, talk: &mut dyn Talk) -> Result<(), String> {
    let out = handshake.output();
    match out.is_empty() {
        true => Ok(()),
        false => talk.send(&out).map_err(|error| reason(&error)),
    }
}

/// What somebody hears who speaks VM state over BER to somebody who does not.
const SILENT: &str = "the other end closed the connection instead of answering in VM state over BER: it may be QEMU, or \
    have x-peer=qemu";

/// What came of the last negotiation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// Whether this end was the source.
    pub source: bool,
    /// Name and version of the other end's program; none if it has refused, or was refused.
    pub peer: Option<String>,
    /// Capabilities that are used.
    pub capabilities: Vec<String>,
    /// What the destination has to say.
    pub report: Report,
}

impl Shared {
    /// Keeps what came of a negotiation, and makes an error of a refusal.
    pub(super) fn conclude(&self, end: End, outcome: Outcome) -> Result<(), String> {
        let (agreement, report) = match outcome {
            Outcome::Agreed(agreement) => (Some(agreement.clone()), agreement.report),
            Outcome::Refused(report) => (None, report),
        };
        let text = report.to_string();
        let negotiated = Negotiated {
            source: end == End::Source,
            peer: agreement.as_ref().map(|agreement| agreement.peer.clone()),
            capabilities: agreement
                .iter()
                .flat_map(|agreement| &agreement.capabilities)
                .map(|one| one.name.clone())
                .collect(),
            report,
        };
        *lock(&self.negotiated) = Some(negotiated);
        match agreement {
            Some(_) => Ok(()),
            None => Err(text),
        }
    }
}

impl Migrator {
    /// What came of the last negotiation with another machine of ours; none if the last migration had none.
    #[must_use]
    pub fn negotiated(&self) -> Option<Negotiated> {
        lock(&self.0.negotiated).clone()
    }

    /// What the last incoming migration over BER had too much or too little of, although this machine took its devices.
    #[must_use]
    pub fn adapted(&self) -> vmstate_ber::Warnings {
        lock(&self.0.adapted).warnings()
    }

    /// What this end can do, as it would say it to another one: names of `vmstate-negotiate`, and QEMU's as `qemu:NAME`, with
    /// whether they are required.
    ///
    /// # Errors
    /// A machine that cannot be told: sections with the same name, or too many.
    pub fn offers(&self, source: bool) -> Result<Vec<Capability>, String> {
        let end = if source {
            End::Source
        } else {
            End::Destination
        };
        let terms = self.0.terms(&self.settings(), end)?;
        Ok(terms.capabilities)
    }
}
