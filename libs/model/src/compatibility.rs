//! What two versions of a schema differ in, and whether a cluster that has data can go from the one to the other.
//!
//! Storage keeps numbers, so types are matched by number: a name that changed is a rename, unless the old name lives on elsewhere.

use std::fmt;

use crate::graph::TypeId;
use crate::schema::{AssocType, ObjectType, Schema};

/// Whether a cluster that has data can take a change. Ordered: the worst is the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing that was right before is wrong after it.
    Safe,
    /// Nothing is lost, but somebody has something to do.
    Attention,
    /// What is stored would be read wrongly, or not at all.
    Unsafe,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaChange {
    /// Whether it can be taken.
    pub verdict: Verdict,
    /// The type, such as `association follows`; by its old name where it had one.
    pub subject: String,
    /// What is different, and what comes of it.
    pub what: String,
}

impl Verdict {
    /// For programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Attention => "attention",
            Self::Unsafe => "unsafe",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What an object type and an association type have in common.
trait Named {
    const KIND: &'static str;
    /// What is stored of it, in the plural.
    const STORED: &'static str;
    fn name(&self) -> &str;
    fn number(&self) -> TypeId;
}

impl Named for ObjectType {
    const KIND: &'static str = "object";
    const STORED: &'static str = "objects";
    fn name(&self) -> &str {
        &self.name
    }
    fn number(&self) -> TypeId {
        self.number
    }
}

impl Named for AssocType {
    const KIND: &'static str = "association";
    const STORED: &'static str = "edges";
    fn name(&self) -> &str {
        &self.name
    }
    fn number(&self) -> TypeId {
        self.number
    }
}

/// All differences: those of object types first, each by number.
pub fn compare(old: &Schema, new: &Schema) -> Vec<SchemaChange> {
    let mut changes = Vec::new();
    types(&old.objects(), &new.objects(), &mut changes);
    types(&old.assocs(), &new.assocs(), &mut changes);
    for was in old.assocs() {
        if let Some(is) = new.assoc(was.number) {
            inverse(was, is, new, &mut changes);
            ends("from", was, (&was.from, &is.from), new, &mut changes);
            ends("to", was, (&was.to, &is.to), new, &mut changes);
        }
    }
    changes
}

/// Types that came, went, or have another name or number.
fn types<T: Named>(old: &[&T], new: &[&T], changes: &mut Vec<SchemaChange>) {
    let mut say = |verdict, name: &str, what: String| {
        changes.push(SchemaChange { verdict, subject: format!("{} {name}", T::KIND), what });
    };
    let named = |all: &[&T], name: &str| all.iter().find(|t| t.name() == name).map(|t| t.number());
    let numbered = |all: &[&T], number| all.iter().position(|t| t.number() == number);
    for was in old {
        let (name, number) = (was.name(), was.number());
        match (numbered(new, number).map(|n| new[n].name()), named(new, name)) {
            (Some(now), _) if now == name => {}
            (now, Some(moved)) => {
                let now = now.map(|now| format!(", and {number} is {now:?}")).unwrap_or_default();
                let stored = T::STORED;
                say(
                    Verdict::Unsafe,
                    name,
                    format!("number {number} became {moved}{now}: {stored} that are stored keep {number}"),
                );
            }
            (Some(now), None) => say(
                Verdict::Attention,
                name,
                format!(
                    "renamed to {now:?}: callers must use the new name; if it is another type, its number {number} is reused and stored {} change their type",
                    T::STORED
                ),
            ),
            (None, None) => {
                say(Verdict::Unsafe, name, format!("removed: {} of it that are stored can't be read", T::STORED));
            }
        }
    }
    for is in new {
        // A name that has moved was told already.
        if numbered(old, is.number()).is_none() && named(old, is.name()).is_none() {
            say(Verdict::Safe, is.name(), format!("added with number {}", is.number()));
        }
    }
}

fn inverse(was: &AssocType, is: &AssocType, new: &Schema, changes: &mut Vec<SchemaChange>) {
    let name = |number: TypeId| new.assoc(number).map_or_else(|| format!("type {number}"), |t| format!("{:?}", t.name));
    let (verdict, what) = match (was.inverse, is.inverse) {
        (None, None) => return,
        (Some(old), Some(now)) if old == now => return,
        (None, Some(now)) => (
            Verdict::Attention,
            format!("its inverse is {} now: edges that are stored have none until `tao verify --repair`", name(now)),
        ),
        (Some(old), None) => (
            Verdict::Unsafe,
            format!("it has no inverse any more: edges of {} that are stored outlive those they belong to", name(old)),
        ),
        (Some(old), Some(now)) => (
            Verdict::Unsafe,
            format!("its inverse is {} and was {}: pairs that are stored come apart", name(now), name(old)),
        ),
    };
    changes.push(SchemaChange { verdict, subject: format!("association {}", was.name), what });
}

/// Types that edges may start at or point to; empty: any.
fn ends(
    side: &str,
    was: &AssocType,
    (old, now): (&[TypeId], &[TypeId]),
    new: &Schema,
    changes: &mut Vec<SchemaChange>,
) {
    let mut say = |verdict, what| {
        changes.push(SchemaChange { verdict, subject: format!("association {}", was.name), what });
    };
    let names = |types: &[TypeId]| {
        let name = |t: &TypeId| new.object(*t).map_or_else(|| format!("type {t}"), |t| t.name.clone());
        types.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    let without = |all: &[TypeId], others: &[TypeId]| -> Vec<TypeId> {
        all.iter().filter(|t| !others.contains(t)).copied().collect()
    };
    let stays = "edges that are stored stay, new ones and changes of those are refused";
    match (old.is_empty(), now.is_empty()) {
        (true, true) => {}
        (false, true) => say(Verdict::Safe, format!("`{side}` takes any type now")),
        (true, false) => say(Verdict::Attention, format!("`{side}` took any type, and now {}: {stays}", names(now))),
        (false, false) => {
            let (gone, added) = (without(old, now), without(now, old));
            if !gone.is_empty() {
                say(Verdict::Attention, format!("`{side}` does not take {} any more: {stays}", names(&gone)));
            }
            if !added.is_empty() {
                say(Verdict::Safe, format!("`{side}` takes {}, too", names(&added)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLD: &str = r#"
        version = 1
        object = [{ name = "user", number = 1 }, { name = "page", number = 2 }]
        association = [
            { name = "follows", number = 1, inverse = "followed_by", from = ["user"], to = ["user", "page"] },
            { name = "followed_by", number = 2, inverse = "follows", from = ["user", "page"], to = ["user"] },
            { name = "visited", number = 3 },
        ]
    "#;

    fn changes(edits: &[(&str, &str)]) -> Vec<(Verdict, String)> {
        let mut text = OLD.to_owned();
        for (from, to) in edits {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let (old, new) = (Schema::parse(OLD).unwrap(), Schema::parse(&text).unwrap_or_else(|e| panic!("{e}")));
        compare(&old, &new).into_iter().map(|c| (c.verdict, format!("{}: {}", c.subject, c.what))).collect()
    }

    #[test]
    fn each_kind_of_change_is_told_and_judged() {
        use Verdict::{Attention, Safe, Unsafe};
        let page = r#"{ name = "page", number = 2 }"#;
        for (edits, want) in [
            (
                vec![(page, r#"{ name = "page", number = 2 }, { name = "post", number = 3 }"#)],
                vec![(Safe, "object post: added")],
            ),
            (
                vec![(page, r#"{ name = "group", number = 2 }"#), ("\"page\"]", "\"group\"]")],
                vec![(Attention, "renamed")],
            ),
            (
                vec![(page, r#"{ name = "page", number = 3 }"#)],
                vec![
                    (Unsafe, "object page: number 2 became 3"),
                    (Attention, "does not take type 2"),
                    (Safe, "takes page, too"),
                    (Attention, "does not take type 2"),
                    (Safe, "takes page, too"),
                ],
            ),
            (
                vec![
                    ("\"user\", number = 1", "\"user\", number = 2"),
                    ("\"page\", number = 2", "\"page\", number = 1"),
                ],
                vec![
                    (Unsafe, "number 1 became 2, and 1 is \"page\""),
                    (Unsafe, "number 2 became 1, and 2 is \"user\""),
                    (Attention, "follows: `from` does not take page"),
                    (Safe, "follows: `from` takes user"),
                    (Attention, "followed_by: `to` does not take page"),
                    (Safe, "followed_by: `to` takes user"),
                ],
            ),
            (
                vec![(", { name = \"page\", number = 2 }", ""), (", \"page\"]", "]")],
                vec![
                    (Unsafe, "object page: removed"),
                    (Attention, "follows: `to` does not take type 2"),
                    (Attention, "followed_by: `from` does not take type 2"),
                ],
            ),
            (vec![("{ name = \"visited\", number = 3 },", "")], vec![(Unsafe, "visited: removed: edges")]),
            (
                vec![("\"visited\", number = 3", "\"visited\", number = 3, inverse = \"visited\"")],
                vec![(Attention, "its inverse is \"visited\" now")],
            ),
            (
                vec![("inverse = \"followed_by\", ", ""), ("inverse = \"follows\", ", "")],
                vec![
                    (Unsafe, "follows: it has no inverse any more"),
                    (Unsafe, "followed_by: it has no inverse any more"),
                ],
            ),
            (
                vec![
                    (", from = [\"user\"], to = [\"user\", \"page\"]", ""),
                    (", from = [\"user\", \"page\"], to = [\"user\"]", ""),
                ],
                vec![
                    (Safe, "follows: `from` takes any"),
                    (Safe, "follows: `to` takes any"),
                    (Safe, "followed_by: `from` takes any"),
                    (Safe, "followed_by: `to` takes any"),
                ],
            ),
            (
                vec![("\"visited\", number = 3", "\"visited\", number = 3, from = [\"user\"]")],
                vec![(Attention, "`from` took any type, and now user")],
            ),
        ] {
            let found = changes(&edits);
            assert_eq!(found.len(), want.len(), "{edits:?}: {found:?}");
            for ((verdict, text), (want, part)) in found.iter().zip(want) {
                assert!(*verdict == want && text.contains(part), "{edits:?}: {verdict} {text:?}, not {want} {part:?}");
            }
        }
    }

    #[test]
    fn an_inverse_that_became_another_is_unsafe() {
        let more =
            "{ name = \"visited\", number = 3, inverse = \"follows\", from = [\"user\", \"page\"], to = [\"user\"] }";
        let found = changes(&[
            ("{ name = \"visited\", number = 3 }", more),
            ("number = 1, inverse = \"followed_by\"", "number = 1, inverse = \"visited\""),
            ("number = 2, inverse = \"follows\", ", "number = 2, "),
        ]);
        let of = |part: &str| found.iter().find(|(_, text)| text.contains(part)).map(|(verdict, _)| *verdict);
        assert_eq!(of("its inverse is \"visited\" and was \"followed_by\""), Some(Verdict::Unsafe));
        assert_eq!(of("visited: its inverse is \"follows\" now"), Some(Verdict::Attention));
    }

    proptest! {
        /// Whatever is only added is safe, whatever is taken away again is not, and what is equal is no change.
        #[test]
        fn adding_is_safe_and_removing_is_not(names in prop::collection::btree_set("[a-z]{3,8}", 1..6)) {
            let schema = |names: &[String]| {
                let types = |kind: &str| -> String {
                    let one = |(n, name): (usize, &String)| format!("[[{kind}]]\nname = \"{name}\"\nnumber = {}\n", n + 1);
                    names.iter().enumerate().map(one).collect()
                };
                Schema::parse(&format!("version = 1\n{}{}", types("object"), types("association"))).unwrap()
            };
            let names: Vec<String> = names.into_iter().collect();
            let (all, fewer) = (schema(&names), schema(&names[..names.len() - 1]));
            prop_assert_eq!(compare(&all, &all), vec![]);
            let verdicts = |changes: Vec<SchemaChange>| changes.iter().map(|c| c.verdict).collect::<Vec<_>>();
            prop_assert_eq!(verdicts(compare(&fewer, &all)), vec![Verdict::Safe; 2]);
            prop_assert_eq!(verdicts(compare(&all, &fewer)), vec![Verdict::Unsafe; 2]);
        }
    }
}
