//! What the vmstate crates need of Linux. The only crate of the workspace with `unsafe`; each block says why it is sound.
//!
//! ```
//! use std::fs::File;
//! use vmstate_linux::MappedFile;
//! let file = File::open("Cargo.toml")?;
//! let map = MappedFile::new(&file)?;
//! let mut start = [0; 9];
//! assert_eq!(map.read_at(0, &mut start), 9);
//! assert_eq!(&start, b"[package]");
//! # Ok::<(), std::io::Error>(())
//! ```

mod mapped_file;

pub use mapped_file::MappedFile;
