//! The policy: who may read and write which types, as a TOML file says it. Everything that is wrong with it is reported at once.

use std::ops::Range;
use std::path::Path;

use foldhash::HashMap;
use tao_model::Schema;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::grants::{Grants, Types};
use crate::problem::Problem;

/// What callers are called in a policy.
const KINDS: [&str; 3] = ["cert:", "jwt:", "role:"];
/// Stands for all types.
const ALL: &str = "*";

/// Who may do what. Who is not named may do nothing.
#[derive(Debug, Default)]
pub struct Policy {
    by_name: HashMap<String, Grants>,
}

impl Policy {
    /// Reads a file's text, which is named in problems.
    pub fn parse(file: &Path, text: &str, schema: &Schema) -> Result<Self, Vec<Problem>> {
        let mut reading = Reading { file, text, schema, problems: Vec::new() };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            reading.problem(error.span().unwrap_or_default(), &error.message().replace('\n', " "));
        }
        let mut policy = Self::default();
        if errors.is_empty() {
            for (key, value) in table.get_ref() {
                match (key.get_ref().as_ref(), value.get_ref()) {
                    ("grant", DeValue::Array(grants)) => {
                        grants.iter().for_each(|grant| reading.grant(grant, &mut policy));
                    }
                    ("grant", _) => reading.problem(value.span(), "grant: write [[grant]], one for each"),
                    (other, _) => reading.problem(key.span(), &format!("{other}: there is only [[grant]]")),
                }
            }
        }
        if reading.problems.is_empty() { Ok(policy) } else { Err(reading.problems) }
    }

    /// What somebody may do who has all these names.
    pub fn grants<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Grants {
        let mut grants = Grants::default();
        names.into_iter().filter_map(|name| self.by_name.get(name)).for_each(|more| grants.merge(more));
        grants.implied()
    }
}

