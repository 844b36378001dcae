//! Schemas: state as JSON, JSON Schema, and a test that says when a change breaks migration.
//!
//! A VMM keeps a file with the schema of its last release, and holds the machine against it in a test:
//!
//! ```no_run
//! use vmstate::engine::Registry;
//! use vmstate::schema::{SchemaFile, of_registry};
//!
//! # fn registry() -> Registry { Registry::new() }
//! #[test]
//! # fn hidden() {}
//! fn migration_stays_compatible() -> Result<(), vmstate::Error> {
//!     // Or `Schema::of(Some("my-machine-1"), [Nvme::DESCRIPTION, Rtc::DESCRIPTION])`.
//!     let now = of_registry(Some("my-machine-1"), &registry())?;
//!     SchemaFile::new("tests/my-machine-1.schema.json").assert(&now);
//!     Ok(())
//! }
//! # migration_stays_compatible().unwrap();
//! ```
//!
//! `VMSTATE_UPDATE_SCHEMA=1 cargo test` writes the file, at first and after every harmless change. A change that breaks
//! migration from the release fails with a report, rule by rule as `docs/check-rules.md` has them, and wants
//! `VMSTATE_UPDATE_SCHEMA=anyway`.

pub use vmstate_io::schema::{SchemaFile, SchemaFileError, Update, of_registry};
pub use vmstate_schema::{
    Comparison, Element, Field, Finding, Origin, Rule, Schema, Section, Severity, Type, TypeId,
    compare, document, exceptions, json_schema, report, value,
};
