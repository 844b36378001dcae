//! The words of the stream: ids, names, positions and the section header.

use std::fmt;

/// The first four bytes of a stream, `QEVM`.
///
/// Wire: QEMU `migration/savevm.c` (file header), every stream in `vectors/streams`.
pub const FILE_MAGIC: u32 = 0x5145_564d;

/// The format version behind the magic, the only one in use.
pub const FILE_VERSION: u32 = 3;

/// The version that readers recognise only to call it obsolete.
pub const OBSOLETE_FILE_VERSION: u32 = 2;

/// Type bytes, as they stand at the start of an element.
pub(super) mod mark {
    pub(crate) const EOF: u8 = 0x00;
    pub(crate) const START: u8 = 0x01;
    pub(crate) const PART: u8 = 0x02;
    pub(crate) const END: u8 = 0x03;
    pub(crate) const FULL: u8 = 0x04;
    pub(crate) const SUBSECTION: u8 = 0x05;
    pub(crate) const TRAILER: u8 = 0x06;
    pub(crate) const CONFIGURATION: u8 = 0x07;
    pub(crate) const COMMAND: u8 = 0x08;
    pub(crate) const FOOTER: u8 = 0x7e;
}

/// A position in a stream: bytes from its first byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamOffset(pub u64);

impl StreamOffset {
    /// The position `bytes` further on; stays at `u64::MAX` when it would not fit.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }
}

impl fmt::Display for StreamOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The handle of a section within one stream; be32 on the wire. It has no meaning beyond the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionId(pub u32);

impl fmt::Display for SectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Tells sections with the same [`IdStr`] apart; be32 on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u32);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The version of a description that a section was written with; be32 on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId(pub u32);

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A name was empty or longer than 255 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to 255 bytes, this one has {length}")]
pub struct NameLengthError {
    /// Length of the refused name, in bytes.
    pub length: usize,
}

macro_rules! counted_name {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<[u8]>);

        impl $name {
            /// Makes a name from its bytes.
            ///
            /// # Errors
            ///
            /// [`NameLengthError`] unless there are 1 to 255 bytes.
            pub fn new(name: impl Into<Vec<u8>>) -> Result<Self, NameLengthError> {
                let name = name.into();
                match name.len() {
                    1..=255 => Ok(Self(name.into_boxed_slice())),
                    length => Err(NameLengthError { length }),
                }
            }

            /// The bytes of the name, 1 to 255 of them.
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

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                *self.0 == *other.as_bytes()
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                *self.0 == *other.as_bytes()
            }
        }
    };
}

counted_name! {
    /// The name of a section's owner, such as `ram` or `0000:00:01.1/ide`: 1 to 255 bytes.
    ///
    /// | offset | size | meaning |
    /// |---|---|---|
    /// | 0 | 1 | n, length of the name, 1 to 255 |
    /// | 1 | n | the name, no terminator |
    ///
    /// Names are plain bytes; they are shown with what is not UTF-8 replaced and control characters
    /// escaped.
    ///
    /// Wire: QEMU `migration/savevm.c` (section header).
    IdStr
}

counted_name! {
    /// The name of a RAM block, such as `pc.ram`: 1 to 255 bytes, on the wire as [`IdStr`].
    ///
    /// Wire: QEMU `migration/ram.c`, `migration/savevm.c`.
    BlockName
}

/// Shows bytes as text: what is not UTF-8 replaced, control characters escaped.
pub(super) fn write_lossy(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    use fmt::Write as _;
    for character in String::from_utf8_lossy(bytes).chars() {
        if character.is_control() {
            write!(f, "{}", character.escape_default())?;
        } else {
            f.write_char(character)?;
        }
    }
    Ok(())
}

/// Which piece of its owner's state a section holds; its type byte on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SectionKind {
    /// 0x01: the first piece of an iterative section.
    Start,
    /// 0x02: a further piece.
    Part,
    /// 0x03: the last piece.
    End,
    /// 0x04: everything in one piece.
    Full,
}

