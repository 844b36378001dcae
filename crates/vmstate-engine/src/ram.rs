//! Guest RAM as one handler among others.

mod dirty;

pub use self::dirty::DirtyPages;
