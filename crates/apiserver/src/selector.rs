//! Label and field selectors: read once, tried on many objects.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use winnow::{
    ascii::multispace0,
    combinator::{alt, delimited, eof, opt, preceded, separated, terminated},
    prelude::*,
    token::{any, none_of, take_while},
};

use crate::{definition::Resource, jsonpath::JsonPath, limits, metadata, status::ApiError};

/// What a list or a watch selects among the objects of a resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    labels: Vec<LabelTerm>,
    fields: Vec<FieldTerm>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct LabelTerm {
    key: String,
    test: LabelTest,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum LabelTest {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

#[derive(Clone, Debug)]
struct FieldTerm {
    field: Field,
    equals: bool,
    value: String,
}

#[derive(Clone, Debug)]
enum Field {
    Name,
    Namespace,
    Path(JsonPath),
}

impl Selection {
    /// Reads the selectors of a query; empty texts select everything.
    pub(crate) fn parse(labels: &str, fields: &str, resource: &Resource) -> Result<Self, ApiError> {
        let labels = label_terms(labels)?;
        let fields = field_terms(fields)?
            .into_iter()
            .map(|(name, equals, value)| {
                let field = match name.as_str() {
                    "metadata.name" => Field::Name,
                    "metadata.namespace" => Field::Namespace,
                    other => {
                        let path = resource.selectable.iter().find(|(name, _)| name == other);
                        let (_, path) = path.ok_or_else(|| {
                            ApiError::bad_request(format!("field label not supported: {other}"))
                        })?;
                        Field::Path(path.clone())
                    }
                };
                Ok(FieldTerm { field, equals, value })
            })
            .collect::<Result<Vec<_>, ApiError>>()?;
        if labels.len() + fields.len() > limits::SELECTOR_TERMS {
            return Err(ApiError::bad_request("the selector has too many terms"));
        }
        Ok(Self { labels, fields })
    }

    /// Whether every object is selected.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether the object at this place, with this body, is selected. The body is read only if the
    /// place does not decide.
    pub(crate) fn selects(
        &self,
        (namespace, name): (&str, &str),
        body: &[u8],
    ) -> Result<bool, ApiError> {
        let placed = self.fields.iter().all(|term| match term.field {
            Field::Name => (term.value == name) == term.equals,
            Field::Namespace => (term.value == namespace) == term.equals,
            Field::Path(_) => true,
        });
        if !placed {
            return Ok(false);
        }
        let unreadable =
            |error| ApiError::internal(format!("a stored object is not JSON: {error}"));
        if !self.labels.is_empty() {
            let Head { metadata } = serde_json::from_slice(body).map_err(unreadable)?;
            if !self.labels.iter().all(|term| term.holds(&metadata.labels)) {
                return Ok(false);
            }
        }
        if self.fields.iter().all(|term| !matches!(term.field, Field::Path(_))) {
            return Ok(true);
        }
        let object: Value = serde_json::from_slice(body).map_err(unreadable)?;
        Ok(self.fields.iter().all(|term| match &term.field {
            Field::Path(path) => (field_text(path, &object) == term.value) == term.equals,
            Field::Name | Field::Namespace => true,
        }))
    }
}

/// As much of an object as its labels need.
#[derive(Deserialize)]
struct Head {
    metadata: HeadMetadata,
}

#[derive(Deserialize)]
struct HeadMetadata {
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// A field's value as a selector compares it; empty when absent.
fn field_text(path: &JsonPath, object: &Value) -> String {
    match path.find(object).first() {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

impl LabelTerm {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            LabelTest::Exists => value.is_some(),
            LabelTest::Absent => value.is_none(),
            LabelTest::In(values) => value.is_some_and(|value| values.contains(value)),
            LabelTest::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            LabelTest::Above(least) => number().is_some_and(|number| number > *least),
            LabelTest::Below(most) => number().is_some_and(|number| number < *most),
        }
    }
}

fn label_terms(text: &str) -> Result<Vec<LabelTerm>, ApiError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut list = terminated(separated(1.., label_term, ','), eof);
    let terms: Vec<LabelTerm> =
        list.parse(text).map_err(|_: winnow::error::ParseError<_, _>| {
            ApiError::bad_request(format!("unable to parse requirement: {text:?}"))
        })?;
    for term in &terms {
        check_label_term(term)?;
    }
    Ok(terms)
}

fn check_label_term(term: &LabelTerm) -> Result<(), ApiError> {
    let refuse = |part: &str, text: &str, why: &str| {
        Err(ApiError::bad_request(format!(
            "unable to parse requirement: {part}: Invalid value: {text:?}: {why}"
        )))
    };
    if let Some(why) = metadata::qualified_name_fault(&term.key) {
        return refuse("key", &term.key, &why);
    }
    let (LabelTest::In(values) | LabelTest::NotIn(values)) = &term.test else { return Ok(()) };
    for value in values {
        if let Some(why) = metadata::label_value_fault(value) {
            return refuse(&format!("values[0][{}]", term.key), value, why);
        }
    }
    Ok(())
}

fn label_term(input: &mut &str) -> ModalResult<LabelTerm> {
    delimited(multispace0, alt((absent, tested)), multispace0).parse_next(input)
}

fn absent(input: &mut &str) -> ModalResult<LabelTerm> {
    let key = preceded(('!', multispace0), word).parse_next(input)?;
    Ok(LabelTerm { key: key.into(), test: LabelTest::Absent })
}

fn tested(input: &mut &str) -> ModalResult<LabelTerm> {
    let key: &str = terminated(word, multispace0).parse_next(input)?;
    let test = opt(alt((
        preceded(("notin", multispace0), set).map(LabelTest::NotIn),
        preceded(("in", multispace0), set).map(LabelTest::In),
        preceded(("!=", multispace0), opt(word)).map(|value| LabelTest::NotIn(one(value))),
        preceded((alt(("==", "=")), multispace0), opt(word)).map(|value| LabelTest::In(one(value))),
        preceded(('>', multispace0), word.try_map(str::parse)).map(LabelTest::Above),
        preceded(('<', multispace0), word.try_map(str::parse)).map(LabelTest::Below),
    )))
    .parse_next(input)?;
    Ok(LabelTerm { key: key.into(), test: test.unwrap_or(LabelTest::Exists) })
}

/// `(a, b)`; nothing between two commas is the empty value.
fn set(input: &mut &str) -> ModalResult<Vec<String>> {
    let value = delimited(multispace0, opt(word), multispace0)
        .map(|value| value.unwrap_or_default().to_owned());
    delimited('(', separated(1.., value, ','), ')').parse_next(input)
}

fn one(value: Option<&str>) -> Vec<String> {
    vec![value.unwrap_or_default().to_owned()]
}

fn word<'i>(input: &mut &'i str) -> ModalResult<&'i str> {
    take_while(1.., |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c)).parse_next(input)
}

