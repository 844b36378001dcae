//! State of helper processes over D-Bus: the object `dbus-vmstate` of a machine, and the helper's side.
//!
//! A machine's network stack, or its TPM, often lives in a process of its own. Such a helper exports the interface `org.qemu.VMState1`;
//! whoever migrates the machine asks it for its state, puts that into the migration stream, and gives it to the helper at the
//! other end. QEMU does so since 5.0; this crate does it for machines in Rust, in the same bytes, and makes helpers in Rust, for QEMU too.
//!
//! | to | use |
//! |---|---|
//! | make a helper's state travel | [`Helper`] or [`Described`], served by [`Served`] or [`export`] |
//! | carry helpers' states in a machine's stream | [`DbusVmstate`], or [`Objects`] where they come and go |
//! | command that by QMP, or by a command line | [`add_object_commands`], [`ObjectOptions`] |
//! | look at helpers, without a machine | [`list`], [`load`] |
//! | say where helpers are | [`Place`]: a message bus, or sockets |
//!
//! The interface, at the path [`OBJECT_PATH`], for every connection that has or waits for the name [`BUS_NAME`]:
//!
//! | member | D-Bus type | meaning |
//! |---|---|---|
//! | property `Id` | `s` | who it is, 1 to 255 bytes |
//! | method `Save` | `() → ay` | gives the state, at most 1 MiB |
//! | method `Load` | `ay → ()` | takes it |
//!
//! D-Bus itself is the crate `zbus`'s affair. Everything here blocks, and connects for each operation anew; no runtime is needed.
//!
//! A helper without a bus, and a state that goes from one to another:
//!
//! ```
//! use std::os::unix::net::UnixListener;
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! use vmstate_dbus::{Described, Place, Served, list, load};
//! use vmstate_derive::VmState;
//! use vmstate_wire::helpers::Element;
//!
//! #[derive(Default, VmState)]
//! #[vmstate(name = "counter")]
//! struct Counter {
//!     packets: u64,
//! }
//!
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("net0");
//! let counter = Arc::new(Mutex::new(Counter { packets: 7 }));
//! let helper = Described::new("net0", Arc::clone(&counter));
//! let _served = Served::on_listener(UnixListener::bind(&path)?, helper)?;
//!
//! let place = Place::peers(&format!("unix:path={}", path.display()))?;
//! let second = Duration::from_secs(1);
//! let present = list(&place, None, true, second)?.remove(0);
//! let (id, mut state) = (present.id?, present.state.ok_or("not asked")??);
//! assert_eq!((id.as_str(), &state[..]), ("net0", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7][..]));
//!
//! state[11] = 8;
//! load(&place, None, &[Element { id: b"net0".to_vec(), state }], second)?;
//! assert_eq!(counter.lock().unwrap().packets, 8);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod alarm;
mod calls;
mod commands;
mod error;
mod find;
mod helper;
mod id_list;
mod introspection;
mod link;
mod object;
mod objects;
mod options;
mod peer;
mod place;
mod section;
mod serve;
mod session;
mod states;

pub use calls::Rehearsal;
pub use commands::add_object_commands;
pub use error::{Fault, ObjectError, Step};
pub use find::MAX_HELPERS;
pub use helper::{Described, Helper, HelperError};
pub use id_list::{IdList, IdListError};
pub use introspection::Introspection;
pub use link::MAX_MESSAGE;
pub use object::{DEFAULT_DEADLINE, DbusVmstate, SaveReport};
pub use objects::{ObjectReport, Objects};
pub use options::{OBJECT_TYPE, ObjectOptions, OptionsError};
pub use place::{AddressError, Place};
pub use section::DESCRIPTION;
pub use serve::{ServeError, Served, export};
pub use session::{Loaded, Present, list, load};
pub use states::{HelperState, HelperStates};

/// The well-known name for which every helper queues.
pub const BUS_NAME: &str = "org.qemu.VMState1";
/// The interface.
pub const INTERFACE: &str = "org.qemu.VMState1";
/// Where every helper has its object.
pub const OBJECT_PATH: &str = "/org/qemu/VMState1";
