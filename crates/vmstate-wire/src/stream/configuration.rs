//! The configuration section: which machine the stream belongs to.

use std::fmt;

use super::error::StreamErrorKind;
use super::options::Limits;
use super::take::{Stop, Take, fail};
use super::types::{mark, write_lossy};

/// The prefix of every subsection name in the configuration section.
const PREFIX: &[u8] = b"configuration";

/// Name of the subsection with the target's page bits.
pub(super) const TARGET_PAGE_BITS: &str = "configuration/target-page-bits";
/// Name of the subsection with the capabilities.
pub(super) const CAPABILITIES: &str = "configuration/capabilities";
/// Name of the subsection with the UUID.
pub(super) const UUID: &str = "configuration/uuid";
/// The one version of all three.
pub(super) const SUBSECTION_VERSION: u32 = 1;

/// The configuration section, which stands right after the header.
///
/// | offset | size | order | meaning |
/// |---|---|---|---|
/// | 0 | 1 | | 0x07 |
/// | 1 | 4 | big-endian | n, length of the machine name |
/// | 5 | n | | machine name, no terminator |
/// | 5+n | | | subsections, any number |
///
/// It has no id, no version and no footer.
///
/// Wire: QEMU `migration/savevm.c`, every stream in `vectors/streams`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// The full name of the machine type, such as `pc-i440fx-10.0`.
    pub machine: MachineName,
    /// The subsections in the order of the stream.
    pub subsections: Vec<ConfigurationSubsection>,
}

impl Configuration {
    /// A configuration without subsections.
    #[must_use]
    pub fn new(machine: MachineName) -> Self {
        Self {
            machine,
            subsections: Vec::new(),
        }
    }

    /// Base-2 logarithm of the target page size, if the stream says it (Arm does).
    #[must_use]
    pub fn target_page_bits(&self) -> Option<u32> {
        self.subsections.iter().rev().find_map(|one| match one {
            ConfigurationSubsection::TargetPageBits(bits) => Some(*bits),
            _ => None,
        })
    }

    /// Names of the validated capabilities that are on, in the order of the stream. Empty if there
    /// is no such subsection.
    #[must_use]
    pub fn capabilities(&self) -> &[Capability] {
        self.subsections
            .iter()
            .rev()
            .find_map(|one| match one {
                ConfigurationSubsection::Capabilities(names) => Some(names.as_slice()),
                _ => None,
            })
            .unwrap_or(&[])
    }

    /// Whether a capability of this name is listed.
    #[must_use]
    pub fn has_capability(&self, name: &str) -> bool {
        self.capabilities()
            .iter()
            .any(|one| one.as_bytes() == name.as_bytes())
    }

    /// The machine's UUID, if the stream says it.
    #[must_use]
    pub fn uuid(&self) -> Option<[u8; 16]> {
        self.subsections.iter().rev().find_map(|one| match one {
            ConfigurationSubsection::Uuid(uuid) => Some(*uuid),
            _ => None,
        })
    }
}

/// A subsection of the configuration section.
///
/// | offset | size | order | meaning |
/// |---|---|---|---|
/// | 0 | 1 | | 0x05 |
/// | 1 | 1 + n | | counted name, see the variants |
/// | 2+n | 4 | big-endian | version, 1 |
/// | 6+n | | | see the variants |
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigurationSubsection {
    /// `configuration/target-page-bits`: be32, base-2 logarithm of the target page size.
    TargetPageBits(u32),
    /// `configuration/capabilities`: be32 count, then that many counted names.
    Capabilities(Vec<Capability>),
    /// `configuration/uuid`: 16 bytes.
    Uuid([u8; 16]),
}

/// The name of a machine type: at least one byte.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MachineName(Box<[u8]>);

