use vmstate_derive::VmState;

#[derive(VmState)]
#[vmstate(versoin = 1)]
struct Container {
    a: u8,
}

#[derive(VmState)]
struct Field {
    #[vmstate(sinec = 1)]
    near: u8,
    #[vmstate(frobnicate)]
    far: u8,
}

#[derive(VmState)]
#[vmstate(subsection(name = "Nested/a", feilds(a)))]
struct Nested {
    a: u8,
}

fn main() {}
