//! Licence expressions, as far as Cargo packages use them: names, AND, OR, WITH, parentheses, and the old `/`.

/// Whether using something under `expression` is possible with only the `allowed` licences.
pub(crate) fn satisfied(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words: Vec<&str> = spaced.split_whitespace().rev().collect();
    let answer = any(&mut words, allowed);
    answer && words.is_empty()
}

/// `a OR b`; `words` is a stack, next word last.
fn any(words: &mut Vec<&str>, allowed: &[&str]) -> bool {
    let mut answer = all(words, allowed);
    while words.pop_if(|word| *word == "OR").is_some() {
        answer |= all(words, allowed);
    }
    answer
}

/// `a AND b`, which binds tighter than OR.
fn all(words: &mut Vec<&str>, allowed: &[&str]) -> bool {
    let mut answer = one(words, allowed);
    while words.pop_if(|word| *word == "AND").is_some() {
        answer &= one(words, allowed);
    }
    answer
}

/// A name, a name with an exception, or a group.
fn one(words: &mut Vec<&str>, allowed: &[&str]) -> bool {
    let Some(word) = words.pop() else { return false };
    if word == "(" {
        let answer = any(words, allowed);
        return words.pop() == Some(")") && answer;
    }
    if words.pop_if(|word| *word == "WITH").is_some() {
        let exception = words.pop().unwrap_or_default();
        return allowed.contains(&format!("{word} WITH {exception}").as_str());
    }
    allowed.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_allowed_choice_is_enough_and_every_part_of_a_sum_is_needed() {
        let allowed = ["MIT", "ISC"];
        for expression in ["MIT", "GPL-3.0 OR MIT", "GPL-3.0/MIT", "MIT AND ISC", "(GPL-3.0 OR MIT) AND ISC"] {
            assert!(satisfied(expression, &allowed), "{expression}");
        }
        for expression in ["", "GPL-3.0", "MIT AND GPL-3.0", "GPL-3.0 AND MIT OR GPL-2.0", "(MIT", "MIT WITH x"] {
            assert!(!satisfied(expression, &allowed), "{expression:?}");
        }
    }

    #[test]
    fn an_exception_is_a_licence_of_its_own() {
        assert!(satisfied("Apache-2.0 WITH LLVM-exception OR GPL-3.0", &["Apache-2.0 WITH LLVM-exception"]));
    }
}
