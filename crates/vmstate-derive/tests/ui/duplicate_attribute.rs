use vmstate_derive::VmState;

#[derive(VmState)]
#[vmstate(name = "a", name = "b")]
struct Container {
    a: u8,
}

#[derive(VmState)]
struct Field {
    #[vmstate(since = 1)]
    #[vmstate(since = 2)]
    a: u8,
    #[vmstate(buffer, buffer)]
    b: [u8; 4],
}

fn main() {}