struct Reading<'a> {
    file: &'a Path,
    text: &'a str,
    schema: &'a Schema,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    fn problem(&mut self, at: Range<usize>, what: &str) {
        let line = self.text[..at.start.min(self.text.len())].matches('\n').count() + 1;
        self.problems.push(Problem(format!("{}:{line}: {what}", self.file.display())));
    }

    fn grant(&mut self, value: &Spanned<DeValue<'_>>, policy: &mut Policy) {
        let DeValue::Table(table) = value.get_ref() else {
            return self.problem(value.span(), "grant: write [[grant]], one for each");
        };
        let (mut who, mut grants, mut says) = (Vec::new(), Grants::default(), false);
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "who" => who = self.who(value),
                "read" => {
                    says = true;
                    self.types("read", value, &mut grants.read_objects, &mut grants.read_assocs);
                }
                "write" => {
                    says = true;
                    self.types("write", value, &mut grants.write_objects, &mut grants.write_assocs);
                }
                "admin" => {
                    says = true;
                    match value.get_ref() {
                        DeValue::Boolean(admin) => grants.admin = *admin,
                        _ => self.problem(value.span(), "admin: true or false"),
                    }
                }
                other => {
                    let what = format!("{other}: a grant has who, read, write and admin");
                    self.problem(key.span(), &what);
                }
            }
        }
        if !table.contains_key("who") {
            self.problem(value.span(), "who: must be given");
        }
        if !says {
            self.problem(value.span(), "the grant grants nothing: give read, write or admin");
        }
        for name in who {
            policy.by_name.entry(name).or_default().merge(&grants);
        }
    }

    /// The texts of an array, each with its place.
    fn texts(&mut self, key: &str, value: &Spanned<DeValue<'_>>) -> Vec<(Range<usize>, String)> {
        let what = format!("{key}: an array of texts");
        let DeValue::Array(items) = value.get_ref() else {
            self.problem(value.span(), &what);
            return Vec::new();
        };
        let mut texts = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::String(text) => texts.push((item.span(), text.to_string())),
                _ => self.problem(item.span(), &what),
            }
        }
        texts
    }

    fn who(&mut self, value: &Spanned<DeValue<'_>>) -> Vec<String> {
        let mut names = Vec::new();
        for (at, name) in self.texts("who", value) {
            if KINDS.iter().any(|kind| name.len() > kind.len() && name.starts_with(kind)) {
                names.push(name);
            } else {
                self.problem(at, &format!("who: {name:?} is none of cert:NAME, jwt:SUBJECT, role:NAME"));
            }
        }
        names
    }

    /// A name may be that of an object type, of an association type, or of both.
    fn types(&mut self, key: &str, value: &Spanned<DeValue<'_>>, objects: &mut Types, assocs: &mut Types) {
        for (at, name) in self.texts(key, value) {
            if name == ALL {
                (*objects, *assocs) = (Types::All, Types::All);
                continue;
            }
            let object = self.schema.object_named(&name).map(|found| objects.add(found.number));
            let assoc = self.schema.assoc_named(&name).map(|found| assocs.add(found.number));
            if object.is_err() && assoc.is_err() {
                self.problem(at, &format!("{key}: the schema has no type {name:?}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Policy, Vec<String>> {
        let parsed = Policy::parse(Path::new("p.toml"), text, &Schema::social());
        parsed.map_err(|problems| problems.into_iter().map(|problem| problem.0).collect())
    }

    #[test]
    fn who_has_several_names_has_the_grants_of_all() {
        let policy = parse(
            r#"
            [[grant]]
            who = ["cert:app.test", "role:editors"]
            read = ["*"]
            write = ["post"]
            [[grant]]
            who = ["jwt:alice"]
            write = ["follows"]
            [[grant]]
            who = ["role:operators"]
            admin = true
            "#,
        )
        .unwrap();
        let schema = Schema::social();
        let (post, user) = (schema.object_named("post").unwrap().number, schema.object_named("user").unwrap().number);
        let (follows, likes) =
            (schema.assoc_named("follows").unwrap().number, schema.assoc_named("likes").unwrap().number);
        let alice = policy.grants(["jwt:alice"]);
        assert!(alice.write_assocs.has(follows) && alice.read_assocs.has(follows));
        assert!(!alice.read_assocs.has(likes) && !alice.read_objects.has(post));
        let editor = policy.grants(["jwt:alice", "role:editors"]);
        assert!(editor.write_objects.has(post) && editor.write_assocs.has(follows) && editor.read_objects.is_all());
        assert!(!editor.write_objects.has(user) && !editor.admin);
        assert!(policy.grants(["role:operators"]).admin);
        assert_eq!(policy.grants(["jwt:mallory", "cert:alice"]), Grants::default());
    }

    #[test]
    fn every_problem_is_reported_with_its_line() {
        let text = r#"version = 1
[[grant]]
who = ["alice", "jwt:", 7]
read = "user"
[[grant]]
read = ["usr", "likes"]
write = ["ghost"]
admin = "yes"
may = true
[[grant]]
who = ["role:x"]
"#;
        let problems = parse(text).unwrap_err();
        let has = |start: &str, part: &str| problems.iter().any(|p| p.starts_with(start) && p.contains(part));
        for (start, part) in [
            ("p.toml:1: version", "only [[grant]]"),
            ("p.toml:3: who", "\"alice\""),
            ("p.toml:3: who", "\"jwt:\""),
            ("p.toml:3: who", "array of texts"),
            ("p.toml:4: read", "array of texts"),
            ("p.toml:5: who", "must be given"),
            ("p.toml:6: read", "\"usr\""),
            ("p.toml:7: write", "\"ghost\""),
            ("p.toml:8: admin", "true or false"),
            ("p.toml:9: may", "a grant has"),
            ("p.toml:10: the grant", "grants nothing"),
        ] {
            assert!(has(start, part), "{start}, {part} in {problems:#?}");
        }
        assert_eq!(problems.len(), 11, "{problems:#?}");
        assert!(parse("grant = 1").unwrap_err()[0].contains("write [[grant]]"));
        assert!(parse("[[grant").unwrap_err()[0].starts_with("p.toml:1: "));
        assert!(parse("").unwrap().grants(["jwt:a"]) == Grants::default());
    }
}
