//! The part of JSONPath that printer columns and selectable fields use:
//! `.spec.endpoint`, `.status.conditions[?(@.type=="ready")].status`, `.items[0]`, `.map['a.b']`,
//! `[*]`.

use serde_json::Value;
use winnow::{
    ascii::{dec_int, multispace0},
    combinator::{alt, delimited, opt, preceded, repeat, terminated},
    prelude::*,
    token::{any, none_of, take_while},
};

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// A member of an object.
    Member(String),
    /// An item of a list; negative counts from the end.
    Item(i64),
    /// Every member or item.
    Every,
    /// The items that have this value there.
    Where { path: JsonPath, equals: bool, value: Value },
}

impl JsonPath {
    /// Reads a path; none if it is not of this part of JSONPath.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
        preceded(opt('$'), path).parse(text.trim()).ok()
    }

    /// Every value that the path leads to.
    pub(crate) fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        self.0.iter().fold(vec![value], |found, step| {
            found.into_iter().flat_map(|value| step.follow(value)).collect()
        })
    }
}

impl Step {
    fn follow<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Self::Member(name), value) => value.get(name).into_iter().collect(),
            (Self::Item(index), Value::Array(items)) => {
                let from_end = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
                let index = match index {
                    ..0 => items.len().checked_sub(from_end),
                    _ => Some(from_end),
                };
                index.and_then(|index| items.get(index)).into_iter().collect()
            }
            (Self::Every, Value::Array(items)) => items.iter().collect(),
            (Self::Every, Value::Object(members)) => members.values().collect(),
            (Self::Where { path, equals, value: wanted }, Value::Array(items)) => {
                items.iter().filter(|item| path.find(item).contains(&wanted) == *equals).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn path(input: &mut &str) -> ModalResult<JsonPath> {
    repeat(0.., step).map(JsonPath).parse_next(input)
}

fn step(input: &mut &str) -> ModalResult<Step> {
    alt((
        ".*".value(Step::Every),
        preceded('.', name).map(Step::Member),
        "[*]".value(Step::Every),
        delimited("[", quoted, "]").map(Step::Member),
        delimited("[", dec_int, "]").map(Step::Item),
        delimited("[?(", condition, ")]"),
    ))
    .parse_next(input)
}

/// A member's name; a dot in it is written `\.`.
fn name(input: &mut &str) -> ModalResult<String> {
    let plain = none_of(['.', '[', ']', '(', ')', '\\', ' ', '=', '!', '\'', '"']);
    repeat(1.., alt((preceded('\\', any), plain))).parse_next(input)
}

fn quoted(input: &mut &str) -> ModalResult<String> {
    let text = alt((
        delimited('\'', take_while(0.., |c| c != '\''), '\''),
        delimited('"', take_while(0.., |c| c != '"'), '"'),
    ));
    text.map(str::to_owned).parse_next(input)
}

fn condition(input: &mut &str) -> ModalResult<Step> {
    let path = terminated(preceded((multispace0, '@'), path), multispace0).parse_next(input)?;
    let equals = alt(("==".value(true), "!=".value(false))).parse_next(input)?;
    let value = delimited(
        multispace0,
        alt((
            quoted.map(Value::from),
            dec_int.map(|number: i64| Value::from(number)),
            "true".value(Value::from(true)),
            "false".value(Value::from(false)),
        )),
        multispace0,
    )
    .parse_next(input)?;
    Ok(Step::Where { path, equals, value })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_values() {
        let value = json!({
            "spec": { "a.b": 1, "list": [10, 20, 30] },
            "status": { "conditions": [
                { "type": "ready", "status": "True", "n": 3 },
                { "type": "other", "status": "False", "n": 4 },
            ] },
        });
        let find = |path: &str| -> Vec<Value> {
            JsonPath::parse(path).unwrap().find(&value).into_iter().cloned().collect()
        };
        assert_eq!(find(".spec.list[0]"), [json!(10)]);
        assert_eq!(find(".spec.list[-1]"), [json!(30)]);
        assert_eq!(find(".spec.list[9]"), Vec::<Value>::new());
        assert_eq!(find(".spec.list[-9]"), Vec::<Value>::new());
        assert_eq!(find(".spec['a.b']"), [json!(1)]);
        assert_eq!(find(r".spec.a\.b"), [json!(1)]);
        assert_eq!(find(r#".status.conditions[?(@.type=="ready")].status"#), [json!("True")]);
        assert_eq!(find(".status.conditions[?(@.type != 'ready')].status"), [json!("False")]);
        assert_eq!(find(".status.conditions[?(@.n==4)].type"), [json!("other")]);
        assert_eq!(find(".status.conditions[*].status"), [json!("True"), json!("False")]);
        assert_eq!(find("{.spec.list[1]}"), [json!(20)]);
        assert_eq!(find(".spec.none.at.all"), Vec::<Value>::new());
    }

    #[test]
    fn other_text_is_no_path() {
        for text in ["spec", ".", ".a[", ".a[?(@.b)]", ".a[?(@.b==)]", ".a..b", ".a]"] {
            assert_eq!(JsonPath::parse(text), None, "{text}");
        }
    }
}
