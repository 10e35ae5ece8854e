//! What a text may hold that people will see: in a log, on a terminal, on a page.
//!
//! Both ends ask here: the proxy cleans what drivers and firmware wrote, the server refuses what is not clean.

/// Whether a character could change a terminal, begin a new line of a log, turn the order of letters on a screen, or
/// stand there unseen: control characters, and the invisible ones that Unicode has for formatting.
///
/// Source: Unicode, general categories Cc, Zl, Zp and most of Cf; UTS #39 for why names must not hold them.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A text in one line that can do nothing to who reads it: what is unsafe becomes a space.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if is_unsafe(c) { ' ' } else { c }).collect()
}

/// Lines that can do nothing to a terminal: what is unsafe becomes `�`, the line breaks stay.
pub fn lines(text: &str) -> String {
    let shown = |c| if is_unsafe(c) && c != '\n' { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_every_script_are_safe_and_what_hides_or_steers_is_not() {
        assert!(!"Package id 0, Gehäuse, 温度, °C, 🌡".chars().any(is_unsafe));
        for c in [
            '\0', '\n', '\r', '\t', '\u{1b}', '\u{7f}', '\u{9b}', '\u{200b}', '\u{202e}', '\u{2066}',
            '\u{feff}',
        ] {
            assert!(is_unsafe(c), "U+{:04X}", u32::from(c));
        }
    }
}
