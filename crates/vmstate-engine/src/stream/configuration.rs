//! The configuration section: what both machines must have in common.

use vmstate_desc::{
    Codec, Count, Description, DynState, Field, Repeat, Scalar, ScalarType, Scalars, Size, Value,
};
use vmstate_ram::PageSize;
use vmstate_wire::stream::{
    Capability as CapabilityName, Configuration, ConfigurationSubsection, MachineName,
};

use super::error::{LoadError, SaveError};
use super::format::Opening;
use crate::settings::{Capability, Settings};

/// Who a machine is, as far as a stream says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The machine type's full name, never an alias.
    pub machine: String,
    /// The target page size.
    pub page_size: PageSize,
    /// Whether the stream says the target page size: on Arm, where it depends on the machine.
    pub says_page_size: bool,
    /// The machine's UUID, if it has one.
    pub uuid: Option<[u8; 16]>,
    /// The architecture by QEMU's name, such as `riscv64`; empty if nobody says. No QEMU stream says it.
    pub arch: String,
}

impl Identity {
    /// A machine with 4 KiB pages and without UUID.
    #[must_use]
    pub fn new(machine: impl Into<String>) -> Self {
        Self {
            machine: machine.into(),
            page_size: PageSize::KIB4,
            says_page_size: false,
            uuid: None,
            arch: String::new(),
        }
    }

    /// What a stream of this machine says first.
    pub(super) fn opening(&self, settings: &Settings) -> Result<Opening, SaveError> {
        let configuration = self.configuration(settings)?;
        let state = described(&configuration);
        Ok(Opening {
            configuration,
            state,
        })
    }

    /// The same machine of this architecture.
    #[must_use]
    pub fn with_arch(mut self, arch: impl Into<String>) -> Self {
        self.arch = arch.into();
        self
    }

    /// The configuration section of this machine.
    fn configuration(&self, settings: &Settings) -> Result<Configuration, SaveError> {
        let name = MachineName::new(self.machine.as_bytes())
            .ok_or_else(|| SaveError::MachineName(self.machine.clone()))?;
        let mut configuration = Configuration::new(name);
        let subsections = &mut configuration.subsections;
        if self.says_page_size {
            let bits = self.page_size.bits();
            subsections.push(ConfigurationSubsection::TargetPageBits(bits));
        }
        let names: Vec<_> = validated(settings)
            .filter(|(_, on)| *on)
            .filter_map(|(one, _)| CapabilityName::new(one.name()))
            .collect();
        if !names.is_empty() {
            subsections.push(ConfigurationSubsection::Capabilities(names));
        }
        if let Some(uuid) = self.uuid
            && settings.capabilities.has(Capability::ValidateUuid)
        {
            subsections.push(ConfigurationSubsection::Uuid(uuid));
        }
        Ok(configuration)
    }

    /// Checks what came.
    pub(super) fn check(
        &self,
        configuration: &Configuration,
        settings: &Settings,
    ) -> Result<(), LoadError> {
        let found = configuration.machine.as_bytes();
        if found != self.machine.as_bytes() {
            return Err(LoadError::MachineName {
                found: String::from_utf8_lossy(found).into_owned(),
                local: self.machine.clone(),
            });
        }
        let local = self.page_size.bits();
        if let Some(found) = configuration.target_page_bits()
            && found != local
        {
            return Err(LoadError::PageBits { found, local });
        }
        for (one, local) in validated(settings) {
            if configuration.has_capability(one.name()) != local {
                let name = one.name().to_owned();
                return Err(LoadError::Capability { name, local });
            }
        }
        let known = |name: &&CapabilityName| {
            !validated(settings).any(|(one, _)| one.name().as_bytes() == name.as_bytes())
        };
        if let Some(unknown) = configuration.capabilities().iter().find(known) {
            let name = String::from_utf8_lossy(unknown.as_bytes()).into_owned();
            return Err(LoadError::Capability { name, local: false });
        }
        match (configuration.uuid(), self.uuid) {
            (Some(found), Some(local)) if found != local => Err(LoadError::Uuid { found, local }),
            _ => Ok(()),
        }
    }
}

/// The capabilities that the configuration section lists, and whether they are on.
fn validated(settings: &Settings) -> impl Iterator<Item = (Capability, bool)> {
    [Capability::XIgnoreShared, Capability::MappedRam]
        .into_iter()
        .map(|one| (one, settings.capabilities.has(one)))
}

/// The section as a described state, for the trailer.
fn described(configuration: &Configuration) -> DynState {
    let name = configuration.machine.as_bytes();
    let mut description = Description::new("configuration", 1, 1);
    description.fields = vec![
        Field::value("len", Codec::Uint32),
        Field::value("name", Codec::Buffer(Size::Fixed(length(name)))),
    ]
    .into();
    let parts: Vec<_> = configuration.subsections.iter().map(part).collect();
    description.subsections = parts
        .iter()
        .map(|part| part.description.clone().into())
        .collect();
    let mut state = DynState::new(description);
    state.set("len", Scalar::U32(length(name)));
    state.set("name", bytes(name));
    for (index, part) in parts.into_iter().enumerate() {
        let mut sub = DynState::new(part.description);
        for (name, value) in part.values {
            sub.set(name, value);
        }
        state.set_subsection(index, Some(sub));
    }
    state
}

/// A subsection and its values.
struct Part {
    description: Description,
    values: Vec<(&'static str, Value)>,
}

fn part(subsection: &ConfigurationSubsection) -> Part {
    let (name, fields, values) = match subsection {
        ConfigurationSubsection::TargetPageBits(bits) => (
            "configuration/target-page-bits",
            vec![Field::value("target_page_bits", Codec::Uint32)],
            vec![("target_page_bits", Scalar::U32(*bits).into())],
        ),
        ConfigurationSubsection::Capabilities(names) => (
            "configuration/capabilities",
            vec![
                Field::value("caps_count", Codec::Uint32),
                Field::value("capabilities", Codec::Capability).repeat(Repeat::Counted(
                    Count::of_field("caps_count", length(names)),
                )),
            ],
            vec![
                ("caps_count", Scalar::U32(length(names)).into()),
                (
                    "capabilities",
                    Value::List(
                        names
                            .iter()
                            .map(|name| Value::Bytes(name.as_bytes().to_vec()))
                            .collect(),
                    ),
                ),
            ],
        ),
        ConfigurationSubsection::Uuid(uuid) => (
            "configuration/uuid",
            vec![Field::value("uuid.data", Codec::Uint8).array(16)],
            vec![("uuid.data", bytes(uuid))],
        ),
    };
    let mut description = Description::new(name, 1, 1);
    description.fields = fields.into();
    Part {
        description,
        values,
    }
}

fn bytes(bytes: &[u8]) -> Value {
    let mut values = Scalars::new(ScalarType::U8);
    for byte in bytes {
        values.push(Scalar::U8(*byte));
    }
    Value::Scalars(values)
}

fn length<T>(of: &[T]) -> u32 {
    u32::try_from(of.len()).unwrap_or(u32::MAX)
}
