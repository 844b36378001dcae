//! What helpers say about their objects, and whether that is more than one of the interface.
//!
//! A helper has one state, at [`OBJECT_PATH`]. One with a second object of the interface
//! has states that nobody would save, so it is refused. Introspection finds them; nobody has to answer it, and what it says is believed when
//! the object that it names has answered.

use std::collections::{BTreeSet, VecDeque};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::error::Fault;
use crate::peer::Peer;
use crate::{INTERFACE, OBJECT_PATH};

/// Most objects of a helper that are asked what they are.
const MOST_ASKED: usize = 64;
/// Most paths that are kept from one answer, of each kind.
const MOST_PATHS: usize = 256;
/// Most levels of objects in one answer. Those below are not looked at.
const MOST_LEVELS: usize = 16;
/// Most bytes of a path. D-Bus has no bound; helpers have no use for more.
const MAX_PATH: usize = 255;

/// What one object says about itself and those below it.
///
/// ```
/// use vmstate_dbus::Introspection;
///
/// let xml = r#"<node>
///   <node name="VMState1"><interface name="org.qemu.VMState1"/></node>
///   <node name="more"/>
/// </node>"#;
/// let said = Introspection::read(xml, "/org/qemu");
/// assert_eq!(said.exporting, ["/org/qemu/VMState1"]);
/// assert_eq!(said.to_ask, ["/org/qemu/more"]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Introspection {
    /// Paths of objects with the interface `org.qemu.VMState1`.
    pub exporting: Vec<String>,
    /// Paths of objects of which nothing is said but that they are there.
    pub to_ask: Vec<String>,
}

/// An object whose description is being read.
struct Level {
    /// None where the name is none.
    path: Option<String>,
    /// Something was said about it.
    described: bool,
}

impl Introspection {
    /// Reads the answer of the object at `path` to `Introspect`, as far as it can be read. Memory is bounded, whatever comes.
    #[must_use]
    pub fn read(xml: &str, path: &str) -> Self {
        let mut said = Self::default();
        let mut levels: Vec<Level> = Vec::new();
        // Levels below those that are looked at.
        let mut below = 0_usize;
        let mut reader = Reader::from_str(xml);
        while let Ok(event) = reader.read_event() {
            match event {
                Event::Start(element)
                    if is(&element, "node") && (below > 0 || levels.len() >= MOST_LEVELS) =>
                {
                    below = below.saturating_add(1);
                    // Something was said about the one above, though nobody has listened.
                    if let Some(level) = levels.last_mut() {
                        level.described = true;
                    }
                }
                Event::Start(element) if is(&element, "node") => {
                    said.enter(&mut levels, &element, path);
                }
                Event::Empty(element)
                    if is(&element, "node") && below == 0 && levels.len() < MOST_LEVELS =>
                {
                    said.enter(&mut levels, &element, path);
                    said.leave(&mut levels);
                }
                Event::Start(element) | Event::Empty(element)
                    if below == 0 && is(&element, "interface") =>
                {
                    said.interface(&mut levels, &element);
                }
                Event::End(end) if end.name().as_ref() == "node" => match below {
                    0 => said.leave(&mut levels),
                    _ => below = below.saturating_sub(1),
                },
                Event::Eof => break,
                _ => {}
            }
        }
        said
    }

    fn enter(&mut self, levels: &mut Vec<Level>, element: &BytesStart<'_>, root: &str) {
        let path = match levels.last_mut() {
            None => Some(root.to_owned()),
            Some(parent) => {
                parent.described = true;
                let parent = parent.path.as_deref();
                parent.and_then(|parent| joined(parent, &name(element)?))
            }
        };
        levels.push(Level {
            path,
            described: false,
        });
    }

    fn interface(&mut self, levels: &mut [Level], element: &BytesStart<'_>) {
        let Some(level) = levels.last_mut() else {
            return;
        };
        level.described = true;
        if let Some(path) = &level.path
            && name(element).as_deref() == Some(INTERFACE)
            && self.exporting.len() < MOST_PATHS
        {
            self.exporting.push(path.clone());
        }
    }

    fn leave(&mut self, levels: &mut Vec<Level>) {
        if let Some(level) = levels.pop()
            && let Some(path) = level.path
            && !level.described
            // The one that was asked has answered.
            && !levels.is_empty()
            && self.to_ask.len() < MOST_PATHS
        {
            self.to_ask.push(path);
        }
    }
}

fn is(element: &BytesStart<'_>, name: &str) -> bool {
    element.name().as_ref() == name
}

