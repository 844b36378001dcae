//! Objects that have a migration id.

use std::borrow::Cow;

use crate::description::DescriptionRef;
use crate::error::Reason;

/// Most bytes of a section's id string: its length is one byte on the wire.
const IDSTR: usize = 255;

/// Any object, not only a device, that gives its migration id and its description.
///
/// QEMU: the interface `vmstate-if`, and the description that is registered with it.
///
/// ```
/// use std::borrow::Cow;
/// use vmstate_desc::snapshot::VmStateIf;
/// use vmstate_desc::{Description, DescriptionRef};
///
/// static DESCRIPTION: Description = Description::new("dbus-vmstate", 0, 0);
///
/// struct DbusVmState {
///     id: String,
/// }
///
/// impl VmStateIf for DbusVmState {
///     fn vmstate_id(&self) -> Option<Cow<'_, str>> {
///         Some(Cow::Borrowed(&self.id))
///     }
///
///     fn vmstate_description(&self) -> DescriptionRef {
///         DescriptionRef::Static(&DESCRIPTION)
///     }
/// }
///
/// let object = DbusVmState { id: "helpers".into() };
/// assert_eq!(object.idstr()?, "helpers/dbus-vmstate");
/// # Ok::<(), vmstate_desc::Reason>(())
/// ```
pub trait VmStateIf {
    /// The migration id, unique among objects with the same description: a device's path on its bus, an object's own id.
    /// `None` where instances are told apart by number alone.
    fn vmstate_id(&self) -> Option<Cow<'_, str>>;

    /// What its state looks like.
    fn vmstate_description(&self) -> DescriptionRef;

    /// The section's id string: `id/name`, or the description's name alone.
    ///
    /// # Errors
    /// If it is longer than 255 bytes, which no section header can hold. (QEMU cuts it off.)
    fn idstr(&self) -> Result<String, Reason> {
        let description = self.vmstate_description();
        let name = description.name();
        let idstr = match self.vmstate_id().filter(|id| !id.is_empty()) {
            Some(id) => format!("{id}/{name}"),
            None => name.to_owned(),
        };
        if idstr.len() > IDSTR {
            return Err(format!(
                "the id string {idstr} has {} bytes, at most {IDSTR} fit",
                idstr.len()
            )
            .into());
        }
        Ok(idstr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::description::Description;

    static D: Description = Description::new("rtc", 1, 1);

    struct Object(Option<String>);

    impl VmStateIf for Object {
        fn vmstate_id(&self) -> Option<Cow<'_, str>> {
            self.0.as_deref().map(Cow::Borrowed)
        }

        fn vmstate_description(&self) -> DescriptionRef {
            DescriptionRef::Static(&D)
        }
    }

    #[test]
    fn id_strings() {
        let idstr = |id: Option<&str>| Object(id.map(str::to_owned)).idstr();
        assert_eq!(idstr(None).unwrap(), "rtc");
        assert_eq!(idstr(Some("")).unwrap(), "rtc");
        assert_eq!(idstr(Some("0000:00:04.0")).unwrap(), "0000:00:04.0/rtc");
        assert_eq!(idstr(Some(&"x".repeat(251))).unwrap().len(), 255);
        let e = idstr(Some(&"x".repeat(252))).unwrap_err();
        assert!(e.text().ends_with("has 256 bytes, at most 255 fit"), "{e}");
        let object: &dyn VmStateIf = &Object(None);
        assert_eq!(object.vmstate_description().version_id, 1);
    }
}
