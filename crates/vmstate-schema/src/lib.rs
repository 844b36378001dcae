#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod build;
pub mod compare;
mod digest;
pub mod document;
pub mod exceptions;
pub mod json_schema;
mod model;
pub mod report;
mod rule_table;
mod tree;
pub mod validate;
pub mod value;

pub use compare::{Comparison, Finding, Rule, Severity, compare};
pub use digest::Digest;
pub use document::DocumentError;
pub use model::{Element, Field, Key, Origin, Schema, Section, Subsection, Type, TypeId};
pub use tree::{JsonError, MAX_DEPTH, parse_json};