/// The attribute `name`.
fn name(element: &BytesStart<'_>) -> Option<String> {
    let mut attributes = element.attributes();
    // Each would be compared with all that come before it.
    attributes.with_checks(false);
    let attribute = attributes
        .flatten()
        .find(|attribute| attribute.key.as_ref() == "name")?;
    Some(attribute.value.to_string())
}

/// A path, and one of its children.
fn joined(parent: &str, name: &str) -> Option<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let length = parent.len().saturating_add(name.len());
    if name.is_empty() || length >= MAX_PATH || !name.chars().all(good) {
        return None;
    }
    Some(match parent {
        "/" => format!("/{name}"),
        _ => format!("{parent}/{name}"),
    })
}

/// Another object of this helper that has the interface, and answers.
pub(crate) async fn elsewhere(peer: &Peer) -> Option<Fault> {
    let mut to_ask = VecDeque::from(["/".to_owned()]);
    let mut seen = BTreeSet::new();
    let mut found = BTreeSet::new();
    while let Some(path) = to_ask.pop_front()
        && seen.len() < MOST_ASKED
    {
        // One who does not want to be looked at is not to blame.
        if !seen.insert(path.clone()) {
            continue;
        }
        if let Ok(xml) = peer.introspect(&path).await {
            let said = Introspection::read(&xml, &path);
            to_ask.extend(said.to_ask);
            to_ask.truncate(MOST_PATHS);
            found.extend(said.exporting);
        }
    }
    found.remove(OBJECT_PATH);
    for path in found.into_iter().take(MOST_ASKED) {
        let id = match peer.id_at(&path).await {
            Ok(id) => Ok(id),
            // It says that it has the interface, and has it: the id alone is wrong.
            Err(fault @ (Fault::NoId | Fault::IdLength(_) | Fault::WrongType { .. })) => {
                Err(Box::new(fault))
            }
            Err(_) => continue,
        };
        return Some(Fault::SecondObject { path, id });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_descriptions_and_children_that_are_only_named() {
        let xml = r#"<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
             "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
            <node name="/ignored">
              <interface name="org.freedesktop.DBus.Properties"><method name="Get"/></interface>
              <node name="org"><node name="qemu">
                <node name="VMState1"><interface name='org.qemu.VMState1'><method name="Save">
                  <arg type="ay" direction="out"/></method></interface></node>
                <node name="VMState2"><interface name="org.qemu.VMState1"/></node>
                <node name="plain"><interface name="org.qemu.Other"/></node>
              </node></node>
              <node name="asked"/><node name="also"></node>
              <node name="no/name"/><node name=""/><node/><node name="ä"/>
            </node>"#;
        let said = Introspection::read(xml, "/");
        assert_eq!(said.exporting, ["/org/qemu/VMState1", "/org/qemu/VMState2"]);
        assert_eq!(said.to_ask, ["/asked", "/also"]);
    }

    #[test]
    fn the_object_that_was_asked_may_be_the_one() {
        let said = Introspection::read(
            r#"<node><interface name="org.qemu.VMState1"/></node>"#,
            "/x",
        );
        assert_eq!(said.exporting, ["/x"]);
        assert_eq!(
            Introspection::read("<node/>", "/x"),
            Introspection::default()
        );
        assert_eq!(Introspection::read("", "/x"), Introspection::default());
    }

    #[test]
    fn what_is_no_introspection_says_as_much_as_could_be_read() {
        let cut = r#"<node><node name="a"><interface name="org.qemu.VMState1"/></no"#;
        assert_eq!(Introspection::read(cut, "/").exporting, ["/a"]);
        let wrong = r#"<node><node name="a"/></edge><node name="b"/>"#;
        assert_eq!(Introspection::read(wrong, "/").to_ask, ["/a"]);
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let deep = "<node name='x'>".repeat(100_000);
        assert_eq!(Introspection::read(&deep, "/"), Introspection::default());
        let closed = deep + &"</node>".repeat(99_999) + "<node name='y'/>";
        assert_eq!(Introspection::read(&closed, "/").to_ask, ["/y"]);
        let wide = format!("<node>{}", "<node name='x'/>".repeat(10_000));
        assert_eq!(Introspection::read(&wide, "/").to_ask.len(), MOST_PATHS);
        let attributes = format!("<node><node {}name='z'/>", "a='1' ".repeat(50_000));
        assert_eq!(Introspection::read(&attributes, "/").to_ask, ["/z"]);
    }
}
