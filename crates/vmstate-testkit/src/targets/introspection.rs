//! What helpers say about their objects.

use vmstate_dbus::Introspection;

/// Introspection: whatever is said, a bounded number of paths comes of it, each of which is one; and what is below another object is below
/// it.
///
/// # Panics
/// If that does not hold.
pub fn introspection(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let said = Introspection::read(&text, "/");
    let below = Introspection::read(&text, "/a/b");
    for (root, said) in [("/", &said), ("/a/b", &below)] {
        assert!(said.exporting.len() <= 256 && said.to_ask.len() <= 256);
        for path in said.exporting.iter().chain(&said.to_ask) {
            let rest = path
                .strip_prefix(root)
                .expect("below the object that was asked");
            let parts = rest.trim_start_matches('/').split('/');
            let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let whole = |part: &str| !part.is_empty() && part.chars().all(good);
            assert!(path.len() <= 255 && (rest.is_empty() || parts.into_iter().all(whole)));
        }
    }
    // A name that is short enough there may be too long here.
    assert!(below.exporting.len() <= said.exporting.len());
}