/// Name, whether it must be equal, value.
type WrittenField = (String, bool, String);

fn field_terms(text: &str) -> Result<Vec<WrittenField>, ApiError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut list = terminated(separated(1.., opt(field_term), ','), eof);
    let terms: Vec<Option<WrittenField>> =
        list.parse(text).map_err(|_: winnow::error::ParseError<_, _>| {
            ApiError::bad_request(format!("invalid field selector: {text:?}; can't understand it"))
        })?;
    Ok(terms.into_iter().flatten().collect())
}

fn field_term(input: &mut &str) -> ModalResult<WrittenField> {
    let name: &str = take_while(1.., |c| !"=!,\\".contains(c)).parse_next(input)?;
    let equals = alt(("!=".value(false), "==".value(true), "=".value(true))).parse_next(input)?;
    // A comma, an equals sign or a backslash in the value stands behind a backslash.
    let plain = none_of([',', '=', '\\']);
    let value: String =
        winnow::combinator::repeat(0.., alt((preceded('\\', any), plain))).parse_next(input)?;
    Ok((name.trim().to_owned(), equals, value))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::definition::Registry;

    /// What a term means, in the plainest words.
    #[derive(Clone, Debug)]
    enum Model {
        Has(String),
        Not(String),
        Equal(String, String),
        Differs(String, String),
        In(String, Vec<String>),
        NotIn(String, Vec<String>),
    }

    impl Model {
        fn write(&self) -> String {
            match self {
                Self::Has(key) => key.clone(),
                Self::Not(key) => format!("!{key}"),
                Self::Equal(key, value) => format!("{key}={value}"),
                Self::Differs(key, value) => format!("{key} != {value}"),
                Self::In(key, values) => format!("{key} in ({})", values.join(", ")),
                Self::NotIn(key, values) => format!("{key} notin ({})", values.join(",")),
            }
        }

        fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
            match self {
                Self::Has(key) => labels.contains_key(key),
                Self::Not(key) => !labels.contains_key(key),
                Self::Equal(key, value) => labels.get(key) == Some(value),
                Self::Differs(key, value) => labels.get(key) != Some(value),
                Self::In(key, values) => {
                    labels.get(key).is_some_and(|value| values.contains(value))
                }
                Self::NotIn(key, values) => {
                    !labels.get(key).is_some_and(|value| values.contains(value))
                }
            }
        }
    }

    fn any_key() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["a", "in", "notin", "x.y/b", "b-c"]).prop_map(str::to_owned)
    }

    fn any_term() -> impl Strategy<Value = Model> {
        let value = || prop::sample::select(vec!["", "1", "v", "in"]).prop_map(str::to_owned);
        let values = || prop::collection::vec(value(), 1..3);
        prop_oneof![
            any_key().prop_map(Model::Has),
            any_key().prop_map(Model::Not),
            (any_key(), value()).prop_map(|(key, value)| Model::Equal(key, value)),
            (any_key(), value()).prop_map(|(key, value)| Model::Differs(key, value)),
            (any_key(), values()).prop_map(|(key, values)| Model::In(key, values)),
            (any_key(), values()).prop_map(|(key, values)| Model::NotIn(key, values)),
        ]
    }

    fn any_labels() -> impl Strategy<Value = BTreeMap<String, String>> {
        let value = prop::sample::select(vec!["", "1", "v", "in"]).prop_map(str::to_owned);
        prop::collection::btree_map(any_key(), value, 0..4)
    }

    static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::read(&[]).unwrap());

    const FIELDS: [&str; 4] =
        ["metadata.name", "metadata.namespace", "involvedObject.name", "reason"];

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![3 => "[a,]{0,1}", 1 => "[a,=!\\\\ ]{0,3}"]
    }

    fn select(labels: &str, object: &Value) -> bool {
        let selection = Selection { labels: label_terms(labels).unwrap(), fields: Vec::new() };
        selection.selects(("", ""), object.to_string().as_bytes()).unwrap()
    }

    proptest! {
        #[test]
        fn label_selectors_mean_what_they_say(
            terms in prop::collection::vec(any_term(), 0..4),
            labels in any_labels(),
        ) {
            let text = terms.iter().map(Model::write).collect::<Vec<_>>().join(",");
            let object = json!({ "metadata": { "labels": labels }, "spec": {} });
            let wanted = terms.iter().all(|term| term.holds(&labels));
            prop_assert_eq!(select(&text, &object), wanted, "{}", text);
        }

        #[test]
        fn field_selectors_mean_what_they_say(
            terms in prop::collection::vec((0..FIELDS.len(), prop::bool::ANY, any_text()), 0..4),
            texts in prop::collection::vec(any_text(), FIELDS.len()),
        ) {
            let events = REGISTRY.find("", "v1", "events").unwrap();
            let write = |(at, equals, value): &(usize, bool, String)| {
                let sign = if *equals { "=" } else { "!=" };
                let special = |c: char| match c {
                    ',' | '=' | '\\' => format!("\\{c}"),
                    c => c.into(),
                };
                let value: String = value.chars().map(special).collect();
                format!("{}{sign}{value}", FIELDS[*at])
            };
            let text = terms.iter().map(write).collect::<Vec<_>>().join(",");
            let [name, namespace, about, reason] = texts.as_slice() else { unreachable!() };
            let object = json!({ "metadata": {}, "involvedObject": { "name": about },
                "reason": reason });
            let selection = Selection::parse("", &text, events).unwrap();
            let place = (namespace.as_str(), name.as_str());
            let selected = selection.selects(place, object.to_string().as_bytes()).unwrap();
            let wanted = terms.iter().all(|(at, equals, value)| (texts[*at] == *value) == *equals);
            prop_assert_eq!(selected, wanted, "{}", text);
        }

        #[test]
        fn reading_a_selector_never_panics(text in "[a-z=!,() <>\\\\./-]{0,30}|\\PC{0,20}") {
            let _read = label_terms(&text);
            let _read = field_terms(&text);
        }
    }

    #[test]
    fn numbers_compare() {
        let object = json!({ "metadata": { "labels": { "n": "7" } } });
        assert!(select("n>6", &object) && select("n < 8", &object));
        assert!(!select("n>7", &object) && !select("m>1", &object));
        assert!(label_terms("n>x").is_err());
    }

    #[test]
    fn field_values_may_hold_what_separates() {
        let terms = field_terms(r"a=x\,y\=z\\,b!=,c==1").unwrap();
        let wanted = [("a", true, r"x,y=z\"), ("b", false, ""), ("c", true, "1")];
        let wanted = wanted.map(|(name, equals, value)| (name.into(), equals, value.into()));
        assert_eq!(terms, wanted);
        assert!(field_terms("a").is_err());
    }
}
