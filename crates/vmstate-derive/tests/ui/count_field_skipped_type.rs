use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    #[vmstate(skip = "configured")]
    name: String,
    #[vmstate(count = name, max = 4)]
    a: Vec<u8>,
}

fn main() {}
