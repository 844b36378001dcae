use vmstate_derive::VmState;

#[derive(VmState)]
struct State {
    #[vmstate(equal)]
    a: i64,
    #[vmstate(equal)]
    b: bool,
    #[vmstate(less_or_equal)]
    c: u32,
}

fn main() {}
