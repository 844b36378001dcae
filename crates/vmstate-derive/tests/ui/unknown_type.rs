use vmstate_derive::VmState;

struct Other;

#[derive(VmState)]
struct State {
    a: Other,
    b: [Other; 2],
}

fn main() {}
