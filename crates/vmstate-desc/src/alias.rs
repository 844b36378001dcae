//! Names that fields had before, also such as lead into an embedded structure.

use crate::check::{cow_str, same};
use crate::field::Field;
use crate::limits::MAX_DEPTH;

/// Most aliases of all fields of a description.
pub const MAX_ALIASES: usize = 256;

/// Where an alias leads: the names of embedded structures from the outside in, and the name of the field.
///
/// `parent_obj/config` and `parent_obj.config` are the field `config` of the embedded structure `parent_obj`. Names of fields can
/// have dots: what has a slash is parted at slashes only, and a field of just this name always comes first.
///
/// ```
/// use vmstate_desc::alias_path;
/// assert_eq!(alias_path("parent_obj.config").collect::<Vec<_>>(), ["parent_obj", "config"]);
/// assert_eq!(alias_path("parent_obj/pci.config").collect::<Vec<_>>(), ["parent_obj", "pci.config"]);
/// assert_eq!(alias_path("config").collect::<Vec<_>>(), ["config"]);
/// ```
pub fn alias_path(alias: &str) -> impl Iterator<Item = &str> + Clone {
    let separator = if alias.contains('/') { '/' } else { '.' };
    alias.split(separator)
}

/// Whether the aliases of field number `index` are names or paths, and not those of fields that there are.
pub(crate) const fn are_aliases(fields: &[Field], index: usize) -> bool {
    let own = cow_str(&fields[index].name);
    let aliases = aliases(&fields[index]);
    let mut i = 0;
    while i < aliases.len() {
        let alias = cow_str(&aliases[i]);
        if alias.is_empty() || alias.len() > 255 || !is_path(alias) || is_inside(alias, own) {
            return false;
        }
        let mut j = 0;
        while j < fields.len() {
            let named = j != index && same(alias, cow_str(&fields[j].name));
            if named || (j < index && has(&fields[j], alias)) {
                return false;
            }
            j += 1;
        }
        i += 1;
    }
    true
}

pub(crate) const fn count(fields: &[Field]) -> usize {
    let (mut i, mut n) = (0, 0_usize);
    while i < fields.len() {
        n = n.saturating_add(aliases(&fields[i]).len());
        i += 1;
    }
    n
}

const fn aliases(field: &Field) -> &[std::borrow::Cow<'static, str>] {
    match &field.aliases {
        std::borrow::Cow::Borrowed(names) => names,
        std::borrow::Cow::Owned(names) => names.as_slice(),
    }
}

const fn has(field: &Field, alias: &str) -> bool {
    let aliases = aliases(field);
    let mut i = 0;
    while i < aliases.len() {
        if same(cow_str(&aliases[i]), alias) {
            return true;
        }
        i += 1;
    }
    false
}

/// What parts a path: a slash if there is one, else a dot.
const fn separator(alias: &[u8]) -> u8 {
    let mut i = 0;
    while i < alias.len() {
        if alias[i] == b'/' {
            return b'/';
        }
        i += 1;
    }
    b'.'
}

/// Whether no part is empty, and there are not more of them than descriptions can be nested.
const fn is_path(alias: &str) -> bool {
    let alias = alias.as_bytes();
    let separator = separator(alias);
    let (mut i, mut parts, mut empty) = (0, 1, true);
    while i < alias.len() {
        if alias[i] == separator {
            if empty {
                return false;
            }
            (parts, empty) = (parts + 1, true);
        } else {
            empty = false;
        }
        i += 1;
    }
    !empty && parts <= MAX_DEPTH
}

/// Whether a path leads into what is called so: a field cannot have been inside of itself. Its own name alone says that it stood
/// beside the structure that it is in now.
const fn is_inside(alias: &str, own: &str) -> bool {
    let (alias, own) = (alias.as_bytes(), own.as_bytes());
    if alias.len() <= own.len() {
        return false;
    }
    let mut i = 0;
    while i < own.len() {
        if alias[i] != own[i] {
            return false;
        }
        i += 1;
    }
    alias[own.len()] == separator(alias)
}
