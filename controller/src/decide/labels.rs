//! Label selectors, as Kubernetes matches them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// An object's labels.
pub type Labels = BTreeMap<String, String>;

/// What labels must be like. The empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LabelSelector {
    /// Each of these labels must be there with this value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: Labels,
    /// Each of these must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
}

impl LabelSelector {
    /// Whether everything holds.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }

    /// How many things it asks for.
    pub fn requirements(&self) -> usize {
        self.match_labels.len() + self.match_expressions.len()
    }
}

/// One thing that must hold of a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Expression", into = "Expression")]
pub enum Requirement {
    /// The label is there, with one of these values.
    In(String, BTreeSet<String>),
    /// The label is not there, or has none of these values.
    NotIn(String, BTreeSet<String>),
    /// The label is there.
    Exists(String),
    /// The label is not there.
    DoesNotExist(String),
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let is_one_of = |key, values: &BTreeSet<String>| labels.get(key).is_some_and(|v| values.contains(v));
        match self {
            Self::In(key, values) => is_one_of(key, values),
            Self::NotIn(key, values) => !is_one_of(key, values),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}

/// A requirement as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    key: String,
    operator: Operator,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    values: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl TryFrom<Expression> for Requirement {
    type Error = String;

    fn try_from(Expression { key, operator, values }: Expression) -> Result<Self, String> {
        match (operator, values.is_empty()) {
            (Operator::In, false) => Ok(Self::In(key, values)),
            (Operator::NotIn, false) => Ok(Self::NotIn(key, values)),
            (Operator::Exists, true) => Ok(Self::Exists(key)),
            (Operator::DoesNotExist, true) => Ok(Self::DoesNotExist(key)),
            (operator, true) => Err(format!("{operator:?} of label {key} needs values; name one or more")),
            (operator, false) => Err(format!("{operator:?} of label {key} takes no values; leave them out")),
        }
    }
}

impl From<Requirement> for Expression {
    fn from(requirement: Requirement) -> Self {
        let (key, operator, values) = match requirement {
            Requirement::In(key, values) => (key, Operator::In, values),
            Requirement::NotIn(key, values) => (key, Operator::NotIn, values),
            Requirement::Exists(key) => (key, Operator::Exists, BTreeSet::new()),
            Requirement::DoesNotExist(key) => (key, Operator::DoesNotExist, BTreeSet::new()),
        };
        Self { key, operator, values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(json: &str) -> Result<LabelSelector, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn selectors_match_as_in_kubernetes() {
        let labels: Labels = [("app", "web"), ("tier", "front")].map(|(k, v)| (k.into(), v.into())).into();
        for (json, matches) in [
            ("{}", true),
            (r#"{"matchLabels":{"app":"web"}}"#, true),
            (r#"{"matchLabels":{"app":"web","tier":"back"}}"#, false),
            (r#"{"matchExpressions":[{"key":"app","operator":"In","values":["api","web"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"app","operator":"NotIn","values":["web"]}]}"#, false),
            (r#"{"matchExpressions":[{"key":"zone","operator":"NotIn","values":["a"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"zone","operator":"Exists"}]}"#, false),
            (r#"{"matchExpressions":[{"key":"zone","operator":"DoesNotExist"}]}"#, true),
        ] {
            let selector = selector(json).unwrap();
            assert_eq!(selector.matches(&labels), matches, "{json}");
            assert_eq!(serde_json::to_string(&selector).unwrap(), json);
        }
        let error = selector(r#"{"matchExpressions":[{"key":"a","operator":"In"}]}"#).unwrap_err();
        assert!(error.to_string().starts_with("In of label a needs values"), "{error}");
    }
}
