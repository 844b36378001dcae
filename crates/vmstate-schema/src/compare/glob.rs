//! Patterns.

/// Whether `text` matches `pattern`, in which `*` stands for anything and `?` for one byte.
pub(crate) fn matches_glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on after the last `*`, which then takes one byte more.
    let mut retry = None;
    loop {
        match (pattern.get(p), text.get(t)) {
            (Some(b'*'), _) => {
                retry = Some((p + 1, t));
                p += 1;
            }
            (Some(b'?'), Some(_)) => (p, t) = (p + 1, t + 1),
            (Some(a), Some(b)) if a == b => (p, t) = (p + 1, t + 1),
            (None, None) => return true,
            _ => match retry {
                Some((after, taken)) if taken < text.len() => {
                    retry = Some((after, taken + 1));
                    (p, t) = (after, taken + 1);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let m = |p: &str, t: &str| matches_glob(p.as_bytes(), t.as_bytes());
        assert!(m("*", "") && m("*/nvme", "0000:00:03.0/nvme") && m("a*b*c", "aXbYbZc"));
        assert!(m("?pu", "cpu") && !m("cpu", "cpu_common") && !m("a*b", "aXc") && !m("", "x"));
    }
}
