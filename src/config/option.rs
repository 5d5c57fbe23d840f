//! The grammar of the arguments of a directive: words, and `name=value` options.
#![forbid(unsafe_code)]

use super::OptionError;

/// One `name=value` option, its value without quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair<'a> {
    /// What stands before the `=`; never empty.
    pub name: &'a [u8],
    /// What stands after it.
    pub value: Vec<u8>,
}

/// The arguments of a directive that are still to be read.
#[derive(Debug, Clone, Copy)]
pub struct Arguments<'a> {
    rest: &'a [u8],
}

/// What httpd takes for a blank between the words of a line.
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c')
}

/// `text` without the blanks it begins with.
fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|&&byte| is_blank(byte)).count();
    text.get(blanks..).unwrap_or_default()
}

/// `text` as a sentence may quote it.
pub fn readable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

impl<'a> Arguments<'a> {
    /// Everything behind the name of a directive.
    pub const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// The next word as httpd's `ap_getword_conf` reads it; `None` at the end.
    pub fn word(&mut self) -> Option<Vec<u8>> {
        self.rest = skip_blanks(self.rest);
        (!self.rest.is_empty()).then(|| self.take_word())
    }

    /// The next option; `None` at the end.
    ///
    /// Blanks after the `=` belong to nothing (`threads= 5` is `threads=5`),
    /// blanks before it are an error: so the module we replace reads it.
    pub fn pair(&mut self) -> Result<Option<Pair<'a>>, OptionError> {
        self.rest = skip_blanks(self.rest);
        if self.rest.is_empty() {
            return Ok(None);
        }
        let name = self.rest.split(|&byte| byte == b'=' || is_blank(byte)).next();
        let name = name.unwrap_or_default();
        match self.rest.get(name.len()..).unwrap_or_default() {
            [b'=', value @ ..] if !name.is_empty() => {
                self.rest = skip_blanks(value);
                Ok(Some(Pair { name, value: self.take_word() }))
            }
            _ => {
                let word = self.rest.split(|&byte| is_blank(byte)).next();
                Err(OptionError::Syntax(readable(word.unwrap_or_default())))
            }
        }
    }

    /// Takes the word that `rest` begins with.
    ///
    /// A backslash keeps its meaning only before another one and before the
    /// quote the word stands in.
    fn take_word(&mut self) -> Vec<u8> {
        let (quote, text) = match self.rest {
            [quote @ (b'"' | b'\''), text @ ..] => (Some(*quote), text),
            text => (None, text),
        };
        let mut word = Vec::new();
        let mut bytes = text.iter();
        while let Some(&byte) = bytes.next() {
            if quote.map_or_else(|| is_blank(byte), |quote| byte == quote) {
                break;
            }
            let next = bytes.as_slice().first().copied();
            word.push(match next {
                Some(escaped) if byte == b'\\' && (escaped == b'\\' || next == quote) => {
                    bytes.next();
                    escaped
                }
                _ => byte,
            });
        }
        self.rest =
            skip_blanks(text.get(text.len() - bytes.as_slice().len()..).unwrap_or_default());
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(line: &str) -> Vec<String> {
        let mut arguments = Arguments::new(line.as_bytes());
        std::iter::from_fn(|| arguments.word()).map(|word| readable(&word)).collect()
    }

    fn pairs(line: &str) -> Result<Vec<(String, String)>, OptionError> {
        let mut arguments = Arguments::new(line.as_bytes());
        let mut pairs = Vec::new();
        while let Some(Pair { name, value }) = arguments.pair()? {
            pairs.push((readable(name), readable(&value)));
        }
        Ok(pairs)
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn blanks_separate_words() {
        assert_eq!(words(" /a \t/b/c "), ["/a", "/b/c"]);
    }

    #[test]
    fn quotes_keep_blanks_together() {
        assert_eq!(words(r#""/a b" '/c d' """#), ["/a b", "/c d", ""]);
    }

    #[test]
    fn a_backslash_escapes_the_quote_and_itself_only() {
        assert_eq!(words(r#""a\"b" 'a\"b' a\\b a\d"#), [r#"a"b"#, r#"a\"b"#, r"a\b", r"a\d"]);
    }

    #[test]
    fn an_open_quote_ends_with_the_line() {
        assert_eq!(words("'a b"), ["a b"]);
    }

    #[test]
    fn options_are_name_and_value() {
        assert_eq!(
            pairs("threads=5 display-name='a b'"),
            Ok(vec![pair("threads", "5"), pair("display-name", "a b")])
        );
    }

    #[test]
    fn a_value_may_follow_after_blanks_but_the_equals_sign_may_not() {
        assert_eq!(pairs("threads= 5"), Ok(vec![pair("threads", "5")]));
        assert_eq!(pairs("threads =5"), Err(OptionError::Syntax("threads".into())));
    }

    #[test]
    fn a_value_is_empty_in_quotes_and_at_the_end_of_the_line() {
        assert_eq!(pairs(r#"lang="" locale="#), Ok(vec![pair("lang", ""), pair("locale", "")]));
    }

    #[test]
    fn a_value_may_hold_an_equals_sign() {
        assert_eq!(pairs("env=A=b=c"), Ok(vec![pair("env", "A=b=c")]));
    }

    #[test]
    fn an_option_without_name_or_sign_is_refused() {
        assert_eq!(pairs("=5"), Err(OptionError::Syntax("=5".into())));
        assert_eq!(pairs("threads"), Err(OptionError::Syntax("threads".into())));
    }

    proptest! {
        #[test]
        fn any_line_is_read_to_its_end(line in ".*") {
            let count = words(&line).len();
            prop_assert!(count <= line.len());
            let _ = pairs(&line);
        }

        #[test]
        fn a_quoted_value_comes_back(value in ".*") {
            let quoted = value.replace('\\', r"\\").replace('"', r#"\""#);
            prop_assert_eq!(pairs(&format!("x=\"{quoted}\"")), Ok(vec![pair("x", &value)]));
        }
    }
}