impl MachineName {
    /// Makes a name from its bytes; none if there are no bytes or more than 2³² − 1.
    #[must_use]
    pub fn new(name: impl Into<Vec<u8>>) -> Option<Self> {
        let name = name.into();
        (!name.is_empty() && u32::try_from(name.len()).is_ok())
            .then(|| Self(name.into_boxed_slice()))
    }

    /// The bytes of the name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name, if it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

/// The name of a capability, such as `mapped-ram`: 0 to 255 bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Capability(Box<[u8]>);

impl Capability {
    /// Makes a name from its bytes; none if there are more than 255.
    #[must_use]
    pub fn new(name: impl Into<Vec<u8>>) -> Option<Self> {
        let name = name.into();
        (name.len() <= 255).then(|| Self(name.into_boxed_slice()))
    }

    /// The bytes of the name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

macro_rules! show_lossy {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_lossy(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", String::from_utf8_lossy(&self.0))
            }
        }
    };
}

show_lossy!(MachineName);
show_lossy!(Capability);

/// Reads a configuration section whose first byte, 0x07, has been looked at but not taken.
///
/// The section ends where no further subsection begins, so one byte behind it must be there.
pub(super) fn parse(input: &mut Take<'_>, limits: &Limits) -> Result<Configuration, Stop> {
    input.u8()?;
    let at = input.at();
    let length = input.u32_be()?;
    if length > limits.machine_name {
        return fail(
            at,
            StreamErrorKind::MachineNameTooLong {
                length,
                limit: limits.machine_name,
            },
        );
    }
    let name = input.bytes(usize::try_from(length).unwrap_or(usize::MAX))?;
    let Some(machine) = MachineName::new(name) else {
        return fail(at, StreamErrorKind::EmptyMachineName);
    };
    let mut configuration = Configuration::new(machine);
    while let Some(subsection) = parse_subsection(input, limits)? {
        configuration.subsections.push(subsection);
    }
    Ok(configuration)
}

/// Reads the next subsection; none, and nothing taken, if what follows is not one.
fn parse_subsection(
    input: &mut Take<'_>,
    limits: &Limits,
) -> Result<Option<ConfigurationSubsection>, Stop> {
    let start = input.at();
    let mut ahead = input.clone();
    if ahead.u8()? != mark::SUBSECTION {
        return Ok(None);
    }
    let length = usize::from(ahead.u8()?);
    if length <= PREFIX.len() {
        return Ok(None);
    }
    let name = ahead.bytes(length)?;
    if !name.starts_with(PREFIX) {
        return Ok(None);
    }
    let known = [TARGET_PAGE_BITS, CAPABILITIES, UUID];
    let Some(name) = known.into_iter().find(|one| one.as_bytes() == name) else {
        let name = name.to_vec();
        return fail(
            start,
            StreamErrorKind::UnknownConfigurationSubsection { name },
        );
    };
    let at = ahead.at();
    let found = ahead.u32_be()?;
    if found != SUBSECTION_VERSION {
        return fail(
            at,
            StreamErrorKind::ConfigurationSubsectionVersion { name, found },
        );
    }
    let subsection = match name {
        TARGET_PAGE_BITS => ConfigurationSubsection::TargetPageBits(ahead.u32_be()?),
        CAPABILITIES => parse_capabilities(&mut ahead, limits)?,
        _ => ConfigurationSubsection::Uuid(ahead.uuid()?),
    };
    *input = ahead;
    Ok(Some(subsection))
}

fn parse_capabilities(
    input: &mut Take<'_>,
    limits: &Limits,
) -> Result<ConfigurationSubsection, Stop> {
    let at = input.at();
    let count = input.u32_be()?;
    if count > limits.capabilities {
        return fail(
            at,
            StreamErrorKind::TooManyCapabilities {
                count,
                limit: limits.capabilities,
            },
        );
    }
    let mut names = Vec::new();
    for _ in 0..count {
        names.extend(Capability::new(input.counted()?));
    }
    Ok(ConfigurationSubsection::Capabilities(names))
}
