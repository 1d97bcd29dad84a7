//! What was probably meant.

/// Nobody mistypes more, and a distance costs the product of both lengths.
const MAX_TYPED: usize = 64;

/// The one of `names` that is like `typed`: but for one slip in a short word, and one more for every four
/// letters. Of a word of more than 64 bytes nothing is guessed.
pub fn closest<'n>(typed: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    if typed.len() > MAX_TYPED {
        return None;
    }
    let distances = names.map(|name| (strsim::damerau_levenshtein(typed, name), name));
    distances
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= typed.len() / 4 + 1)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood() {
        let check = |typed: &str, expected| {
            assert_eq!(closest(typed, ["api", "frontend", "web"].into_iter()), expected, "{typed}");
        };
        check("wbe", Some("web"));
        check("frontent", Some("frontend"));
        check("fronted", Some("frontend"));
        check("database", None);
        check("", None);
        check(&"web".repeat(30), None);
    }
}
