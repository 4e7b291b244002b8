//! `tao get`: any number of objects, in as few calls as they fit into.

use std::collections::HashMap;

use tao_client::Session;
use tao_client::v1::object_result::Result as Outcome;
use tao_client::v1::{ItemError, Object, ObjectGetRequest, ObjectMultiGetRequest, ObjectResult, ReadOptions};
use tao_model::limits::MAX_IDS;

use super::failure::Failure;
use super::output::Answer;

/// Reads the objects, in the order of `ids`; each that can't be shown has its error.
pub async fn get(session: &Session, ids: &[i64], options: Option<ReadOptions>) -> Result<Answer, Failure> {
    if let [id] = ids {
        let got = session.object_get(ObjectGetRequest { id: *id, options }).await?;
        return Ok(Answer::objects(got.object));
    }
    let mut gathered = Gathered::default();
    for ids in ids.chunks(MAX_IDS) {
        let mut open = ids.to_vec();
        while !open.is_empty() {
            let request = ObjectMultiGetRequest { ids: open.clone(), options: options.clone() };
            open = gathered.take(&open, session.object_multi_get(request).await?.results)?;
        }
    }
    Ok(gathered.answer(ids))
}

/// What came so far.
#[derive(Default)]
struct Gathered {
    objects: HashMap<i64, Object>,
    errors: HashMap<i64, ItemError>,
}

impl Gathered {
    /// Takes the results for some ids, and says which to ask for once more: what did not fit comes with the next answer, as long
    /// as there is room for something in each.
    fn take(&mut self, ids: &[i64], results: Vec<ObjectResult>) -> Result<Vec<i64>, Failure> {
        if results.len() != ids.len() {
            return Err(Failure::other(format!("asked for {} objects, got {} results", ids.len(), results.len())));
        }
        let mut full = Vec::new();
        for (id, result) in ids.iter().zip(results) {
            match result.result {
                Some(Outcome::Object(object)) => drop(self.objects.insert(*id, object)),
                Some(Outcome::Error(error)) if error.reason == "ANSWER_TOO_LARGE" => full.push((*id, error)),
                Some(Outcome::Error(error)) => drop(self.errors.insert(*id, error)),
                None => return Err(Failure::other(format!("there is no result for object {id}"))),
            }
        }
        if full.len() < ids.len() {
            return Ok(full.into_iter().map(|(id, _)| id).collect());
        }
        self.errors.extend(full);
        Ok(Vec::new())
    }

    fn answer(&self, ids: &[i64]) -> Answer {
        let objects = ids.iter().filter_map(|id| self.objects.get(id).cloned());
        let errors = ids.iter().filter_map(|id| Some((*id, self.errors.get(id).cloned()?)));
        Answer::objects(objects).with_errors(errors.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::Format;

    fn object(id: i64) -> ObjectResult {
        let object = Object { id, r#type: "user".to_owned(), ..Object::default() };
        ObjectResult { result: Some(Outcome::Object(object)) }
    }

    fn error(reason: &str, code: i32) -> ObjectResult {
        let error = ItemError { code, reason: reason.to_owned(), message: "no".to_owned(), ..ItemError::default() };
        ObjectResult { result: Some(Outcome::Error(error)) }
    }

    #[test]
    fn what_did_not_fit_is_asked_for_again_as_long_as_something_does() {
        let mut gathered = Gathered::default();
        let full = || error("ANSWER_TOO_LARGE", 8);
        let open = gathered.take(&[4, 3, 2, 1], vec![object(4), error("NOT_FOUND", 5), full(), full()]).unwrap();
        assert_eq!(open, [2, 1]);
        assert_eq!(gathered.take(&[2, 1], vec![object(2), full()]).unwrap(), [1]);
        assert!(gathered.take(&[1], vec![full()]).unwrap().is_empty(), "it never will");
        let answer = gathered.answer(&[4, 3, 2, 1, 2]);
        let text = answer.print(Format::Text, None);
        let firsts: Vec<_> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(
            firsts,
            ["4", "2", "2", "3", "1"],
            "in the order in which they were asked for; then what is missing"
        );
        assert_eq!(answer.failure().unwrap().number(), 3);
        assert!(gathered.take(&[1, 2], vec![object(1)]).is_err());
        assert!(gathered.take(&[1], vec![ObjectResult { result: None }]).is_err());
    }
}
