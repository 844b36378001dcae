use vmstate_derive::VmState;

#[derive(VmState)]
struct Behind {
    #[vmstate(count = len, max = 4)]
    a: Vec<u8>,
    len: u8,
}

#[derive(VmState)]
struct Own {
    #[vmstate(count = a, max = 4)]
    a: [u8; 4],
}

fn main() {}
