//! The text of an `env_file`: variables, a line each, as dotenv and Docker Compose
//! have them. No message shows any of the text: it may be a secret.
//!
//! ```text
//! line    = [ "export" blanks ] name "=" value [ blanks "#" comment ]
//! value   = text to the end of the line | "'" anything "'" | '"' text '"'
//! text    = characters, "$NAME", "${NAME}", "${NAME:-default}", "${NAME-default}", "$$"
//! ```

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

type Variables = BTreeMap<String, String>;

/// What is wrong, and where: line and column count from 1, a column is a character.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) what: &'static str,
    pub(crate) help: &'static str,
}

/// Reads variables; of two with the same name the later one wins. `$NAME` is an
/// earlier one of the text, or else the caller's.
pub(crate) fn parse(text: &str, caller_env: &Variables) -> Result<Variables, Mistake> {
    let mut reader =
        Reader { rest: text.chars().peekable(), line: 1, column: 1, variables: Variables::new(), caller_env };
    while let Some((name, value)) = reader.variable()? {
        reader.variables.insert(name, value);
    }
    Ok(reader.variables)
}

struct Reader<'t> {
    rest: Peekable<Chars<'t>>,
    /// Of the next character.
    line: usize,
    column: usize,
    variables: Variables,
    caller_env: &'t Variables,
}

/// A place in the text.
#[derive(Clone, Copy)]
struct Place {
    line: usize,
    column: usize,
}

impl Place {
    fn wrong(self, what: &'static str, help: &'static str) -> Mistake {
        Mistake { line: self.line, column: self.column, what, help }
    }
}

