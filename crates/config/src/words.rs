//! Commands and arguments in one string, split as a shell would split them but
//! without a shell.

use crate::report::Problem;

/// Splits at blanks outside quotes.
///
/// What a shell would act upon is refused: passing `>` or `$HOME` on as a word
/// is never what was meant.
pub(crate) fn split(text: &str) -> Result<Vec<String>, Problem> {
    if let Some(operator) = shell_operator(text) {
        return Err(Problem::new(format!("contains `{operator}`, and no shell is run")).help(
            "for a shell, use `command: [sh, -c, \"…\"]`; for the character itself, put it in single quotes",
        ));
    }
    shell_words::split(text).map_err(|_| Problem::new("has a quote that is not closed"))
}

/// The first character that a shell would act upon.
fn shell_operator(text: &str) -> Option<char> {
    let mut quote = None;
    let mut at_word_start = true;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let is_word_start = std::mem::take(&mut at_word_start);
        match (quote, char) {
            (None, '\'' | '"') => quote = Some(char),
            (Some(open), close) if open == close => quote = None,
            (Some('\''), _) => {}
            (None | Some(_), '\\') => {
                chars.next();
            }
            (None | Some(_), '$' | '`') => return Some(char),
            (Some(_), _) => {}
            (None, '|' | '&' | ';' | '<' | '>' | '(' | ')') => return Some(char),
            (None, '#' | '~') if is_word_start => return Some(char),
            (None, ' ' | '\t' | '\n') => at_word_start = true,
            (None, _) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_like_a_shell() {
        for (text, words) in [
            ("", vec![]),
            ("  node   server.js ", vec!["node", "server.js"]),
            (r#"a 'b c' "d e" f\ g"#, vec!["a", "b c", "d e", "f g"]),
            (r"echo '$HOME > x' \$HOME \;", vec!["echo", "$HOME > x", "$HOME", ";"]),
            (r#"a "x|y" "\$z" b#c d~"#, vec!["a", "x|y", "$z", "b#c", "d~"]),
            ("--empty ''", vec!["--empty", ""]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
    }

    #[test]
    fn refuses_what_needs_a_shell() {
        for text in [
            "a | b", "a && b", "a;b", "a > b", "a <b", "a $X", "a \"$X\"", "a `b`", "(a)", "a # b",
            "~/bin/a", "a 'b", "a \"b",
        ] {
            assert!(split(text).is_err(), "{text}");
        }
    }
}
