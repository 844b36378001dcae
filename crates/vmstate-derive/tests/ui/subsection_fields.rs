use vmstate_derive::VmState;

#[derive(VmState)]
#[vmstate(name = "nic")]
#[vmstate(subsection(name = "nic/a", fields(a, b)), subsection(name = "nic/b", fields(b)))]
struct Twice {
    a: u8,
    b: u8,
}

#[derive(VmState)]
#[vmstate(name = "nic", subsection(name = "nic/a", fields(missing)))]
struct Unknown {
    a: u8,
}

#[derive(VmState)]
#[vmstate(name = "nic", subsection(name = "nic/a", fields(a)))]
struct Skipped {
    #[vmstate(skip = "configured")]
    a: u8,
}

#[derive(VmState)]
#[vmstate(name = "nic", subsection(name = "nic/a"))]
struct NoFields {
    a: u8,
}

fn main() {}