impl Reader<'_> {
    /// The next variable, after empty lines and comments.
    fn variable(&mut self) -> Result<Option<(String, String)>, Mistake> {
        loop {
            self.skip_blanks();
            match self.rest.peek() {
                None => return Ok(None),
                Some('#') => self.skip_comment(),
                Some('\n') => {
                    self.take();
                }
                Some(_) => break,
            }
        }
        let name = self.name()?;
        self.skip_blanks();
        let value = match self.rest.peek() {
            Some('\'') => self.quoted('\'')?,
            Some('"') => self.quoted('"')?,
            Some(_) | None => return Ok(Some((name, self.unquoted()?))),
        };
        self.skip_blanks();
        if self.rest.peek() == Some(&'#') {
            self.skip_comment();
        }
        match self.rest.peek() {
            None | Some('\n') => Ok(Some((name, value))),
            Some(_) => Err(self.place().wrong(
                "has text after the closing quote",
                "put the whole value in quotes; write `\\\"` for a quote within double quotes",
            )),
        }
    }

    /// A name and the `=` after it.
    fn name(&mut self) -> Result<String, Mistake> {
        const HELP: &str = "write `NAME=value`; a value of several lines needs quotes";
        let start = self.place();
        let mut name = self.word();
        if name == "export" && matches!(self.rest.peek(), Some(' ' | '\t')) {
            self.skip_blanks();
            name = self.word();
        }
        if !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
            return Err(start.wrong("does not begin with the name of a variable", HELP));
        }
        self.skip_blanks();
        let place = self.place();
        match self.take() {
            Some('=') => Ok(name),
            Some(_) | None => Err(place.wrong("has no `=` after the name", HELP)),
        }
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(next) = self.take_if(|next| next.is_ascii_alphanumeric() || "_.-".contains(next)) {
            word.push(next);
        }
        word
    }

    /// To the end of the line, or to a comment, without blanks at both ends.
    fn unquoted(&mut self) -> Result<String, Mistake> {
        let mut value = String::new();
        // What came from variables keeps its blanks.
        let mut end = 0;
        let mut after_blank = true;
        while let Some(next) = self.rest.peek().copied() {
            match next {
                '\n' => break,
                '#' if after_blank => {
                    self.skip_comment();
                    break;
                }
                '$' => value.push_str(&self.dollar()?),
                '\\' => {
                    self.take();
                    // Elsewhere a backslash is one.
                    value.push(self.take_if(|next| next == '$').unwrap_or('\\'));
                }
                _ => {
                    self.take();
                    value.push(next);
                }
            }
            after_blank = is_blank(next);
            if !after_blank {
                end = value.len();
            }
        }
        value.truncate(end);
        Ok(value)
    }

    /// To the closing quote, over as many lines as it takes.
    fn quoted(&mut self, quote: char) -> Result<String, Mistake> {
        let start = self.place();
        self.take();
        let mut value = String::new();
        while let Some(next) = self.rest.peek().copied() {
            match next {
                _ if next == quote => {
                    self.take();
                    return Ok(value);
                }
                '$' if quote == '"' => value.push_str(&self.dollar()?),
                '\\' if quote == '"' => {
                    self.take();
                    self.escape(&mut value);
                }
                _ => {
                    self.take();
                    value.push(next);
                }
            }
        }
        Err(start.wrong("has a quote that is never closed", "close it, or put the value in the other quotes"))
    }

    /// What follows a backslash within double quotes.
    fn escape(&mut self, value: &mut String) {
        match self.take() {
            Some('n') => value.push('\n'),
            Some('r') => value.push('\r'),
            Some('t') => value.push('\t'),
            Some(next @ ('"' | '\\' | '$')) => value.push(next),
            // Both are meant, as in a regular expression.
            Some(next) => value.extend(['\\', next]),
            // The quote is never closed.
            None => {}
        }
    }

    /// A `$`, and the variable after it.
    fn dollar(&mut self) -> Result<String, Mistake> {
        let start = self.place();
        self.take();
        match self.rest.peek() {
            Some('$') => {
                self.take();
                return Ok("$".to_owned());
            }
            Some('{') => {}
            Some(next) if next.is_ascii_alphabetic() || *next == '_' => {
                let mut name = String::new();
                while let Some(next) = self.take_if(|next| next.is_ascii_alphanumeric() || next == '_') {
                    name.push(next);
                }
                return self.look_up(&name).map(str::to_owned).ok_or_else(|| unset(start));
            }
            Some(_) | None => return Ok("$".to_owned()),
        }
        self.take();
        let mut inside = String::new();
        loop {
            match self.take_if(|next| next != '\n') {
                Some('}') => break,
                Some(next) => inside.push(next),
                None => {
                    return Err(start.wrong("has a `${` without its `}`", "write `\\$` for a dollar sign"));
                }
            }
        }
        let is_part = |next: char| next.is_ascii_alphanumeric() || "_.".contains(next);
        let (name, default) = inside.split_at(inside.find(|next| !is_part(next)).unwrap_or(inside.len()));
        if name.is_empty() {
            return Err(
                start.wrong("has a `${` without the name of a variable", "write `\\$` for a dollar sign")
            );
        }
        let value = self.look_up(name);
        if default.is_empty() {
            return value.map(str::to_owned).ok_or_else(|| unset(start));
        }
        let value = match (default.strip_prefix(":-"), default.strip_prefix('-')) {
            (Some(default), _) => value.filter(|value| !value.is_empty()).unwrap_or(default),
            (None, Some(default)) => value.unwrap_or(default),
            (None, None) => {
                return Err(start.wrong(
                    "has a `${` that is not understood",
                    "write `${NAME}`, `${NAME:-default}` or `${NAME-default}`, or `\\$` for a dollar sign",
                ));
            }
        };
        Ok(value.to_owned())
    }

    fn look_up(&self, name: &str) -> Option<&str> {
        self.variables.get(name).or_else(|| self.caller_env.get(name)).map(String::as_str)
    }

    fn skip_blanks(&mut self) {
        while self.take_if(is_blank).is_some() {}
    }

    fn skip_comment(&mut self) {
        while self.take_if(|next| next != '\n').is_some() {}
    }

    fn place(&self) -> Place {
        Place { line: self.line, column: self.column }
    }

    fn take(&mut self) -> Option<char> {
        self.take_if(|_| true)
    }

    fn take_if(&mut self, wanted: impl Fn(char) -> bool) -> Option<char> {
        let next = self.rest.next_if(|next| wanted(*next))?;
        match next {
            '\n' => (self.line, self.column) = (self.line + 1, 1),
            _ => self.column += 1,
        }
        Some(next)
    }
}

/// Within a line; the carriage return is of a line's end as Windows has it.
fn is_blank(next: char) -> bool {
    matches!(next, ' ' | '\t' | '\r')
}

