use vmstate_derive::ToMigrationState;

#[derive(ToMigrationState)]
#[migration_state(rename = "Mirror")]
struct A(u8);

#[derive(ToMigrationState)]
#[migration_state(rename = module::Mirror)]
struct B(u8);

#[derive(ToMigrationState)]
#[migration_state(rename)]
struct C(u8);

#[derive(ToMigrationState)]
#[migration_state(rename = One, rename = Two)]
struct D(u8);

fn main() {}
