//! Type, lifetime and const parameters; names that shadow the prelude.

use std::marker::PhantomData;

use vmstate_derive::VmState;
use vmstate_desc::VmState as _;

use crate::common::{hex, load, save};

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "pair")]
struct Pair<T, const N: usize>
where
    [T; N]: Default,
{
    first: T,
    rest: [T; N],
    #[vmstate(count = len, max = 16)]
    more: Vec<T>,
    #[vmstate(skip = "configured")]
    len: u32,
    #[vmstate(skip = "no state")]
    _marker: PhantomData<T>,
}

#[derive(Debug, Default, Clone, PartialEq, VmState)]
#[vmstate(name = "part/whole", subsection(name = "part/whole/b", fields(b)))]
struct Parted<T> {
    a: T,
    b: T,
}

#[derive(Debug, PartialEq, VmState)]
#[vmstate(name = "view")]
struct View<'a> {
    value: u16,
    #[vmstate(skip = "lent")]
    _name: &'a str,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, VmState)]
#[vmstate(transparent)]
struct Meters<T>(T);

trait Machine {
    type Regs;
}

#[derive(VmState)]
#[vmstate(name = "associated", bound(M::Regs: vmstate_desc::FieldValue))]
struct Associated<M: Machine> {
    regs: M::Regs,
}

struct Small;

impl Machine for Small {
    type Regs = u8;
}

#[test]
fn parameters_of_all_kinds() {
    let pair = Pair::<u16, 2> {
        first: 1,
        rest: [2, 3],
        more: vec![4],
        len: 1,
        _marker: PhantomData,
    };
    let bytes = save(&pair);
    assert_eq!(bytes, hex("0001 0002 0003 0004"));
    let mut target = Pair::<u16, 2> {
        len: 1,
        ..Pair::default()
    };
    load(&mut target, &bytes).unwrap();
    assert_eq!(target, pair);
    assert_eq!(
        Pair::<u8, 3>::DESCRIPTION.fields()[1].repeat,
        vmstate_desc::Repeat::Array(3)
    );

    let parted = Parted { a: 1_u8, b: 2 };
    let bytes = save(&parted);
    assert_eq!(bytes, hex("01 05 0c 706172742f77686f6c652f62 00000000 02"));
    let mut target = Parted::<u8>::default();
    load(&mut target, &bytes).unwrap();
    assert_eq!(target, parted);

    let name = String::from("local");
    let mut view = View {
        value: 7,
        _name: &name,
    };
    assert_eq!(save(&view), hex("0007"));
    load(&mut view, &hex("0008")).unwrap();
    assert_eq!(view.value, 8);

    assert_eq!(save(&Pair::<Meters<u8>, 1>::default()), hex("00 00"));
    let mut associated = Associated::<Small> { regs: 5 };
    assert_eq!(save(&associated), hex("05"));
    load(&mut associated, &hex("06")).unwrap();
    assert_eq!(associated.regs, 6);
}

/// Everything in the expansion has an absolute path.
#[no_implicit_prelude]
mod hostile {
    #![allow(dead_code)]
    // Names that an expansion must not pick up.
    struct String;
    struct Vec;
    struct Box;
    struct Some;
    struct None;
    struct Ok;
    struct Err;
    pub(super) mod core {}
    pub(super) mod std {}
    pub(super) mod vmstate_desc {}

    #[derive(::std::default::Default, ::vmstate_derive::VmState)]
    #[vmstate(name = "result", subsection(name = "result/b", fields(b)))]
    pub(super) struct Result {
        a: u8,
        #[vmstate(exists = Self::present, validate = Self::check, default = 3)]
        b: u16,
        count: u8,
        #[vmstate(count = count, max = 2)]
        list: ::std::vec::Vec<Option>,
        #[vmstate(pointers)]
        slots: [::std::option::Option<::std::boxed::Box<Option>>; 1],
        #[vmstate(subsection)]
        sub: ::std::option::Option<Sub>,
        mode: Mode,
    }

    impl Result {
        fn present(&self, _version: u32) -> bool {
            true
        }
        fn check(_b: &u16, _this: &Self) -> ::std::result::Result<(), ::vmstate_desc::Reason> {
            ::std::result::Result::Ok(())
        }
    }

    #[derive(::std::default::Default, ::vmstate_derive::VmState)]
    #[vmstate(crate = ::vmstate_desc)]
    pub(super) struct Option {
        x: u8,
    }

    #[derive(::std::default::Default, ::vmstate_derive::VmState)]
    #[vmstate(name = "result/sub")]
    pub(super) struct Sub(u8);

    #[derive(::std::default::Default, ::vmstate_derive::VmState)]
    #[vmstate(repr = u8)]
    pub(super) enum Mode {
        #[default]
        Err = 1,
        Ok = 2,
    }
}

#[test]
fn hygiene() {
    let bytes = save(&hostile::Result::default());
    assert_eq!(
        bytes,
        hex("00 00 30 01 05 08 726573756c742f62 00000000 0000")
    );
    load(&mut hostile::Result::default(), &bytes).unwrap();
}