impl SectionKind {
    /// The type byte.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Start => mark::START,
            Self::Part => mark::PART,
            Self::End => mark::END,
            Self::Full => mark::FULL,
        }
    }

    /// The kind that a type byte stands for, if it is one of a section.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            mark::START => Some(Self::Start),
            mark::PART => Some(Self::Part),
            mark::END => Some(Self::End),
            mark::FULL => Some(Self::Full),
            _ => None,
        }
    }

    /// Whether a header of this kind names its owner on the wire (START and FULL do).
    #[must_use]
    pub fn names_owner(self) -> bool {
        matches!(self, Self::Start | Self::Full)
    }
}

impl fmt::Display for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "START",
            Self::Part => "PART",
            Self::End => "END",
            Self::Full => "FULL",
        })
    }
}

/// What stands before a section's body.
///
/// START and FULL, `14 + n` bytes:
///
/// | offset | size | order | meaning |
/// |---|---|---|---|
/// | 0 | 1 | | 0x01 START or 0x04 FULL |
/// | 1 | 4 | big-endian | section id |
/// | 5 | 1 + n | | idstr, see [`IdStr`] |
/// | 6+n | 4 | big-endian | instance id |
/// | 10+n | 4 | big-endian | version id |
///
/// PART and END, 5 bytes; owner and version are those of the id's last START or FULL:
///
/// | offset | size | order | meaning |
/// |---|---|---|---|
/// | 0 | 1 | | 0x02 PART or 0x03 END |
/// | 1 | 4 | big-endian | section id |
///
/// Wire: QEMU `migration/savevm.c`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionHeader {
    /// Which piece this is.
    pub kind: SectionKind,
    /// The stream's handle for the section.
    pub section_id: SectionId,
    /// Who the section belongs to.
    pub idstr: IdStr,
    /// Which one of that name.
    pub instance_id: InstanceId,
    /// Version of the body's description.
    pub version_id: VersionId,
}

impl SectionHeader {
    /// Id and owner, as errors show them.
    #[must_use]
    pub fn name(&self) -> SectionName {
        SectionName {
            section_id: self.section_id,
            idstr: self.idstr.clone(),
            instance_id: self.instance_id,
        }
    }
}

/// A section's id and owner, shown as `4 (timer/0)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionName {
    /// The stream's handle for the section.
    pub section_id: SectionId,
    /// Who the section belongs to.
    pub idstr: IdStr,
    /// Which one of that name.
    pub instance_id: InstanceId,
}

impl fmt::Display for SectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}/{})",
            self.section_id, self.idstr, self.instance_id
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_1_to_255_bytes() {
        assert_eq!(IdStr::new(""), Err(NameLengthError { length: 0 }));
        assert!(IdStr::new("a").is_ok());
        assert!(IdStr::new(vec![b'a'; 255]).is_ok());
        assert_eq!(
            IdStr::new(vec![b'a'; 256]).unwrap_err().to_string(),
            "a name has 1 to 255 bytes, this one has 256"
        );
    }

    #[test]
    fn names_are_shown_lossily() {
        let name = IdStr::new(*b"a\xff\x1b[1m").unwrap();
        assert_eq!(name.to_string(), "a\u{fffd}\\u{1b}[1m");
        assert_eq!(name.as_str(), None);
        assert!(BlockName::new("pc.ram").unwrap() == "pc.ram");
    }

    #[test]
    fn kinds_round_trip() {
        for byte in 0..=255 {
            if let Some(kind) = SectionKind::from_byte(byte) {
                assert_eq!(kind.byte(), byte);
            } else {
                assert!(!(1..=4).contains(&byte));
            }
        }
    }

    #[test]
    fn offsets_saturate() {
        assert_eq!(StreamOffset(u64::MAX - 1).plus(5), StreamOffset(u64::MAX));
        assert_eq!(StreamOffset(0x1234).to_string(), "0x1234");
    }
}