fn unset(place: Place) -> Mistake {
    place.wrong(
        "uses a variable that is not set",
        "write `\\$` or single quotes for a dollar sign, `${NAME:-}` where nothing will do",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Variables {
        [("HOME", "/home/me"), ("EMPTY", ""), ("SPACED", " x "), ("A", "caller's")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let expected = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        assert_eq!(parse(text, &caller()), Ok(expected.collect()), "{text}");
    }

    #[test]
    fn lines() {
        check("", &[]);
        check("\n# comment\n  \n\t# A=b", &[]);
        check("A=1\nB=2", &[("A", "1"), ("B", "2")]);
        check("A=1\r\nB='2'\r\n", &[("A", "1"), ("B", "2")]);
        check("export A=1\n  export\tB = 2 \nexport=3", &[("A", "1"), ("B", "2"), ("export", "3")]);
        check("A=1\nA=2", &[("A", "2")]);
        check("a.b-C_1=x", &[("a.b-C_1", "x")]);
        check("A=\nB=''\nC=", &[("A", ""), ("B", ""), ("C", "")]);
    }

    #[test]
    fn values_without_quotes() {
        check("A=a b  c  # more", &[("A", "a b  c")]);
        check("A=a#b\nB=# c", &[("A", "a#b"), ("B", "")]);
        check("A=it's \"so\"", &[("A", "it's \"so\"")]);
        check(r"A=C:\dir\n", &[("A", r"C:\dir\n")]);
        check("A=b=c", &[("A", "b=c")]);
        check("A=é ü", &[("A", "é ü")]);
    }

    #[test]
    fn values_in_quotes() {
        check(r#"A='pa$$ "w" \n #x' # more"#, &[("A", r#"pa$$ "w" \n #x"#)]);
        check(r#"A="a\n\t\r\"\\\$HOME \d 'q' #x""#, &[("A", "a\n\t\r\"\\$HOME \\d 'q' #x")]);
        check("A=\"one\n two\"\nB='1\n2\n'\nC=3", &[("A", "one\n two"), ("B", "1\n2\n"), ("C", "3")]);
    }

    #[test]
    fn variables_within_values() {
        check(
            "B=$HOME/x\nC=\"${HOME}x\"\nD='$HOME'",
            &[("B", "/home/me/x"), ("C", "/home/mex"), ("D", "$HOME")],
        );
        check("B=$A\nA=own\nC=$A", &[("A", "own"), ("B", "caller's"), ("C", "own")]);
        check("B=${NO:-a b}${NO-}\nC=${EMPTY:-x}\nD=${EMPTY-x}", &[("B", "a b"), ("C", "x"), ("D", "")]);
        check(
            "B=$$HOME\nC=\\$HOME\nD=5$\nE=$5\nF=\"$\"",
            &[("B", "$HOME"), ("C", "$HOME"), ("D", "5$"), ("E", "$5"), ("F", "$")],
        );
        check("B=$SPACED", &[("B", " x ")]);
        // What a variable holds is not read again.
        check("B='$HOME'\nC=$B", &[("B", "$HOME"), ("C", "$HOME")]);
    }

    #[test]
    fn mistakes() {
        let check = |text: &str, line: usize, column: usize, part: &str| {
            let mistake = parse(text, &caller()).unwrap_err();
            assert_eq!((mistake.line, mistake.column), (line, column), "{text}: {mistake:?}");
            assert!(mistake.what.contains(part), "{text}: {mistake:?}");
        };
        check("A=1\n\nSECRET hunter2", 3, 8, "no `=`");
        check("A=1\nB", 2, 2, "no `=`");
        check("B\nA=1", 1, 2, "no `=`");
        check(" =1", 1, 2, "name");
        check("1A=1", 1, 1, "name");
        check("A='two\nlines\nB=2", 1, 3, "never closed");
        check("A=\"x\\", 1, 3, "never closed");
        check("é='x'", 1, 1, "name");
        check("A='é' x", 1, 7, "after the closing quote");
        check("A=1\nB=\"é$NO\"", 2, 5, "not set");
        check("A=pa$word", 1, 5, "not set");
        check("A=${NO}", 1, 3, "not set");
        check("A=${HOME\nB=}", 1, 3, "without its `}`");
        check("A=${}", 1, 3, "without the name");
        check("A=${HOME?x}", 1, 3, "not understood");
    }

    #[test]
    fn no_text_is_a_panic() {
        let pieces = ["A", "=", "'", "\"", "$", "{", "}", "\\", "\n", " ", "#", "é", "-", "export "];
        for seed in 0..20_000_u64 {
            let mut state = seed;
            let mut text = "A=".to_owned();
            for _ in 0..8 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(pieces[usize::try_from(state >> 33).unwrap() % pieces.len()]);
            }
            // Right or wrong, it ends.
            let _ = parse(&text, &caller());
        }
    }
}
