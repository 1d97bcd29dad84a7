//! Foreign text made harmless and short.

/// Text of a worker or of a file as one line without control characters, so
/// that nobody moves the reader's cursor.
pub(crate) fn one_line(text: &str) -> String {
    let plain = anstream::adapter::strip_str(text).to_string();
    plain.trim_end().chars().map(|c| if c == '\t' { ' ' } else { c }).map(visible).collect()
}

fn visible(c: char) -> char {
    if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }
}

/// The first `width` characters; `…` stands for the rest.
pub(crate) fn truncate(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// The first and the last of `width` characters; `…` stands for those between.
/// Names often differ at their ends.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let end = kept / 2;
    let first = text.chars().take(kept - end);
    first.chain(std::iter::once('…')).chain(text.chars().skip(length - end)).collect()
}

/// Words as lines of at most `width` characters; a longer word has its own.
pub(crate) fn wrap<'a>(words: impl IntoIterator<Item = &'a str>, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// `1 worker`, `2 workers`
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_pass() {
        assert_eq!(one_line("\x1b[31mred\x1b[0m\tand\x07 more\r\n"), "red and more");
        assert_eq!(one_line("a\nb"), "a\u{fffd}b");
    }

    #[test]
    fn words_are_wrapped() {
        assert_eq!(wrap([], 5), Vec::<String>::new());
        assert_eq!(wrap(["a", "bc", "de", "much-longer", "f"], 4), ["a bc", "de", "much-longer", "f"]);
    }

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(shorten("worker-1", 8), "worker-1");
        assert_eq!(shorten("worker-1", 7), "wor…r-1");
        assert_eq!(shorten("wörker-1", 4), "wö…1");
        assert_eq!(shorten("worker-1", 1), "…");
        assert_eq!(shorten("worker-1", 0), "…");
    }

    #[test]
    fn long_text_ends_in_an_ellipsis() {
        assert_eq!(truncate("worker", 6), "worker");
        assert_eq!(truncate("worker", 5), "work…");
        assert_eq!(truncate("wörker", 4), "wör…");
        assert_eq!(truncate("worker", 0), "…");
    }
}
