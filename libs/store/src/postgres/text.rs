//! SQL that is put together of parts.

use std::sync::OnceLock;

/// The statement of these parts, made once: `?` becomes `$1`, `$2`, and so on.
pub(super) fn text(texts: &'static [OnceLock<String>], begin: &str, parts: &[(bool, &str)], end: &str) -> &'static str {
    let choice = parts.iter().rev().fold(0, |choice, (is_in, _)| choice * 2 + usize::from(*is_in));
    texts[choice].get_or_init(|| {
        let chosen = parts.iter().filter(|(is_in, _)| *is_in).map(|(_, part)| *part);
        let all: String = std::iter::once(begin).chain(chosen).chain([end]).collect();
        let mut numbered = String::with_capacity(all.len() + 64);
        for (n, piece) in all.split('?').enumerate() {
            if n > 0 {
                numbered.push('$');
                numbered.push_str(&n.to_string());
            }
            numbered.push_str(piece);
        }
        numbered
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_chosen_and_numbered() {
        static TEXTS: [OnceLock<String>; 4] = [const { OnceLock::new() }; 4];
        let make = |one, two| text(&TEXTS, "a ?", &[(one, " b ?"), (two, " c ? ?")], " d");
        assert_eq!(make(false, false), "a $1 d");
        assert_eq!(make(true, true), "a $1 b $2 c $3 $4 d");
        assert_eq!(make(false, true), "a $1 c $2 $3 d");
    }
}
