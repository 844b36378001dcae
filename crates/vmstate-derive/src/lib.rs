#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod check;
mod krate;
mod lower;
mod migration;
mod model;
mod parse;
mod types;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Describes a struct as device state; makes field values of enums and transparent structs.
///
/// Everything about it is on the [crate's front page](crate).
#[proc_macro_derive(VmState, attributes(vmstate))]
pub fn derive_vm_state(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes the mirror of runtime state and leads from one to the other.
///
/// Everything about it is on the [crate's front page](crate#snapshots-of-runtime-state).
#[proc_macro_derive(ToMigrationState, attributes(migration_state))]
pub fn derive_to_migration_state(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    migration::expand(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

fn expand(input: &DeriveInput) -> syn::Result<proc_macro2::TokenStream> {
    let input = parse::input(input)?;
    let plan = check::check(&input)?;
    Ok(lower::lower(&input, &plan))
}
