//! What all PCI devices have: configuration space, interrupt lines, MSI-X.

mod msix;

use vmstate_derive::VmState;
use vmstate_desc::{Error, LoadField, SaveField};

pub use msix::{Msix, MsixVector};

use crate::codec::{get, put};

/// Bytes of a conventional device's configuration space.
pub const CONVENTIONAL: usize = 256;

/// Bytes of a PCI Express device's configuration space.
pub const EXPRESS: usize = 4096;

/// The part that stands first in every PCI device's state, `PCIDevice`.
///
/// Whether the device is PCI Express is configured: make one with [`PciDevice::conventional`] or [`PciDevice::express`] before
/// loading.
#[derive(Debug, Clone, PartialEq, Eq, VmState)]
#[vmstate(name = "PCIDevice", version = 2, minimum_version = 1)]
pub struct PciDevice {
    /// Always 2.
    #[vmstate(less_or_equal)]
    pub version_id: i32,
    /// The configuration space.
    #[vmstate(
        custom(name = "pci config", size = 256, save = save_config, load = load_config),
        exists = Self::is_conventional
    )]
    pub config: ConfigSpace,
    #[vmstate(
        name = "config",
        custom(name = "pci config", size = 4096, save = save_config, load = load_config),
        exists = Self::is_express
    )]
    #[doc(hidden)]
    pub _express: (),
    /// Which of the lines INTA to INTD the device pulls.
    #[vmstate(
        name = "irq_state",
        since = 2,
        custom(name = "pci irq state", size = 16, save = save_lines, load = load_lines)
    )]
    pub lines: [bool; 4],
    /// Bits of the configuration space that must be equal on both ends. Empty: all may differ.
    #[vmstate(skip = "configured")]
    pub fixed: Vec<u8>,
}

impl PciDevice {
    /// A device with 256 bytes of configuration space.
    #[must_use]
    pub fn conventional() -> Self {
        Self::with(ConfigSpace::new(false))
    }

    /// A device with 4096 bytes of configuration space.
    #[must_use]
    pub fn express() -> Self {
        Self::with(ConfigSpace::new(true))
    }

    fn with(config: ConfigSpace) -> Self {
        Self {
            version_id: 2,
            config,
            _express: (),
            lines: [false; 4],
            fixed: Vec::new(),
        }
    }

    fn is_conventional(&self, _version: u32) -> bool {
        !self.config.is_express()
    }

    fn is_express(&self, _version: u32) -> bool {
        self.config.is_express()
    }
}

impl Default for PciDevice {
    fn default() -> Self {
        Self::conventional()
    }
}

fn save_config(device: &PciDevice, sink: &mut dyn SaveField) -> Result<(), Error> {
    sink.raw(device.config.bytes())
}

fn load_config(device: &mut PciDevice, source: &mut dyn LoadField) -> Result<(), Error> {
    let mut config = device.config.clone();
    source.raw(&mut config.0)?;
    let local = device.config.bytes().iter().zip(config.bytes());
    let wrong = local
        .zip(&device.fixed)
        .position(|((here, there), fixed)| (here ^ there) & fixed != 0);
    if let Some(at) = wrong {
        let byte = |config: &ConfigSpace| config.u8(at);
        let reason = format!(
            "byte {at:#x} must agree with the destination's {:#04x}, found {:#04x}",
            byte(&device.config),
            byte(&config)
        );
        return Err(source.refuse("pci config", reason.into()));
    }
    device.config = config;
    Ok(())
}

fn save_lines(device: &PciDevice, sink: &mut dyn SaveField) -> Result<(), Error> {
    for line in device.lines {
        put(sink, u32::from(line))?;
    }
    Ok(())
}

fn load_lines(device: &mut PciDevice, source: &mut dyn LoadField) -> Result<(), Error> {
    let mut lines = [false; 4];
    for (line, name) in lines.iter_mut().zip(["INTA", "INTB", "INTC", "INTD"]) {
        *line = match get::<u32>(source, name)? {
            0 => false,
            1 => true,
            level => {
                let reason = format!("{name} is {level}, which is neither 0 nor 1");
                return Err(source.refuse("pci irq state", reason.into()));
            }
        };
    }
    device.lines = lines;
    Ok(())
}

/// A configuration space: little-endian registers, 256 or 4096 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSpace(Box<[u8]>);

impl ConfigSpace {
    /// All zeros.
    #[must_use]
    pub fn new(express: bool) -> Self {
        let size = if express { EXPRESS } else { CONVENTIONAL };
        Self(vec![0; size].into_boxed_slice())
    }

    /// Whether it has 4096 bytes.
    #[must_use]
    pub fn is_express(&self) -> bool {
        self.0.len() == EXPRESS
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, to change them.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// The byte at `offset`; 0 outside of the space.
    #[must_use]
    pub fn u8(&self, offset: usize) -> u8 {
        self.0.get(offset).copied().unwrap_or(0)
    }

    /// The 16-bit register at `offset`.
    #[must_use]
    pub fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.u8(offset), self.u8(offset.saturating_add(1))])
    }

    /// Vendor and device.
    #[must_use]
    pub fn id(&self) -> (u16, u16) {
        (self.u16(0), self.u16(2))
    }

    /// Offset of the first capability of this kind.
    #[must_use]
    pub fn capability(&self, id: u8) -> Option<usize> {
        const POINTER: usize = 0x34;
        const FIRST: u8 = 0x40;
        let mut at = self.u8(POINTER) & !3;
        // Each takes four bytes at least, so a longer list goes in circles.
        for _ in 0..CONVENTIONAL / 4 {
            if at < FIRST {
                return None;
            }
            let offset = usize::from(at);
            if self.u8(offset) == id {
                return Some(offset);
            }
            at = self.u8(offset + 1) & !3;
        }
        None
    }

    /// Number of MSI-X vectors that the device has, by its capability.
    #[must_use]
    pub fn msix_vectors(&self) -> Option<u16> {
        const MSIX: u8 = 0x11;
        let at = self.capability(MSIX)?;
        Some((self.u16(at + 2) & 0x7ff) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_in_a_circle() {
        let mut config = ConfigSpace::new(false);
        assert_eq!(config.capability(5), None);
        let bytes = config.bytes_mut();
        bytes[0x34] = 0x40;
        bytes[0x40] = 1;
        bytes[0x41] = 0x50;
        bytes[0x50] = 0x11;
        bytes[0x51] = 0x40;
        bytes[0x52] = 3;
        assert_eq!(config.capability(1), Some(0x40));
        assert_eq!(config.capability(5), None);
        assert_eq!(config.msix_vectors(), Some(4));
        assert_eq!(config.u16(0xffff_ffff), 0);
    }
}
