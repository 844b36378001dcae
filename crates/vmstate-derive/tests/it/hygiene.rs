//! The derive where nothing is in scope, where names mean something else, and where crates have other names.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{hex, load, save};

/// No prelude, no trait, no type.
mod bare {
    #![no_implicit_prelude]

    #[derive(::core::default::Default, ::vmstate_derive::ToMigrationState)]
    #[migration_state(name = "bare", version = 1, restored = Self::restored, snapshot_with = Self::count)]
    pub(super) struct Bare<T> {
        pub(super) word: u16,
        #[migration_state(max = 2)]
        pub(super) list: ::std::vec::Vec<T>,
        #[migration_state(clone, into(::std::string::String))]
        pub(super) text: ::std::string::String,
        #[migration_state(try_into(u8), validate = Self::check)]
        pub(super) narrow: u32,
        pub(super) option: ::core::option::Option<::std::sync::Mutex<T>>,
        #[migration_state(omit(rebuild = 9))]
        pub(super) rebuilt: u8,
        pub(super) choice: Choice,
        pub(super) mode: Mode,
        pub(super) _nothing: ::core::marker::PhantomData<T>,
    }

    impl<T: ::vmstate_desc::snapshot::ToMigrationState + ::core::default::Default> Bare<T> {
        fn restored(&mut self, _version: u32) {
            self.rebuilt += 1;
        }

        fn check(value: &u8, _bare: &Self) -> ::core::result::Result<(), &'static str> {
            if *value == 0xff {
                return ::core::result::Result::Err("full");
            }
            ::core::result::Result::Ok(())
        }

        fn count(&self, into: &mut BareMigration<T>) -> ::core::result::Result<(), &'static str> {
            into.word += 1;
            ::core::result::Result::Ok(())
        }
    }

    #[derive(::core::default::Default, ::vmstate_derive::ToMigrationState)]
    #[migration_state(repr = u8)]
    pub(super) enum Choice {
        #[default]
        #[migration_state(tag = 0)]
        Off,
        #[migration_state(tag = 1)]
        On { letter: char },
    }

    #[derive(::core::default::Default, ::vmstate_derive::ToMigrationState)]
    #[migration_state(repr = u8)]
    pub(super) enum Mode {
        #[default]
        A = 0,
    }

    #[derive(::core::default::Default, ::vmstate_derive::ToMigrationState)]
    #[migration_state(shared)]
    pub(super) struct Shared(pub(super) ::std::sync::Mutex<u8>);
}

#[test]
fn in_a_module_without_prelude() {
    let source = bare::Bare::<u16> {
        word: 1,
        list: vec![2],
        text: "a".into(),
        narrow: 3,
        option: Some(4.into()),
        choice: bare::Choice::On { letter: 'x' },
        ..bare::Bare::default()
    };
    let bytes = save(&vmstate_desc::snapshot::Migratable::new(source));
    assert_eq!(
        bytes,
        hex("0002 00000001 0002 00000001 61 03 01 0004 01 00000078 00")
    );
    let mut target = vmstate_desc::snapshot::Migratable::new(bare::Bare::<u16>::default());
    load(&mut target, &bytes).unwrap();
    assert_eq!((target.word, target.rebuilt), (2, 10));
    assert!(matches!(target.choice, bare::Choice::On { letter: 'x' }));
    assert!(matches!(target.mode, bare::Mode::A));
    let mut shared = vmstate_desc::snapshot::Migratable::new(bare::Shared::default());
    load(&mut shared, &[7]).unwrap();
    assert_eq!(*shared.0.lock().unwrap(), 7);
}

/// Names of the prelude that mean something else.
#[allow(dead_code, reason = "they are in the way")]
mod shadowed {
    use vmstate_derive::ToMigrationState;

    pub(super) struct Ok;
    pub(super) struct Err;
    pub(super) struct Some;
    pub(super) struct None;
    pub(super) struct Box;
    pub(super) trait Default {}
    pub(super) trait FnOnce {}
    pub(super) trait Clone {}
    pub(super) trait From {}
    pub(super) trait Into {}
    pub(super) trait TryInto {}

    #[derive(ToMigrationState)]
    pub(super) struct Result {
        pub(super) result: u8,
        #[migration_state(try_into(u8))]
        pub(super) value: u16,
        #[migration_state(clone)]
        pub(super) into: u8,
        pub(super) from: std::sync::Mutex<u8>,
        pub(super) version_id: Option,
        pub(super) r#type: u8,
    }

    #[derive(ToMigrationState)]
    pub(super) struct Option {
        #[migration_state(omit(rebuild = 1))]
        pub(super) error: u8,
        pub(super) shown: u8,
    }
}

#[test]
fn on_types_and_fields_with_names_of_the_prelude() {
    let new = |v: u8| shadowed::Result {
        result: v,
        value: v.into(),
        into: v,
        from: v.into(),
        version_id: shadowed::Option { error: v, shown: v },
        r#type: v,
    };
    let bytes = save(&vmstate_desc::snapshot::Migratable::new(new(7)));
    assert_eq!(bytes, [7; 6]);
    let mut target = vmstate_desc::snapshot::Migratable::new(new(0));
    load(&mut target, &bytes).unwrap();
    assert_eq!(
        (target.value, target.version_id.error, target.r#type),
        (7, 1, 7)
    );
}

/// A package that calls its dependencies what it likes.
const RENAMED: &str = r#"
#![forbid(unsafe_code)]
#![deny(warnings)]
use std::sync::Mutex;

#[derive(Default, renamed_derive::ToMigrationState)]
struct Registers {
    word: u32,
    #[migration_state(max = 2)]
    list: Vec<Part>,
    #[migration_state(try_into(u8))]
    narrow: u16,
}

#[derive(Default, renamed_derive::ToMigrationState)]
#[migration_state(crate = renamed_desc)]
struct Part(u8);

fn main() {
    let regs = renamed_desc::snapshot::Migratable::new(Mutex::new(Registers::default()));
    let description = renamed_desc::SaveState::description(&regs);
    assert_eq!(description.name(), "Registers");
}
"#;

#[test]
fn under_other_names() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("renamed");
    fs::create_dir_all(dir.join("src")).unwrap();
    let path = |name: &str| here.join("..").join(name).display().to_string();
    let manifest = format!(
        "[package]\nname = \"renamed\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n[dependencies]\n\
         renamed_desc = {{ package = \"vmstate-desc\", path = {:?} }}\n\
         renamed_derive = {{ package = \"vmstate-derive\", path = {:?} }}\n",
        path("vmstate-desc"),
        path("vmstate-derive"),
    );
    fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    fs::write(dir.join("src/main.rs"), RENAMED).unwrap();
    fs::copy(here.join("../../Cargo.lock"), dir.join("Cargo.lock")).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["run", "--offline", "--quiet"])
        .current_dir(&dir)
        .env("CARGO_TARGET_DIR", dir.join("target"))
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
