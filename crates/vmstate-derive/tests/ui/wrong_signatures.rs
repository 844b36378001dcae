use vmstate_derive::VmState;
use vmstate_desc::Reason;

#[derive(VmState)]
#[vmstate(post_load = Self::post_load)]
struct State {
    #[vmstate(exists = Self::exists)]
    a: u8,
    #[vmstate(validate = Self::validate)]
    b: u8,
}

impl State {
    fn post_load(&mut self) -> Result<(), Reason> {
        Ok(())
    }
    fn exists(&self, _version: u8) -> bool {
        true
    }
    fn validate(_b: &u16, _this: &Self) -> Result<(), Reason> {
        Ok(())
    }
}

fn main() {}
