use vmstate_derive::VmState;

#[derive(VmState)]
#[vmstate(must_exist(name = "a", test = Self::test, after = missing))]
struct Unknown {
    a: u8,
}

#[derive(VmState)]
#[vmstate(must_exist(name = "a", test = Self::test, after = b))]
struct Skipped {
    a: u8,
    #[vmstate(skip = "configured")]
    b: u8,
}

#[derive(VmState)]
#[vmstate(must_exist(name = "a"))]
struct NoTest {
    a: u8,
}

fn main() {}
